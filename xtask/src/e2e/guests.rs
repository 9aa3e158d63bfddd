//! The guests of the end-to-end tests: few, because a boot costs seconds.

use crate::guest::{Backend, GuestArch, QemuVersion, Spec};

/// What most tests use: no backend, QEMU 7.2, about 140 MiB in use.
pub(crate) fn plain() -> Spec {
    Spec {
        arch: GuestArch::X86_64,
        mem: 512,
        cpus: 2,
        machine: None,
        cpu: None,
        backend: Backend::None,
        qemu: QemuVersion::V7,
        vmcoreinfo: true,
        fill: 60,
        drivers: 0,
        socket: None,
    }
}

/// As most guests are: without the vmcoreinfo device.
pub(crate) fn bare() -> Spec {
    Spec { vmcoreinfo: false, fill: 20, qemu: QemuVersion::V10, ..plain() }
}

/// With RAM above 4 GiB, where the kernel then has its note.
pub(crate) fn bare_big() -> Spec {
    Spec { mem: 5 << 10, machine: pc(), ..bare() }
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

/// With SVE.
pub(crate) fn aarch64_max() -> Spec {
    Spec { cpu: Some("max".to_owned()), backend: Backend::Memfd, qemu: QemuVersion::V10, ..aarch64() }
}

pub(crate) fn ppc64le() -> Spec {
    Spec { arch: GuestArch::Ppc64le, vmcoreinfo: false, qemu: QemuVersion::V10, ..aarch64() }
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

pub(crate) fn arm() -> Spec {
    Spec { arch: GuestArch::Arm, ..riscv64() }
}

/// Its firmware wants 1 GiB. QEMU 7.2 numbers its threads 0.
pub(crate) fn ppc64() -> Spec {
    Spec { arch: GuestArch::Ppc64, mem: 1 << 10, qemu: QemuVersion::V10, ..riscv64() }
}

fn pc() -> Option<String> {
    Some("pc".to_owned())
}
