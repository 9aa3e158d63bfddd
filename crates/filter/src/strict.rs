//! Checks for a guest that runs while its `struct page`s are read: one that changes in between must cost no page that matters.
//!
//! Of a guest that stands still they change nothing.
//!
//! Source: `spec/filter.md` sections 4.1 and 9.3.

use crate::classify::{Class, Rules};
use crate::structs::Structs;
use std::ops::Range;

/// How often a check kept pages that the rules alone would have left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interventions {
    /// Free blocks that do not begin at a multiple of their length.
    pub misaligned_blocks: u64,
    /// Free blocks in which a page is in use.
    pub cut_blocks: u64,
    /// Large pages whose parts do not belong to them.
    pub broken_compounds: u64,
    /// Pages of the kernel's own that look like those of the page cache or of programs.
    pub typed_pages: u64,
}

impl Interventions {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.misaligned_blocks + self.cut_blocks + self.broken_compounds + self.typed_pages
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.misaligned_blocks += other.misaligned_blocks;
        self.cut_blocks += other.cut_blocks;
        self.broken_compounds += other.broken_compounds;
        self.typed_pages += other.typed_pages;
    }
}

/// What is checked against what.
pub(crate) struct Strict<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) structs: &'a Structs<'a>,
    /// Length of the pages that structs lie in.
    pub(crate) page_size: u64,
}

impl Strict<'_> {
    /// The part of `run`, which the rules would leave out as `class`, that may go: it begins where `run` does, or is empty.
    pub(crate) fn confirm(&self, run: &Range<u64>, class: Class, count: &mut Interventions) -> Range<u64> {
        let Some(page) = self.structs.page(run.start) else { return run.start..run.start };
        let end = match class {
            Class::Free if self.rules.buddy == Some(page.mapcount) => self.free_end(run, count),
            Class::Cache | Class::PrivateCache | Class::User if self.rules.has_foreign_type(&page) => {
                count.typed_pages += 1;
                run.start
            }
            _ => self.compound_end(run, count),
        };
        run.start..end
    }

    /// The end of the free block: before the first page that is in use.
    fn free_end(&self, run: &Range<u64>, count: &mut Interventions) -> u64 {
        if !run.start.is_multiple_of(run.end - run.start) {
            count.misaligned_blocks += 1;
            return run.start;
        }
        // A free block lies within its section.
        let end = (run.start + 1..run.end).find(|pfn| !self.is_inside_free(*pfn));
        count.cut_blocks += u64::from(end.is_some());
        end.unwrap_or(run.end)
    }

    /// Whether the page may lie inside a free block.
    fn is_inside_free(&self, pfn: u64) -> bool {
        let fields = self.structs.fields();
        self.structs.bytes(pfn).is_some_and(|bytes| {
            let page = fields.page(bytes);
            fields.refcount(bytes) == 0
                && page.mapcount == u32::MAX
                && page.flags & (self.rules.lru | self.rules.head) == 0
        })
    }

    /// The end of the large page: of its first page alone if others do not say that they belong to it.
    fn compound_end(&self, run: &Range<u64>, count: &mut Interventions) -> u64 {
        let within = run.start + 1..run.end.min(self.structs.frames().end);
        if within.is_empty() || self.tails_end(&within) == within.end {
            return run.end;
        }
        count.broken_compounds += 1;
        run.start + 1
    }

    /// The first of `frames` that is no part of a large page, or their end.
    pub(crate) fn tails_end(&self, frames: &Range<u64>) -> u64 {
        if self.structs.fields().head.is_none() {
            return frames.end;
        }
        frames.clone().find(|pfn| !self.is_tail(*pfn)).unwrap_or(frames.end)
    }

    fn is_tail(&self, pfn: u64) -> bool {
        // Where the kernel saves the structs of hugetlbfs (HVO), all pages of them behind the first are the first again:
        // at their beginnings stands a copy of the head.
        self.structs.gva_of(pfn).is_multiple_of(self.page_size)
            || self.structs.page(pfn).is_some_and(|page| page.head & 1 != 0)
    }
}
