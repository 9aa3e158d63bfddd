//! What a scan has found, for people and programs.

use crate::{Class, Interventions, Level};

/// A key that VMCOREINFO lacks, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The key, as in `NUMBER(PG_lru)`.
    pub key: String,
    /// The bits of the level that are off without it.
    pub bits: Level,
    /// What is kept without it, as a sentence without a full stop.
    pub effect: &'static str,
}

/// Which pages a [`crate::Selection`] leaves out, and which it keeps although the level says otherwise. Counts are of pages of RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The level that was asked for.
    pub asked: Level,
    /// The level that is in effect: what a dump states.
    pub effective: Level,
    /// What VMCOREINFO lacks.
    pub lacks: Vec<Lack>,
    /// The kernel's memory model, as in `SPARSEMEM_EXTREME`.
    pub model: &'static str,
    /// Length of a page in bytes.
    pub page_size: u64,
    /// All pages of RAM.
    pub pages: u64,
    /// Those that are left out, by their class, in the order of [`Class::ALL`]. Zero pages are found when they are written.
    pub removed: [(Class, u64); Class::ALL.len()],
    /// Sections of memory with `struct page`s that were looked at.
    pub sections: u64,
    /// Sections that hold RAM and have no `struct page`s, or whose record could not be read.
    pub absent_sections: u64,
    /// Pages that are kept because they have no `struct page`: firmware and devices, or sections that are absent.
    pub without_struct: u64,
    /// Pages that are kept because their `struct page` could not be read.
    pub unreadable_structs: u64,
    /// `struct page`s that state a length which cannot be.
    pub bad_orders: u64,
    /// What the checks for running guests have kept.
    pub interventions: Interventions,
    /// Pages that would have been left out but for what lies there. They are counted in `removed` too.
    pub guarded: Vec<(&'static str, u64)>,
    /// Pages that are kept because they are too few between others ([`crate::ScanOptions::min_gap`]). They are counted in `removed`
    /// too.
    pub bridged: u64,
    /// Pages that are not left out here, because the dump that the guest was read from had left them out already.
    pub removed_before: u64,
}

impl Report {
    /// How many pages are left out.
    #[must_use]
    pub fn removed_pages(&self) -> u64 {
        let judged: u64 = self.removed.iter().map(|(_, count)| count).sum();
        let guarded: u64 = self.guarded.iter().map(|(_, count)| count).sum();
        judged.saturating_sub(guarded).saturating_sub(self.bridged)
    }

    /// How many pages are kept.
    #[must_use]
    pub fn kept_pages(&self) -> u64 {
        self.pages.saturating_sub(self.removed_pages()).saturating_sub(self.removed_before)
    }

    /// What a user should know: each a sentence without a full stop. Empty if all is as it should be.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for lack in &self.lacks {
            remarks.push(format!("VMCOREINFO has no usable {}: {}", lack.key, lack.effect));
        }
        let kept = [
            (self.unreadable_structs, "the struct page cannot be read"),
            (self.interventions.total(), "struct pages changed while they were read"),
        ];
        for (count, why) in kept.into_iter().filter(|(count, _)| *count > 0) {
            remarks.push(format!("{} kept: {why}", pages(count)));
        }
        if self.bad_orders > 0 {
            let count = self.bad_orders;
            remarks.push(format!(
                "struct pages that state a length which cannot be: {count}; of each, at most the page itself is left out"
            ));
        }
        for (what, count) in &self.guarded {
            remarks.push(format!("{} kept although not marked as the kernel's own: {what}", pages(*count)));
        }
        // Such a guest does not exist: its struct pages are something else.
        if self.pages > 0 && self.kept_pages() == 0 {
            remarks.push("no page is left: the struct pages are not what VMCOREINFO says".to_owned());
        }
        remarks
    }
}

fn pages(count: u64) -> String {
    if count == 1 { "1 page is".to_owned() } else { format!("{count} pages are") }
}
