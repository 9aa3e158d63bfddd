//! What the engine serves: a small trait that every target has, and one trait for each thing that some can do.

mod breakpoint_set;
mod breakpoints;
mod files;
mod host;
mod memory;
mod program;
mod restart;
mod resume;
mod syscalls;
mod tags;

pub use breakpoint_set::BreakpointSet;
pub use breakpoints::{Breakpoint, BreakpointKind, Breakpoints};
pub use files::{Errno, FileArgument, FileCall, FileIo, FileResult, HostIo, Stat};
pub use host::{Host, RegisterInfo, WatchpointReport};
pub use memory::{Area, Flash, MemoryMap, MemoryRegions, PhysicalMemory, Region, RegionKind};
pub use program::{Document, Offsets, Program};
pub use restart::{Arguments, Restart};
pub use resume::{Action, Actions, Resume, Reverse, SingleStep};
pub use syscalls::{CaughtSyscalls, SyscallList, Syscalls};
pub use tags::MemoryTags;

use crate::error::Error;
use crate::stop::Stop;
use crate::thread::ThreadId;
use core::fmt;

/// Whether the value of a register is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is in the buffer.
    Known,
    /// The register is there, its value is not: clients show `<unavailable>`.
    Unknown,
}

/// A guest that a debugger looks at: a dump, a stopped guest, the emulator that embeds the engine.
///
/// Threads, registers and memory are what every target has. For the rest there is a method each that gives a
/// trait, or nothing: what is advertised to the client is what is there, by construction.
///
/// | a target that | gives |
/// |---|---|
/// | runs | [`Resume`], [`Breakpoints`], [`SingleStep`], [`Reverse`] |
/// | can be ended by a client, and begin anew | [`Kill`], [`Restart`] |
/// | has physical addresses | [`PhysicalMemory`], [`MemoryMap`], [`Flash`] |
/// | knows more of its memory | [`MemoryRegions`], [`MemoryTags`] |
/// | talks | [`Monitor`], [`Host`], [`Vendor`] |
/// | runs a program rather than a machine | [`Program`], [`Syscalls`], [`FileIo`], [`HostIo`] |
///
/// Register numbers, lengths and the byte order of values are those of the target description. Values have the
/// target's own byte order.
pub trait Target {
    /// The thread at `index` (from 0), or `None` past the last. The order does not change in a session, and the
    /// process of the first thread is the one that a client is attached to in the beginning.
    fn thread(&self, index: usize) -> Option<ThreadId>;

    /// Why the target stands still when a client comes. Its thread is the one that the client sees first: of a
    /// crashed guest the vCPU that crashed.
    fn stop(&self) -> Stop;

    /// A file of the target description of a process's threads: `target.xml`, or what it includes.
    ///
    /// It names the architecture and the registers, in the order of their numbers:
    ///
    /// ```xml
    /// <?xml version="1.0"?>
    /// <target version="1.0">
    ///   <architecture>riscv:rv32</architecture>
    ///   <feature name="org.gnu.gdb.riscv.cpu">
    ///     <reg name="zero" bitsize="32"/> <!-- and so on, up to t6 -->
    ///     <reg name="pc" bitsize="32" type="code_ptr"/>
    ///   </feature>
    /// </target>
    /// ```
    ///
    /// gdb ignores it as a whole if a register of a standard feature is missing or a type is not defined: gdb manual, "Standard Target
    /// Features". `TableRegisters` (feature `machine`) has the descriptions of all architectures of this workspace.
    fn description(&self, process: u32, annex: &str) -> Option<&[u8]>;

    /// How many of the register numbers, from 0, are in the `g` packet.
    fn g_count(&self, thread: ThreadId) -> u32;

    /// Bytes of the value of register `number`, or `None` if there is no such register: a hole in the numbers.
    fn register_len(&self, thread: ThreadId, number: u32) -> Option<usize>;

    /// Puts the value of register `number` into `value`, which has [`Self::register_len`] bytes.
    ///
    /// # Errors
    /// [`Error::FAULT`] if the register cannot be read now.
    fn read_register(&mut self, thread: ThreadId, number: u32, value: &mut [u8]) -> Result<Presence, Error>;

    /// Sets register `number`; `value` has [`Self::register_len`] bytes.
    ///
    /// # Errors
    /// [`Error::REFUSED`] if nothing can be written, which is the default.
    fn write_register(&mut self, thread: ThreadId, number: u32, value: &[u8]) -> Result<(), Error> {
        let _ = (thread, number, value);
        Err(Error::refused("the registers of this target cannot be written"))
    }

    /// Numbers of the registers that go with every stop: the program counter first, then stack and frame pointer
    /// and flags.
    fn expedited(&self, thread: ThreadId) -> &[u32];

    /// Reads memory at a virtual address as `thread` sees it, and tells how many bytes from the first on could be
    /// read: at least one.
    ///
    /// # Errors
    /// [`Error::FAULT`] if the first byte cannot be read, or another one that says why.
    fn read_memory(&mut self, thread: ThreadId, address: u64, buf: &mut [u8]) -> Result<usize, Error>;

