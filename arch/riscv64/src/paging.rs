//! Page tables: one walker for one address and for all of them.
//!
//! ```text
//! satp ─► level 4 ─► level 3 ─► level 2 ─► level 1 ─► level 0
//!         56:48      47:39      38:30      29:21      20:12      bits of the address
//!         Sv57       Sv48       Sv39                             where the mode begins
//! ```
//!
//! An entry of any level may be a leaf, so that it maps a page of 4 KiB, 2 MiB, 1 GiB, 512 GiB or 256 TiB.
//!
//! What is not done: the two stages of a guest that a hypervisor inside the guest runs. Nothing that QEMU shows tells whether
//! a vCPU runs one; where it does, `satp` is that guest's.
//!
//! Source: RISC-V privileged architecture, chapter "Supervisor-Level ISA" and its extensions Svnapot and Svpbmt;
//! `spec/arch-notes.md` section 7.6.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::{endianness, is_machine_mode};
use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, RegisterFile, Translation, memory,
};

const VALID: u64 = 1 << 0;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
/// Reserved in all entries; a processor does not translate by one that has any of them.
const RESERVED: u64 = 0x7f << 54;
/// Svpbmt: the type of memory that a leaf maps.
const MEMORY_TYPE: u64 = 3 << 61;
/// Svnapot: the leaf is one of several alike that map one larger page.
const NAPOT: u64 = 1 << 63;
/// What the lowest bits of such a leaf's page number are: 64 KiB, the only size that there is.
const NAPOT_64K: u64 = 0x8000;
const NAPOT_MASK: u64 = 0xffff;

const TABLE_LEN: usize = 0x1000;
const PAGE_SHIFT: u32 = 12;
/// log2 of the number of entries.
const TABLE_BITS: u32 = 9;
/// Bits of the largest physical address.
const PHYSICAL_BITS: u32 = 56;
const LEVELS: [&str; 5] = ["level 0", "level 1", "level 2", "level 3", "level 4"];

/// The tables of a vCPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    root: Gpa,
    /// How many levels there are: 3 to 5.
    levels: u32,
    /// Byte order of entries.
    endianness: Endianness,
}

/// What an entry says.
enum Entry {
    Nothing,
    Table(Gpa),
    /// What it maps; of a page made of several entries, the part that is the address in question.
    Leaf(Gpa),
}

/// Walks the vCPU's tables for one address.
pub(crate) fn translate(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    gva: Gva,
) -> Result<Translation, Error> {
    if let Some(tables) = Tables::of(registers)? {
        return tables.translate(memory, gva);
    }
    if gva.0 >> PHYSICAL_BITS != 0 {
        return Err(Error::NotCanonical { gva, bits: PHYSICAL_BITS });
    }
    Ok(Translation::unprotected(Gpa(gva.0), rest(gva, PAGE_SHIFT)))
}

/// Adds all that the vCPU's tables map.
pub(crate) fn mappings(
    registers: &RegisterFile,
    memory: &dyn PhysMemory,
    seen: &mut SeenTables,
    list: &mut MappingList,
) -> Result<(), Error> {
    let Some(tables) = Tables::of(registers)? else { return Ok(()) };
    // Without its root a vCPU has no tables at all; below that, what is missing maps nothing.
    tables.read(memory, tables.root)?;
    tables.add_table(memory, tables.root, tables.root_shift(), Gva(0), seen, list)
}

impl Tables {
    /// The tables that `satp` names; `None` where virtual addresses are physical ones.
    ///
    /// A vCPU of which the mode is not known is taken for one that runs its kernel.
    pub(crate) fn of(registers: &RegisterFile) -> Result<Option<Self>, Error> {
        if is_machine_mode(registers) {
            return Ok(None);
        }
        let satp = registers.value("satp");
        let satp = satp.ok_or(Error::NoRegister { name: "satp", what: "walking the page tables" })?;
        let levels = match satp >> 60 {
            0 => return Ok(None), // Bare
            8 => 3,               // Sv39
            9 => 4,               // Sv48
            10 => 5,              // Sv57
            mode => {
                let found = format!("mode {mode} (satp {satp:#x})");
                return Err(Error::Unsupported { what: "address translation", found });
            }
        };
        let root = Gpa((satp & low_mask(44)) << PAGE_SHIFT);
        Ok(Some(Self { root, levels, endianness: endianness(registers).unwrap_or(Endianness::Little) }))
    }

    /// Tables for virtual addresses of so many bits, the first of them at `root`; `None` if no mode has so many.
    pub(crate) fn at(root: Gpa, bits: u64, endianness: Endianness) -> Option<Self> {
        let levels = match bits {
            39 => 3,
            48 => 4,
            57 => 5,
            _ => return None,
        };
        Some(Self { root, levels, endianness })
    }

    /// log2 of what an entry of the first table maps.
    const fn root_shift(&self) -> u32 {
        PAGE_SHIFT.saturating_add(TABLE_BITS.saturating_mul(self.levels.saturating_sub(1)))
    }

