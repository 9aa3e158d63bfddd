//! Page tables: one walker for one address and for all of them.
//!
//! A granule of `1 << s` bytes has tables of `1 << s` bytes, 2^(s-3) descriptors. The last level, 3, maps pages; each level
//! above maps s-3 bits more. The first table is as short as the range of addresses lets it be.
//!
//! Source: Arm ARM (DDI 0487), chapter D8; `spec/arch-notes.md` section 7.2.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::regime::{Regime, Side};
use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, RegisterFile, Translation, memory,
};

const VALID: u64 = 1 << 0;
/// A table; at the last level, a page.
const TABLE: u64 = 1 << 1;
/// AP[1] of a leaf: programs may use it. Where there is but one privilege it is set.
const FOR_PROGRAMS: u64 = 1 << 6;
/// AP[2] of a leaf.
const READ_ONLY: u64 = 1 << 7;
/// Of a leaf: the processor clears `READ_ONLY` itself when the page is written to. Linux sets it, hardware or not.
const DIRTY_BIT_MODIFIER: u64 = 1 << 51;
/// Of a leaf: not to be executed by the kernel; and by programs, or at all where there is but one privilege.
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
/// Of a table: what it forbids to all that is below it.
const PXN_TABLE: u64 = 1 << 59;
const UXN_TABLE: u64 = 1 << 60;
const READ_ONLY_TABLE: u64 = 1 << 62;
const DESCRIPTOR_LEN: u64 = 8;
/// Tables are read, and remembered, in pieces of 4 KiB: those of large granules count as what they are.
const PIECE_LEN: usize = 0x1000;
const PIECE_COUNT: u64 = 512;
/// Names of the levels from -1 on.
const LEVELS: [&str; 5] = ["level -1", "level 0", "level 1", "level 2", "level 3"];
/// Bits of the largest physical address.
const PHYSICAL_BITS: u32 = 52;

/// Where bits 51 to 48 of a physical address stand in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HighBits {
    /// Nowhere: addresses have 48 bits.
    None,
    /// All of them in bits 15 to 12: granules of 64 KiB, FEAT_LPA.
    At12,
    /// 51 and 50 in bits 9 and 8, the others in their place: granules of 4 and 16 KiB, FEAT_LPA2.
    At8,
}

/// How tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// log2 of the granule: 12, 14 or 16.
    pub(crate) page_shift: u32,
    /// Where the uppermost bits of addresses are.
    pub(crate) high_bits: HighBits,
    /// Byte order of descriptors.
    pub(crate) endianness: Endianness,
}

/// The tables of one range of virtual addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    format: Format,
    root: Gpa,
    /// Bits of a virtual address.
    bits: u32,
}

/// What a descriptor says.
enum Descriptor {
    Invalid,
    /// The table of the next level.
    Table(Gpa),
    /// The memory that it maps.
    Leaf(Gpa),
}

/// What a leaf permits, below tables with these bits.
const fn access(leaf: u64, tables: u64) -> Access {
    let never = if leaf & FOR_PROGRAMS != 0 {
        leaf & UXN | tables & UXN_TABLE
    } else {
        leaf & PXN | tables & PXN_TABLE
    };
    let is_read_only = leaf & READ_ONLY != 0 && leaf & DIRTY_BIT_MODIFIER == 0;
    Access { read: true, write: !is_read_only && tables & READ_ONLY_TABLE == 0, execute: never == 0 }
}

/// Walks the vCPU's tables for one address.
pub(crate) fn translate(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    gva: Gva,
) -> Result<Translation, Error> {
    let regime = Regime::of(registers)?;
    if !regime.is_on()? {
        if gva.0 >> PHYSICAL_BITS != 0 {
            return Err(Error::NotCanonical { gva, bits: PHYSICAL_BITS });
        }
        return Ok(Translation::unprotected(Gpa(gva.0), rest(gva, 12)));
    }
    let space = regime.space(Side::of(gva))?;
    let tables = space.tables.filter(|_| space.contains(gva));
    tables.ok_or(Error::NotCanonical { gva, bits: space.bits })?.translate(memory, gva)
}

