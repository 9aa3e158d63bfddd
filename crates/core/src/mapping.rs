//! Which guest virtual addresses stand for which guest physical ones.

use crate::{Error, Gpa, Gva};
use std::collections::BTreeMap;

/// Consecutive virtual addresses that stand for consecutive physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// First physical address.
    pub gpa: Gpa,
    /// First virtual address.
    pub gva: Gva,
    /// Length in bytes.
    pub len: u64,
}

/// The mappings of a guest, merged: two that overlap or touch in both spaces, at the same distance, are one.
///
/// QEMU merges by the same rule, but moves the virtual start of a mapping without its physical one when the later
/// part comes first (`spec/arch-notes.md` section 8); here the result does not depend on the order.
///
/// The list is bounded: hostile page tables end in [`Error::TooLarge`], not in all of the host's memory.
#[derive(Debug, Default)]
pub struct MappingList {
    /// Distance gva - gpa (mod 2^64) and first physical address, to one past the last physical address.
    ranges: BTreeMap<(u64, u64), u64>,
    /// The newest mapping, which grows while each next one continues it: a walk in ascending order touches the map once a
    /// run, not once a page.
    newest: Option<Mapping>,
}

impl MappingList {
    /// The most mappings that are kept: some 50 MiB of them. An x86_64 Linux guest has a few thousand, and 65,536 aliases
    /// of one page more where the kernel has `CONFIG_X86_ESPFIX64`.
    pub const MAX: usize = 1 << 20;

    /// Adds a mapping.
    ///
    /// # Errors
    /// [`Error::Range`] if the physical range passes 2^64, [`Error::TooLarge`] if the list is full.
    pub fn add(&mut self, mapping: Mapping) -> Result<(), Error> {
        let Mapping { gpa, gva, len } = mapping;
        gpa.checked_add(len).ok_or(Error::Range { what: "mapped memory", start: gpa.0, len })?;
        if let Some(newest) = &mut self.newest
            && newest.gpa.checked_add(newest.len) == Some(gpa)
            && newest.gva.checked_add(newest.len) == Some(gva)
        {
            newest.len += len;
            return Ok(());
        }
        if let Some(before) = self.newest.replace(mapping) {
            self.insert(before);
        }
        let found = self.ranges.len() as u64;
        if self.ranges.len() > Self::MAX {
            return Err(Error::TooLarge {
                what: "mappings of the guest's page tables",
                found,
                limit: Self::MAX as u64,
            });
        }
        Ok(())
    }

    fn insert(&mut self, mapping: Mapping) {
        let Mapping { gpa, gva, len } = mapping;
        let distance = gva.0.wrapping_sub(gpa.0);
        let (mut start, mut end) = (gpa.0, gpa.0 + len);
        let before = self.ranges.range((distance, 0)..=(distance, start)).next_back();
        if let Some(((_, first), last)) = before.filter(|(_, last)| **last >= start) {
            (start, end) = (*first, end.max(*last));
        }
        while let Some((key, last)) = self.ranges.range((distance, start)..=(distance, end)).next() {
            let key = *key;
            end = end.max(*last);
            self.ranges.remove(&key);
        }
        self.ranges.insert((distance, start), end);
    }

    /// The mappings, ascending by physical and then by virtual address.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Mapping> {
        if let Some(newest) = self.newest.take() {
            self.insert(newest);
        }
        let mapping = |((distance, start), end): ((u64, u64), u64)| Mapping {
            gpa: Gpa(start),
            gva: Gva(start.wrapping_add(distance)),
            len: end - start,
        };
        let mut mappings: Vec<Mapping> = self.ranges.into_iter().map(mapping).collect();
        mappings.sort_unstable();
        mappings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(rows: &[(u64, u64, u64)]) -> Vec<(u64, u64, u64)> {
        let mut list = MappingList::default();
        for (gva, gpa, len) in rows {
            list.add(Mapping { gva: Gva(*gva), gpa: Gpa(*gpa), len: *len }).unwrap();
        }
        list.into_sorted().into_iter().map(|m| (m.gva.0, m.gpa.0, m.len)).collect()
    }

    #[test]
    fn an_earlier_part_that_comes_later_keeps_its_physical_address() {
        // QEMU 7.2 and 10.0 say gva 0x401000 -> gpa 0x202000 here.
        assert_eq!(
            merged(&[(0x40_2000, 0x20_2000, 0x1000), (0x40_1000, 0x20_1000, 0x1000)]),
            [(0x40_1000, 0x20_1000, 0x2000)]
        );
    }

    #[test]
    fn neighbors_in_one_space_only_stay_apart() {
        assert_eq!(merged(&[(0x1000, 0x5000, 0x1000), (0x2000, 0x7000, 0x1000)]).len(), 2);
        assert_eq!(merged(&[(0x1000, 0x5000, 0x1000), (0x9000, 0x5000, 0x1000)]).len(), 2);
    }

    proptest! {
        /// Whatever the order and the overlap, each page is mapped as it was added, and no other page is.
        #[test]
        fn merging_keeps_every_page(rows in prop::collection::vec((0..40u64, 0..4u64, 1..6u64), 0..30)) {
            let page = |gva: u64, distance: u64| (gva, gva.wrapping_sub(distance << 32));
            let mut wanted: Vec<(u64, u64)> =
                rows.iter().flat_map(|(start, d, n)| (*start..start + n).map(move |gva| page(gva, *d))).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let rows: Vec<_> = rows.iter().map(|(start, d, n)| (*start, page(*start, *d).1, *n)).collect();
            // Physical addresses below zero are not in the space: shift all into it.
            let rows: Vec<_> = rows.iter().map(|(gva, gpa, n)| (*gva, gpa.wrapping_add(4 << 32), *n)).collect();
            let mut got: Vec<(u64, u64)> = merged(&rows)
                .iter()
                .flat_map(|(gva, gpa, n)| (0..*n).map(move |i| (gva + i, (gpa + i).wrapping_sub(4 << 32))))
                .collect();
            let count = got.len();
            got.sort_unstable();
            got.dedup();
            prop_assert_eq!(got.len(), count, "no page is listed twice");
            prop_assert_eq!(got, wanted);
        }
    }
}