    /// `address`, whose uppermost bit stands for all that are above it.
    const fn sign_extended(&self, address: u64) -> u64 {
        let above = 64_u32.saturating_sub(self.bits());
        ((address << above).cast_signed() >> above).cast_unsigned()
    }

    /// Bits of a virtual address.
    const fn bits(&self) -> u32 {
        self.root_shift().saturating_add(TABLE_BITS)
    }

    pub(crate) fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        if self.sign_extended(gva.0) != gva.0 {
            return Err(Error::NotCanonical { gva, bits: self.bits() });
        }
        let (mut table, mut shift) = (self.root, self.root_shift());
        loop {
            let at = Gpa(table.0 | (gva.0 >> shift & low_mask(TABLE_BITS)) << 3);
            let entry = self.read(memory, at)?;
            match decode(entry, shift, gva) {
                Entry::Nothing => return Err(Error::NotMapped { gva, level: level(shift), at, entry }),
                Entry::Leaf(gpa) => {
                    let gpa = Gpa(gpa.0 | gva.0 & low_mask(shift));
                    let has = |bit| entry & bit != 0;
                    let access = Access { read: has(READ), write: has(WRITE), execute: has(EXECUTE) };
                    return Ok(Translation { gpa, len: rest(gva, shift), access: Some(access) });
                }
                Entry::Table(next) => (table, shift) = (next, shift.saturating_sub(TABLE_BITS)),
            }
        }
    }

    /// Adds a table that maps addresses from `start` on, with each of its entries `1 << shift` bytes.
    fn add_table(
        &self,
        memory: &dyn PhysMemory,
        table: Gpa,
        shift: u32,
        start: Gva,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        if !seen.insert(table, start, self.kind(shift))? {
            return Ok(());
        }
        let mut bytes = [0; TABLE_LEN];
        // What cannot be read is zero: not valid.
        memory.read_at(table, &mut bytes)?;
        for (index, entry) in (0_u64..).zip(bytes.chunks_exact(8)) {
            let gva = Gva(self.sign_extended(start.0 | index << shift));
            match decode(self.endianness.decode(entry), shift, gva) {
                Entry::Nothing => {}
                Entry::Leaf(gpa) => list.add(Mapping { gpa, gva, len: 1 << shift })?,
                Entry::Table(next) => {
                    self.add_table(memory, next, shift.saturating_sub(TABLE_BITS), gva, seen, list)?;
                }
            }
        }
        Ok(())
    }

    fn read(&self, memory: &dyn PhysMemory, at: Gpa) -> Result<u64, Error> {
        let bytes: [u8; 8] = memory::read_array(memory, at, "page table")?;
        Ok(self.endianness.decode(&bytes))
    }

    /// What tells this kind of table from all others: the upper half of a first table maps negative addresses.
    fn kind(&self, shift: u32) -> u16 {
        let is_big = u32::from(self.endianness == Endianness::Big);
        u16::try_from(shift | self.levels << 6 | is_big << 9).unwrap_or(u16::MAX)
    }
}

/// What an entry says that maps `1 << shift` bytes, `gva` among them.
const fn decode(entry: u64, shift: u32, gva: Gva) -> Entry {
    let address = entry << 2 & low_mask(PHYSICAL_BITS) & !low_mask(PAGE_SHIFT);
    let is_reserved = entry & RESERVED != 0 || entry & (READ | WRITE) == WRITE;
    if entry & VALID == 0 || is_reserved {
        return Entry::Nothing;
    }
    if entry & (READ | WRITE | EXECUTE) == 0 {
        let is_table = shift > PAGE_SHIFT && entry & (NAPOT | MEMORY_TYPE) == 0;
        return if is_table { Entry::Table(Gpa(address)) } else { Entry::Nothing };
    }
    if entry & NAPOT != 0 {
        let is_known = shift == PAGE_SHIFT && address & NAPOT_MASK == NAPOT_64K;
        let page = gva.0 & NAPOT_MASK & !low_mask(PAGE_SHIFT);
        return if is_known { Entry::Leaf(Gpa(address & !NAPOT_MASK | page)) } else { Entry::Nothing };
    }
    if address & low_mask(shift) == 0 { Entry::Leaf(Gpa(address)) } else { Entry::Nothing }
}

/// The name of the level whose entries map `1 << shift` bytes.
fn level(shift: u32) -> &'static str {
    let index = shift.saturating_sub(PAGE_SHIFT).checked_div(TABLE_BITS).unwrap_or(0);
    LEVELS.get(index as usize).copied().unwrap_or("level")
}

const fn low_mask(bits: u32) -> u64 {
    !(u64::MAX << bits)
}

/// Bytes from an address to the end of its page of `1 << shift` bytes.
const fn rest(gva: Gva, shift: u32) -> u64 {
    (!gva.0 & low_mask(shift)).saturating_add(1)
}

#[cfg(test)]
mod tests;
