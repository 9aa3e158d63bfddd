//! All pages of a guest, judged: blocks in parallel, the results put together in order.
//!
//! Blocks do not depend on each other, but for runs of pages that begin in one and end in another (a hugetlb page of 1 GiB takes
//! eight sections). These are applied when all blocks are done, in ascending order, so that the number of threads changes nothing.

use crate::judge::{Counts, Judged, Removed};
use crate::keys::Keys;
use crate::model::{Block, Model, clip};
use crate::set::PageSet;
use crate::strict::Strict;
use crate::structs::Structs;
use crate::walk::Walker;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use vmcore_core::parallel::{in_threads, lock};
use vmcore_core::{DumpState, Error, Kernel};

/// How a guest is scanned.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanOptions {
    /// Threads that read and judge.
    pub threads: usize,
    /// The guest runs: what its `struct page`s say is checked, because they may change while they are read.
    pub strict: bool,
    /// Fewer pages than this are not left out between pages that are kept: a gap costs more than they do in a format that holds
    /// memory in segments. makedumpfile has 256 for ELF cores (`spec/filter.md` section 10.2). 0: no such bound.
    pub min_gap: u64,
}

/// What is scanned.
pub(crate) struct Scan<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) keys: &'a Keys,
    pub(crate) model: &'a Model,
    /// Page frames of RAM: ascending, merged.
    pub(crate) ram: &'a [Range<u64>],
    pub(crate) strict: bool,
    pub(crate) state: &'a DumpState,
}

/// What a scan has found.
pub(crate) struct Found {
    pub(crate) removed: PageSet,
    pub(crate) counts: Counts,
    /// Sections with structs, and those without.
    pub(crate) sections: (u64, u64),
    /// Pages of RAM in sections with structs.
    pub(crate) judged: u64,
    /// What the scan itself has read: guest physical addresses and what lies there.
    pub(crate) read: Vec<(&'static str, Range<u64>)>,
}

impl Found {
    /// No page is left out: none had to be looked at.
    pub(crate) fn nothing(pages: u64) -> Self {
        Self {
            removed: PageSet::new(0),
            counts: Counts::default(),
            sections: (0, 0),
            judged: pages,
            read: Vec::new(),
        }
    }
}

impl Scan<'_> {
    pub(crate) fn run(&self, threads: usize) -> Result<Found, Error> {
        let mut walker = Walker::new(self.kernel);
        let blocks = self.model.blocks(&mut walker, self.ram)?;
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let work = |_| -> Result<Worker<'_>, Error> {
            let walker = Walker::new(self.kernel);
            let mut worker = Worker { scan: self, walker, buffer: Vec::new(), structs: Vec::new() };
            let mut done = Vec::new();
            while let Some((index, block)) = take_next(&next, &blocks.blocks) {
                self.state.check()?;
                done.push((index, worker.judge(block, None)?));
            }
            lock(&results).append(&mut done);
            Ok(worker)
        };
        let workers = in_threads(threads.clamp(1, blocks.blocks.len().max(1)), work);
        let mut workers = workers.into_iter().collect::<Result<Vec<_>, Error>>()?;
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(index, _)| *index);
        let results = results.into_iter().map(|(_, judged)| judged);
        let (removed, counts) = self.join(blocks.blocks.iter().zip(results), &mut workers[0])?;
        let ram = blocks.blocks.iter().flat_map(|block| clip(self.ram, &block.frames));
        let judged = ram.map(|range| range.end - range.start).sum();
        let mut read = Vec::new();
        let mut walkers = vec![walker];
        for worker in workers {
            read.extend(worker.structs.into_iter().map(|range| ("struct pages", range)));
            walkers.push(worker.walker);
        }
        for (tables, data) in walkers.into_iter().map(Walker::touched) {
            read.extend(tables.into_iter().map(|range| ("page tables", range)));
            read.extend(data.into_iter().map(|range| ("the memory model", range)));
        }
        Ok(Found { removed, counts, sections: (blocks.blocks.len() as u64, blocks.absent), judged, read })
    }

    /// Puts the results of the blocks together, in ascending order.
    fn join<'b>(
        &self,
        results: impl Iterator<Item = (&'b Block, Judged)>,
        worker: &mut Worker<'_>,
    ) -> Result<(PageSet, Counts), Error> {
        let mut removed = PageSet::new(self.model.block_shift);
        let mut counts = Counts::default();
        let mut carried: Option<Removed> = None;
        for (block, mut judged) in results {
            let frames = &block.frames;
            let mut before = carried.take().filter(|run| run.frames.end > frames.start);
            if let Some(run) = &before
                && self.strict
                && judged.tails_end < run.frames.end.min(frames.end)
            {
                counts.interventions.broken_compounds += 1;
                before = None;
            }
            if let Some(run) = before {
                if run.frames.end < frames.end {
                    judged = worker.judge(block, Some(run))?;
                } else {
                    judged = Judged::new(frames, self.model.block_shift);
                    clip(self.ram, frames).for_each(|range| judged.remove(range, run.class));
                    judged.carried = Some(run);
                }
            }
            carried = judged.carried;
            counts.add(&judged.counts);
            removed.add(judged.removed);
        }
        Ok((removed, counts))
    }
}

fn take_next<'a>(next: &AtomicUsize, blocks: &'a [Block]) -> Option<(usize, &'a Block)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, blocks.get(index)?))
}

/// One thread of a scan.
struct Worker<'a> {
    scan: &'a Scan<'a>,
    walker: Walker<'a>,
    buffer: Vec<u8>,
    /// Where the structs lay: guest physical addresses.
    structs: Vec<Range<u64>>,
}

impl Worker<'_> {
    /// Judges the pages of a block, but for those of `before`, which an earlier block leaves out.
    fn judge(&mut self, block: &Block, before: Option<Removed>) -> Result<Judged, Error> {
        let Scan { keys, model, ram, .. } = self.scan;
        let mut judged = Judged::new(&block.frames, model.block_shift);
        let mut parts = clip(ram, &block.frames);
        let Some(first) = parts.next() else { return Ok(judged) };
        let frames = first.start..parts.last().map_or(first.end, |last| last.end);
        let structs = Structs::read(
            &self.walker,
            &**self.scan.kernel.memory(),
            &keys.fields,
            (frames.clone(), model.struct_of(block, frames.start)),
            &mut self.buffer,
            &mut self.structs,
        )?;
        let strict = Strict { rules: &keys.rules, structs: &structs, page_size: 1 << keys.page_shift };
        let strict = Some(&strict).filter(|_| self.scan.strict);
        if let Some(strict) = strict {
            let mut ends = clip(ram, &block.frames).map(|range| (strict.tails_end(&range), range.end));
            let first = ends.find(|(tails_end, end)| tails_end < end);
            judged.tails_end = first.map_or(block.frames.end, |(tails_end, _)| tails_end);
        }
        let ram = clip(ram, &block.frames);
        judged.judge(ram, block.frames.end, &keys.rules, &structs, strict, before);
        Ok(judged)
    }
}
