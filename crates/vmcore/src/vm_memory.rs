//! Guest memory of rust-vmm: whatever implements [`vm_memory::GuestMemory`](::vm_memory::GuestMemory) (feature `vm-memory`).
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

use ::vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryRegion};
use std::fmt;
use std::ops::Deref;
use vmcore_core::memory::{check_disjoint, read_by_region};
use vmcore_core::{Error, Gpa, PhysMemory, Region, Unreadable};

/// Guest memory behind a pointer, as [`PhysMemory`]: `Arc<GuestMemoryMmap>`, or what `GuestMemoryAtomic::memory` returns.
pub struct GuestRam<P> {
    memory: P,
    regions: Vec<Region>,
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
        Ok(Self { memory, regions })
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::vm_memory::GuestMemoryMmap;
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
}
