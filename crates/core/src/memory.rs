//! Guest physical memory: which regions there are, and how their bytes are read.

use crate::{Error, Finding, Gpa, Gva, Translation};
use std::ops::Range;

/// What stands behind a region of guest physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Memory that is dumped: RAM, and ROM and device RAM that the guest sees as memory.
    Ram,
    /// Device registers: known to be there, without bytes in a dump.
    Mmio,
}

/// A range of guest physical memory with one kind of thing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first byte.
    pub gpa: Gpa,
    /// Its length in bytes; need not be a multiple of the page size.
    pub len: u64,
    /// What it is.
    pub kind: RegionKind,
}

impl Region {
    /// A region of RAM.
    #[must_use]
    pub const fn ram(gpa: Gpa, len: u64) -> Self {
        Self { gpa, len, kind: RegionKind::Ram }
    }

    /// One past the last byte. A region that reaches to 2^64 saturates.
    #[must_use]
    pub const fn end(&self) -> Gpa {
        Gpa(self.gpa.0.saturating_add(self.len))
    }

    /// Whether `gpa` lies inside.
    #[must_use]
    pub const fn contains(&self, gpa: Gpa) -> bool {
        self.gpa.0 <= gpa.0 && gpa.0 < self.end().0
    }
}

/// What is known of consecutive bytes without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// They must be read to know.
    Data,
    /// They are zero: a hole of a sparse file, or pages that the guest never touched.
    Zero,
    /// They cannot be read: a dump that is cut off ends before them.
    Missing,
    /// The dump left them out on purpose: a dump level excludes them.
    Excluded,
}

/// Consecutive bytes with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many bytes, at least one.
    pub len: u64,
    /// The answer.
    pub state: RunState,
}

/// Ranges of guest memory that could not be read, in ascending order and merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    ranges: Vec<Range<u64>>,
}

impl Unreadable {
    /// Adds `len` bytes at `gpa`.
    pub fn add(&mut self, gpa: Gpa, len: u64) {
        if len == 0 {
            return;
        }
        let (mut start, mut end) = (gpa.0, gpa.0.saturating_add(len));
        let first = self.ranges.partition_point(|range| range.end < start);
        let last = self.ranges.partition_point(|range| range.start <= end);
        if let Some(touched) = self.ranges.get(first..last).filter(|touched| !touched.is_empty()) {
            start = start.min(touched[0].start);
            end = end.max(touched[touched.len() - 1].end);
        }
        self.ranges.splice(first..last, std::iter::once(start..end));
    }

    /// Adds all ranges of `other`.
    pub fn merge(&mut self, other: &Self) {
        for range in &other.ranges {
            self.add(Gpa(range.start), range.end - range.start);
        }
    }

    /// Whether everything could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes could not be read.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges: guest physical addresses, half-open.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }
}

/// The physical memory of a guest.
///
/// Implement `regions` and `read_at`; the other methods make dumps faster or smaller.
pub trait PhysMemory: Send + Sync {
    /// The regions, in ascending order, without overlap.
    fn regions(&self) -> &[Region];

    /// Copies guest memory that starts at `gpa` into `buf`, across pages and regions.
    ///
    /// The bytes are the guest's own: no byte order is applied. What cannot be read, and what lies in no RAM
    /// region, is zero in `buf` and listed in the result.
    ///
    /// # Errors
    /// [`Error::Range`] if `gpa + buf.len()` passes 2^64; [`Error::Io`] or [`Error::Source`] if the source itself
    /// is gone.
    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error>;

    /// What is known of the bytes from `gpa` on, at most `max` of them, without reading them.
    ///
    /// The default knows nothing: all of it is [`RunState::Data`].
    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let _ = gpa;
        Run { len: max, state: RunState::Data }
    }

    /// Whether [`PhysMemory::run_at`] may answer [`RunState::Excluded`].
    fn has_excluded(&self) -> bool {
        false
    }

    /// Whether the bytes from `gpa` on are [`RunState::Excluded`], and how many of the next `max` bytes, at least one, that
    /// holds for: [`PhysMemory::run_at`] for those who do not care for zeros, which may cost a look at each page to find.
    fn excluded_at(&self, gpa: Gpa, max: u64) -> (bool, u64) {
        let run = self.run_at(gpa, max);
        (run.state == RunState::Excluded, run.len)
    }

    /// Why memory at `gpa` cannot be read, and where in the dump; `None` if it can, or if nobody knows.
    fn fault_at(&self, gpa: Gpa) -> Option<Finding> {
        let _ = gpa;
        None
    }

    /// The bytes themselves, where the implementation holds them in its own memory.
    ///
    /// All `len` bytes or `None`.
    fn slice(&self, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let _ = (gpa, len);
        None
    }

    /// Whether reads must come in ascending order, from one thread: a stream that cannot go back.
    fn is_sequential(&self) -> bool {
        false
    }
}

