//! Breakpoints for an emulator that looks at them itself.

use super::{Breakpoint, BreakpointKind, Breakpoints};
use crate::error::Error;
use crate::stop::{Access, StopReason};
use arrayvec::ArrayVec;

/// Up to `N` breakpoints and watchpoints of all kinds: what an emulator asks before an instruction and at an access.
///
/// ```
/// use vmcore_gdb::{Access, Breakpoint, BreakpointKind, BreakpointSet, Breakpoints, StopReason};
///
/// let mut set = BreakpointSet::<16>::default();
/// let watch = Breakpoint { kind: BreakpointKind::Watch(Access::Write), address: 0x1000, len: 8 };
/// set.insert(watch)?;
/// assert_eq!(set.at(0x1000), None, "it is not executed");
/// assert_eq!(set.touched(0x1004, 8, Access::Read), None);
/// let hit = StopReason::Watchpoint { access: Access::Write, address: 0x1004 };
/// assert_eq!(set.touched(0x1004, 8, Access::Write), Some(hit));
/// # Ok::<(), vmcore_gdb::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BreakpointSet<const N: usize> {
    set: ArrayVec<Breakpoint, N>,
}

impl<const N: usize> BreakpointSet<N> {
    /// Whether there is none: an emulator may then run without looking.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Why to stop before the instruction at `address`, if there is a breakpoint. An instruction that a client
    /// resumes at is executed first.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<StopReason> {
        let mut here = self.set.iter().filter(|breakpoint| breakpoint.address == address);
        here.find_map(|breakpoint| match breakpoint.kind {
            BreakpointKind::Software => Some(StopReason::SoftwareBreakpoint),
            BreakpointKind::Hardware => Some(StopReason::HardwareBreakpoint),
            BreakpointKind::Watch(_) => None,
        })
    }

    /// Why to stop at an access to `len` bytes at `address`, if one of them is watched: with the address of the first
    /// of those.
    #[must_use]
    pub fn touched(&self, address: u64, len: u64, access: Access) -> Option<StopReason> {
        let last = address.saturating_add(len.checked_sub(1)?);
        self.set.iter().find_map(|breakpoint| {
            let BreakpointKind::Watch(watched) = breakpoint.kind else { return None };
            let is_kind = watched == access || watched == Access::Any || access == Access::Any;
            let first_watched = breakpoint.address;
            let last_watched = first_watched.saturating_add(breakpoint.len.checked_sub(1)?);
            let is_hit = is_kind && address <= last_watched && first_watched <= last;
            is_hit.then_some(StopReason::Watchpoint { access: watched, address: address.max(first_watched) })
        })
    }
}

impl<const N: usize> Breakpoints for BreakpointSet<N> {
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        if self.set.contains(&breakpoint) {
            return Ok(());
        }
        self.set.try_push(breakpoint).map_err(|_| Error::NO_ROOM)
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        let place = self.set.iter().position(|other| *other == breakpoint).ok_or(Error::INVALID)?;
        self.set.swap_remove(place);
        Ok(())
    }

    fn clear(&mut self) {
        self.set.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_hits() {
        let point = |kind, address, len| Breakpoint { kind, address, len };
        let mut set = BreakpointSet::<3>::default();
        let software = point(BreakpointKind::Software, 0x10, 4);
        let read = point(BreakpointKind::Watch(Access::Read), u64::MAX - 1, 2);
        let any = point(BreakpointKind::Watch(Access::Any), 0x20, 1);
        for breakpoint in [software, read, any, software] {
            assert_eq!(set.insert(breakpoint), Ok(()));
        }
        assert_eq!(set.insert(point(BreakpointKind::Hardware, 0x10, 4)), Err(Error::NO_ROOM));
        assert_eq!((set.at(0x10), set.at(0x12)), (Some(StopReason::SoftwareBreakpoint), None));
        let hit = |access, address| Some(StopReason::Watchpoint { access, address });
        assert_eq!(set.touched(0x1c, 8, Access::Write), hit(Access::Any, 0x20));
        assert_eq!(set.touched(0x1c, 4, Access::Write), None);
        assert_eq!(set.touched(0x21, 4, Access::Write), None);
        assert_eq!(set.touched(0x20, 0, Access::Write), None);
        assert_eq!(set.touched(u64::MAX, 8, Access::Read), hit(Access::Read, u64::MAX));
        assert_eq!(set.touched(u64::MAX, 1, Access::Write), None);
        assert_eq!((set.remove(software), set.remove(software)), (Ok(()), Err(Error::INVALID)));
        set.clear();
        assert!(set.is_empty());
    }
}
