//! Page tables in both formats: one walker for one address and for all of them.
//!
//! ```text
//! short descriptors, 4 bytes    TTBR ─► level 1 ─► level 2
//!                                       31:20      19:12                bits of the address
//! long descriptors, 8 bytes     TTBR ─► level 1 ─► level 2 ─► level 3
//!                                       31:30      29:21      20:12
//! ```
//!
//! Supersections (16 MiB) and large pages (64 KiB) of the short format have 16 descriptors that are alike.
//!
//! Source: Arm ARM (DDI 0406), chapter B3.5 "Short-descriptor translation table format" and B3.6 "Long-descriptor ...";
//! `spec/arch-notes.md` section 7.3.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::regime::spaces;
use std::ops::Range;
use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, RegisterFile, Translation, memory,
};

/// Bits 1 and 0 of a short descriptor: which kind it is. The lowest is an attribute (PXN, XN) where the other is set.
const SHORT_TYPE: u64 = 3;
const SHORT_TABLE: u64 = 1;
const SHORT_LARGE_PAGE: u64 = 1;
/// Of a section: it is one of 16 that make a supersection.
const SUPERSECTION: u64 = 1 << 18;
const LONG_VALID: u64 = 1 << 0;
/// A table; at the last level, a page.
const LONG_TABLE: u64 = 1 << 1;
/// AP[1] of a leaf: programs may use it.
const LONG_FOR_PROGRAMS: u64 = 1 << 6;
/// Of a leaf, and of a table for all that is below it: not to be executed by the kernel.
const LONG_PXN: u64 = 1 << 53;
const LONG_PXN_TABLE: u64 = 1 << 59;
const LONG_XN_TABLE: u64 = 1 << 60;
const LONG_READ_ONLY_TABLE: u64 = 1 << 62;

const PAGE_SHIFT: u32 = 12;
const SECTION_SHIFT: u32 = 20;
/// Tables are read, and remembered, in pieces of 4 KiB at the most.
const PIECE_LEN: usize = 0x1000;
/// Bits of a virtual address.
const VIRTUAL_BITS: u32 = 32;

/// How descriptors are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// 4 bytes.
    Short,
    /// 8 bytes: LPAE.
    Long,
}

/// A range of virtual addresses.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) range: Range<u64>,
    /// The tables that map it; `None` if TTBCR switches it off.
    pub(crate) tables: Option<Tables>,
}

/// The tables of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    pub(crate) root: Gpa,
    /// Bits of an address that the first table counts: it may begin before the range.
    pub(crate) bits: u32,
    pub(crate) format: Format,
    /// Byte order of descriptors.
    pub(crate) endianness: Endianness,
    /// What tells them from tables that are read in another way: 9 bits.
    pub(crate) kind: u16,
}

/// A table on the way: each of its descriptors is for `1 << shift` bytes, together for `1 << bits`.
#[derive(Clone, Copy, Debug)]
struct Table {
    gpa: Gpa,
    bits: u32,
    shift: u32,
}

/// What a descriptor says.
enum Descriptor {
    Invalid,
    /// The table of the next level.
    Table(Gpa),
    /// What it maps; of what has 16 descriptors, the part that is the address in question.
    Leaf(Gpa),
}

/// Walks the vCPU's tables for one address.
pub(crate) fn translate(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    gva: Gva,
) -> Result<Translation, Error> {
    let not_canonical = Error::NotCanonical { gva, bits: VIRTUAL_BITS };
    let Some(spaces) = spaces(registers)? else {
        let translation = Translation::unprotected(Gpa(gva.0), rest(gva, PAGE_SHIFT));
        return if gva.0 >> VIRTUAL_BITS == 0 { Ok(translation) } else { Err(not_canonical) };
    };
    let space = spaces.iter().find(|space| space.range.contains(&gva.0));
    let Some((range, tables)) = space.and_then(|space| Some((&space.range, space.tables?))) else {
        return Err(not_canonical);
    };
    let found = tables.translate(memory, gva)?;
    Ok(Translation { len: found.len.min(range.end.saturating_sub(gva.0)), ..found })
}

