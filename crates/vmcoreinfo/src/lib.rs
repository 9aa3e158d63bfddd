//! The VMCOREINFO note of a guest: where its kernel says what a dump tool must know.
//!
//! | a guest | gets its note by |
//! |---|---|
//! | with the vmcoreinfo device | [`Device`]: what its driver has stated |
//!
//! Source: `spec/vmcoreinfo.md`; Linux `kernel/vmcore_info.c`.

#![forbid(unsafe_code)]

pub mod log;

pub mod device;
pub mod note;
pub mod uts;

pub use device::Device;
pub use note::{Refusal, Stated};
pub use vmcore_core::Vmcoreinfo;

#[cfg(test)]
use {vmcore_arch_s390x as _, vmcore_arch_x86_64 as _};
