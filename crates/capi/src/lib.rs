//! The C interface: `include/vmcore.h`, which cbindgen makes of this crate (`cargo xtask golden`).
//!
//! | file | is |
//! |---|---|
//! | `boundary.rs` | what goes across: codes, messages, strings, and panics, which do not |
//! | `guest.rs` | `vmcore_guest`: what an emulator tells, as callbacks |
//! | `memory.rs` | `vmcore_memory`: the map of guest memory |
//! | `registers.rs` | `vmcore_registers`: the registers of one vCPU |
//! | `dumper.rs` | `vmcore_dumper`: the functions that an emulator calls |
//!
//! All of it is [`vmcore::dump`] in other words. Rules for all functions, which the header tells to its readers too:
//! no panic and no exception crosses the boundary; a null pointer where one is not allowed is an error, not a crash; a struct
//! that may grow begins with its size; what a function gives is freed by the function that its doc names.

#![expect(unsafe_code, reason = "pointers come from C: each block says who vouches for them")]

mod boundary;
mod dumper;
mod guest;
mod memory;
mod registers;

pub use boundary::{Code, vmcore_string_free, vmcore_version};
pub use dumper::{
    Handle, Progress, Status, vmcore_dump_cancel, vmcore_dump_guest_memory, vmcore_dump_progress,
    vmcore_dump_wait, vmcore_dumper_free, vmcore_dumper_new, vmcore_query_dump,
    vmcore_query_dump_guest_memory_capability,
};
pub use guest::Guest;
pub use memory::{MemoryMap, vmcore_memory_add};
pub use registers::{Registers, vmcore_list_registers, vmcore_registers_set, vmcore_registers_set_u64};

#[cfg(test)]
mod tests;
