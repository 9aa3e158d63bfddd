//! The VMCOREINFO note of a guest: where its kernel says what a dump tool must know.
//!
//! | a guest | gets its note by |
//! |---|---|
//! | with the vmcoreinfo device | [`Device::note`]: what its driver has stated |
//! | without, stopped or in a dump | [`complete()`]: what lies in its memory, confirmed by a vCPU |
//! | without, running | [`search()`], and [`complete_from`] once it stands still |
//!
//! ```text
//! device ──► note ──────────────────────────────┐
//!             scan ──► candidate ──► verify ──► complete ──► Machine::guest_note
//!             where    what          why
//! ```
//!
//! With the note, the kernel tells more of itself: [`uts`] is its name, [`log`] what it has printed. Without it, its name can be
//! searched for: [`uname_search`].
//!
//! No architecture is named here: [`vmcore_core::Kernel`] knows where a kernel has its things, and
//! [`vmcore_core::Arch::note_pointer`] where an architecture has a pointer to its note.
//!
//! Source: `spec/vmcoreinfo.md`; Linux `kernel/vmcore_info.c`.

#![forbid(unsafe_code)]

pub mod candidate;
pub mod complete;
pub mod device;
pub mod log;
pub mod note;
mod scan;
pub mod search;
pub mod uname_search;
pub mod uts;
pub mod verify;

pub use candidate::{Candidate, Shape};
pub use complete::{Origin, Outcome, complete, complete_from};
pub use device::Device;
pub use note::{Refusal, Stated};
pub use search::{Findings, Found, Way, search};
pub use verify::{Evidence, Guest, Level, recheck, verify};
pub use vmcore_core::Vmcoreinfo;

#[cfg(test)]
mod search_tests;
#[cfg(test)]
use {vmcore_arch_s390x as _, vmcore_arch_x86_64 as _};
