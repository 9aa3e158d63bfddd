//! The guests of the end-to-end tests: few, because a boot costs seconds.

use crate::guest::{Backend, GuestArch, Machine, QemuVersion, Spec};

/// What most tests use: no backend, QEMU 7.2, about 140 MiB in use.
pub(crate) fn plain() -> Spec {
    Spec {
        arch: GuestArch::X86_64,
        mem: 512,
        cpus: 2,
        paging: 4,
        backend: Backend::None,
        machine: Machine::Q35,
        qemu: QemuVersion::V7,
        vmcoreinfo: true,
        fill: 60,
        drivers: 0,
        socket: None,
    }
}

pub(crate) fn level5() -> Spec {
    Spec { paging: 5, backend: Backend::Memfd, qemu: QemuVersion::V10, ..plain() }
}

/// As [`level5`], but another one: its memory has never been dumped by QEMU.
pub(crate) fn memfd() -> Spec {
    Spec { fill: 40, ..level5() }
}

pub(crate) fn file() -> Spec {
    Spec { backend: Backend::File, machine: Machine::Pc, ..plain() }
}

pub(crate) fn big() -> Spec {
    Spec { mem: 5 << 10, machine: Machine::Pc, qemu: QemuVersion::V10, ..plain() }
}

pub(crate) fn numa() -> Spec {
    Spec { backend: Backend::Numa, ..plain() }
}

pub(crate) fn i386_pae() -> Spec {
    Spec { arch: GuestArch::I386, paging: 3, machine: Machine::Pc, ..plain() }
}

pub(crate) fn i386() -> Spec {
    Spec { arch: GuestArch::I386, paging: 2, qemu: QemuVersion::V10, ..plain() }
}
