//! Which virtual addresses a vCPU's page tables map, for LLDB's `qMemoryRegionInfo`.

use std::ops::RangeInclusive;
use vmcore_core::arch::SeenTables;
use vmcore_core::{Arch, Error, MappingList, PhysMemory, RegisterFile};

/// The mapped addresses, in ascending order; ranges that touch are one.
#[derive(Debug)]
pub(super) struct Areas(Vec<RangeInclusive<u64>>);

impl Areas {
    /// Walks all page tables of the vCPU.
    ///
    /// # Errors
    /// Those of [`Arch::mappings`].
    pub(super) fn of(
        arch: &dyn Arch,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
    ) -> Result<Self, Error> {
        let mut list = MappingList::default();
        arch.mappings(registers, memory, &mut SeenTables::default(), &mut list)?;
        let mappings = list.into_sorted();
        if mappings.is_empty() {
            // Without paging virtual is physical.
            let regions = memory.regions().iter().filter(|region| region.len > 0);
            return Ok(Self::merged(regions.map(|region| (region.gpa.0, region.len)).collect()));
        }
        Ok(Self::merged(mappings.iter().map(|mapping| (mapping.gva.0, mapping.len)).collect()))
    }

    /// Areas of a start and a length, which is not 0, each.
    fn merged(mut areas: Vec<(u64, u64)>) -> Self {
        areas.sort_unstable();
        let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
        for (start, len) in areas {
            let last = start.saturating_add(len - 1);
            match merged.last_mut() {
                Some(before) if before.end().saturating_add(1) >= start => {
                    *before = *before.start()..=last.max(*before.end());
                }
                _ => merged.push(start..=last),
            }
        }
        Self(merged)
    }

    /// First and last address of the area around `address`, and whether it is mapped.
    pub(super) fn around(&self, address: u64) -> (u64, u64, bool) {
        let next = self.0.partition_point(|area| *area.end() < address);
        match self.0.get(next) {
            Some(area) if area.contains(&address) => (*area.start(), *area.end(), true),
            area => {
                let before = next.checked_sub(1).and_then(|before| self.0.get(before));
                let start = before.map_or(0, |before| before.end() + 1);
                (start, area.map_or(u64::MAX, |area| area.start() - 1), false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Areas;

    #[test]
    fn areas_and_holes_cover_all_addresses() {
        let areas = Areas::merged(vec![
            (0x3000, 0x1000),
            (0x1000, 0x1000),
            (0x2000, 0x800),
            (u64::MAX - 0xfff, 0x1000),
        ]);
        assert_eq!(areas.around(0), (0, 0xfff, false));
        assert_eq!(areas.around(0x1000), (0x1000, 0x27ff, true));
        assert_eq!(areas.around(0x27ff), (0x1000, 0x27ff, true));
        assert_eq!(areas.around(0x2800), (0x2800, 0x2fff, false));
        assert_eq!(areas.around(0x4000), (0x4000, u64::MAX - 0x1000, false));
        assert_eq!(areas.around(u64::MAX), (u64::MAX - 0xfff, u64::MAX, true));
        assert_eq!(Areas::merged(Vec::new()).around(7), (0, u64::MAX, false));
    }
}