/// Adds all that the vCPU's tables map.
pub(crate) fn mappings(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    seen: &mut SeenTables,
    list: &mut MappingList,
) -> Result<(), Error> {
    let mut missing = None;
    let mut has_root = false;
    for Space { range, tables } in spaces(registers)?.into_iter().flatten() {
        let Some(tables) = tables else { continue };
        match tables.read(memory, tables.first_used(&range)) {
            Ok(_) => {
                has_root = true;
                tables.add_table(memory, tables.first(), tables.start(&range), &range, seen, list)?;
            }
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    // A kernel need not have tables for both ranges. Without any root a vCPU has no tables at all; below a root, what is
    // missing maps nothing.
    if has_root { Ok(()) } else { missing.map_or(Ok(()), Err) }
}

impl Tables {
    const fn first(&self) -> Table {
        Table { gpa: self.root, bits: self.bits, shift: self.format.first_shift(self.bits) }
    }

    /// The address that the first descriptor is for.
    const fn start(&self, range: &Range<u64>) -> u64 {
        range.start & !low_mask(self.bits)
    }

    /// Where the descriptor of the first address of the range stands.
    const fn first_used(&self, range: &Range<u64>) -> Gpa {
        self.place(self.first(), range.start)
    }

    /// Where the descriptor of an address stands. A table is aligned to its length.
    const fn place(&self, table: Table, gva: u64) -> Gpa {
        let index = (gva & low_mask(table.bits)) >> table.shift;
        Gpa(table.gpa.0 | index << self.format.entry_shift())
    }

    /// The table to which a descriptor of `table` points.
    const fn below(&self, table: Table, gpa: Gpa) -> Table {
        Table { gpa, bits: table.shift, shift: self.format.shift_below(table.shift) }
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        let mut table = self.first();
        // What all tables on the way forbid.
        let mut forbidden = 0;
        loop {
            let at = self.place(table, gva.0);
            let entry = self.read(memory, at)?;
            match self.format.descriptor(entry, table.shift, gva.0) {
                Descriptor::Invalid => {
                    return Err(Error::NotMapped { gva, level: self.format.level(table.shift), at, entry });
                }
                Descriptor::Leaf(gpa) => {
                    let gpa = Gpa(gpa.0 | gva.0 & low_mask(table.shift));
                    let access = Some(self.format.access(entry, table.shift, forbidden));
                    return Ok(Translation { gpa, len: rest(gva, table.shift), access });
                }
                Descriptor::Table(next) => {
                    table = self.below(table, next);
                    forbidden |= entry;
                }
            }
        }
    }

    /// Adds what a table maps whose descriptors are for addresses from `start` on, as far as that is in `range`.
    fn add_table(
        &self,
        memory: &dyn PhysMemory,
        table: Table,
        start: u64,
        range: &Range<u64>,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let entry_len = 1_usize << self.format.entry_shift();
        let len = 1_u64 << table.bits.saturating_sub(table.shift).saturating_add(self.format.entry_shift());
        for piece in (0..len).step_by(PIECE_LEN) {
            let first = start.saturating_add(piece >> self.format.entry_shift() << table.shift);
            let at = Gpa(table.gpa.0 | piece);
            if !seen.insert(at, Gva(first), self.kind(table.shift))? {
                continue;
            }
            let mut bytes = [0; PIECE_LEN];
            let len = usize::try_from(len).unwrap_or(PIECE_LEN).min(PIECE_LEN);
            let Some(bytes) = bytes.get_mut(..len) else { continue };
            // What cannot be read is zero: not valid.
            memory.read_at(at, bytes)?;
            for (index, entry) in (0_u64..).zip(bytes.chunks_exact(entry_len)) {
                let gva = first.saturating_add(index << table.shift);
                let from = gva.max(range.start);
                let to = gva.saturating_add(1 << table.shift).min(range.end);
                if from >= to {
                    continue;
                }
                match self.format.descriptor(self.endianness.decode(entry), table.shift, gva) {
                    Descriptor::Invalid => {}
                    Descriptor::Leaf(gpa) => {
                        let gpa = Gpa(gpa.0 | from & low_mask(table.shift));
                        list.add(Mapping { gpa, gva: Gva(from), len: to.saturating_sub(from) })?;
                    }
                    Descriptor::Table(next) => {
                        self.add_table(memory, self.below(table, next), gva, range, seen, list)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&self, memory: &dyn PhysMemory, at: Gpa) -> Result<u64, Error> {
        Ok(match self.format {
            Format::Short => self.endianness.decode(&memory::read_array::<4>(memory, at, "page table")?),
            Format::Long => self.endianness.decode(&memory::read_array::<8>(memory, at, "page table")?),
        })
    }

    /// What tells this kind of table from all others.
    fn kind(&self, shift: u32) -> u16 {
        self.kind | u16::try_from(shift).unwrap_or(0) << 9
    }
}

impl Format {
    /// log2 of the length of a descriptor.
    pub(crate) const fn entry_shift(self) -> u32 {
        match self {
            Self::Short => 2,
            Self::Long => 3,
        }
    }

    /// Bits of the largest address of a table.
    pub(crate) const fn physical_bits(self) -> u32 {
        match self {
            Self::Short => 32,
            Self::Long => 40,
        }
    }

    /// log2 of what a descriptor of the first table is for. Long ones leave out a first level of one descriptor.
    pub(crate) const fn first_shift(self, bits: u32) -> u32 {
        match self {
            Self::Short => SECTION_SHIFT,
            Self::Long if bits > 30 => 30,
            Self::Long => 21,
        }
    }

    const fn shift_below(self, shift: u32) -> u32 {
        match self {
            Self::Short => PAGE_SHIFT,
            Self::Long => shift.saturating_sub(9),
        }
    }

    /// The name of the level whose descriptors are for `1 << shift` bytes.
    const fn level(self, shift: u32) -> &'static str {
        match (self, shift) {
            (Self::Short, SECTION_SHIFT) | (Self::Long, 30) => "level 1",
            (Self::Short, _) | (Self::Long, 21) => "level 2",
            (Self::Long, _) => "level 3",
        }
    }

    /// What a leaf permits that is for `1 << shift` bytes, below tables with these bits, whatever its domain.
    const fn access(self, leaf: u64, shift: u32, tables: u64) -> Access {
        // Which bits are AP[2], and XN.
        let (read_only, never) = match (self, shift) {
            (Self::Short, SECTION_SHIFT) => (1 << 15, 1 << 4),
            (Self::Short, _) if leaf & SHORT_TYPE == SHORT_LARGE_PAGE => (1 << 9, 1 << 15),
            (Self::Short, _) => (1 << 9, 1 << 0),
            (Self::Long, _) => (1 << 7, 1 << 54),
        };
        let (write, execute) = (leaf & read_only == 0, leaf & never == 0);
        match self {
            Self::Short => Access { read: true, write, execute },
            Self::Long => {
                let by_kernel =
                    leaf & LONG_FOR_PROGRAMS != 0 || (leaf & LONG_PXN | tables & LONG_PXN_TABLE) == 0;
                Access {
                    read: true,
                    write: write && tables & LONG_READ_ONLY_TABLE == 0,
                    execute: execute && tables & LONG_XN_TABLE == 0 && by_kernel,
                }
            }
        }
    }

    /// What a descriptor says that is for `1 << shift` bytes, `gva` among them.
    const fn descriptor(self, entry: u64, shift: u32, gva: u64) -> Descriptor {
        match (self, shift) {
            (Self::Short, SECTION_SHIFT) => first_short(entry, gva),
            (Self::Short, _) => second_short(entry, gva),
            (Self::Long, _) => long(entry, shift),
        }
    }
}

const fn first_short(entry: u64, gva: u64) -> Descriptor {
    match entry & SHORT_TYPE {
        0 => Descriptor::Invalid,
        SHORT_TABLE => Descriptor::Table(Gpa(entry & !low_mask(10))),
        _ if entry & SUPERSECTION == 0 => Descriptor::Leaf(Gpa(entry & !low_mask(SECTION_SHIFT))),
        _ => {
            // Bits 35 to 32 and 39 to 36 of the address stand where sections have others.
            let high = (entry >> 20 & 0xf) << 32 | (entry >> 5 & 0xf) << 36;
            Descriptor::Leaf(Gpa(entry & !low_mask(24) | high | gva & 0xf0_0000))
        }
    }
}

const fn second_short(entry: u64, gva: u64) -> Descriptor {
    match entry & SHORT_TYPE {
        0 => Descriptor::Invalid,
        SHORT_LARGE_PAGE => Descriptor::Leaf(Gpa(entry & !low_mask(16) | gva & 0xf000)),
        _ => Descriptor::Leaf(Gpa(entry & !low_mask(PAGE_SHIFT))),
    }
}

const fn long(entry: u64, shift: u32) -> Descriptor {
    let address = entry & low_mask(40);
    match (entry & LONG_VALID != 0, entry & LONG_TABLE != 0, shift == PAGE_SHIFT) {
        (true, true, false) => Descriptor::Table(Gpa(address & !low_mask(PAGE_SHIFT))),
        (true, true, true) | (true, false, false) => Descriptor::Leaf(Gpa(address & !low_mask(shift))),
        (true, false, true) | (false, ..) => Descriptor::Invalid,
    }
}

pub(crate) const fn low_mask(bits: u32) -> u64 {
    !(u64::MAX << bits)
}

/// Bytes from an address to the end of its `1 << shift` bytes.
const fn rest(gva: Gva, shift: u32) -> u64 {
    (!gva.0 & low_mask(shift)).saturating_add(1)
}

#[cfg(test)]
mod tests;