/// Reads `N` bytes at `gpa`, all of which must be there.
///
/// # Errors
/// [`Error::NoMemory`] if any of them is not, and what [`PhysMemory::read_at`] returns.
pub fn read_array<const N: usize>(
    memory: &dyn PhysMemory,
    gpa: Gpa,
    what: &'static str,
) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    if memory.read_at(gpa, &mut bytes)?.is_empty() { Ok(bytes) } else { Err(Error::NoMemory { what, gpa }) }
}

/// Copies memory at virtual addresses from `gva` on into `buf`, page by page as `translate` finds them.
///
/// # Errors
/// [`Error::Range`] if `gva + buf.len()` passes 2^64, [`Error::NoMemory`] where a page is mapped but not there, and
/// what `translate` returns.
pub fn read_translated(
    memory: &dyn PhysMemory,
    gva: Gva,
    buf: &mut [u8],
    translate: impl Fn(Gva) -> Result<Translation, Error>,
) -> Result<(), Error> {
    let len = buf.len() as u64;
    gva.checked_add(len).ok_or(Error::Range { what: "virtual memory", start: gva.0, len })?;
    let mut done = 0;
    while done < buf.len() {
        let at = translate(Gva(gva.0 + done as u64))?;
        let step = usize::try_from(at.len).unwrap_or(usize::MAX).min(buf.len() - done);
        let unreadable = memory.read_at(at.gpa, &mut buf[done..done + step])?;
        if let Some(range) = unreadable.ranges().first() {
            return Err(Error::NoMemory { what: "reading virtual memory", gpa: Gpa(range.start) });
        }
        done += step;
    }
    Ok(())
}

/// Cuts `buf`, which begins at `gpa`, at the borders of regions.
///
/// Calls `piece` with each part that lies in a RAM region: its address and its bytes. The rest becomes zero and
/// is listed in the result; so is what `piece` reports. This is the frame of most `read_at` implementations.
///
/// # Errors
/// [`Error::Range`] if `gpa + buf.len()` passes 2^64, and what `piece` returns.
pub fn read_by_region(
    regions: &[Region],
    gpa: Gpa,
    buf: &mut [u8],
    mut piece: impl FnMut(usize, Gpa, &mut [u8], &mut Unreadable) -> Result<(), Error>,
) -> Result<Unreadable, Error> {
    let len = buf.len() as u64;
    let end = gpa.checked_add(len).ok_or(Error::Range { what: "guest memory", start: gpa.0, len })?;
    let mut unreadable = Unreadable::default();
    let mut at = gpa;
    let mut rest = buf;
    let mut index = regions.partition_point(|region| region.end() <= gpa);
    while !rest.is_empty() {
        let region = regions.get(index).filter(|region| region.gpa < end);
        let inside = region.filter(|region| region.contains(at) && region.kind == RegionKind::Ram);
        let stop = match (region, inside) {
            (_, Some(region)) => region.end(),
            (Some(region), None) if region.gpa > at => region.gpa,
            (Some(region), None) => region.end(),
            (None, _) => end,
        };
        let step = usize::try_from(stop.min(end).0 - at.0).unwrap_or(rest.len()).min(rest.len());
        let (head, tail) = rest.split_at_mut(step);
        if inside.is_some() {
            piece(index, at, head, &mut unreadable)?;
        } else {
            head.fill(0);
            unreadable.add(at, head.len() as u64);
        }
        if region.is_some_and(|region| stop >= region.end()) {
            index += 1;
        }
        at = Gpa(at.0 + step as u64);
        rest = tail;
    }
    Ok(unreadable)
}

/// Guest memory that lies in vectors of this process: the simplest [`PhysMemory`].
#[derive(Clone, Default)]
pub struct BlockMemory {
    regions: Vec<Region>,
    blocks: Vec<Vec<u8>>,
}

