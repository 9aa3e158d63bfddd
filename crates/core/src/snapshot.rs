//! A copy of guest memory: what lets a guest run again before its dump is packed and written.
//!
//! What counts is how long the copy takes. So its room is there before the guest is stopped, and was touched already: writing to
//! fresh memory is four to five times as slow (`spec/live-capture.md` section 5.6).

use crate::parallel::{Failure, in_threads, lock};
use crate::pieces::{Piece, PieceMemory, Place};
use crate::{DumpState, Error, Gpa, PhysMemory, Region, RegionKind, RunState, Unreadable};
use std::sync::{Arc, Mutex};

/// What a thread reads at once.
const CHUNK: usize = 1 << 20;
/// One byte in each page of this size makes a buffer exist.
const PAGE: usize = 0x1000;

/// Room for a copy of guest memory.
#[derive(Debug)]
pub struct SnapshotBuffer(Vec<u8>);

impl SnapshotBuffer {
    /// Room for `len` bytes, made to exist: takes as long as writing them.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the system does not have as much.
    pub fn new(len: u64) -> Result<Self, Error> {
        let too_large = || Error::TooLarge {
            what: "bytes of a buffer for guest memory",
            found: len,
            limit: isize::MAX as u64,
        };
        let size = usize::try_from(len).map_err(|_| too_large())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| too_large())?;
        bytes.resize(size, 0);
        // Zeros alone may be pages that the system has promised and not given.
        bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        Ok(Self(bytes))
    }

    /// How many bytes it has room for.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether it has room for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies what of `memory` lies in `wanted` and must be read to be known: the rest is zero, left out or missing.
    ///
    /// The result has all regions of `memory`; what was not wanted is missing. `None` if there is not enough room: nothing was
    /// copied then.
    ///
    /// # Errors
    /// Errors of reading; [`Error::Cancelled`].
    pub fn copy(
        mut self,
        memory: &dyn PhysMemory,
        wanted: &[Region],
        threads: usize,
        state: &DumpState,
    ) -> Result<Option<PieceMemory>, Error> {
        let (mut pieces, len) = plan(memory, wanted);
        if len > self.len() {
            return Ok(None);
        }
        let lost = read_all(memory, &pieces, &mut self.0, threads, state)?;
        if !lost.is_empty() {
            pieces = pieces.into_iter().flat_map(|piece| without(piece, &lost)).collect();
        }
        Ok(Some(PieceMemory::new(Arc::new(self.0), pieces)))
    }
}

/// How many bytes of `memory` that lie in `wanted` must be read to be known: the room that a copy takes.
#[must_use]
pub fn needed_len(memory: &dyn PhysMemory, wanted: &[Region]) -> u64 {
    plan(memory, wanted).1
}

/// Where each piece of the copy is in the buffer, and how much of the buffer that takes.
fn plan(memory: &dyn PhysMemory, wanted: &[Region]) -> (Vec<Piece>, u64) {
    let mut plan = Plan { pieces: Vec::new(), used: 0 };
    for (segment, region) in memory.regions().iter().enumerate() {
        if region.kind == RegionKind::Mmio {
            plan.push(segment, region.gpa, region.end(), Place::Mmio);
            continue;
        }
        let mut at = region.gpa;
        for part in wanted.iter().filter(|part| part.gpa < region.end() && part.end() > region.gpa) {
            let (start, end) = (part.gpa.max(at), part.end().min(region.end()));
            plan.push(segment, at, start, Place::Missing);
            plan.copy(segment, memory, start, end);
            at = end;
        }
        plan.push(segment, at, region.end(), Place::Missing);
    }
    (plan.pieces, plan.used)
}

struct Plan {
    pieces: Vec<Piece>,
    /// Bytes of the buffer.
    used: u64,
}

impl Plan {
    fn push(&mut self, segment: usize, start: Gpa, end: Gpa, place: Place) {
        if let Some(len @ 1..) = end.offset_from(start) {
            self.pieces.push(Piece { gpa: start, len, place, segment });
        }
    }

    /// Adds memory that is wanted: a place in the buffer for what must be read.
    fn copy(&mut self, segment: usize, memory: &dyn PhysMemory, start: Gpa, end: Gpa) {
        let mut at = start;
        while at < end {
            let left = end.0 - at.0;
            let run = memory.run_at(at, left);
            let len = run.len.clamp(1, left);
            let place = match run.state {
                RunState::Data => {
                    self.used += len;
                    Place::File(self.used - len)
                }
                RunState::Zero => Place::Zero,
                RunState::Missing => Place::Missing,
                RunState::Excluded => Place::Excluded,
            };
            self.push(segment, at, Gpa(at.0 + len), place);
            at = Gpa(at.0 + len);
        }
    }
}

/// Reads all pieces that have a place in the buffer; tells what could not be read.
fn read_all(
    memory: &dyn PhysMemory,
    pieces: &[Piece],
    buffer: &mut [u8],
    threads: usize,
    state: &DumpState,
) -> Result<Unreadable, Error> {
    let in_buffer = |piece: &&Piece| matches!(piece.place, Place::File(_));
    // Places in the buffer ascend and leave no gap, so that it is cut from the front.
    let mut rest = buffer;
    let mut chunks = Vec::new();
    for piece in pieces.iter().filter(in_buffer) {
        let (mut gpa, mut left) = (piece.gpa, piece.len);
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let (chunk, tail) = std::mem::take(&mut rest).split_at_mut(len);
            chunks.push((gpa, chunk));
            (gpa, left, rest) = (Gpa(gpa.0 + len as u64), left - len as u64, tail);
        }
    }
    let chunks = Mutex::new(chunks.into_iter());
    let failure = Failure::default();
    let work = || {
        let mut lost = Unreadable::default();
        while !failure.is_set() {
            let Some((gpa, chunk)) = lock(&chunks).next() else { break };
            match state.check().and_then(|()| memory.read_at(gpa, chunk)) {
                Ok(unreadable) => lost.merge(&unreadable),
                Err(error) => failure.set(error),
            }
        }
        lost
    };
    let threads = if memory.is_sequential() { 1 } else { threads.max(1) };
    let mut all = Unreadable::default();
    in_threads(threads, |_| work()).iter().for_each(|lost| all.merge(lost));
    failure.into_result().map(|()| all)
}

