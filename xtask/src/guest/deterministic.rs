//! Guests whose memory is the same in each boot, byte for byte: one vCPU that counts instructions, pinned packages, an initrd
//! of which each byte is given.
//!
//! Source: `spec/filter.md` sections 12.1 and 13.

use super::arch::Linux;
use super::initrd::Cpio;
use super::kernel::{Kernel, KernelVersion};
use super::{GuestArch, Spec};
use crate::run::{cache, output};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The script that fills such a guest's memory and halts it.
const INIT: &str = include_str!("deterministic.init");

/// The version of QEMU that the digests are of: major, minor, micro.
pub(super) const QEMU: [u64; 3] = [10, 0, 2];

/// One of these guests.
#[derive(Debug)]
pub(crate) struct Pinned {
    /// As the specification calls it.
    pub(crate) name: &'static str,
    arch: GuestArch,
    version: KernelVersion,
    /// The suite that has the kernel's package.
    pub(super) suite: &'static str,
    /// The kernel's package.
    pub(super) kernel: &'static str,
    /// `-cpu`
    pub(super) cpu: &'static str,
    /// Whether there is a device for VMCOREINFO, and its driver in the initrd.
    pub(super) vmcoreinfo: bool,
    /// First digits of the initrd's SHA-256.
    initrd: &'static str,
    /// Dump levels, and the first digits of the SHA-256 over the second bitmap.
    pub(crate) bitmaps: [(u32, &'static str); 4],
}

#[rustfmt::skip] // a table is read by column
const GUESTS: &[Pinned] = &[
    Pinned { name: "D1", arch: GuestArch::X86_64,  version: KernelVersion::V6_1,  suite: "bookworm-security", kernel: "linux-image-6.1.0-56-cloud-amd64",
        cpu: "qemu64",     vmcoreinfo: true,  initrd: "83988c0c39735142",
        bitmaps: [(2, "04722d43a45f01ff"), (8, "5431341c5b679553"), (16, "e17e159ad51494ae"), (31, "fd7c1c52b046f4b1")] },
    Pinned { name: "D2", arch: GuestArch::S390x,   version: KernelVersion::V6_1,  suite: "bookworm",          kernel: "linux-image-6.1.0-50-s390x",
        cpu: "max",        vmcoreinfo: false, initrd: "56f96471846800df",
        bitmaps: [(2, "b978eddbd00fde1e"), (8, "36376bcb86e6d569"), (16, "8cc537256809dc0c"), (31, "d75f7c11c69a0df4")] },
    Pinned { name: "D3", arch: GuestArch::Aarch64, version: KernelVersion::V6_1,  suite: "bookworm",          kernel: "linux-image-6.1.0-50-cloud-arm64",
        cpu: "cortex-a57", vmcoreinfo: true,  initrd: "1571640bda3e6b62",
        bitmaps: [(2, "2bbea25ff66db8f8"), (8, "59a231cdf81a5286"), (16, "29fa3d3a3215ec70"), (31, "8d79bebaf3902d92")] },
    Pinned { name: "D5", arch: GuestArch::X86_64,  version: KernelVersion::V6_12, suite: "trixie",            kernel: "linux-image-6.12.107+deb13-cloud-amd64",
        cpu: "qemu64",     vmcoreinfo: true,  initrd: "d973df386055eb64",
        bitmaps: [(2, "5101aa721b5438e5"), (8, "5fa29f6fc62165ea"), (16, "09c1c2786171b863"), (31, "0d63615a98e1f232")] },
    Pinned { name: "D7", arch: GuestArch::Riscv64, version: KernelVersion::V6_12, suite: "trixie",            kernel: "linux-image-6.12.107+deb13-riscv64",
        cpu: "rv64",       vmcoreinfo: false, initrd: "31d494ab2d3c98b3",
        bitmaps: [(2, "7de26e6e8863136a"), (8, "652a44fae861d0bf"), (16, "eaa49120c9822ee1"), (31, "1fb87a664e84d5f1")] },
    Pinned { name: "D8", arch: GuestArch::X86_64,  version: KernelVersion::V5_10, suite: "bullseye",          kernel: "linux-image-5.10.0-32-cloud-amd64",
        cpu: "qemu64",     vmcoreinfo: true,  initrd: "5e796a54315c44d8",
        bitmaps: [(2, "04756b950f76b6cd"), (8, "089fc7a7a960a902"), (16, "525b35bddd3df5af"), (31, "c73126437d3d2085")] },
];

impl Pinned {
    /// That of an architecture and kernel.
    pub(super) fn find(arch: GuestArch, version: KernelVersion) -> Option<&'static Self> {
        GUESTS.iter().find(|guest| guest.arch == arch && guest.version == version)
    }

    /// What differs from any other guest. Devices that are not needed are left out.
    pub(super) fn arguments(&self, command: &mut Command) {
        command.args(["-icount", "shift=3,sleep=off", "-seed", "7", "-no-shutdown"]);
        command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    }

    /// The kernel's command line, given its console.
    pub(super) fn append(console: &str) -> String {
        format!("console={console} loglevel=4 panic=-1 nokaslr")
    }

    /// The archive, as the kernel takes it.
    pub(super) fn initrd(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let mut archive = Cpio::default();
        for folder in ["bin", "proc", "sys", "dev", "t"] {
            archive.add(folder, 0o040_755, &[]);
        }
        archive.add("bin/busybox", 0o100_755, &fs::read(&kernel.busybox)?);
        archive.add("init", 0o100_755, INIT.as_bytes());
        if self.vmcoreinfo {
            archive.add("fw.ko", 0o100_644, &kernel.driver("qemu_fw_cfg")?);
        }
        Ok(archive.finish())
    }

    /// Whether these are the initrd and the kernel of the specification: else a package is of another version, and memory has
    /// other bytes.
    pub(super) fn is_booted_from(&self, initrd: &Path, kernel: &Kernel) -> Result<bool> {
        let is_kernel = kernel.image.starts_with(cache("unpacked")?.join(self.kernel));
        Ok(is_kernel && sha256(initrd)?.starts_with(self.initrd))
    }
}

/// The digest of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let out = output(Command::new("sha256sum").arg("--binary").arg(path))?;
    Ok(out.split_whitespace().next().context("sha256sum prints nothing")?.to_owned())
}

impl Spec {
    /// The row of a guest whose memory is the same in each boot.
    pub(crate) fn pinned(&self) -> Option<&'static Pinned> {
        self.deterministic.then(|| Pinned::find(self.arch, self.kernel()?)).flatten()
    }

    /// What is booted.
    pub(super) fn linux(&self) -> Option<(&'static Linux, KernelVersion)> {
        self.arch.target().linux.as_ref().zip(self.kernel())
    }
}