impl BlockMemory {
    /// Memory made of `blocks`, each at its address.
    ///
    /// # Errors
    /// [`Error::Range`] if two blocks overlap or one passes 2^64.
    pub fn new(mut blocks: Vec<(Gpa, Vec<u8>)>) -> Result<Self, Error> {
        blocks.retain(|(_, bytes)| !bytes.is_empty());
        blocks.sort_by_key(|(gpa, _)| *gpa);
        let regions: Vec<Region> =
            blocks.iter().map(|(gpa, bytes)| Region::ram(*gpa, bytes.len() as u64)).collect();
        check_disjoint(&regions)?;
        Ok(Self { regions, blocks: blocks.into_iter().map(|(_, bytes)| bytes).collect() })
    }
}

impl std::fmt::Debug for BlockMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockMemory").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl PhysMemory for BlockMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        read_by_region(&self.regions, gpa, buf, |index, at, piece, _| {
            if let Some(bytes) = self.slice_of(index, at, piece.len()) {
                piece.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn slice(&self, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let index = self.regions.partition_point(|region| region.end() <= gpa);
        self.slice_of(index, gpa, len)
    }
}

impl BlockMemory {
    fn slice_of(&self, index: usize, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(gpa.offset_from(self.regions.get(index)?.gpa)?).ok()?;
        self.blocks.get(index)?.get(start..start.checked_add(len)?)
    }
}

/// The parts of `regions` that `memory` did not leave out on purpose ([`RunState::Excluded`]).
#[must_use]
pub fn without_excluded(memory: &dyn PhysMemory, regions: Vec<Region>) -> Vec<Region> {
    if !memory.has_excluded() {
        return regions;
    }
    let mut kept: Vec<Region> = Vec::new();
    for region in regions {
        let mut at = region.gpa;
        // Neighbors within a region stay one.
        let mut is_new = true;
        while at < region.end() {
            let left = region.end().0 - at.0;
            let (is_excluded, len) = memory.excluded_at(at, left);
            let len = len.clamp(1, left);
            match kept.last_mut() {
                _ if is_excluded => is_new = true,
                Some(last) if !is_new => last.len += len,
                _ => {
                    kept.push(Region { gpa: at, len, kind: region.kind });
                    is_new = false;
                }
            }
            at = Gpa(at.0 + len);
        }
    }
    kept
}

/// Checks that regions ascend, do not overlap, are not empty and end at or below 2^64.
///
/// # Errors
/// [`Error::Range`] with the first region that does not fit.
pub fn check_disjoint(regions: &[Region]) -> Result<(), Error> {
    let mut end = 0;
    for region in regions {
        // The last byte must have an address; a region may end at 2^64 itself only in theory, so it is refused.
        let stop = region.gpa.0.checked_add(region.len);
        match stop {
            Some(stop) if region.gpa.0 >= end && region.len > 0 => end = stop,
            _ => return Err(Error::Range { what: "memory region", start: region.gpa.0, len: region.len }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> BlockMemory {
        BlockMemory::new(vec![
            (Gpa(0x3000), vec![3; 0x1000]),
            (Gpa(0x1000), vec![1; 0x1000]),
            (Gpa(0x2000), vec![2; 0x800]),
        ])
        .unwrap()
    }

    #[test]
    fn reads_cross_regions_and_name_the_holes() {
        let mut buf = vec![0xff; 0x3000];
        let unreadable = memory().read_at(Gpa(0x1800), &mut buf).unwrap();
        assert_eq!(unreadable.ranges(), [0x2800..0x3000, 0x4000..0x4800]);
        assert_eq!((buf[0], buf[0x800], buf[0x1000], buf[0x1800], buf[0x2800]), (1, 2, 0, 3, 0));
        assert_eq!(unreadable.byte_len(), 0x1000);
        assert!(memory().read_at(Gpa(u64::MAX), &mut [0; 2]).is_err());
    }

    #[test]
    fn slices_stay_in_one_block() {
        assert_eq!(memory().slice(Gpa(0x27ff), 1), Some(&[2][..]));
        assert_eq!(memory().slice(Gpa(0x27ff), 2), None);
        assert_eq!(memory().slice(Gpa(0x2900), 1), None);
    }

    #[test]
    fn overlap_is_refused() {
        assert!(BlockMemory::new(vec![(Gpa(0), vec![0; 2]), (Gpa(1), vec![0; 2])]).is_err());
    }

    #[test]
    fn unreadable_ranges_merge() {
        let mut unreadable = Unreadable::default();
        for (gpa, len) in [(0x10, 4), (0x20, 4), (0x14, 4), (0, 2), (0x18, 8), (0x40, 0)] {
            unreadable.add(Gpa(gpa), len);
        }
        assert_eq!(unreadable.ranges(), [0..2, 0x10..0x24]);
    }
}
