//! The debug registers of x86: four addresses that a processor itself watches.
//!
//! Source: Intel SDM volume 3, 18.2; AMD APM volume 2, 13.1.

use std::iter;
use vmcore::gdb::{Access, Breakpoint, BreakpointKind, Breakpoints, Error, StopReason};

/// DR0 to DR3, and what each is there for.
#[derive(Clone, Debug, Default)]
pub struct DebugRegisters {
    slots: [Option<Slot>; 4],
}

/// A register in use.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// What the client wants; one watchpoint may need several registers.
    wanted: Breakpoint,
    address: u64,
    /// Bytes: 1, 2, 4 or 8, and the address is a multiple.
    len: u64,
}

impl DebugRegisters {
    /// Whether none is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// The values of DR0 to DR7.
    #[must_use]
    pub fn values(&self) -> [u64; 8] {
        let mut values = [0; 8];
        for (index, slot) in self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, (*slot)?)))
        {
            let condition = match slot.wanted.kind {
                BreakpointKind::Software | BreakpointKind::Hardware => 0b00,
                BreakpointKind::Watch(Access::Write) => 0b01,
                BreakpointKind::Watch(Access::Read | Access::Any) => 0b11,
            };
            let len = match slot.len {
                2 => 0b01,
                4 => 0b11,
                8 => 0b10,
                _ => 0b00,
            };
            values[index] = slot.address;
            // The bit that enables it in all tasks, then its condition and its length.
            values[7] |= 0b10 << (2 * index) | condition << (16 + 4 * index) | len << (18 + 4 * index);
        }
        values
    }

    /// Why a debug exception with this DR6 has come, if one of the registers is the reason. Which byte was touched is not known: it is one of
    /// those watched, the first is told.
    #[must_use]
    pub fn hit(&self, dr6: u64) -> Option<StopReason> {
        let slot = (0..).zip(self.slots).find_map(|(index, slot)| slot.filter(|_| dr6 >> index & 1 == 1))?;
        Some(match slot.wanted.kind {
            BreakpointKind::Software | BreakpointKind::Hardware => StopReason::HardwareBreakpoint,
            BreakpointKind::Watch(access) => StopReason::Watchpoint { access, address: slot.wanted.address },
        })
    }
}

/// Cuts `len` bytes at `address` into the longest pieces that a register can watch.
fn pieces(address: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut rest = (address, len);
    iter::from_fn(move || {
        let (address, left) = rest;
        let len = [8, 4, 2, 1].into_iter().find(|len| *len <= left && address % len == 0)?;
        rest = (address.wrapping_add(len), left - len);
        Some((address, len))
    })
}

impl Breakpoints for DebugRegisters {
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        let Breakpoint { kind, address, len } = breakpoint;
        if self.slots.iter().flatten().any(|slot| slot.wanted == breakpoint) {
            return Ok(());
        }
        let len = match kind {
            BreakpointKind::Software | BreakpointKind::Hardware => 1,
            // There is no condition for reads alone. gdb then watches for both, and looks whether the value has changed.
            BreakpointKind::Watch(Access::Read) => return Err(Error::UNSUPPORTED),
            BreakpointKind::Watch(Access::Write | Access::Any) => len,
        };
        let mut slots = self.slots;
        for (address, len) in pieces(address, len) {
            let free = slots.iter_mut().find(|slot| slot.is_none()).ok_or(Error::NO_ROOM)?;
            *free = Some(Slot { wanted: breakpoint, address, len });
        }
        self.slots = slots;
        Ok(())
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        let before = self.slots.iter().flatten().count();
        for slot in &mut self.slots {
            *slot = slot.filter(|slot| slot.wanted != breakpoint);
        }
        if self.slots.iter().flatten().count() < before { Ok(()) } else { Err(Error::INVALID) }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_set_and_freed() {
        let point = |kind, address, len| Breakpoint { kind, address, len };
        let mut registers = DebugRegisters::default();
        let code = point(BreakpointKind::Hardware, 0x1015, 1);
        let word = point(BreakpointKind::Watch(Access::Write), 0x8002, 6);
        let any = point(BreakpointKind::Watch(Access::Any), 0x9000, 8);
        for breakpoint in [code, word, any, code] {
            assert_eq!(registers.insert(breakpoint), Ok(()));
        }
        assert_eq!(registers.insert(point(BreakpointKind::Hardware, 0, 1)), Err(Error::NO_ROOM));
        assert_eq!(
            registers.insert(point(BreakpointKind::Watch(Access::Read), 0, 1)),
            Err(Error::UNSUPPORTED)
        );
        // Write 2 bytes, write 4, touch 8; each has its own global enable bit.
        assert_eq!(registers.values(), [0x1015, 0x8002, 0x8004, 0x9000, 0, 0, 0, 0xbd50_00aa]);

        assert_eq!(registers.hit(0xffff_4ff0), None, "a step");
        assert_eq!(registers.hit(0b1), Some(StopReason::HardwareBreakpoint));
        let written = StopReason::Watchpoint { access: Access::Write, address: 0x8002 };
        assert_eq!(registers.hit(0xffff_0ff4), Some(written));

        assert_eq!((registers.remove(word), registers.remove(word)), (Ok(()), Err(Error::INVALID)));
        assert_eq!(registers.hit(0xffff_0ff4), None);
        assert_eq!(registers.values()[7], 0xb000_0082);
        registers.clear();
        assert!(registers.is_empty());
    }
}
