//! Backtraces of a guest's vCPUs, from a dump or from a guest that stands still.
//!
//! ```text
//!  vCPU's registers ──► frame 0 ──► caller ──► caller ──► end
//!                              ▲
//!     call-frame information of a vmlinux, ORC tables in memory, interrupt frames, frame records
//! ```
//!
//! An [`Unwinder`] walks from frame to frame, each time by what is surest of what there is ([`Way`]): the call-frame
//! information of the kernel's ELF file, if the user has it ([`Image`]); the ORC tables, which kernels of x86_64 carry in their
//! memory; the chain of frame records, which kernels of other architectures keep. Names come from the ELF file, or
//! from the kernel's own list in its memory ([`kallsyms`]): so most backtraces need nothing but the dump. Those of modules are in
//! lists of their own, to which the kernel's BTF leads.
//!
//! It does not look into programs: of a vCPU that runs one, it shows where.
//!
//! Stacks, tables and ELF files are hostile: the number of frames is bounded, no frame is visited twice, and what is
//! wrong ends the walk with a reason ([`End`]).

#![forbid(unsafe_code)]

mod btf;
mod cfi;
mod debug_info;
mod error;
pub mod image;
pub mod kallsyms;
mod modules;
mod orc;
mod registers;
mod section;
pub mod symbols;
mod unwinder;

pub use error::Error;
pub use image::{Identification, Image};
pub use symbols::{Location, Source, Symbol, SymbolTable};
pub use unwinder::{Backtrace, End, Frame, MAX_FRAMES, Unwinder, Way};