    /// Writes memory at a virtual address as `thread` sees it: all of `bytes`, or nothing.
    ///
    /// # Errors
    /// [`Error::FAULT`] if there is no memory; [`Error::REFUSED`] if nothing can be written, which is the default.
    fn write_memory(&mut self, thread: ThreadId, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let _ = (thread, address, bytes);
        Err(Error::refused("the memory of this target cannot be written"))
    }

    /// Writes the name of a thread, as in `vCPU 0`.
    ///
    /// # Errors
    /// Only those of `name`.
    fn thread_name(&self, thread: ThreadId, name: &mut dyn fmt::Write) -> fmt::Result {
        write!(name, "vCPU {}", thread.vcpu_index())
    }

    /// Writes what else there is to say of a thread, as in `CPU#0 [halted]`.
    ///
    /// # Errors
    /// Only those of `text`.
    fn thread_info(&self, thread: ThreadId, text: &mut dyn fmt::Write) -> fmt::Result {
        write!(text, "CPU#{}", thread.vcpu_index())
    }

    /// What LLDB asks of a register, which is in the target description too: `None` sends it there.
    fn register_info(&self, thread: ThreadId, number: u32) -> Option<RegisterInfo<'_>> {
        let _ = (thread, number);
        None
    }

    /// A client attaches to a process: its threads stand still from now on.
    fn attached(&mut self, process: u32) {
        let _ = process;
    }

    /// A client detaches from a process: its threads run on, if they can.
    fn detached(&mut self, process: u32) {
        let _ = process;
    }

    /// Runs, and can be stopped.
    fn resume(&mut self) -> Option<&mut dyn Resume> {
        None
    }
    /// Stops where it is told to.
    fn breakpoints(&mut self) -> Option<&mut dyn Breakpoints> {
        None
    }
    /// Chooses what stands still during a step.
    fn single_step(&mut self) -> Option<&mut dyn SingleStep> {
        None
    }
    /// Runs backwards.
    fn reverse(&mut self) -> Option<&mut dyn Reverse> {
        None
    }
    /// Can be ended.
    fn kill(&mut self) -> Option<&mut dyn Kill> {
        None
    }
    /// Can begin anew.
    fn restart(&mut self) -> Option<&mut dyn Restart> {
        None
    }
    /// Has physical memory.
    fn physical_memory(&mut self) -> Option<&mut dyn PhysicalMemory> {
        None
    }
    /// Knows all memory that there is.
    fn memory_map(&mut self) -> Option<&mut dyn MemoryMap> {
        None
    }
    /// Has memory that is erased before it is written.
    fn flash(&mut self) -> Option<&mut dyn Flash> {
        None
    }
    /// Has memory with tags.
    fn memory_tags(&mut self) -> Option<&mut dyn MemoryTags> {
        None
    }
    /// Knows what is mapped.
    fn memory_regions(&mut self) -> Option<&mut dyn MemoryRegions> {
        None
    }
    /// Has commands of its own.
    fn monitor(&mut self) -> Option<&mut dyn Monitor> {
        None
    }
    /// What LLDB wants to know of the machine.
    fn host(&self) -> Option<Host<'_>> {
        None
    }
    /// Runs a program.
    fn program(&mut self) -> Option<&mut dyn Program> {
        None
    }
    /// Stops at system calls.
    fn syscalls(&mut self) -> Option<&mut dyn Syscalls> {
        None
    }
    /// Asks the client for file operations.
    fn file_io(&mut self) -> Option<&mut dyn FileIo> {
        None
    }
    /// Does file operations for the client.
    fn host_io(&mut self) -> Option<&mut dyn HostIo> {
        None
    }
    /// Has packets of its own.
    fn vendor(&mut self) -> Option<&mut dyn Vendor> {
        None
    }
}

/// Ending the target: packets `k` and `vKill`. Without it they end the session and leave the target alone.
pub trait Kill {
    /// Ends a process, or all for `None`.
    ///
    /// # Errors
    /// Whatever stands against it.
    fn kill(&mut self, process: Option<u32>) -> Result<(), Error>;
}

/// Commands of the target: gdb's `monitor`, packet `qRcmd`.
pub trait Monitor {
    /// Carries out `command` in the view of `thread`, and writes what it has to say.
    ///
    /// # Errors
    /// [`Error::INVALID`] for a command that is not known, best with a text.
    fn command(&mut self, thread: ThreadId, command: &str, out: &mut dyn fmt::Write) -> Result<(), Error>;
}

/// Packets that the engine does not know.
pub trait Vendor {
    /// Answers the packet `body` with text in `reply`; without any text the answer is `OK`.
    ///
    /// # Errors
    /// [`Error::UNSUPPORTED`] for a packet that is not known here either.
    fn packet(&mut self, thread: ThreadId, body: &[u8], reply: &mut dyn fmt::Write) -> Result<(), Error>;
}
