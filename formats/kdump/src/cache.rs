//! Expanded pages that may be needed again: bounded, shared by threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of pages that are kept.
const CACHE_LEN: u64 = 16 << 20;

/// A slot for each page frame number modulo their count; each has a lock of its own, and the newest page stays.
pub(crate) struct Cache {
    slots: Box<[Mutex<Slot>]>,
    /// The page behind the one that was put last.
    next: AtomicU64,
}

#[derive(Default)]
struct Slot {
    pfn: u64,
    /// Empty while there is no page.
    bytes: Box<[u8]>,
}

impl Cache {
    pub(crate) fn new(page_size: u64) -> Self {
        let count = CACHE_LEN / page_size.max(1);
        Self { slots: (0..count).map(|_| Mutex::default()).collect(), next: AtomicU64::new(u64::MAX) }
    }

    fn slot(&self, pfn: u64) -> Option<std::sync::MutexGuard<'_, Slot>> {
        let index = usize::try_from(pfn % self.slots.len() as u64).ok()?;
        Some(self.slots.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies the bytes of a page from `start` on; `false` if it is not here.
    pub(crate) fn get(&self, pfn: u64, start: usize, out: &mut [u8]) -> bool {
        let Some(slot) = self.slot(pfn).filter(|slot| slot.pfn == pfn) else { return false };
        let bytes = slot.bytes.get(start..).and_then(|rest| rest.get(..out.len()));
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }

    /// Keeps a page.
    pub(crate) fn put(&self, pfn: u64, page: &[u8]) {
        self.next.store(pfn.wrapping_add(1), Ordering::Relaxed);
        let Some(mut slot) = self.slot(pfn) else { return };
        slot.pfn = pfn;
        if slot.bytes.len() == page.len() {
            slot.bytes.copy_from_slice(page);
        } else {
            slot.bytes = page.into();
        }
    }

    /// Whether this is the page behind the one that was put last: somebody reads in order.
    pub(crate) fn is_next(&self, pfn: u64) -> bool {
        self.next.load(Ordering::Relaxed) == pfn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_page_of_a_slot_is_kept() {
        let cache = Cache::new(0x1000);
        let mut out = [0; 4];
        assert!(!cache.get(0, 0, &mut out));
        cache.put(7, &[1; 0x1000]);
        assert!(cache.get(7, 0xffc, &mut out) && !cache.get(7, 0xffd, &mut out) && out == [1; 4]);
        cache.put(7 + (CACHE_LEN >> 12), &[2; 0x1000]);
        assert!(!cache.get(7, 0, &mut out) && cache.is_next(8 + (CACHE_LEN >> 12)));
    }
}