/// A piece without what was lost, which is missing.
fn without(piece: Piece, lost: &Unreadable) -> Vec<Piece> {
    let Place::File(offset) = piece.place else { return vec![piece] };
    let end = piece.gpa.0 + piece.len;
    let mut parts = Vec::new();
    let mut at = piece.gpa.0;
    let mut push = |start: u64, stop: u64, place: Place| {
        if start < stop {
            parts.push(Piece { gpa: Gpa(start), len: stop - start, place, ..piece });
        }
    };
    let from = |start: u64| Place::File(offset + (start - piece.gpa.0));
    for range in lost.ranges().iter().filter(|range| range.start < end && range.end > piece.gpa.0) {
        let (start, stop) = (range.start.max(at), range.end.min(end));
        push(at, start, from(at));
        push(start, stop, Place::Missing);
        at = stop;
    }
    push(at, end, from(at));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BlockMemory;
    use crate::{Run, memory};
    use proptest::prelude::*;

    /// Memory in pages of 16 bytes: which are there, and what is known of each.
    struct Pages(BlockMemory, Vec<RunState>);

    const PAGE: u64 = 16;

    impl PhysMemory for Pages {
        fn regions(&self) -> &[Region] {
            self.0.regions()
        }

        fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
            let mut lost = self.0.read_at(gpa, buf)?;
            for (index, byte) in (gpa.0..).zip(buf) {
                match self.1[usize::try_from(index / PAGE).unwrap()] {
                    RunState::Data => {}
                    RunState::Zero => *byte = 0,
                    RunState::Missing => lost.add(Gpa(index), 1),
                    RunState::Excluded => panic!("{index:#x} was left out and is read"),
                }
            }
            Ok(lost)
        }

        /// Missing pages are found out only when they are read.
        fn run_at(&self, gpa: Gpa, max: u64) -> Run {
            let state = match self.1[usize::try_from(gpa.0 / PAGE).unwrap()] {
                RunState::Missing => RunState::Data,
                state => state,
            };
            Run { len: max.min(PAGE - gpa.0 % PAGE), state }
        }

        fn has_excluded(&self) -> bool {
            self.1.contains(&RunState::Excluded)
        }
    }

    fn states() -> impl Strategy<Value = Vec<RunState>> {
        use RunState::{Data, Excluded, Missing, Zero};
        prop::collection::vec(prop::sample::select(vec![Data, Data, Zero, Missing, Excluded]), 32)
    }

    proptest! {
        #[test]
        fn a_copy_is_what_was_wanted(states in states(), cut in 0..512_u64, len in 1..512_u64, threads in 1..4_usize) {
            let bytes: Vec<u8> = (0..256).map(|index: u32| index.to_le_bytes()[0] | 1).collect();
            // Two regions side by side, and a gap.
            let blocks = vec![(Gpa(0), bytes.clone()), (Gpa(256), bytes[..64].to_vec()), (Gpa(400), bytes[..112].to_vec())];
            let memory = Pages(BlockMemory::new(blocks).unwrap(), states.clone());
            let wanted: Vec<Region> = memory.regions().iter().filter_map(|region| {
                let (start, end) = (region.gpa.0.max(cut), region.end().0.min(cut + len));
                (start < end).then(|| Region::ram(Gpa(start), end - start))
            }).collect();
            let needed = needed_len(&memory, &wanted);
            let state = DumpState::default();
            if needed > 0 {
                let small = SnapshotBuffer::new(needed - 1).unwrap();
                prop_assert!(small.copy(&memory, &wanted, threads, &state).unwrap().is_none());
            }
            let buffer = SnapshotBuffer::new(needed).unwrap();
            let copy = buffer.copy(&memory, &wanted, threads, &state).unwrap().unwrap();
            prop_assert_eq!(copy.regions(), memory.regions());
            for region in memory.regions() {
                for at in region.gpa.0..region.end().0 {
                    let state = states[usize::try_from(at / PAGE).unwrap()];
                    let is_wanted = wanted.iter().any(|part| part.contains(Gpa(at)));
                    let read = memory::read_array::<1>(&copy, Gpa(at), "copy").ok();
                    let found = copy.run_at(Gpa(at), 1).state;
                    if is_wanted && (state == RunState::Data || state == RunState::Zero) {
                        prop_assert_eq!(read, Some(memory::read_array::<1>(&memory, Gpa(at), "memory").unwrap()));
                        prop_assert_eq!(found, state);
                    } else {
                        prop_assert_eq!(read, None);
                        let expected = if is_wanted { state } else { RunState::Missing };
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_job_that_is_cancelled_copies_nothing_more() {
        let memory = BlockMemory::new(vec![(Gpa(0), vec![1; 0x1000])]).unwrap();
        let state = DumpState::default();
        state.cancel();
        let buffer = SnapshotBuffer::new(0x1000).unwrap();
        let copied = buffer.copy(&memory, memory.regions(), 1, &state);
        assert!(matches!(copied, Err(Error::Cancelled)));
    }
}
