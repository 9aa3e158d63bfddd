//! The guests of the end-to-end tests: few, because a boot costs seconds.

use crate::guest::{Backend, GuestArch, KernelVersion, QemuVersion, Spec};
use std::path::PathBuf;

/// What most tests use: no backend, QEMU 7.2, about 140 MiB in use.
pub(crate) fn plain() -> Spec {
    Spec { vmcoreinfo: true, fill: 60, ..Spec::new(GuestArch::X86_64) }
}

/// As most guests are: without the vmcoreinfo device.
pub(crate) fn bare() -> Spec {
    Spec { vmcoreinfo: false, fill: 20, qemu: QemuVersion::V10, ..plain() }
}

/// With RAM above 4 GiB, where the kernel then has its note.
pub(crate) fn bare_big() -> Spec {
    Spec { mem: 5 << 10, machine: pc(), ..bare() }
}

/// With little memory above 4 GiB and below, in this file.
pub(crate) fn bare_over(memory: PathBuf) -> Spec {
    let machine = Some("pc,max-ram-below-4g=1G".to_owned());
    Spec { mem: 1280, machine, backend: Backend::File, memory: Some(memory), ..bare() }
}

pub(crate) fn bare_aarch64() -> Spec {
    Spec { vmcoreinfo: false, ..aarch64() }
}

pub(crate) fn level5() -> Spec {
    Spec { cpu: Some("max".to_owned()), backend: Backend::Memfd, qemu: QemuVersion::V10, ..plain() }
}

/// As [`level5`], but another one: its memory has never been dumped by QEMU.
pub(crate) fn memfd() -> Spec {
    Spec { fill: 40, ..level5() }
}

pub(crate) fn file() -> Spec {
    Spec { backend: Backend::File, machine: pc(), ..plain() }
}

pub(crate) fn big() -> Spec {
    Spec { mem: 5 << 10, machine: pc(), qemu: QemuVersion::V10, ..plain() }
}

pub(crate) fn numa() -> Spec {
    Spec { backend: Backend::Numa, ..plain() }
}

pub(crate) fn i386_pae() -> Spec {
    Spec { arch: GuestArch::I386, machine: pc(), ..plain() }
}

pub(crate) fn i386() -> Spec {
    Spec { arch: GuestArch::I386NoPae, qemu: QemuVersion::V10, ..plain() }
}

pub(crate) fn aarch64() -> Spec {
    Spec { arch: GuestArch::Aarch64, fill: 20, ..plain() }
}

/// Pages of 16 KiB, and addresses of 52 bits.
pub(crate) fn lpa2() -> Spec {
    Spec { arch: GuestArch::Aarch64Pages16k, qemu: QemuVersion::V10, ..aarch64() }
}

/// With SVE.
pub(crate) fn aarch64_max() -> Spec {
    Spec { cpu: Some("max".to_owned()), backend: Backend::Memfd, qemu: QemuVersion::V10, ..aarch64() }
}

pub(crate) fn ppc64le() -> Spec {
    Spec { arch: GuestArch::Ppc64le, vmcoreinfo: false, qemu: QemuVersion::V10, ..aarch64() }
}

/// Pages of 4 KiB, radix page tables.
pub(crate) fn ppc64le_4k() -> Spec {
    Spec { kernel: Some(KernelVersion::Sid), ..ppc64le() }
}

/// Its QEMU takes it for big-endian, so that its notes cannot be compared.
pub(crate) fn ppc64le_mistaken() -> Spec {
    Spec { qemu: QemuVersion::V7, ..ppc64le() }
}

pub(crate) fn s390x() -> Spec {
    Spec { arch: GuestArch::S390x, vmcoreinfo: false, ..aarch64() }
}

pub(crate) fn riscv64() -> Spec {
    Spec { arch: GuestArch::Riscv64, vmcoreinfo: false, mem: 256, ..plain() }
}

pub(crate) fn riscv64_linux() -> Spec {
    Spec { kernel: Some(KernelVersion::V6_12), mem: 512, ..riscv64() }
}

/// With every extension that QEMU has, and so with all its control and status registers.
pub(crate) fn riscv64_max() -> Spec {
    Spec { cpu: Some("max".to_owned()), qemu: QemuVersion::V10, ..riscv64() }
}

pub(crate) fn arm() -> Spec {
    Spec { arch: GuestArch::Arm, ..riscv64() }
}

/// Its firmware wants 1 GiB. QEMU 7.2 numbers its threads 0.
pub(crate) fn ppc64() -> Spec {
    Spec { arch: GuestArch::Ppc64, mem: 1 << 10, qemu: QemuVersion::V10, ..riscv64() }
}

/// Guests whose memory is the same in each boot, by their names in `spec/filter.md` section 13.
pub(crate) fn d1() -> Spec {
    Spec::deterministic(GuestArch::X86_64, KernelVersion::V6_1)
}

pub(crate) fn d2() -> Spec {
    Spec::deterministic(GuestArch::S390x, KernelVersion::V6_1)
}

pub(crate) fn d3() -> Spec {
    Spec::deterministic(GuestArch::Aarch64, KernelVersion::V6_1)
}

pub(crate) fn d5() -> Spec {
    Spec::deterministic(GuestArch::X86_64, KernelVersion::V6_12)
}

pub(crate) fn d7() -> Spec {
    Spec::deterministic(GuestArch::Riscv64, KernelVersion::V6_12)
}

pub(crate) fn d8() -> Spec {
    Spec::deterministic(GuestArch::X86_64, KernelVersion::V5_10)
}

/// All kinds of pages in one guest, with five-level paging.
fn mixed(kernel: KernelVersion) -> Spec {
    Spec { features: true, kernel: Some(kernel), backend: Backend::None, ..level5() }
}

pub(crate) fn mixed_5_10() -> Spec {
    mixed(KernelVersion::V5_10)
}

pub(crate) fn mixed_6_1() -> Spec {
    mixed(KernelVersion::V6_1)
}

pub(crate) fn mixed_6_12() -> Spec {
    mixed(KernelVersion::V6_12)
}

pub(crate) fn mixed_newest() -> Spec {
    mixed(KernelVersion::Newest)
}

/// More than 4 GiB on two NUMA nodes, a huge page of 1 GiB, and the page structs of huge pages freed.
pub(crate) fn huge() -> Spec {
    let append = "hugepagesz=1G hugepages=1 hugetlb_free_vmemmap=on default_hugepagesz=2M";
    Spec { mem: 5 << 10, backend: Backend::Numa, append: Some(append.to_owned()), ..mixed_6_1() }
}

fn pc() -> Option<String> {
    Some("pc".to_owned())
}
