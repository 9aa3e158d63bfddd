//! The address space of Linux on ppc64, by its VMCOREINFO.
//!
//! ```text
//! 0xc000... the linear map: all of memory, the kernel's image too     by arithmetic
//! 0xc00c... vmemmap, the kernel's `struct page`s (older: 0xf000...)    vmemmap_list, or the tree
//! 0xc008... all else: vmalloc, I/O (older: 0xd000...)                  the tree
//! ```
//!
//! Radix kernels have a tree of which the root is `swapper_pg_dir`. That of a kernel on a hash MMU is not read by a processor:
//! such a kernel keeps a list of its vmemmap, as radix kernels did until Linux 6.6. What is neither in the list nor in
//! the linear map is not supported there.
//!
//! Source: `spec/vmcoreinfo.md` section 5.3, `spec/filter.md` section 6.4; Linux `arch/powerpc/kernel/vmcore_info.c`,
//! `arch/powerpc/mm/init_64.c`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::mmu::{LINEAR_MAP, REAL, Tables, linux_root};
use crate::radix::Directory;
use std::collections::BTreeMap;
use vmcore_core::{
    Endianness, Error, Gpa, Gva, KernelSpace, PhysMemory, RegisterFile, Translation, Vmcoreinfo, memory,
};

/// What needs the keys.
const WALK: &str = "walking the kernel's page tables";
const LIST: &str = "reading the kernel's list of vmemmap";
/// The end of the linear map, but for hash MMUs with pages of 4 KiB.
const LINEAR_END: u64 = 0xc008_0000_0000_0000;
const LINEAR_END_HASH_4K: u64 = 0xc000_3d00_0000_0000;
/// Blocks of vmemmap that are read. They are of 64 KiB or more where pages are, enough for 64 TiB of memory; a hash MMU without
/// large pages that has pages of 4 KiB, as QEMU's without KVM, has blocks of that size, enough for 256 GiB.
const MAX_BLOCKS: usize = 1 << 20;
/// log2 of the largest block.
const MAX_BLOCK_SHIFT: u64 = 40;

pub(crate) struct Space {
    vmemmap: Vmemmap,
    linear_end: u64,
    /// The tree; the reason that there is none.
    root: Result<Directory, String>,
}

impl Space {
    pub(crate) fn new(
        info: &Vmcoreinfo,
        endianness: Endianness,
        memory: &dyn PhysMemory,
    ) -> Result<Self, Error> {
        let swapper = info.need_symbol("swapper_pg_dir", WALK)?;
        // Linux 6.1 does not say which MMU it has. A radix tree maps the linear map, itself with it, and what stands at the
        // same place on a hash MMU has no valid entry.
        let root = linux_root(linear(swapper))
            .filter(|root| root.translate(memory, swapper).is_ok_and(|found| found.gpa == linear(swapper)));
        let root = root.ok_or_else(|| format!("a hash MMU (there is no radix tree at {swapper})"));
        let linear_end = match info.page_size() {
            Some(0x1000) if root.is_err() => LINEAR_END_HASH_4K,
            _ => LINEAR_END,
        };
        Ok(Self { vmemmap: Vmemmap::read(info, endianness, memory)?, linear_end, root })
    }
}

/// The physical address of one of the linear map.
const fn linear(gva: Gva) -> Gpa {
    Gpa(gva.0 & REAL)
}

impl KernelSpace for Space {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(linear(gva))
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        if let Some(found) = self.vmemmap.translate(gva) {
            return Ok(found);
        }
        if (LINEAR_MAP..self.linear_end).contains(&gva.0) {
            return Ok(Translation::unprotected(linear(gva), self.linear_end.wrapping_sub(gva.0)));
        }
        match &self.root {
            Ok(root) if gva.0 >= LINEAR_MAP => root.translate(memory, gva),
            Ok(root) => Err(Error::NotCanonical { gva, bits: root.span() }),
            Err(found) => {
                Err(Error::Unsupported { what: "an address outside the linear map", found: found.clone() })
            }
        }
    }

    /// Every kernel has the linear map at the same place: it is the root of the vCPU's tree that tells one from the other.
    fn is_used_by(&self, registers: &RegisterFile, memory: &dyn PhysMemory) -> Option<bool> {
        let own = self.root.as_ref().ok()?;
        let used = Tables::of(registers, memory).ok()?.kernel_root(memory).ok()?;
        Some(used == *own)
    }

    fn section_size_bits(&self) -> Option<u32> {
        Some(24)
    }
}

/// The blocks of vmemmap that a kernel lists, by their first virtual address.
struct Vmemmap {
    blocks: BTreeMap<u64, Gpa>,
    /// Length of each in bytes.
    len: u64,
}

impl Vmemmap {
    /// Reads the list, to its end or to where it begins again. Kernels that need none have none, or an empty one.
    fn read(info: &Vmcoreinfo, endianness: Endianness, memory: &dyn PhysMemory) -> Result<Self, Error> {
        let mut vmemmap = Self { blocks: BTreeMap::new(), len: 0 };
        let Ok(list) = info.need_symbol("vmemmap_list", LIST) else { return Ok(vmemmap) };
        let pointer = |at: Gva| {
            memory::read_array(memory, linear(at), "vmemmap_list")
                .map(|bytes: [u8; 8]| endianness.decode(&bytes))
        };
        let number = |at: Gva| {
            memory::read_array(memory, linear(at), "page sizes")
                .map(|bytes: [u8; 4]| endianness.decode(&bytes))
        };
        let mut node = pointer(list)?;
        if node == 0 {
            return Ok(vmemmap);
        }
        let offset = |name: &str| info.need("OFFSET", name, LIST);
        let [next, physical, start] = [
            offset("vmemmap_backing.list")?,
            offset("vmemmap_backing.phys")?,
            offset("vmemmap_backing.virt_addr")?,
        ];

        let index = number(info.need_symbol("mmu_vmemmap_psize", LIST)?)?;
        let sizes = info.need_symbol("mmu_psize_defs", LIST)?;
        let size = info.need("SIZE", "mmu_psize_def", LIST)?.wrapping_mul(index);
        let at = Gva(sizes.0.wrapping_add(size).wrapping_add(offset("mmu_psize_def.shift")?));
        let shift = number(at)?;
        if !(12..=MAX_BLOCK_SHIFT).contains(&shift) {
            return Err(Error::Unsupported { what: LIST, found: format!("blocks of 2^{shift} bytes") });
        }
        vmemmap.len = 1 << shift;

        while node != 0 {
            let field = |offset: u64| pointer(Gva(node.wrapping_add(offset)));
            if vmemmap.blocks.insert(field(start)?, Gpa(field(physical)?)).is_some() {
                break;
            }
            if vmemmap.blocks.len() > MAX_BLOCKS {
                let found = vmemmap.blocks.len() as u64;
                return Err(Error::TooLarge { what: "blocks of vmemmap", found, limit: MAX_BLOCKS as u64 });
            }
            node = field(next)?;
        }
        Ok(vmemmap)
    }

    fn translate(&self, gva: Gva) -> Option<Translation> {
        let (start, block) = self.blocks.range(..=gva.0).next_back()?;
        let offset = gva.0.wrapping_sub(*start);
        let len = self.len.checked_sub(offset).filter(|len| *len != 0)?;
        Some(Translation::unprotected(block.checked_add(offset)?, len))
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
