//! What a page is, by its `struct page`: the decision table, as a pure function.
//!
//! Source: `spec/filter.md` section 4; makedumpfile 1.7.9 `makedumpfile.c` (`__exclude_unnecessary_pages`).

use crate::Level;
use crate::fields::{Page, Second};

/// Why a page is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// In the page cache.
    Cache,
    /// In the page cache, with data of the file system's own.
    PrivateCache,
    /// Memory of programs: anonymous, or of hugetlbfs.
    User,
    /// To be given away by the kernel's allocator, or not yet accepted from the hypervisor.
    Free,
    /// Broken: an error of the hardware was reported. No bit of a level keeps it.
    Poisoned,
    /// Given back to the hypervisor: by a balloon, or unplugged. No bit of a level keeps it.
    Offline,
}

impl Class {
    /// All classes, in the order of the level's bits.
    pub const ALL: [Self; 6] =
        [Self::Cache, Self::PrivateCache, Self::User, Self::Free, Self::Poisoned, Self::Offline];

    /// Its name, as in `private cache`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::PrivateCache => "private cache",
            Self::User => "user",
            Self::Free => "free",
            Self::Poisoned => "hwpoison",
            Self::Offline => "offline",
        }
    }

    /// Its place in [`Class::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// By which flags and values classes are told apart. A mask of 0, and `None`, match no page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// The level that is in effect.
    pub(crate) level: Level,
    /// Masks of `flags`.
    pub(crate) lru: u64,
    pub(crate) private: u64,
    pub(crate) slab_flag: u64,
    pub(crate) hwpoison: u64,
    pub(crate) head: u64,
    /// All of these bits: a page of the swap cache that belongs to shared memory or to a program.
    pub(crate) swap_cache: u64,
    /// Values of `_mapcount`.
    pub(crate) buddy: Option<u32>,
    pub(crate) slab: Option<u32>,
    pub(crate) offline: Option<u32>,
    pub(crate) unaccepted: Option<u32>,
    pub(crate) hugetlb: Option<u32>,
    /// One more than the largest order of a free block: `LENGTH(zone.free_area)`.
    pub(crate) free_orders: u64,
}

/// What becomes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is kept.
    Keep,
    /// It is called the first of a free block that is larger than any can be, and kept.
    KeepBadOrder,
    /// It is left out, with all `1 << order` pages that begin with it.
    Remove {
        class: Class,
        order: u32,
        /// Whether a larger order was stated than can be.
        is_bad_order: bool,
    },
}

impl Rules {
    /// Whether the page is in use by the kernel's slab allocator, which lends fields of the struct.
    #[inline]
    fn is_slab(&self, page: &Page) -> bool {
        self.slab == Some(page.mapcount) || page.flags & self.slab_flag != 0
    }

    /// Judges page `pfn`. `second` gives the struct of the page behind it, if that can be read.
    #[inline]
    pub(crate) fn judge(&self, pfn: u64, page: &Page, second: impl FnOnce() -> Option<Second>) -> Verdict {
        if page.head & 1 != 0 {
            return Verdict::Keep;
        }
        let is_slab = self.is_slab(page);
        if self.level.has(Level::FREE) {
            if self.buddy == Some(page.mapcount) && !is_slab {
                let order = u32::try_from(page.private).ok().filter(|order| *order < u64::BITS);
                let order = order.filter(|_| page.private < self.free_orders);
                let free = |order| Verdict::Remove { class: Class::Free, order, is_bad_order: false };
                return order.map_or(Verdict::KeepBadOrder, free);
            }
            if self.unaccepted == Some(page.mapcount) {
                let order = u32::try_from(self.free_orders.saturating_sub(1)).unwrap_or(0).min(u64::BITS - 1);
                return Verdict::Remove { class: Class::Free, order, is_bad_order: false };
            }
        }
        let second = if page.flags & self.head != 0 { second() } else { None };
        let Some(class) = self.class_in_use(page, is_slab, second) else { return Verdict::Keep };
        let stated = second.map_or(0, |second| second.order);
        let order = u32::try_from(stated).ok().filter(|order| {
            let len = 1_u64.checked_shl(*order);
            len.is_some_and(|len| pfn.is_multiple_of(len))
        });
        Verdict::Remove { class, order: order.unwrap_or(0), is_bad_order: order.is_none() }
    }

    /// The class of a page that is not free. `second` is that of a compound page.
    #[inline]
    fn class_in_use(&self, page: &Page, is_slab: bool, second: Option<Second>) -> Option<Class> {
        let has_all = |mask: u64| mask != 0 && page.flags & mask == mask;
        let is_anonymous = page.mapping & 1 != 0 && !is_slab;
        let is_cache = (has_all(self.lru) || has_all(self.swap_cache)) && !is_anonymous;
        let is_private = has_all(self.private);
        let is_hugetlb = second
            .is_some_and(|second| self.hugetlb.map_or(second.is_hugetlb, |value| value == page.mapcount));
        let any_cache = self.level.has(Level::PRIVATE_CACHE);
        if is_cache && !is_private && (any_cache || self.level.has(Level::CACHE)) {
            Some(Class::Cache)
        } else if is_cache && any_cache {
            Some(Class::PrivateCache)
        } else if self.level.has(Level::USER) && (is_anonymous || is_hugetlb) {
            Some(Class::User)
        } else if has_all(self.hwpoison) {
            Some(Class::Poisoned)
        } else if self.offline == Some(page.mapcount) && !is_slab {
            Some(Class::Offline)
        } else {
            None
        }
    }

