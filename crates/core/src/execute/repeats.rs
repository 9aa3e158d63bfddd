//! Pages that repeat another page of their group: they are packed and stored once.
//!
//! Guests are full of them: memory that is poisoned when it is freed, tables in their first state, caches of caches.

use crate::pages::StoredPage;

/// log2 of the number of pages that are remembered.
const SLOT_BITS: u32 = 8;
/// Words of a page that its slot is found by.
const SAMPLES: usize = 16;

/// The pages of a group, and where in their batch they are stored.
pub(super) struct Repeats<'m> {
    group: u64,
    slots: [Option<(&'m [u8], StoredPage)>; 1 << SLOT_BITS],
}

impl<'m> Repeats<'m> {
    pub(super) fn new() -> Self {
        Self { group: 0, slots: [None; 1 << SLOT_BITS] }
    }

    /// Where the same page of this group is stored already, or else the place to remember where this one is.
    pub(super) fn find(
        &mut self,
        group: u64,
        page: &'m [u8],
    ) -> Result<StoredPage, &mut Option<(&'m [u8], StoredPage)>> {
        if self.group != group {
            *self = Self { group, ..Self::new() };
        }
        let slot = &mut self.slots[slot_of(page)];
        match slot {
            Some((other, stored)) if *other == page => Ok(*stored),
            _ => Err(slot),
        }
    }
}

/// Pages that differ may have the same slot; the last one is remembered.
fn slot_of(page: &[u8]) -> usize {
    let step = (page.len() / SAMPLES).max(size_of::<u64>());
    let words =
        page.chunks(step).filter_map(|chunk| chunk.first_chunk()).map(|word| u64::from_le_bytes(*word));
    let mixed =
        words.fold(0, |mixed: u64, word| (mixed.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    usize::try_from(mixed >> (u64::BITS - SLOT_BITS)).unwrap_or(0)
}
