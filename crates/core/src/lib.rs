//! The model of vmcore: what a guest is, what an architecture and a format must say, and how a dump is laid
//! out and written.
//!
//! ```text
//!  source ──► Machine ──► plan: Layout ──► execute ──► Sink
//!               ▲              ▲
//!         Arch plugins   Format plugins
//! ```
//!
//! A [`Machine`] is a snapshot of one guest. A live guest, an embedding emulator and an opened dump all give
//! one, so *convert* is *open + write*. A [`Format`] plans a [`Layout`] (pure data: which bytes stand where in
//! the file to be written), and [`execute()`] carries it out on a [`Sink`].
//!
//! This crate names no architecture and no format: they register themselves (see [`arch`] and [`mod@format`]).
//! It starts no process, opens no socket and writes to no terminal.

#![forbid(unsafe_code)]

pub mod address;
pub mod arch;
pub mod error;
pub mod execute;
pub mod format;
pub mod kernel;
pub mod layout;
pub mod machine;
pub mod mapping;
pub mod memory;
pub mod note;
pub mod note_table;
pub mod own_note;
pub mod pages;
pub mod parallel;
pub mod pieces;
pub mod read_at;
pub mod record;
pub mod register;
mod registry;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod stack;
pub mod state;
pub mod vcpu;
pub mod vmcoreinfo;
pub mod wrapper;

pub use address::{Class, Endianness, Gpa, Gva, Pfn};
pub use arch::{Arch, ArchPlugin, DumpInfo, Translation};
pub use error::Error;
pub use execute::{ExecuteOptions, Report, execute, execute_all};
pub use format::{Abilities, Compression, DumpOptions, Format, FormatPlugin, RangeFilter, Share, Variant};
pub use kernel::{Kernel, KernelSpace};
pub use layout::{Extent, Fill, Layout};
pub use machine::{Finding, Identity, Machine, Severity};
pub use mapping::{Mapping, MappingList};
pub use memory::{PhysMemory, Region, RegionKind, Run, RunState, Unreadable};
pub use note::{Note, NoteIter};
pub use note_table::{Emit, FieldValue, NoteField, NoteScope, NoteTable, PerUnit, Units};
pub use pages::{PageCodec, PagePacker, PageStream, StoredPage};
pub use pieces::{Piece, PieceMap, PieceMemory, Place};
pub use read_at::{FileReader, ReadAt};
pub use record::Record;
pub use register::{Group, Register, RegisterFile, RegisterId, RegisterTable};
pub use sink::{FileSink, Order, Sink, StreamSink};
pub use snapshot::SnapshotBuffer;
pub use source::{AttachOptions, Attached, Estimate, LetGo, Preview, Released, Source, SourcePlugin};
pub use stack::{FrameRecord, InterruptFrame, InterruptLink, StackRules};
pub use state::{DumpState, Status};
pub use vcpu::Vcpu;
pub use vmcoreinfo::Vmcoreinfo;
pub use wrapper::{Unwrapped, Wrapper, WrapperPlugin};

/// What a plugin crate needs beside this one: the macro that submits it.
pub use inventory;