/// Adds all that the vCPU's tables map.
pub(crate) fn mappings(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    seen: &mut SeenTables,
    list: &mut MappingList,
) -> Result<(), Error> {
    let regime = Regime::of(registers)?;
    if !regime.is_on()? {
        return Ok(());
    }
    let mut missing = None;
    let mut has_root = false;
    for side in [Side::Low, Side::High] {
        let space = regime.space(side)?;
        let Some(tables) = space.tables else { continue };
        match tables.format.read(memory, tables.root) {
            Ok(_) => {
                has_root = true;
                let (shift, bits) = (tables.format.start_shift(tables.bits), tables.bits);
                tables.add_table(memory, tables.root, shift, bits, space.start(), seen, list)?;
            }
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    // A kernel need not have tables for the lower range. Without any root a vCPU has no tables at all; below a root, what is
    // missing maps nothing.
    if has_root { Ok(()) } else { missing.map_or(Ok(()), Err) }
}

impl Tables {
    /// Tables of a range with so many address bits, that begin where a TTBR says.
    pub(crate) fn new(format: Format, bits: u32, ttbr: u64) -> Self {
        // ASID above, CnP below. The first table is aligned to its length; with 52-bit addresses at least to 64 bytes, as
        // bits 51 to 48 stand in bits 5 to 2.
        let len = low_mask(bits.saturating_sub(format.start_shift(bits)).saturating_add(3));
        let address = ttbr & low_mask(48);
        let root = match format.high_bits {
            HighBits::None => address & !len,
            HighBits::At12 | HighBits::At8 => address & !(len | 63) | (ttbr >> 2 & 0xf) << 48,
        };
        Self { format, root: Gpa(root), bits }
    }

    /// Tables of a range with so many address bits, the first of them at `root`, if there are such tables.
    pub(crate) fn at(format: Format, bits: u32, root: Gpa) -> Option<Self> {
        (format.smallest_range()..=PHYSICAL_BITS).contains(&bits).then_some(Self { format, root, bits })
    }

    /// Where the first table lies.
    pub(crate) const fn root(&self) -> Gpa {
        self.root
    }

    /// Bits of a virtual address.
    pub(crate) const fn bits(&self) -> u32 {
        self.bits
    }

    /// log2 of what a descriptor of the first table maps.
    pub(crate) fn start_shift(&self) -> u32 {
        self.format.start_shift(self.bits)
    }

    pub(crate) fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        let mut table = self.root;
        let mut bits = self.bits;
        let mut shift = self.format.start_shift(bits);
        // What all tables on the way forbid.
        let mut forbidden = 0;
        loop {
            let index = (gva.0 & low_mask(bits)) >> shift;
            // A table is aligned to its length.
            let at = Gpa(table.0 | index.wrapping_mul(DESCRIPTOR_LEN));
            let entry = self.format.read(memory, at)?;
            match self.format.descriptor(entry, shift) {
                Descriptor::Invalid => {
                    return Err(Error::NotMapped { gva, level: self.format.level(shift), at, entry });
                }
                Descriptor::Leaf(gpa) => {
                    let gpa = Gpa(gpa.0 | gva.0 & low_mask(shift));
                    let access = Some(access(entry, forbidden));
                    return Ok(Translation { gpa, len: rest(gva, shift), access });
                }
                Descriptor::Table(next) => {
                    table = next;
                    forbidden |= entry;
                    bits = shift;
                    shift = shift.saturating_sub(self.format.table_bits());
                }
            }
        }
    }

    /// Adds a table that maps `bits` bits of an address from `start` on, each of its descriptors `shift` bits.
    #[expect(
        clippy::too_many_arguments,
        reason = "the state of a recursion that is five levels deep at the most"
    )]
    fn add_table(
        &self,
        memory: &dyn PhysMemory,
        table: Gpa,
        shift: u32,
        bits: u32,
        start: Gva,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let count = 1_u64 << bits.saturating_sub(shift);
        for first in (0..count).step_by(PIECE_LEN / 8) {
            let piece = Gpa(table.0 | first.wrapping_mul(DESCRIPTOR_LEN));
            let start = Gva(start.0 | first << shift);
            let count = count.min(PIECE_COUNT);
            if !seen.insert(piece, start, self.format.kind(shift, count))? {
                continue;
            }
            let mut bytes = [0; PIECE_LEN];
            let len = usize::try_from(count.wrapping_mul(DESCRIPTOR_LEN)).unwrap_or(PIECE_LEN);
            let Some(bytes) = bytes.get_mut(..len) else { continue };
            // What cannot be read is zero: not valid.
            memory.read_at(piece, bytes)?;
            for (index, entry) in (0_u64..).zip(bytes.chunks_exact(8)) {
                let gva = Gva(start.0 | index << shift);
                match self.format.descriptor(self.format.endianness.decode(entry), shift) {
                    Descriptor::Invalid => {}
                    Descriptor::Leaf(gpa) => list.add(Mapping { gpa, gva, len: 1 << shift })?,
                    Descriptor::Table(next) => {
                        let below = shift.saturating_sub(self.format.table_bits());
                        self.add_table(memory, next, below, shift, gva, seen, list)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Format {
    /// log2 of the number of descriptors in a table.
    const fn table_bits(&self) -> u32 {
        self.page_shift.saturating_sub(3)
    }

    /// log2 of what a descriptor of the first table maps.
    fn start_shift(&self, bits: u32) -> u32 {
        let levels = bits.saturating_sub(self.page_shift).div_ceil(self.table_bits());
        self.page_shift.saturating_add(self.table_bits().saturating_mul(levels.saturating_sub(1)))
    }

    /// The fewest bits of an address: those of a table of 2 entries at the last level, or 16.
    pub(crate) const fn smallest_range(&self) -> u32 {
        if self.page_shift < 16 { 16 } else { 17 }
    }

    /// The name of the level whose descriptors map `1 << shift` bytes.
    fn level(&self, shift: u32) -> &'static str {
        let above_last = shift.saturating_sub(self.page_shift).checked_div(self.table_bits()).unwrap_or(0);
        LEVELS.iter().rev().nth(above_last as usize).copied().unwrap_or("level")
    }

    /// log2 of the largest block. A larger granule has tables of more bits, and so fewer levels with blocks.
    const fn largest_block(&self) -> u32 {
        match (self.page_shift, self.high_bits) {
            (12, HighBits::None) => 30,
            (12, _) => 39,
            (14, HighBits::None) => 25,
            (14, _) => 36,
            (_, HighBits::None) => 29,
            (_, _) => 42,
        }
    }

    fn read(&self, memory: &dyn PhysMemory, at: Gpa) -> Result<u64, Error> {
        let bytes: [u8; 8] = memory::read_array(memory, at, "page table")?;
        Ok(self.endianness.decode(&bytes))
    }

    /// What a descriptor of the level says that maps `1 << shift` bytes with each.
    fn descriptor(&self, entry: u64, shift: u32) -> Descriptor {
        let is_last = shift == self.page_shift;
        match (entry & VALID != 0, entry & TABLE != 0) {
            (false, _) => Descriptor::Invalid,
            (true, true) if is_last => Descriptor::Leaf(self.address(entry, shift)),
            (true, true) => Descriptor::Table(self.address(entry, self.page_shift)),
            (true, false) if !is_last && shift <= self.largest_block() => {
                Descriptor::Leaf(self.address(entry, shift))
            }
            (true, false) => Descriptor::Invalid,
        }
    }

    /// The address in a descriptor, a multiple of `1 << shift`.
    const fn address(&self, entry: u64, shift: u32) -> Gpa {
        let address = match self.high_bits {
            HighBits::None => entry & low_mask(48),
            HighBits::At12 => entry & low_mask(48) | (entry >> 12 & 0xf) << 48,
            HighBits::At8 => entry & low_mask(50) | (entry >> 8 & 3) << 50,
        };
        Gpa(address & !low_mask(shift))
    }

    /// What tells this kind of table from all others: vCPUs in different modes may use one table, each in its own way.
    fn kind(&self, shift: u32, count: u64) -> u16 {
        // Shifts take 6 bits and tell granules apart; counts are powers of two up to 512.
        let is_big = u32::from(self.endianness == Endianness::Big);
        let kind = shift | count.ilog2() << 6 | (self.high_bits as u32) << 10 | is_big << 12;
        u16::try_from(kind).unwrap_or(u16::MAX)
    }
}

const fn low_mask(bits: u32) -> u64 {
    !(u64::MAX << bits)
}

/// Bytes from an address to the end of its page or block of `1 << shift` bytes.
const fn rest(gva: Gva, shift: u32) -> u64 {
    (!gva.0 & low_mask(shift)).saturating_add(1)
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
