//! A walker of x86 page tables, for the virtual addresses of paging dumps.

use super::core_file::{CoreFile, EM_AARCH64, EM_PPC64, EM_S390, EM_X86_64, Head, Order, Segment};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Note of QEMU with the control registers (`spec/arch-notes.md` section 4).
const QEMU_NOTE: (&str, u32) = ("QEMU", 0);
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;

/// Virtual addresses by their distance from the physical one (`vaddr - paddr`): ranges of physical memory, merged.
#[derive(Debug, Default)]
pub(crate) struct Mappings(BTreeMap<u64, Vec<(u64, u64)>>);

impl Mappings {
    /// All mappings of RAM by the page tables of all vCPUs.
    pub(crate) fn walked(memory: &CoreFile) -> Result<Self> {
        let mut all = Self::default();
        for note in memory.head.notes_of(QEMU_NOTE.0, QEMU_NOTE.1) {
            let [cr0, cr3, cr4] = [392, 416, 424].map(|at| Order::Little.u64(note, at));
            if cr0 & CR0_PG == 0 {
                continue;
            }
            let mode = match (memory.head.machine == EM_X86_64, cr4 & CR4_LA57 != 0, cr4 & CR4_PAE != 0) {
                (true, true, _) => {
                    Mode { levels: 5, bits: 9, entry: 8, large: [false, true, true, false, false] }
                }
                (true, false, _) => {
                    Mode { levels: 4, bits: 9, entry: 8, large: [false, true, true, false, false] }
                }
                (false, _, true) => {
                    Mode { levels: 3, bits: 9, entry: 8, large: [false, true, false, false, false] }
                }
                (false, _, false) => {
                    let large = cr4 & CR4_PSE != 0;
                    Mode { levels: 2, bits: 10, entry: 4, large: [false, large, false, false, false] }
                }
            };
            let root = match mode.levels {
                3 => cr3 & 0xffff_ffe0,
                2 => cr3 & 0xffff_f000,
                _ => cr3 & 0x000f_ffff_ffff_f000,
            };
            let mut leaves = Vec::new();
            mode.walk(memory, root, mode.levels - 1, 0, &mut leaves);
            for (vaddr, paddr, len) in leaves {
                all.add_ram(&memory.head, vaddr, paddr, len);
            }
        }
        all.merge();
        ensure!(!all.0.is_empty(), "no vCPU has paging enabled");
        Ok(all)
    }

    /// The mappings that the segments of a dump state.
    pub(crate) fn stated(segments: &[Segment]) -> Self {
        let mut all = Self::default();
        for segment in segments.iter().filter(|segment| segment.filesz > 0) {
            all.add(segment.vaddr, segment.paddr, segment.filesz);
        }
        all.merge();
        all
    }

    /// The part that lies in RAM: page tables map devices, too.
    fn add_ram(&mut self, head: &Head, vaddr: u64, paddr: u64, len: u64) {
        for segment in &head.segments {
            let start = paddr.max(segment.paddr);
            let end = (paddr + len).min(segment.paddr + segment.memsz);
            if start < end {
                self.add(vaddr.wrapping_add(start - paddr), start, end - start);
            }
        }
    }

    fn add(&mut self, vaddr: u64, paddr: u64, len: u64) {
        self.0.entry(vaddr.wrapping_sub(paddr)).or_default().push((paddr, paddr + len));
    }

    fn merge(&mut self) {
        for ranges in self.0.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::new();
            for &(start, end) in ranges.iter() {
                match merged.last_mut() {
                    Some(last) if start <= last.1 => last.1 = last.1.max(end),
                    _ => merged.push((start, end)),
                }
            }
            *ranges = merged;
        }
    }

    fn holds(&self, distance: u64, range: (u64, u64)) -> bool {
        let ranges = self.0.get(&distance);
        ranges.is_some_and(|ranges| ranges.iter().any(|found| found.0 <= range.0 && range.1 <= found.1))
    }

    /// The ranges (vaddr, paddr, length) that `other` does not hold in full.
    pub(crate) fn missing_in(&self, other: &Self) -> Vec<(u64, u64, u64)> {
        let all =
            self.0.iter().flat_map(|(&distance, ranges)| ranges.iter().map(move |&range| (distance, range)));
        let missing = all.filter(|&(distance, range)| !other.holds(distance, range));
        missing.map(|(distance, (start, end))| (distance.wrapping_add(start), start, end - start)).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Where a virtual address lies, by any vCPU.
    pub(crate) fn translate(&self, vaddr: u64) -> Option<u64> {
        self.0.iter().find_map(|(&distance, ranges)| {
            let paddr = vaddr.wrapping_sub(distance);
            ranges.iter().any(|range| range.0 <= paddr && paddr < range.1).then_some(paddr)
        })
    }
}

