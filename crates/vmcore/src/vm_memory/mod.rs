//! Guest memory of rust-vmm: whatever implements [`GuestMemory`] (feature `vm-memory`).
//!
//! ```
//! # #[cfg(all(feature = "x86_64", feature = "elf"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//! use vmcore::vm_memory::GuestRam;
//! use vmcore::{Gpa, PhysMemory};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(1 << 32), 0x1000)])?;
//! memory.write_slice(b"hello", GuestAddress(1 << 32))?;
//! let ram = GuestRam::new(Arc::new(memory))?;
//!
//! let mut bytes = [0; 5];
//! ram.read_at(Gpa(1 << 32), &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "x86_64", feature = "elf")))]
//! # fn main() {}
//! ```
//!
//! Memory is copied through vm-memory's volatile access and never borrowed: a device of the VMM, or a vCPU that was not stopped, may
//! write to it while it is read. The copy costs less than the write that follows it (`BENCHMARKS.md`, embed).

mod untouched;

use ::vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryRegion};
use std::fmt;
use std::ops::Deref;
use untouched::PageMap;
use vmcore_core::memory::{check_disjoint, read_by_region};
use vmcore_core::{Error, Gpa, PhysMemory, Region, Run, RunState, Unreadable};

/// Guest memory behind a pointer, as [`PhysMemory`]: `Arc<GuestMemoryMmap>`, or what `GuestMemoryAtomic::memory` returns.
pub struct GuestRam<P> {
    memory: P,
    regions: Vec<Region>,
    page_map: Option<PageMap>,
}

impl<P: Deref<Target: GuestMemory>> GuestRam<P> {
    /// All regions of `memory`, as RAM. Regions that are added later are not seen.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is a device's view of memory, behind an IOMMU; [`Error::Range`] if regions overlap.
    pub fn new(memory: P) -> Result<Self, Error> {
        let physical = memory.physical_memory().ok_or_else(|| Error::Unsupported {
            what: "guest memory that has no physical addresses",
            found: "memory behind an IOMMU".to_owned(),
        })?;
        let mut regions = Vec::new();
        for region in physical.iter() {
            regions.push(Region::ram(Gpa(region.start_addr().0), region.len()));
        }
        regions.sort_unstable_by_key(|region| region.gpa);
        check_disjoint(&regions)?;
        Ok(Self { memory, regions, page_map: None })
    }

    /// Lets memory that nobody has touched be zeros that are neither read nor written: a page of it that is read comes into being.
    ///
    /// The kernel is asked for them (`/proc/self/pagemap`), of mappings that are private and anonymous; of others nothing is assumed. Not for
    /// memory that a `userfaultfd` fills on demand: what has not arrived yet would be taken for zeros.
    ///
    /// # Errors
    /// [`Error::Io`] without `/proc`.
    pub fn skip_untouched(mut self) -> Result<Self, Error> {
        let page_map = PageMap::open();
        self.page_map = Some(page_map.map_err(|source| Error::Io {
            what: "opening the page map of this process",
            offset: 0,
            source,
        })?);
        Ok(self)
    }
}

impl<P> fmt::Debug for GuestRam<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRam").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl<P: Deref<Target: GuestMemory> + Send + Sync> PhysMemory for GuestRam<P> {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        read_by_region(&self.regions, gpa, buf, |_, at, piece, unreadable| {
            // A region without a mapping has no bytes to give.
            let done = self.memory.read(piece, GuestAddress(at.0)).unwrap_or(0);
            let rest = &mut piece[done..];
            rest.fill(0);
            unreadable.add(Gpa(at.0 + done as u64), rest.len() as u64);
            Ok(())
        })
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let index = self.regions.partition_point(|region| region.end() <= gpa);
        let region = self.regions.get(index).filter(|region| region.contains(gpa));
        let physical = self.memory.physical_memory();
        let hva = physical.and_then(|memory| memory.get_host_address(GuestAddress(gpa.0)).ok());
        let (Some(page_map), Some(region), Some(hva)) = (&self.page_map, region, hva) else {
            return Run { len: max, state: RunState::Data };
        };
        // The next region is mapped elsewhere.
        page_map.run_at(hva.addr() as u64, max.min(region.end().0 - gpa.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::vm_memory::{FileOffset, GuestMemoryMmap, GuestRegionMmap};
    use std::sync::Arc;

    #[test]
    fn reads_cross_regions_and_name_the_holes() {
        let regions =
            [(GuestAddress(0x1000), 0x1000), (GuestAddress(0x2000), 0x1000), (GuestAddress(0x8000), 0x1000)];
        let memory = GuestMemoryMmap::<()>::from_ranges(&regions).unwrap();
        memory.write_slice(&[1; 0x2000], GuestAddress(0x1000)).unwrap();
        memory.write_slice(&[2; 0x1000], GuestAddress(0x8000)).unwrap();
        let ram = GuestRam::new(Arc::new(memory)).unwrap();
        assert_eq!(
            ram.regions().iter().map(|region| region.gpa.0).collect::<Vec<_>>(),
            [0x1000, 0x2000, 0x8000]
        );

        let mut bytes = vec![0xff; 0x9000];
        let unreadable = ram.read_at(Gpa(0), &mut bytes).unwrap();
        assert_eq!(unreadable.ranges(), [0..0x1000, 0x3000..0x8000]);
        let sums = [0..0x1000, 0x1000..0x3000, 0x3000..0x8000, 0x8000..0x9000]
            .map(|range| bytes[range].iter().map(|byte| u32::from(*byte)).sum::<u32>());
        assert_eq!(sums, [0, 0x2000, 0, 0x2000]);
    }

    #[test]
    fn memory_that_nobody_touched_is_told_and_not_read() {
        const LEN: usize = 4 << 20;
        const SHARED: u64 = 1 << 32;
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN as u64).unwrap();
        let private = GuestRegionMmap::<()>::from_range(GuestAddress(0), LEN, None).unwrap();
        let shared =
            GuestRegionMmap::from_range(GuestAddress(SHARED), LEN, Some(FileOffset::new(file, 0))).unwrap();
        let memory = Arc::new(GuestMemoryMmap::from_regions(vec![private, shared]).unwrap());
        memory.write_slice(b"touched", GuestAddress(2 << 20)).unwrap();
        let all = |ram: &GuestRam<_>, start: u64| {
            let (mut at, mut states) = (start, Vec::new());
            while at < start + LEN as u64 {
                let run = ram.run_at(Gpa(at), start + LEN as u64 - at);
                states.push(run.state);
                at += run.len;
            }
            states
        };
        let ram = GuestRam::new(Arc::clone(&memory)).unwrap();
        assert_eq!(all(&ram, 0), [RunState::Data]);
        let ram = ram.skip_untouched().unwrap();
        // How much of a large page came into being is the kernel's matter.
        let states = all(&ram, 0);
        assert!(states[0] == RunState::Zero && states.contains(&RunState::Data), "{states:?}");
        assert_eq!(all(&ram, SHARED), [RunState::Data], "others may have written to the file");
    }
}
