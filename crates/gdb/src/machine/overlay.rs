//! Guest memory that a client writes to: the dump below stays as it is.

use crate::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{PoisonError, RwLock};
use vmcore_core::{Finding, Gpa, PhysMemory, Region, RegionKind, Run, RunState, Unreadable};

/// Bytes of a block that is copied when it is written to. Nothing of the guest: its pages may have any size.
const BLOCK: u64 = 0x1000;
/// The most bytes that are kept: a client that writes more is told so.
const MAX: usize = 1 << 30;

/// Memory with what was written to it.
pub(super) struct OverlayMemory {
    below: Arc<dyn PhysMemory>,
    /// The blocks that were written to, by their number.
    blocks: RwLock<BTreeMap<u64, Box<[u8]>>>,
}

impl OverlayMemory {
    pub(super) fn new(below: Arc<dyn PhysMemory>) -> Self {
        Self { below, blocks: RwLock::default() }
    }

    /// Writes all pieces, or nothing.
    ///
    /// # Errors
    /// [`Error::FAULT`] where there is no RAM, or what is around a piece cannot be read; [`Error::NO_ROOM`] if too much was written.
    pub(super) fn write<'b>(&self, pieces: impl Iterator<Item = (Gpa, &'b [u8])>) -> Result<(), Error> {
        let mut changed: BTreeMap<u64, Box<[u8]>> = BTreeMap::new();
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        for (gpa, bytes) in pieces {
            let end = gpa.checked_add(bytes.len() as u64).ok_or(Error::FAULT)?;
            let mut at = gpa;
            while at < end {
                let number = at.0 / BLOCK;
                if !changed.contains_key(&number) {
                    if (blocks.len() + changed.len()) as u64 * BLOCK >= MAX as u64 {
                        return Err(Error::NO_ROOM);
                    }
                    let block = blocks.get(&number).cloned();
                    changed.insert(number, block.map_or_else(|| self.copy(number), Ok)?);
                }
                let inside = at.0 % BLOCK;
                let len = (BLOCK - inside).min(end.0 - at.0);
                let is_ram = |region: &Region| {
                    region.kind == RegionKind::Ram
                        && region.contains(at)
                        && end.0.min(at.0 + len) <= region.end().0
                };
                if !self.below.regions().iter().any(is_ram) {
                    return Err(Error::FAULT);
                }
                let from = index(at.0 - gpa.0);
                if let Some(block) = changed.get_mut(&number) {
                    block[index(inside)..index(inside + len)]
                        .copy_from_slice(&bytes[from..from + index(len)]);
                }
                at = Gpa(at.0 + len);
            }
        }
        blocks.extend(changed);
        Ok(())
    }

    /// A block as the dump has it. What is in no RAM stays zero and unreadable.
    fn copy(&self, number: u64) -> Result<Box<[u8]>, Error> {
        let mut block = vec![0; index(BLOCK)].into_boxed_slice();
        let start = Gpa(number * BLOCK);
        let unreadable = self.below.read_at(start, &mut block).map_err(|_| Error::FAULT)?;
        let is_ram = |at: u64| {
            self.below
                .regions()
                .iter()
                .any(|region| region.kind == RegionKind::Ram && region.contains(Gpa(at)))
        };
        // A part that should be there and is not: it would come out as zeros.
        match unreadable.ranges().iter().any(|range| is_ram(range.start)) {
            true => Err(Error::FAULT),
            false => Ok(block),
        }
    }
}

/// An offset in a block or a piece.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl PhysMemory for OverlayMemory {
    fn regions(&self) -> &[Region] {
        self.below.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, vmcore_core::Error> {
        let unreadable = self.below.read_at(gpa, buf)?;
        let end = gpa.0 + buf.len() as u64;
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        for (number, block) in blocks.range(gpa.0 / BLOCK..=end / BLOCK) {
            let start = number * BLOCK;
            let (from, to) = (start.max(gpa.0), (start + BLOCK).min(end));
            if from < to {
                buf[index(from - gpa.0)..index(to - gpa.0)]
                    .copy_from_slice(&block[index(from - start)..index(to - start)]);
            }
        }
        Ok(unreadable)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        // What was written is no longer known to be zero.
        let run = self.below.run_at(gpa, max);
        match run.state {
            RunState::Zero => Run { state: RunState::Data, ..run },
            _ => run,
        }
    }

    fn has_excluded(&self) -> bool {
        self.below.has_excluded()
    }

    fn fault_at(&self, gpa: Gpa) -> Option<Finding> {
        self.below.fault_at(gpa)
    }
}
