//! One block's pages, judged in order: what goes, and what begins here and goes on behind it.

use crate::classify::{Class, Rules, Verdict};
use crate::set::Bits;
use crate::strict::{Interventions, Strict};
use crate::structs::Structs;
use std::ops::Range;

/// Consecutive pages that are left out as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) frames: Range<u64>,
    pub(crate) class: Class,
}

/// What became of the pages of a block.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The pages that are left out.
    pub(crate) removed: Bits,
    pub(crate) counts: Counts,
    /// The last run of pages, if it ends behind the block.
    pub(crate) carried: Option<Removed>,
    /// In strict mode: the first page of the block's RAM that is no part of a large page, or the end of the block.
    pub(crate) tails_end: u64,
}

/// Pages of RAM by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Left out, in the order of [`Class::ALL`].
    pub(crate) removed: [u64; Class::ALL.len()],
    /// Kept, because their structs could not be read.
    pub(crate) unreadable: u64,
    /// Heads of blocks with an order that cannot be.
    pub(crate) bad_orders: u64,
    pub(crate) interventions: Interventions,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.removed.iter_mut().zip(other.removed).for_each(|(sum, count)| *sum += count);
        self.unreadable += other.unreadable;
        self.bad_orders += other.bad_orders;
        self.interventions.add(&other.interventions);
    }
}

impl Judged {
    /// Of a block none of whose pages is judged yet.
    pub(crate) fn new(block: &Range<u64>, block_shift: u32) -> Self {
        Self {
            removed: Bits::new(block.start, block_shift),
            counts: Counts::default(),
            carried: None,
            tails_end: block.end,
        }
    }

    /// Leaves out `frames`, which are RAM of the block.
    pub(crate) fn remove(&mut self, frames: Range<u64>, class: Class) {
        self.counts.removed[class.index()] += frames.end - frames.start;
        self.removed.insert(frames);
    }

    /// Judges the pages in `ram`, the RAM of the block. `before` are pages that an earlier block leaves out: those of them that
    /// lie here go too.
    pub(crate) fn judge(
        &mut self,
        ram: impl Iterator<Item = Range<u64>>,
        block_end: u64,
        rules: &Rules,
        structs: &Structs<'_>,
        strict: Option<&Strict<'_>>,
        before: Option<Removed>,
    ) {
        let mut run = before.unwrap_or(Removed { frames: 0..0, class: Class::Free });
        for range in ram {
            let mut pfn = range.start;
            while pfn < range.end {
                if pfn < run.frames.end {
                    let end = run.frames.end.min(range.end);
                    self.remove(pfn..end, run.class);
                    pfn = end;
                    continue;
                }
                let Some(page) = structs.page(pfn) else {
                    self.counts.unreadable += 1;
                    pfn += 1;
                    continue;
                };
                match rules.judge(pfn, &page, || structs.second(pfn + 1)) {
                    Verdict::Remove { class, order, is_bad_order } => {
                        self.counts.bad_orders += u64::from(is_bad_order);
                        let frames = pfn..pfn.saturating_add(1 << order);
                        let confirm = |strict: &Strict<'_>| {
                            strict.confirm(&frames, class, &mut self.counts.interventions)
                        };
                        run = Removed { frames: strict.map_or(frames.clone(), confirm), class };
                        // What was not confirmed is kept.
                        pfn += u64::from(run.frames.is_empty());
                    }
                    verdict => {
                        self.counts.bad_orders += u64::from(verdict == Verdict::KeepBadOrder);
                        pfn += 1;
                    }
                }
            }
        }
        self.carried = (run.frames.end > block_end).then_some(run);
    }
}
