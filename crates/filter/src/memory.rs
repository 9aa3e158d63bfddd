//! Guest memory without the pages that a level leaves out.

use crate::PageSet;
use std::sync::Arc;
use vmcore_core::memory::read_by_region;
use vmcore_core::{Error, Finding, Gpa, PhysMemory, Region, Run, RunState, Unreadable};

/// Guest memory of which some pages are left out: they are [`RunState::Excluded`], and cannot be read.
///
/// The memory around which it stands is never asked for them: on the host, reading a page that a guest has given back would
/// make it take memory again.
pub struct FilteredMemory {
    inner: Arc<dyn PhysMemory>,
    removed: Arc<PageSet>,
    page_shift: u32,
}

impl std::fmt::Debug for FilteredMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilteredMemory").field("removed", &self.removed).finish_non_exhaustive()
    }
}

impl FilteredMemory {
    /// `inner` without the page frames of `removed`, of `1 << page_shift` bytes each.
    pub(crate) fn new(inner: Arc<dyn PhysMemory>, removed: Arc<PageSet>, page_shift: u32) -> Self {
        Self { inner, removed, page_shift }
    }

    /// Whether the byte at `gpa` is left out, and for how many bytes from there on the same is true: at most `max`.
    fn run(&self, gpa: Gpa, max: u64) -> (bool, u64) {
        let pfn = gpa.0 >> self.page_shift;
        let last = gpa.0.saturating_add(max.saturating_sub(1)) >> self.page_shift;
        let (is_removed, count) = self.removed.run(pfn, last - pfn + 1);
        let end = pfn.saturating_add(count).saturating_mul(1 << self.page_shift);
        (is_removed, (end - gpa.0).min(max))
    }
}

impl PhysMemory for FilteredMemory {
    fn regions(&self) -> &[Region] {
        self.inner.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        let len = buf.len() as u64;
        if self.run(gpa, len) == (false, len) {
            return self.inner.read_at(gpa, buf);
        }
        read_by_region(self.regions(), gpa, buf, |_, at, piece, unreadable| {
            let (mut at, mut rest) = (at, piece);
            while !rest.is_empty() {
                let (is_removed, len) = self.run(at, rest.len() as u64);
                let (part, after) = rest.split_at_mut(usize::try_from(len).unwrap_or(rest.len()));
                if is_removed {
                    part.fill(0);
                    unreadable.add(at, len);
                } else {
                    unreadable.merge(&self.inner.read_at(at, part)?);
                }
                at = Gpa(at.0 + len);
                rest = after;
            }
            Ok(())
        })
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let (is_removed, len) = self.run(gpa, max);
        if is_removed { Run { len, state: RunState::Excluded } } else { self.inner.run_at(gpa, len) }
    }

    fn excluded_at(&self, gpa: Gpa, max: u64) -> (bool, u64) {
        let (is_removed, len) = self.run(gpa, max);
        if is_removed { (true, len) } else { self.inner.excluded_at(gpa, len) }
    }

    fn has_excluded(&self) -> bool {
        !self.removed.is_empty() || self.inner.has_excluded()
    }

    fn fault_at(&self, gpa: Gpa) -> Option<Finding> {
        let (is_removed, _) = self.run(gpa, 1);
        if is_removed { None } else { self.inner.fault_at(gpa) }
    }

    fn slice(&self, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let is_whole = self.run(gpa, len as u64) == (false, len as u64);
        if is_whole { self.inner.slice(gpa, len) } else { None }
    }

    fn is_sequential(&self) -> bool {
        self.inner.is_sequential()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::Bits;
    use vmcore_core::memory::BlockMemory;

    const PAGE: u64 = 0x1000;

    /// Memory that may not be asked for pages 2, 3 and 6.
    struct Careful(BlockMemory);

    impl Careful {
        fn check(gpa: Gpa, len: u64) {
            let touched = gpa.0 / PAGE..(gpa.0 + len).div_ceil(PAGE);
            assert!(![2, 3, 6].iter().any(|pfn| touched.contains(pfn)), "{gpa} {len:#x}");
        }
    }

    impl PhysMemory for Careful {
        fn regions(&self) -> &[Region] {
            self.0.regions()
        }
        fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
            Self::check(gpa, buf.len() as u64);
            self.0.read_at(gpa, buf)
        }
        fn run_at(&self, gpa: Gpa, max: u64) -> Run {
            Self::check(gpa, max);
            self.0.run_at(gpa, max)
        }
        fn slice(&self, gpa: Gpa, len: usize) -> Option<&[u8]> {
            Self::check(gpa, len as u64);
            self.0.slice(gpa, len)
        }
    }

    fn memory() -> FilteredMemory {
        let blocks = vec![(Gpa(PAGE), vec![1; 0x2800]), (Gpa(0x5000), vec![5; 0x2000])];
        let mut bits = Bits::new(0, 6);
        bits.insert(2..4);
        bits.insert(6..7);
        let mut removed = PageSet::new(6);
        removed.add(bits);
        FilteredMemory::new(Arc::new(Careful(BlockMemory::new(blocks).unwrap())), removed.into(), 12)
    }

    #[test]
    fn what_is_left_out_is_not_read() {
        let memory = memory();
        let mut buf = vec![0xff; 0x7000];
        let unreadable = memory.read_at(Gpa(0x800), &mut buf).unwrap();
        assert_eq!(unreadable.ranges(), [0x800..0x1000, 0x2000..0x5000, 0x6000..0x7800]);
        assert_eq!(
            [0x7ff, 0x800, 0x17ff, 0x1800, 0x4800, 0x57ff, 0x5800].map(|at| buf[at]),
            [0, 1, 1, 0, 5, 5, 0]
        );
        assert!(memory.read_at(Gpa(0x1800), &mut buf[..0x800]).unwrap().is_empty());
        assert_eq!(memory.slice(Gpa(0x1000), 0x1000), Some(&[1; 0x1000][..]));
        assert_eq!(memory.slice(Gpa(0x1000), 0x1001), None);
        assert!(memory.has_excluded());
    }

    #[test]
    fn runs_end_where_pages_are_left_out() {
        let memory = memory();
        let run = |gpa, max| {
            let run = memory.run_at(Gpa(gpa), max);
            assert_eq!(memory.excluded_at(Gpa(gpa), max), (run.state == RunState::Excluded, run.len));
            (run.state, run.len)
        };
        assert_eq!(run(0x1400, 0x10_0000), (RunState::Data, 0xc00));
        assert_eq!(run(0x2400, 0x10_0000), (RunState::Excluded, 0x1c00));
        assert_eq!(run(0x2400, 0x10), (RunState::Excluded, 0x10));
        assert_eq!(run(0x6fff, 0x10), (RunState::Excluded, 1));
    }
}
