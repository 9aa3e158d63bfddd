//! Page streams: guest memory that a dump stores page by page, packed, with a table that says where each page is.

use crate::{Error, Gpa, PhysMemory, Region, RegionKind, Unreadable};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How a format packs pages and says where they are.
pub trait PageCodec: Send + Sync {
    /// Bytes of an entry of the table.
    fn entry_len(&self) -> usize;

    /// Appends the entry of a page; `None` for a page that the dump lacks.
    fn entry(&self, page: Option<StoredPage>, table: &mut Vec<u8>);

    /// What packs pages, with buffers of its own: one a thread.
    fn packer(&self) -> Box<dyn PagePacker + '_>;
}

/// Packs pages.
pub trait PagePacker {
    /// Appends the packed page to `out`, and tells in which kind: a number of the codec's own, 0 for a page as it is.
    ///
    /// # Errors
    /// Those of the compressor.
    fn pack(&mut self, page: &[u8], out: &mut Vec<u8>) -> Result<u32, Error>;
}

/// Where a page is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPage {
    /// Its first byte in the file.
    pub offset: u64,
    /// Bytes that it takes there.
    pub len: u32,
    /// What [`PagePacker::pack`] made of it.
    pub kind: u32,
}

/// The pages of a dump, in the order in which they are stored and stand in the table.
#[derive(Clone)]
pub struct PageStream {
    /// Bytes of a page: a power of two.
    pub page_size: u32,
    /// Page frame numbers; ascending, disjoint, not empty.
    pub pages: Vec<Range<u64>>,
    /// How they are packed.
    pub codec: Arc<dyn PageCodec>,
}

impl PageStream {
    /// How many pages.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.pages.iter().map(|range| range.end - range.start).sum()
    }
}

impl fmt::Debug for PageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStream")
            .field("page_size", &self.page_size)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

impl PartialEq for PageStream {
    fn eq(&self, other: &Self) -> bool {
        self.page_size == other.page_size
            && self.pages == other.pages
            && Arc::ptr_eq(&self.codec, &other.codec)
    }
}

impl Eq for PageStream {}

/// Adds a range behind the others, merging it with the last if they touch or overlap.
pub fn push_merged(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

/// The page frames of which any byte lies in RAM, ascending and merged.
#[must_use]
pub fn frames_of(regions: &[Region], page_size: u64) -> Vec<Range<u64>> {
    let mut frames = Vec::new();
    for region in regions.iter().filter(|region| region.kind == RegionKind::Ram) {
        push_merged(&mut frames, region.gpa.0 / page_size..region.end().0.div_ceil(page_size));
    }
    frames
}

/// The parts of `frames` that `memory` did not leave out on purpose ([`RunState::Excluded`](crate::RunState::Excluded)).
#[must_use]
pub fn present(memory: &dyn PhysMemory, frames: &[Range<u64>], page_size: u64) -> Vec<Range<u64>> {
    if !memory.has_excluded() {
        return frames.to_vec();
    }
    let mut present = Vec::new();
    for range in frames {
        let (mut at, end) = (range.start * page_size, range.end * page_size);
        while at < end {
            let (is_excluded, len) = memory.excluded_at(Gpa(at), end - at);
            let next = at + len.clamp(1, end - at);
            if !is_excluded {
                // Of a page that is left out in part the rest is there.
                push_merged(&mut present, at / page_size..next.div_ceil(page_size));
            }
            at = next;
        }
    }
    present
}

/// Reads memory that may lie only partly in RAM: the rest is zero, and that is no fault.
///
/// # Errors
/// What [`PhysMemory::read_at`] returns.
pub fn read_frames(memory: &dyn PhysMemory, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
    let end = gpa.checked_add(buf.len() as u64).ok_or(Error::Range {
        what: "guest memory",
        start: gpa.0,
        len: buf.len() as u64,
    })?;
    let regions = memory.regions();
    let first = regions.partition_point(|region| region.end() <= gpa);
    if regions
        .get(first)
        .is_some_and(|region| region.kind == RegionKind::Ram && region.gpa <= gpa && region.end() >= end)
    {
        return memory.read_at(gpa, buf);
    }
    buf.fill(0);
    let mut unreadable = Unreadable::default();
    let touched = regions[first..].iter().take_while(|region| region.gpa < end);
    for region in touched.filter(|region| region.kind == RegionKind::Ram) {
        let (start, stop) = (region.gpa.max(gpa), region.end().min(end));
        let part = usize::try_from(start.0 - gpa.0).ok().zip(usize::try_from(stop.0 - gpa.0).ok());
        if let Some(part) = part.and_then(|(start, stop)| buf.get_mut(start..stop)) {
            unreadable.merge(&memory.read_at(start, part)?);
        }
    }
    Ok(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BlockMemory;

    #[test]
    fn a_frame_counts_if_any_byte_of_it_is_ram() {
        let regions =
            [Region::ram(Gpa(0x800), 0x900), Region::ram(Gpa(0x1200), 0x100), Region::ram(Gpa(0x5fff), 2)];
        assert_eq!(frames_of(&regions, 0x1000), [0..2, 5..7]);
    }

    #[test]
    fn frames_that_lie_partly_in_ram_are_filled_up() {
        let memory =
            BlockMemory::new(vec![(Gpa(0x800), vec![1; 0x900]), (Gpa(0x1200), vec![2; 0x100])]).unwrap();
        let mut buf = vec![0xff; 0x2000];
        assert!(read_frames(&memory, Gpa(0), &mut buf).unwrap().is_empty());
        assert_eq!([0x7ff, 0x800, 0x10ff, 0x1100, 0x1200, 0x1300].map(|at| buf[at]), [0, 1, 1, 0, 2, 0]);
    }
}
