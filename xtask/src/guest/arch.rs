//! The architectures of the guests: a table, one row each.
//!
//! Sources: QEMU's and Linux's documentation of the machines; `spec/live-capture.md`, `spec/filter.md` section 13.

use super::kernel::KernelVersion;
use crate::oracle::core_file::Order;
use clap::ValueEnum;

/// What runs in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestArch {
    #[value(name = "x86_64")]
    X86_64,
    /// With PAE
    I386,
    /// Without PAE
    I386NoPae,
    Aarch64,
    /// With pages of 16 KiB
    #[value(name = "aarch64-16k")]
    Aarch64Pages16k,
    Ppc64le,
    S390x,
    /// At reset, unless a kernel is chosen
    Riscv64,
    /// At reset
    Arm,
    /// Big-endian, at reset
    Ppc64,
}

/// What QEMU and Debian call the parts of a guest.
#[derive(Debug)]
pub(crate) struct Target {
    arch: GuestArch,
    /// QEMU's name of the architecture.
    pub(crate) qemu: &'static str,
    /// The Debian package with QEMU's program.
    pub(crate) package: &'static str,
    /// `-machine`, unless the guest's own is given.
    pub(crate) machine: &'static str,
    /// `-cpu`, likewise.
    pub(crate) cpu: &'static str,
    /// Further arguments of QEMU: devices with memory of their own, those that tell of a panic, those that firmware wants.
    pub(crate) devices: &'static [&'static str],
    pub(crate) is_64: bool,
    /// Byte order of the kernel, or of vCPUs at reset.
    pub(crate) order: Order,
    /// What can be booted. A guest without it stays as the reset left it.
    pub(crate) linux: Option<Linux>,
    /// The kernel that is booted unless another is chosen.
    pub(crate) kernel: Option<KernelVersion>,
}

/// A Debian kernel.
#[derive(Debug)]
pub(crate) struct Linux {
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    /// The meta package of the smallest kernel.
    pub(crate) package: &'static str,
    /// The kernel's name of the console that is QEMU's first serial line.
    pub(crate) console: &'static str,
    /// Drivers of the devices that tell of a panic, in the order in which they are loaded.
    pub(crate) drivers: &'static [&'static str],
}

const PC: &[&str] = &["-vga", "std", "-device", "pvpanic"];
/// With QEMU's own small firmware, which starts a kernel seconds sooner than SLOF, and without what TCG does not have.
const PSERIES: &str = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off";
/// Without it QEMU warns.
const BMC: &[&str] = &["-device", "ipmi-bmc-sim,id=bmc", "-device", "isa-ipmi-bt,bmc=bmc,irq=10"];
const PC_DRIVERS: &[&str] = &["pvpanic", "pvpanic-mmio"];

#[rustfmt::skip] // a table is read by column
const TARGETS: &[Target] = &[
    target(GuestArch::X86_64,    "x86_64",  "qemu-system-x86",  "q35", "max,la57=off").with_devices(PC)
        .boots("amd64", "linux-image-cloud-amd64", "ttyS0", PC_DRIVERS),
    target(GuestArch::I386,      "i386",    "qemu-system-x86",  "q35", "max").with_devices(PC).with_32_bits()
        .boots("i386", "linux-image-686-pae", "ttyS0", PC_DRIVERS),
    target(GuestArch::I386NoPae, "i386",    "qemu-system-x86",  "q35", "max").with_devices(PC).with_32_bits()
        .boots("i386", "linux-image-686", "ttyS0", PC_DRIVERS),
    target(GuestArch::Aarch64,   "aarch64", "qemu-system-arm",  "virt", "cortex-a57")
        .boots("arm64", "linux-image-cloud-arm64", "ttyAMA0", &[]),
    target(GuestArch::Aarch64Pages16k, "aarch64", "qemu-system-arm", "virt", "max")
        .boots("arm64", "linux-image-arm64-16k", "ttyAMA0", &[]).of(KernelVersion::Newest),
    target(GuestArch::Ppc64le,   "ppc64",   "qemu-system-ppc",  PSERIES, "power9")
        .boots("ppc64el", "linux-image-powerpc64le", "hvc0", &[]),
    target(GuestArch::S390x,     "s390x",   "qemu-system-misc", "s390-ccw-virtio", "max").with_big_endian()
        .boots("s390x", "linux-image-s390x", "ttysclp0", &[]),
    target(GuestArch::Riscv64,   "riscv64", "qemu-system-misc", "virt", "rv64")
        .boots("riscv64", "linux-image-riscv64", "ttyS0", &[]).if_chosen(),
    target(GuestArch::Arm,       "arm",     "qemu-system-arm",  "virt", "cortex-a15").with_32_bits(),
    target(GuestArch::Ppc64,     "ppc64",   "qemu-system-ppc",  "powernv9", "power9").with_devices(BMC).with_big_endian(),
];

const fn target(
    arch: GuestArch,
    qemu: &'static str,
    package: &'static str,
    machine: &'static str,
    cpu: &'static str,
) -> Target {
    let (devices, is_64, order, linux): (&[&str], _, _, _) = (&[], true, Order::Little, None);
    Target { arch, qemu, package, machine, cpu, devices, is_64, order, linux, kernel: None }
}

impl Target {
    const fn with_devices(self, devices: &'static [&'static str]) -> Self {
        Self { devices, ..self }
    }

    const fn with_32_bits(self) -> Self {
        Self { is_64: false, ..self }
    }

    const fn with_big_endian(self) -> Self {
        Self { order: Order::Big, ..self }
    }

    const fn boots(
        self,
        debian: &'static str,
        package: &'static str,
        console: &'static str,
        drivers: &'static [&'static str],
    ) -> Self {
        let linux = Some(Linux { debian, package, console, drivers });
        Self { linux, kernel: Some(KernelVersion::V6_1), ..self }
    }

    const fn of(self, version: KernelVersion) -> Self {
        Self { kernel: Some(version), ..self }
    }

    const fn if_chosen(self) -> Self {
        Self { kernel: None, ..self }
    }
}

impl GuestArch {
    /// The row of this architecture.
    pub(crate) fn target(self) -> &'static Target {
        TARGETS.iter().find(|target| target.arch == self).expect("every architecture has a row")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_a_row() {
        for arch in GuestArch::value_variants() {
            assert_eq!(arch.target().arch, *arch);
        }
        assert_eq!(TARGETS.len(), GuestArch::value_variants().len());
    }
}