    /// Whether the page has a type other than those that the rules know: the kernel's own, such as a page table.
    ///
    /// Types are negative numbers far from those that count mappings.
    pub(crate) fn has_foreign_type(&self, page: &Page) -> bool {
        let known = [self.buddy, self.offline, self.hugetlb, self.unaccepted];
        page.mapcount >= 0xf000_0000 && page.mapcount != u32::MAX && !known.contains(&Some(page.mapcount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LRU: u64 = 1 << 4;
    const SLAB: u64 = 1 << 9;
    const SWAP_CACHE: u64 = 1 << 10;
    const PRIVATE: u64 = 1 << 13;
    const HEAD: u64 = 1 << 16;
    const SWAP_BACKED: u64 = 1 << 19;
    const POISON: u64 = 1 << 23;
    const BUDDY: u32 = 0xffff_ff7f;
    const OFFLINE: u32 = 0xffff_feff;
    const UNACCEPTED: u32 = 0xf700_0000;
    const ANON: u64 = 0xffff_8880_0000_0001;
    const KSM: u64 = 0xffff_8880_0000_0003;
    const INODE: u64 = 0xffff_8880_0000_0010;

    fn rules(level: u32) -> Rules {
        Rules {
            level: Level::new(level).unwrap(),
            lru: LRU,
            private: PRIVATE,
            slab_flag: SLAB,
            hwpoison: POISON,
            head: HEAD,
            swap_cache: SWAP_CACHE | SWAP_BACKED,
            buddy: Some(BUDDY),
            offline: Some(OFFLINE),
            unaccepted: Some(UNACCEPTED),
            free_orders: 11,
            ..Rules::default()
        }
    }

    fn page(flags: u64, mapping: u64) -> Page {
        Page { flags, mapping, mapcount: u32::MAX, ..Page::default() }
    }

    fn typed(mapcount: u32, private: u64) -> Page {
        Page { mapcount, private, ..Page::default() }
    }

    /// The class of `page` at each of the levels.
    fn check(page: Page, second: Option<Second>, expected: &[(u32, Option<Class>)]) {
        for (level, class) in expected {
            let verdict = rules(*level).judge(0, &page, || second);
            let found = if let Verdict::Remove { class, .. } = verdict { Some(class) } else { None };
            assert_eq!(found, *class, "level {level}: {page:x?}");
        }
    }

    #[test]
    fn page_cache() {
        use Class::{Cache, PrivateCache};
        let rows = [(0, None), (1, None), (2, Some(Cache)), (4, Some(Cache)), (24, None), (31, Some(Cache))];
        check(page(LRU, INODE), None, &rows);
        // Truncated, but still on the list.
        check(page(LRU, 0), None, &rows);
        // Shared memory, in the swap cache.
        check(page(SWAP_CACHE | SWAP_BACKED, INODE), None, &rows);
        check(page(SWAP_CACHE, INODE), None, &[(31, None)]);
        let private = [(2, None), (4, Some(PrivateCache)), (8, None), (6, Some(PrivateCache))];
        check(page(LRU | PRIVATE, INODE), None, &private);
    }

    #[test]
    fn user_pages() {
        let rows =
            [(2, None), (4, None), (7, None), (16, None), (8, Some(Class::User)), (31, Some(Class::User))];
        for mapping in [ANON, KSM] {
            check(page(0, mapping), None, &rows);
            check(page(LRU | PRIVATE, mapping), None, &rows);
            // Anonymous wins over the swap cache.
            check(page(LRU | SWAP_CACHE | SWAP_BACKED, mapping), None, &rows);
        }
        let hugetlb = Some(Second { order: 9, is_hugetlb: true });
        check(page(HEAD, INODE), hugetlb, &rows);
        check(page(0, INODE), hugetlb, &[(31, None)]);
        // Its second struct cannot be read.
        check(page(HEAD, INODE), None, &[(31, None)]);
    }

    #[test]
    fn slab_is_never_left_out() {
        check(page(SLAB, ANON), None, &[(31, None)]);
        check(Page { flags: SLAB, ..typed(BUDDY, 3) }, None, &[(31, None)]);
        check(Page { flags: SLAB, ..typed(OFFLINE, 0) }, None, &[(31, None)]);
        let by_type = Rules { slab_flag: 0, slab: Some(0xf500_0000), ..rules(31) };
        let slab = Page { mapping: ANON, ..typed(0xf500_0000, 0) };
        assert_eq!(by_type.judge(0, &slab, || None), Verdict::Keep);
        // Bit 7 is PG_waiters where slab is a type: makedumpfile 1.7.9 takes such a page for slab (section 11, M1).
        let waiters = Page { flags: 1 << 7 | LRU, mapping: ANON, ..typed(u32::MAX, 0) };
        let removed = Verdict::Remove { class: Class::User, order: 0, is_bad_order: false };
        assert_eq!(by_type.judge(0, &waiters, || None), removed);
        let cache_only = Rules { level: Level::CACHE, ..by_type };
        assert_eq!(cache_only.judge(0, &waiters, || None), Verdict::Keep);
    }

    #[test]
    fn free_pages() {
        let rows = [(0, None), (15, None), (16, Some(Class::Free)), (31, Some(Class::Free))];
        check(typed(BUDDY, 3), None, &rows);
        check(typed(UNACCEPTED, 0), None, &rows);
        // Free comes before all else: a broken page in a free block.
        let poisoned = Page { flags: POISON, ..typed(BUDDY, 0) };
        check(poisoned, None, &[(16, Some(Class::Free)), (8, Some(Class::Poisoned))]);
        // In the list of a CPU: no type.
        check(typed(u32::MAX, 0), None, &[(31, None)]);
    }

    #[test]
    fn broken_and_offline_pages_have_no_bit() {
        for level in 0..32 {
            check(page(POISON, INODE), None, &[(level, Some(Class::Poisoned))]);
            check(typed(OFFLINE, 0), None, &[(level, Some(Class::Offline))]);
        }
        // A broken page of the page cache counts as cache, if that goes.
        check(page(POISON | LRU, INODE), None, &[(2, Some(Class::Cache)), (8, Some(Class::Poisoned))]);
    }

    #[test]
    fn what_matches_nothing_is_kept() {
        // Reserved, a page table, a tail, a page of a driver.
        for page in [page(1 << 12, 0), typed(0xffff_fdff, 0), typed(0, 0), page(PRIVATE, 0)] {
            check(page, None, &[(31, None)]);
        }
        check(Page { head: 0xffff_ea00_0000_0001, ..page(LRU, ANON) }, None, &[(31, None)]);
        check(Page { head: 0xffff_ea00_0000_0001, ..typed(BUDDY, 3) }, None, &[(31, None)]);
    }

    fn order(pfn: u64, page: Page, second: Option<Second>) -> (Verdict, u32) {
        let verdict = rules(31).judge(pfn, &page, || second);
        let order = if let Verdict::Remove { order, .. } = verdict { order } else { u32::MAX };
        (verdict, order)
    }

    #[test]
    fn orders() {
        for (private, expected) in [(0, 0), (10, 10), (11, u32::MAX), (64, u32::MAX), (u64::MAX, u32::MAX)] {
            let (verdict, order) = order(0, typed(BUDDY, private), None);
            assert_eq!(order, expected);
            assert_eq!(verdict == Verdict::KeepBadOrder, expected == u32::MAX);
        }
        assert_eq!(order(0, typed(UNACCEPTED, 0), None).1, 10);
        let huge = page(HEAD | LRU, ANON);
        for (pfn, stated, expected) in
            [(512, 9, 9), (1 << 18, 18, 18), (256, 9, 0), (0, 63, 63), (0, 64, 0), (0, u64::MAX, 0)]
        {
            let (verdict, order) = order(pfn, huge, Some(Second { order: stated, is_hugetlb: false }));
            assert_eq!(order, expected, "{pfn} {stated}");
            let is_bad = u64::from(expected) != stated;
            assert_eq!(verdict, Verdict::Remove { class: Class::User, order, is_bad_order: is_bad });
        }
        // No order without the mark of a head.
        assert_eq!(order(0, page(LRU, ANON), Some(Second { order: 9, is_hugetlb: false })).1, 0);
    }

    #[test]
    fn hugetlb_by_type() {
        let rules = Rules { hugetlb: Some(0xf400_0000), ..rules(8) };
        let hugetlb = Page { flags: HEAD, ..typed(0xf400_0000, 0) };
        let second = Second { order: 9, is_hugetlb: false };
        let removed = Verdict::Remove { class: Class::User, order: 9, is_bad_order: false };
        assert_eq!(rules.judge(512, &hugetlb, || Some(second)), removed);
        let other = Page { mapcount: u32::MAX, ..hugetlb };
        assert_eq!(rules.judge(512, &other, || Some(second)), Verdict::Keep);
    }

    #[test]
    fn foreign_types() {
        let rules = Rules { hugetlb: Some(0xf400_0000), ..rules(31) };
        for (mapcount, expected) in [
            (0xf200_0000, true),
            (0xffff_fdff, true),
            (0xf400_0000, false),
            (BUDDY, false),
            (u32::MAX, false),
            (0, false),
            (7, false),
        ] {
            assert_eq!(rules.has_foreign_type(&typed(mapcount, 0)), expected, "{mapcount:#x}");
        }
    }
}
