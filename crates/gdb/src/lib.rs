//! The GDB remote protocol for guests: gdb and LLDB on a dump, on a stopped guest, or on the emulator that embeds
//! this crate.
//!
//! ```text
//!  bytes of the client ──► frame ──► dispatch ──► a row of the table ──► Target
//!                                       │
//!  bytes for the client ◄── seal ◄── reply
//! ```
//!
//! [`Engine`] is the protocol, [`Target`] is what it serves. There is no connection, thread or clock in here, and
//! no memory but the buffer that the engine is given: without the feature `std` the crate needs neither `std` nor an
//! allocator.
//!
//! # An emulator
//!
//! [`Resume::resume`] only notes how the vCPUs go on. The loop that runs them also listens to the client:
//!
//! ```
//! use std::sync::mpsc::{Receiver, TryRecvError};
//! use vmcore_gdb::{Engine, PACKET_SIZE, Status, Stop, Target, buffer_len};
//!
//! trait Emulator: Target {
//!     /// Runs the vCPUs for a while, each as it was told, and says why if they stop.
//!     fn run(&mut self) -> Option<Stop>;
//! }
//!
//! fn debug(machine: &mut impl Emulator, client: &Receiver<Vec<u8>>, send: &mut dyn FnMut(&[u8])) {
//!     let mut engine = Engine::new(vec![0; buffer_len(PACKET_SIZE)]);
//!     while engine.status() != Status::Closed {
//!         // A machine that runs only looks whether something came; one that stands still waits for it.
//!         let bytes = match engine.status() {
//!             Status::Running => client.try_recv(),
//!             _ => client.recv().map_err(|_| TryRecvError::Disconnected),
//!         };
//!         match bytes {
//!             Ok(bytes) => {
//!                 let mut input = &bytes[..];
//!                 while !input.is_empty() {
//!                     input = engine.receive(input, machine, send);
//!                 }
//!             }
//!             Err(TryRecvError::Empty) => {
//!                 if let Some(stop) = machine.run() {
//!                     engine.stopped(stop, machine, send);
//!                 }
//!             }
//!             Err(TryRecvError::Disconnected) => break,
//!         }
//!     }
//!     engine.disconnect(machine);
//! }
//! ```
//!
//! `run` comes back when the client has said something: an interpreter after some thousand instructions; one that waits in `KVM_RUN`
//! is woken by the thread that has read the bytes. [`Resume::interrupt`] is then called in the loop, with no other thread around.
//!
//! [`packet_table`] lists the packets, and which trait each needs.
//!
//! Source: `spec/gdb-rsp.md`; gdb manual, "Remote Protocol"; LLDB, `docs/resources/lldbgdbremote.md`. Where QEMU's
//! stub is loose, silent or crashes, this one is strict and answers (section 8 of the former).

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod dispatch;
#[cfg(test)]
mod documented;
mod engine;
mod error;
mod frame;
#[cfg(feature = "machine")]
mod machine;
#[doc = include_str!("../PACKETS.md")]
pub mod packet_table {}
mod packets;
mod reply;
mod session;
mod stop;
mod table;
pub mod target;
mod thread;
mod wire;

pub use engine::{Engine, Output, PACKET_SIZE, Status, buffer_len};
pub use error::Error;
#[cfg(feature = "machine")]
pub use machine::{CRASHED, Command, MachineOptions, MachineTarget, Run, TableRegisters};
pub use stop::{Access, Stop, StopReason};
pub use target::{
    Action, Actions, Area, Arguments, Breakpoint, BreakpointKind, BreakpointSet, Breakpoints, CaughtSyscalls,
    Document, Errno, FileArgument, FileCall, FileIo, FileResult, Flash, Host, HostIo, Kill, MemoryMap,
    MemoryRegions, MemoryTags, Monitor, Offsets, PhysicalMemory, Presence, Program, Region, RegionKind,
    RegisterInfo, Restart, Resume, Reverse, SingleStep, Stat, SyscallList, Syscalls, Target, Vendor,
    WatchpointReport,
};
pub use thread::ThreadId;
