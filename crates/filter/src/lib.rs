//! Dump levels: which pages of a guest are worth keeping, found with nothing but its memory and its VMCOREINFO.
//!
//! ```text
//! Kernel ──► Filter ──► Selection ──► Machine, its memory without the pages that are left out
//!            keys,      a bit for each page, a report
//!            model
//! ```
//!
//! A Linux kernel has a `struct page` for each page frame, which tells what the page is used for. VMCOREINFO tells where these
//! structs lie (`model.rs`) and what their fields mean (`keys.rs`); a decision table (`classify.rs`) does the rest. All
//! that an architecture has to give is the way from a virtual address to a physical one ([`vmcore_core::KernelSpace`]).
//!
//! What cannot be decided is kept, and reported. On a guest that stands still the selection is makedumpfile's, page by page, but for
//! its defects (`spec/filter.md` section 11). Zero pages are not looked for: the formats find them when they write, and store
//! none of them.
//!
//! ```
//! use vmcore_core::{DumpState, Error, Machine};
//! use vmcore_filter::{Filter, Level, ScanOptions};
//!
//! fn without_free_pages(machine: &mut Machine) -> Result<(), Error> {
//!     let filter = Filter::new(&machine.kernel()?, Level::ZERO.with(Level::FREE))?;
//!     let options = ScanOptions { threads: 2, ..ScanOptions::default() };
//!     let selection = filter.scan(&machine.vcpus, options, &DumpState::default())?;
//!     println!("{} pages are kept", selection.report().kept_pages());
//!     selection.apply(machine);
//!     Ok(())
//! }
//! ```

#![forbid(unsafe_code)]

mod classify;
mod fields;
mod guard;
mod judge;
mod keys;
mod level;
mod memory;
mod model;
mod report;
mod scan;
mod set;
mod strict;
mod structs;
mod walk;

pub use classify::Class;
pub use level::Level;
pub use memory::FilteredMemory;
pub use report::{Lack, Report};
pub use scan::ScanOptions;
pub use set::PageSet;
pub use strict::Interventions;

use guard::Guarded;
use judge::Counts;
use keys::Keys;
use model::Model;
use scan::{Found, Scan};
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::{DumpState, Error, Gpa, Kernel, Machine, PhysMemory, RunState, Vcpu, pages};
use walk::Walker;

/// How the pages of one guest are told apart.
#[derive(Clone, Debug)]
pub struct Filter {
    kernel: Kernel,
    asked: Level,
    keys: Keys,
    model: Model,
    guarded: Vec<Guarded>,
}

impl Filter {
    /// Looks up what VMCOREINFO says of `struct page`, and finds the structs.
    ///
    /// It reads a few pages of the guest, which may run.
    ///
    /// # Errors
    /// [`Error::NoKey`] and [`Error::Unsupported`] for a guest that cannot be analyzed, [`Error::TooLarge`] for more memory than any
    /// guest has, and errors of reading.
    pub fn new(kernel: &Kernel, level: Level) -> Result<Self, Error> {
        if kernel.memory().is_sequential() {
            return Err(Error::Unsupported {
                what: "telling pages apart",
                found: "memory that can be read only once".to_owned(),
            });
        }
        let mut keys = Keys::read(kernel.info(), kernel.endianness(), level)?;
        let ram = ram(kernel, &keys);
        let model = Model::find(kernel, &keys, &mut Walker::new(kernel), &ram)?;
        if keys.rules.free_orders == 0 {
            keys.rules.free_orders = u64::from(model.block_shift) + 1;
        }
        Ok(Self { kernel: kernel.clone(), asked: level, keys, model, guarded: Vec::new() })
    }

    /// The level without the bits for which VMCOREINFO says too little.
    #[must_use]
    pub fn effective(&self) -> Level {
        self.keys.rules.level
    }

    /// Keeps `len` bytes at `gpa` whatever their pages are; `what` names them, as in `VMCOREINFO`.
    pub fn keep(&mut self, what: &'static str, gpa: Gpa, len: u64) {
        self.guarded.push(Guarded { what, range: gpa.0..gpa.0.saturating_add(len) });
    }

