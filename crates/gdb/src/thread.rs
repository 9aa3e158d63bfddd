//! Names of threads on the wire.
//!
//! A thread is a vCPU, a process is a cluster of vCPUs; both count from 1. A client names one of them, any of
//! them (`0`) or all (`-1`), with the process (`p1.2`) or without.
//!
//! Source: `spec/gdb-rsp.md` section 2.2; gdb manual, "Packets" (thread-id).

use crate::wire;
use core::fmt;

/// One thread of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId {
    /// Its process, from 1. A machine without clusters is the one process 1.
    pub process: u32,
    /// Its number, from 1, unique among all processes: the index of the vCPU + 1.
    pub thread: u32,
}

impl ThreadId {
    /// The thread of the vCPU `index` (from 0) in process 1.
    #[must_use]
    pub const fn of_vcpu(index: u32) -> Self {
        Self { process: 1, thread: index.saturating_add(1) }
    }

    /// The index of its vCPU, from 0.
    #[must_use]
    pub const fn vcpu_index(self) -> u32 {
        self.thread.saturating_sub(1)
    }
}

/// One part of a name: a number, or more than one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// `0`: whichever comes first.
    Any,
    /// `-1`
    All,
    /// That one.
    One(u32),
}

impl Pick {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text == b"-1" {
            return Some(Self::All);
        }
        let number = u32::try_from(wire::number(text)?).ok()?;
        Some(if number == 0 { Self::Any } else { Self::One(number) })
    }

    pub(crate) fn allows(self, number: u32) -> bool {
        match self {
            Self::Any | Self::All => true,
            Self::One(one) => one == number,
        }
    }
}

/// What a client calls a thread, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) process: Pick,
    pub(crate) thread: Pick,
}

impl Selector {
    /// All threads.
    pub(crate) const ALL: Self = Self { process: Pick::All, thread: Pick::All };

    /// `T`, `pP` or `pP.T`. One thread of all processes is nonsense.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let Some(text) = text.strip_prefix(b"p") else {
            return Some(Self { process: Pick::Any, thread: Pick::parse(text)? });
        };
        let mut parts = text.splitn(2, |byte| *byte == b'.');
        let process = Pick::parse(parts.next()?)?;
        let thread = parts.next().map_or(Some(Pick::All), Pick::parse)?;
        match (process, thread) {
            (Pick::All, Pick::One(_)) => None,
            _ => Some(Self { process, thread }),
        }
    }

    pub(crate) fn allows(self, id: ThreadId) -> bool {
        self.process.allows(id.process) && self.thread.allows(id.thread)
    }
}

/// A thread as it is written for a client: `p01.02` if the client knows of processes, else `02`.
pub(crate) struct Name {
    pub(crate) id: ThreadId,
    pub(crate) with_process: bool,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At least two digits, as QEMU writes them.
        if self.with_process {
            write!(f, "p{:02x}.", self.id.process)?;
        }
        write!(f, "{:02x}", self.id.thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let check = |text: &[u8], process, thread| {
            assert_eq!(Selector::parse(text), Some(Selector { process, thread }), "{text:?}");
        };
        check(b"1", Pick::Any, Pick::One(1));
        check(b"0000000000000010", Pick::Any, Pick::One(16));
        check(b"-1", Pick::Any, Pick::All);
        check(b"p1", Pick::One(1), Pick::All);
        check(b"p0.0", Pick::Any, Pick::Any);
        check(b"p1.-1", Pick::One(1), Pick::All);
        check(b"p-1.-1", Pick::All, Pick::All);
        for wrong in [&b""[..], b"p", b"p1.", b"p.1", b"p-1.1", b"-2", b"1.1", b"p1.1.1", b"100000000", b"x"]
        {
            assert_eq!(Selector::parse(wrong), None, "{wrong:?}");
        }
    }
}
