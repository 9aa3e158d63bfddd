//! Why a target stands still, and the packet that says so.
//!
//! Source: `spec/gdb-rsp.md` section 4; gdb manual, "Stop Reply Packets".

use crate::reply::{HexText, Reply};
use crate::session::Session;
use crate::target::{Presence, Target};
use crate::thread::ThreadId;

/// What kind of access a watchpoint waits for, or has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A write.
    Write,
    /// A read.
    Read,
    /// Either.
    Any,
}

/// Why a target stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// gdb's number of a signal: 5 (`SIGTRAP`) for a step or for a guest that was found so, 3 for one that was shut
    /// down, 6 for an error of the emulator, 11 for a guest that crashed, 14 for a watchdog.
    Signal(u8),
    /// A software breakpoint: the program counter is at it.
    SoftwareBreakpoint,
    /// A hardware breakpoint: the program counter is at it.
    HardwareBreakpoint,
    /// A watchpoint.
    Watchpoint {
        /// What it waited for.
        access: Access,
        /// Virtual address of the byte touched.
        address: u64,
    },
    /// A system call is about to be carried out: its number.
    SyscallEntry(u32),
    /// A system call has returned: its number.
    SyscallReturn(u32),
    /// Libraries have come or gone, or modules of a kernel: [`Document::Libraries`](crate::Document::Libraries) has changed.
    Libraries,
    /// The user or somebody else has stopped it.
    Interrupted,
    /// Going backwards, the beginning of what is recorded is reached.
    ReplayStart,
    /// Going forwards in a record, its end is reached.
    ReplayEnd,
    /// The target is gone; it has left this status.
    Exited(u8),
    /// The target is gone by a signal.
    Killed(u8),
}

impl StopReason {
    /// A step is done, or there is nothing more to say.
    pub const TRAP: Self = Self::Signal(5);
}

/// A stop: where and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The thread that has stopped; all others have, too.
    pub thread: ThreadId,
    /// Why.
    pub reason: StopReason,
}

impl StopReason {
    /// gdb's number of the signal that stands for it.
    pub(crate) fn signal(self) -> u8 {
        match self {
            Self::Signal(signal) | Self::Killed(signal) | Self::Exited(signal) => signal,
            Self::Interrupted => 2,
            Self::SoftwareBreakpoint
            | Self::HardwareBreakpoint
            | Self::Watchpoint { .. }
            | Self::SyscallEntry(_)
            | Self::SyscallReturn(_)
            | Self::Libraries
            | Self::ReplayStart
            | Self::ReplayEnd => 5,
        }
    }
}

/// Writes the stop reply.
pub(crate) fn write(reply: &mut Reply<'_>, session: &Session, target: &mut dyn Target, stop: Stop) {
    let Stop { thread, reason } = stop;
    let signal = reason.signal();
    if let StopReason::Exited(_) | StopReason::Killed(_) = reason {
        let kind = if let StopReason::Exited(_) = reason { 'W' } else { 'X' };
        reply.format(format_args!("{kind}{signal:02x}"));
        if session.client.knows_processes {
            reply.format(format_args!(";process:{:x}", thread.process));
        }
        return;
    }
    reply.format(format_args!("T{signal:02x}thread:"));
    reply.thread(thread);
    reply.text(";");
    match reason {
        StopReason::SoftwareBreakpoint if session.client.knows_swbreak => reply.text("swbreak:;"),
        StopReason::HardwareBreakpoint if session.client.knows_hwbreak => reply.text("hwbreak:;"),
        StopReason::Watchpoint { access, address } => {
            let kind = match access {
                Access::Write => "",
                Access::Read => "r",
                Access::Any => "a",
            };
            reply.format(format_args!("{kind}watch:{address:x};"));
        }
        StopReason::SyscallEntry(number) => reply.format(format_args!("syscall_entry:{number:x};")),
        StopReason::SyscallReturn(number) => reply.format(format_args!("syscall_return:{number:x};")),
        StopReason::Libraries => reply.text("library:;"),
        StopReason::ReplayStart => reply.text("replaylog:begin;"),
        StopReason::ReplayEnd => reply.text("replaylog:end;"),
        _ => {}
    }
    reply.format(format_args!("core:{:x};", thread.vcpu_index()));
    if session.is_lldb() {
        name(reply, target, thread);
    }
    if session.lists_threads {
        list_threads(reply, session, target);
    }
    expedite(reply, target, thread);
}

/// Adds the thread's name for LLDB; gdb reads it in the list of threads.
fn name(reply: &mut Reply<'_>, target: &dyn Target, thread: ThreadId) {
    let start = reply.len();
    reply.text("hexname:");
    let written = target.thread_name(thread, &mut HexText(reply));
    reply.text(";");
    if written.is_err() || reply.is_cut() {
        reply.truncate(start);
    }
}

/// Adds the registers that nearly every client asks for next. One that does not fit is left away.
fn expedite(reply: &mut Reply<'_>, target: &mut dyn Target, thread: ThreadId) {
    for index in 0.. {
        let Some(&number) = target.expedited(thread).get(index) else { break };
        let Some(len) = target.register_len(thread, number) else { continue };
        let start = reply.len();
        reply.format(format_args!("{number:02x}:"));
        let known = reply.hex_from(len, |value| match value.len() == len {
            true => Ok(match target.read_register(thread, number, value)? {
                Presence::Known => len,
                Presence::Unknown => 0,
            }),
            false => Ok(0),
        });
        reply.text(";");
        if known != Ok(len) || reply.is_cut() {
            reply.truncate(start);
        }
    }
}

/// Adds all threads and where they are: what LLDB has asked for with `QListThreadsInStopReply`.
fn list_threads(reply: &mut Reply<'_>, session: &Session, target: &mut dyn Target) {
    let start = reply.len();
    reply.text("threads:");
    for (place, thread) in (0..).zip(session.threads(target)) {
        reply.text(if place == 0 { "" } else { "," });
        reply.thread(thread);
    }
    reply.text(";");
    if reply.is_cut() {
        reply.truncate(start);
    }
}