    /// Judges all pages.
    ///
    /// The result does not depend on the number of threads. `vcpus` may be empty; the places where they stand are kept.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and errors of reading if the source itself is gone.
    pub fn scan(&self, vcpus: &[Vcpu], options: ScanOptions, state: &DumpState) -> Result<Selection, Error> {
        let ram = ram(&self.kernel, &self.keys);
        let pages = ram.iter().map(|range| range.end - range.start).sum();
        let mut found = if self.keys.is_needed {
            let Self { kernel, keys, model, .. } = self;
            let ScanOptions { threads, strict, .. } = options;
            Scan { kernel, keys, model, ram: &ram, strict, state }.run(threads)?
        } else {
            Found::nothing(pages)
        };
        let read = found.read.drain(..).map(|(what, range)| Guarded { what, range });
        let mut guarded: Vec<(&'static str, u64)> = Vec::new();
        let own = guard::of_kernel(&self.kernel, vcpus)?;
        for Guarded { what, range } in self.guarded.iter().cloned().chain(own).chain(read) {
            let page_shift = self.keys.page_shift;
            let frames = range.start >> page_shift..range.end.div_ceil(1 << page_shift);
            let count = found.removed.remove(frames);
            match guarded.iter_mut().find(|(name, _)| *name == what) {
                Some((_, sum)) => *sum += count,
                None => guarded.push((what, count)),
            }
        }
        guarded.retain(|(_, count)| *count > 0);
        let before = Before { memory: &**self.kernel.memory(), page_shift: self.keys.page_shift };
        let bridged = bridge(&mut found.removed, &ram, options.min_gap, |pfn| !before.contains(pfn));
        let removed_before = before.count_but(&found.removed, &ram);
        let Counts { removed, unreadable, bad_orders, interventions } = found.counts;
        let report = Report {
            asked: self.asked,
            effective: self.effective(),
            lacks: self.keys.lacks.clone(),
            model: self.model.name(),
            page_size: 1 << self.keys.page_shift,
            pages,
            removed: Class::ALL.map(|class| (class, removed[class.index()])),
            sections: found.sections.0,
            absent_sections: found.sections.1,
            without_struct: pages - found.judged,
            unreadable_structs: unreadable,
            bad_orders,
            interventions,
            guarded,
            bridged,
            removed_before,
        };
        Ok(Selection { removed: Arc::new(found.removed), page_shift: self.keys.page_shift, report })
    }
}

/// What the dump that a guest was read from had left out.
struct Before<'a> {
    memory: &'a dyn PhysMemory,
    page_shift: u32,
}

impl Before<'_> {
    fn contains(&self, pfn: u64) -> bool {
        let is_excluded = || self.memory.run_at(Gpa(pfn << self.page_shift), 1).state == RunState::Excluded;
        self.memory.has_excluded() && is_excluded()
    }

    /// How many frames of `ram` it holds, but for those of `removed`.
    fn count_but(&self, removed: &PageSet, ram: &[Range<u64>]) -> u64 {
        let mut count = 0;
        for range in ram.iter().filter(|_| self.memory.has_excluded()) {
            let mut at = range.start;
            while at < range.end {
                let (is_removed, len) = removed.run(at, range.end - at);
                let run = self.memory.run_at(Gpa(at << self.page_shift), len << self.page_shift);
                // A page of which a part is there is there.
                let len = (run.len >> self.page_shift).clamp(1, len);
                let is_before = run.state == RunState::Excluded && run.len >> self.page_shift > 0;
                count += if is_before && !is_removed { len } else { 0 };
                at += len;
            }
        }
        count
    }
}

/// Takes runs of fewer than `min_gap` frames out of the set that lie between frames of RAM that are not in it, if they begin with
/// one that `is_there`. Tells how many frames they were.
fn bridge(removed: &mut PageSet, ram: &[Range<u64>], min_gap: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let mut count = 0;
    for range in ram {
        let mut at = range.start;
        while at < range.end {
            let (is_removed, len) = removed.run(at, range.end - at);
            let next = at + len;
            if is_removed && len < min_gap && at > range.start && next < range.end && is_there(at) {
                count += removed.remove(at..next);
            }
            at = next;
        }
    }
    count
}

/// The page frames of RAM.
fn ram(kernel: &Kernel, keys: &Keys) -> Vec<Range<u64>> {
    pages::frames_of(kernel.memory().regions(), 1 << keys.page_shift)
}

/// Which pages of a guest a dump leaves out.
#[derive(Clone, Debug)]
pub struct Selection {
    removed: Arc<PageSet>,
    page_shift: u32,
    report: Report,
}

impl Selection {
    /// What was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The page frames that are left out.
    #[must_use]
    pub fn removed(&self) -> &PageSet {
        &self.removed
    }

    /// This memory without the pages that are left out.
    #[must_use]
    pub fn filtered(&self, memory: &Arc<dyn PhysMemory>) -> FilteredMemory {
        FilteredMemory::new(Arc::clone(memory), Arc::clone(&self.removed), self.page_shift)
    }

    /// Takes the pages out of the machine's memory ([`FilteredMemory`]), and lets its header state the level.
    ///
    /// What a dump that the machine was read from left out already stays left out, and stated.
    pub fn apply(&self, machine: &mut Machine) {
        machine.memory = Arc::new(self.filtered(&machine.memory));
        machine.header.dump_level |= self.report.effective.number();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use set::Bits;

    #[test]
    fn small_gaps_are_bridged_where_that_saves_a_segment() {
        let mut removed = PageSet::new(6);
        for frames in [0..3, 10..12, 20..24, 30..33, 62..64, 64..66, 70..72, 90..92] {
            let mut bits = Bits::new(frames.start, 6);
            bits.insert(frames);
            removed.add(bits);
        }
        // The first and the last run lie at a border of RAM, one is too long, one crosses blocks, one was left out before.
        assert_eq!(bridge(&mut removed, &[0..40, 50..92], 4, |pfn| pfn != 70), 2 + 3);
        let left: Vec<u64> = (0..100).filter(|pfn| removed.contains(*pfn)).collect();
        assert_eq!(left, [0, 1, 2, 20, 21, 22, 23, 62, 63, 64, 65, 70, 71, 90, 91]);
        assert_eq!(bridge(&mut removed, &[0..40, 50..92], 0, |_| true), 0);
    }
}
