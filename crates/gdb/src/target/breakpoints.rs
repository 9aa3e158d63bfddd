//! Stopping where a client wants it.

use crate::error::Error;
use crate::stop::Access;

/// What a [`Breakpoint`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakpointKind {
    /// Execution (`Z0`).
    Software,
    /// Execution, by the means of a debug unit (`Z1`). An emulator may do both alike.
    Hardware,
    /// An access to memory (`Z2` write, `Z3` read, `Z4` both).
    Watch(Access),
}

/// A breakpoint or watchpoint. It holds for all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Breakpoint {
    /// What it waits for.
    pub kind: BreakpointKind,
    /// Virtual address of the instruction, or of the first byte watched.
    pub address: u64,
    /// Length of the instruction as far as the client knows it, or how many bytes are watched. Never 0 for a
    /// watchpoint, whose last byte is never past the end of the address space.
    pub len: u64,
}

/// Breakpoints and watchpoints: packets `Z` and `z`.
///
/// A stop that one of them causes is reported with its [`StopReason`](crate::StopReason).
pub trait Breakpoints {
    /// Sets a breakpoint. To set one that is set already changes nothing.
    ///
    /// # Errors
    /// [`Error::UNSUPPORTED`] if there are none of that kind; [`Error::NO_ROOM`] if there are too many;
    /// [`Error::FAULT`] if nothing can be there.
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Error>;

    /// Takes a breakpoint away.
    ///
    /// # Errors
    /// [`Error::UNSUPPORTED`] if there are none of that kind; [`Error::INVALID`] if it is not set.
    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), Error>;

    /// Takes all away: the client is gone.
    fn clear(&mut self);
}
