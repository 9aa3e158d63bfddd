//! Stopping at system calls.

use crate::wire;

/// The system calls to stop at.
#[derive(Clone, Copy, Debug)]
pub enum CaughtSyscalls<'p> {
    /// None.
    None,
    /// All of them.
    All,
    /// Those of a list.
    Only(SyscallList<'p>),
}

/// Numbers of system calls, as a client sends them.
#[derive(Clone, Copy, Debug)]
pub struct SyscallList<'p> {
    /// In digits, `;` between them.
    list: &'p [u8],
}

impl<'p> CaughtSyscalls<'p> {
    /// Reads what follows `QCatchSyscalls:`: `0`, `1`, or `1;NUMBER;...`.
    pub(crate) fn parse(text: &'p [u8]) -> Option<Self> {
        match text {
            b"0" => Some(Self::None),
            b"1" => Some(Self::All),
            [b'1', b';', list @ ..] => {
                let mut numbers = list.split(|byte| *byte == b';');
                numbers.all(|digits| number(digits).is_some()).then_some(Self::Only(SyscallList { list }))
            }
            _ => None,
        }
    }

    /// Whether the system call `number` is among them.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(list) => list.iter().any(|caught| caught == number),
        }
    }
}

impl SyscallList<'_> {
    /// The numbers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.list.split(|byte| *byte == b';').filter_map(number)
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    u32::try_from(wire::number(digits)?).ok()
}

/// Stopping at system calls, of a user-mode emulator: gdb's `catch syscall`, packet `QCatchSyscalls`. The stops are
/// [`SyscallEntry`](crate::StopReason::SyscallEntry) and [`SyscallReturn`](crate::StopReason::SyscallReturn).
pub trait Syscalls {
    /// Replaces the system calls to stop at. The list is gone afterwards: keep what is needed of it.
    fn catch(&mut self, calls: CaughtSyscalls<'_>);
}