/// Geometry of the page tables.
struct Mode {
    levels: usize,
    /// Bits of the virtual address for each level.
    bits: u32,
    /// Bytes of an entry.
    entry: usize,
    /// Whether an entry may be a large page, by level from the leaves.
    large: [bool; 5],
}

impl Mode {
    /// Adds (vaddr, paddr, length) of every present leaf below the table at `table`.
    fn walk(
        &self,
        memory: &CoreFile,
        table: u64,
        level: usize,
        base: u64,
        leaves: &mut Vec<(u64, u64, u64)>,
    ) {
        let count = if self.levels == 3 && level == 2 { 4 } else { 1 << self.bits };
        let mut bytes = vec![0; count * self.entry];
        if memory.read_physical(table, &mut bytes).is_err() {
            return; // a table outside RAM, as QEMU sees it too
        }
        let shift = 12 + self.bits * u32::try_from(level).unwrap_or(0);
        for (index, entry) in bytes.chunks(self.entry).enumerate() {
            let mut value = [0; 8];
            value[..self.entry].copy_from_slice(entry);
            let value = u64::from_le_bytes(value);
            if value & 1 == 0 {
                continue;
            }
            let vaddr = base | (index as u64) << shift;
            let is_large = self.large[level] && value & (1 << 7) != 0;
            if level > 0 && !is_large {
                let mask = if self.entry == 4 { 0xffff_f000 } else { 0x000f_ffff_ffff_f000 };
                self.walk(memory, value & mask, level - 1, vaddr, leaves);
                continue;
            }
            let size = 1_u64 << shift;
            let mut paddr = value & 0x000f_ffff_ffff_f000 & !(size - 1);
            if self.entry == 4 && is_large {
                // PSE-36: bits 20:13 of the entry are bits 39:32 of the address.
                paddr = (value & 0xffc0_0000) | ((value >> 13) & 0xff) << 32;
            }
            leaves.push((self.canonical(vaddr), paddr, size));
        }
    }

    /// Sign-extends an address of long mode.
    fn canonical(&self, vaddr: u64) -> u64 {
        let top = match self.levels {
            4 => 48,
            5 => 57,
            _ => return vaddr,
        };
        if vaddr >> (top - 1) & 1 == 1 { vaddr | u64::MAX << top } else { vaddr }
    }
}

/// Where the kernel's `init_uts_ns` lies: virtual address, and the physical one by our own walk, or by what the kernel says
/// of the place of its image (`spec/vmcoreinfo.md` section 5.3).
pub(crate) fn init_uts_ns(memory: &CoreFile) -> Result<(u64, u64)> {
    let vaddr = memory.head.symbol("init_uts_ns")?;
    let paddr = match memory.head.machine {
        EM_AARCH64 => vaddr.wrapping_sub(memory.head.number("kimage_voffset")?),
        _ => Mappings::walked(memory)?.translate(vaddr).context("init_uts_ns is not mapped")?,
    };
    Ok((vaddr, paddr))
}

/// An address in the kernel's image where the kernel maps all memory to one place, whatever its note says: virtual, and
/// physical.
pub(crate) fn linear(machine: u16) -> Option<(u64, u64)> {
    const IN_IMAGE: u64 = 16 << 20;
    match machine {
        EM_PPC64 => Some((0xc000_0000_0000_0000 | IN_IMAGE, IN_IMAGE)),
        EM_S390 => Some((IN_IMAGE, IN_IMAGE)),
        _ => None,
    }
}
