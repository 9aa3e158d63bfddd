//! Which pages of a process are there: `/proc/PID/pagemap`.
//!
//! Source: `spec/live-capture.md` section 5.1; Linux `Documentation/admin-guide/mm/pagemap.rst`.

use crate::pagemap_scan::{self, PAGE_IS_FILE, PAGE_IS_PFNZERO};
use crate::process::Process;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The page is in memory.
const PM_PRESENT: u64 = 1 << 63;
/// The page is in swap.
const PM_SWAP: u64 = 1 << 62;
/// The page is of a file, or of shared memory.
const PM_FILE: u64 = 1 << 61;

/// Which pages are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Those that are there, in memory or in swap, and not the shared page of zeros.
    Used,
    /// Those that are there and belong to the process alone: copies of a file's pages that it has written to.
    Own,
}

/// The pages of a process.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    page_size: u64,
    /// Whether the kernel has `PAGEMAP_SCAN`.
    has_scan: bool,
}

impl Pagemap {
    /// The pages of `process`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn open(process: &Process) -> io::Result<Self> {
        let file = process.open_file("pagemap")?;
        let page_size = page_size();
        let has_scan = pagemap_scan::scan(&file, 0..page_size, PAGE_IS_FILE, drop).is_ok();
        Ok(Self { file, page_size, has_scan })
    }

    /// The page-aligned ranges of such pages in `range`, which is page-aligned: merged, in ascending order.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn ranges(&self, range: Range<u64>, pages: Pages) -> io::Result<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let add = |found: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == found.start => last.end = found.end,
            _ => ranges.push(found),
        };
        if self.has_scan {
            let except = match pages {
                Pages::Used => PAGE_IS_PFNZERO,
                Pages::Own => PAGE_IS_FILE,
            };
            pagemap_scan::scan(&self.file, range, except, add)?;
        } else {
            self.read(range, pages, add)?;
        }
        Ok(ranges)
    }

    /// What `PAGEMAP_SCAN` does, by reading 8 bytes a page. The shared page of zeros counts as used.
    fn read(&self, range: Range<u64>, pages: Pages, mut found: impl FnMut(Range<u64>)) -> io::Result<()> {
        let mut entries = [0; 1 << 16];
        let mut at = range.start;
        while at < range.end {
            let left = (range.end - at) / self.page_size * 8;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(entries.len());
            let read = self.file.read_at(&mut entries[..len], at / self.page_size * 8)?;
            let whole = entries[..read].as_chunks::<8>().0;
            if whole.is_empty() {
                break;
            }
            for entry in whole {
                let entry = u64::from_ne_bytes(*entry);
                let is_there = entry & (PM_PRESENT | PM_SWAP) != 0;
                if is_there && (pages == Pages::Used || entry & PM_FILE == 0) {
                    found(at..at + self.page_size);
                }
                at += self.page_size;
            }
        }
        Ok(())
    }
}

/// The page size of this host.
pub(crate) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of asking, of this process.
    fn both() -> Vec<Pagemap> {
        let pid = i32::try_from(std::process::id()).unwrap();
        let pagemap = Pagemap::open(&Process::open(pid).unwrap()).unwrap();
        let file = pagemap.file.try_clone().unwrap();
        let page_size = pagemap.page_size;
        let mut all = vec![Pagemap { file, page_size, has_scan: false }];
        if pagemap.has_scan {
            all.push(pagemap);
        }
        all
    }

    #[test]
    fn written_pages_are_used_and_others_are_not() {
        let page = usize::try_from(page_size()).unwrap();
        // A fresh allocation of this size is mapped, not recycled, and zeroed by the kernel. Transparent huge pages may
        // fill a whole aligned huge page at once, so that only the first and the last page are sure to be told apart.
        let mut memory = vec![0_u8; 64 << 20];
        let start = (memory.as_ptr() as u64).next_multiple_of(page_size());
        let skip = usize::try_from(start - memory.as_ptr() as u64).unwrap();
        memory[skip] = 1;
        let range = start..start + (32 << 20);
        for pagemap in both() {
            let used = pagemap.ranges(range.clone(), Pages::Used).unwrap();
            assert_eq!(used.first().map(|used| used.start), Some(start));
            let count: u64 = used.iter().map(|used| used.end - used.start).sum();
            assert!(count < 32 << 20, "{count}");
            assert_eq!(pagemap.ranges(range.clone(), Pages::Own).unwrap(), used);
        }
        drop(memory);
        let _ = page;
    }

    #[test]
    fn pages_of_a_program_are_not_its_own() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let maps = Process::open(pid).unwrap().maps().unwrap();
        let program = maps.iter().find(|vma| vma.inode != 0).unwrap();
        for pagemap in both() {
            assert!(!pagemap.ranges(program.range.clone(), Pages::Used).unwrap().is_empty());
            assert_eq!(pagemap.ranges(program.range.clone(), Pages::Own).unwrap(), []);
        }
    }
}
