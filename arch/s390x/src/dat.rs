//! Dynamic address translation: from virtual to real addresses by region and segment tables, and from real to absolute ones
//! by the prefix. A dump's memory is absolute.
//!
//! ```text
//! ASCE ─► region-first ─► region-second ─► region-third ─► segment ─► page
//!         63:53           52:42            41:31           30:20      19:12   bits of the address (LSB 0)
//! ```
//!
//! The ASCE (address-space-control element) says at which of the tables the walk begins. It, and each region entry, also says
//! which quarters of the next table there are.
//!
//! Source: z/Architecture Principles of Operation, chapter 3, "Dynamic Address Translation" and "Prefixing";
//! `spec/arch-notes.md` section 7.5.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, RegisterFile, Translation, memory,
};

/// PSW mask: translation is on.
const PSW_DAT: u64 = 1 << 58;
/// PSW mask: which address space (two bits).
const PSW_SPACE_SHIFT: u32 = 46;
/// CR0: enhanced DAT, large frames.
const CR0_EDAT: u64 = 1 << 23;
/// ASCE: there are no tables, virtual addresses are real ones.
const ASCE_REAL_SPACE: u64 = 0x20;
/// ASCE, region and segment entries: which table it is.
const TABLE_TYPE: u64 = 0xc;
/// ASCE and region entries: the next table has all of its quarters.
const ALL_QUARTERS: u64 = 3;
/// Region and segment entries: nothing is mapped.
const INVALID: u64 = 0x20;
/// Region-third and segment entries: the entry maps a frame itself.
const FORMAT_CONTROL: u64 = 0x400;
/// Page entries: nothing is mapped; and a bit that must be zero.
const PAGE_INVALID: u64 = 0x400;
/// DAT protection, in entries of all tables: not to be written.
const PROTECTED: u64 = 0x200;
/// Instruction-execution protection, in entries that map a frame.
const NO_EXECUTE: u64 = 0x100;
const PAGE_RESERVED: u64 = 0x800;
/// The 8 KiB at real address 0, of which each vCPU has its own.
pub(crate) const PREFIX_AREA: u64 = 0x2000;
pub(crate) const PAGE_MASK: u64 = 0xfff;
/// An entry of any table.
const ENTRY_LEN: u64 = 8;
/// The quarter of a region or segment table, and more than a whole page table.
const QUARTER_LEN: usize = 0x1000;
/// log2 of its number of entries.
const QUARTER_BITS: u32 = 9;

/// A kind of table.
#[derive(Debug)]
struct Level {
    name: &'static str,
    /// log2 of what an entry maps, in bytes.
    shift: u32,
    /// log2 of the number of entries.
    bits: u32,
    /// Bits 3:2 of each entry and of the ASCE say which table this is; page tables have no such bits.
    table_type: Option<u64>,
}

const fn level(name: &'static str, shift: u32, bits: u32, table_type: Option<u64>) -> Level {
    Level { name, shift, bits, table_type }
}

const REGION_THIRD: u64 = 1;
const SEGMENT: u64 = 0;

static LEVELS: [Level; 5] = [
    level("region-first", 53, 11, Some(3)),
    level("region-second", 42, 11, Some(2)),
    level("region-third", 31, 11, Some(REGION_THIRD)),
    level("segment", 20, 11, Some(SEGMENT)),
    level("page", 12, 8, None),
];

/// How a vCPU sees memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    prefix: Prefix,
    /// The ASCE; `None` where virtual addresses are real ones.
    asce: Option<u64>,
    has_large_frames: bool,
}

/// A table, or those quarters of it that there are.
#[derive(Clone, Copy, Debug)]
struct Table {
    /// Real address of the first quarter, whether it is there or not.
    origin: u64,
    /// First and last quarter.
    quarters: (u64, u64),
}

/// What an entry says.
enum Entry {
    Nothing,
    /// Real address of the frame that it maps.
    Frame(u64),
    Table(Table),
}

impl Space {
    /// The address space that the vCPU's PSW names.
    ///
    /// In access-register mode that is the primary one: it holds the instructions, and the data where access registers are 0.
    pub(crate) fn of(registers: &RegisterFile) -> Result<Self, Error> {
        let mask = register(registers, "pswm")?;
        let prefix = Prefix(register(registers, "prefix")? & !PREFIX_AREA.wrapping_sub(1));
        if mask & PSW_DAT == 0 {
            return Ok(Self { prefix, asce: None, has_large_frames: false });
        }
        let asce = match mask >> PSW_SPACE_SHIFT & 3 {
            2 => "cr7",  // secondary
            3 => "cr13", // home
            _ => "cr1",
        };
        Ok(Self {
            prefix,
            asce: Some(register(registers, asce)?).filter(|asce| asce & ASCE_REAL_SPACE == 0),
            has_large_frames: register(registers, "cr0")? & CR0_EDAT != 0,
        })
    }

    /// The space of tables that begin at `root`, as the absolute memory at 0 is seen without a prefix.
    ///
    /// Which of the tables that is, the entries themselves say, those too that map nothing.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the table is not there.
    pub(crate) fn at(memory: &dyn PhysMemory, root: Gpa) -> Result<Self, Error> {
        let entry = u64::from_be_bytes(memory::read_array(memory, root, "page table")?);
        let asce = root.0 & !PAGE_MASK | entry & TABLE_TYPE | ALL_QUARTERS;
        Ok(Self { prefix: Prefix(0), asce: Some(asce), has_large_frames: true })
    }

    /// Walks the tables for one address.
    pub(crate) fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        let Some(asce) = self.asce else {
            let (gpa, len) = self.prefix.absolute(gva.0, rest(gva, PAGE_MASK));
            return Ok(Translation::unprotected(gpa, len));
        };
        let (levels, mut table) = first_table(asce);
        let bits = levels.first().map_or(0, |level| level.shift.saturating_add(level.bits));
        if gva.0.checked_shr(bits).is_some_and(|above| above != 0) {
            return Err(Error::NotCanonical { gva, bits });
        }
        // By what the table at hand was found: the ASCE, then entries.
        let mut last = ("ASCE", Gpa(table.origin), asce);
        let mut access = Access { read: true, write: true, execute: true };
        for level in levels {
            let index = gva.0 >> level.shift & level.index_mask();
            let Some(at) = table.entry(index) else { break };
            let (at, _) = self.prefix.absolute(at, ENTRY_LEN);
            let entry = u64::from_be_bytes(memory::read_array(memory, at, "page table")?);
            last = (level.name, at, entry);
            access.write &= entry & PROTECTED == 0;
            match self.decode(level, entry) {
                Entry::Nothing => break,
                Entry::Frame(frame) => {
                    let offset = level.offset_mask();
                    access.execute = entry & NO_EXECUTE == 0;
                    let (gpa, len) = self.prefix.absolute(frame | gva.0 & offset, rest(gva, offset));
                    return Ok(Translation { gpa, len, access: Some(access) });
                }
                Entry::Table(next) => table = next,
            }
        }
        let (level, at, entry) = last;
        Err(Error::NotMapped { gva, level, at, entry })
    }

    /// Adds all that the tables map.
    ///
    /// Tables that vCPUs share are walked once, with the prefix of the first of them.
    pub(crate) fn mappings(
        &self,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let Some(asce) = self.asce else { return Ok(()) };
        let (levels, table) = first_table(asce);
        // Without its first table a vCPU has none at all; below that, what is missing maps nothing.
        let (first, _) = self.prefix.absolute(table.quarter(table.quarters.0), ENTRY_LEN);
        memory::read_array::<8>(memory, first, "page table")?;
        self.add_table(memory, levels, table, 0, seen, list)
    }

    fn add_table(
        &self,
        memory: &dyn PhysMemory,
        levels: &[Level],
        table: Table,
        start: u64,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let Some((level, below)) = levels.split_first() else { return Ok(()) };
        let mut bytes = [0; QUARTER_LEN];
        let bytes = bytes.get_mut(..QUARTER_LEN.min(8 << level.bits)).unwrap_or_default();
        for quarter in table.quarters.0..=table.quarters.1 {
            // Quarters lie in one page each, so that the prefix does not cut them.
            let (at, _) = self.prefix.absolute(table.quarter(quarter), ENTRY_LEN);
            let start = start | quarter << QUARTER_BITS << level.shift;
            if !seen.insert(at, Gva(start), level.tag(self.has_large_frames))? {
                continue;
            }
            let missing = memory.read_at(at, bytes)?;
            let is_missing = |at: u64| missing.ranges().iter().any(|range| range.contains(&at));
            for (index, entry) in (0_u64..).zip(bytes.chunks_exact(8)) {
                // Zeros would map frame 0.
                if is_missing(at.0.saturating_add(index.wrapping_mul(ENTRY_LEN))) {
                    continue;
                }
                let gva = start | index << level.shift;
                match self.decode(level, Endianness::Big.decode(entry)) {
                    Entry::Nothing => {}
                    Entry::Frame(frame) => self.prefix.add(gva, frame, 1 << level.shift, list)?,
                    Entry::Table(next) => self.add_table(memory, below, next, gva, seen, list)?,
                }
            }
        }
        Ok(())
    }

    fn decode(&self, level: &Level, entry: u64) -> Entry {
        let Some(table_type) = level.table_type else {
            let is_valid = entry & (PAGE_INVALID | PAGE_RESERVED) == 0;
            return if is_valid { Entry::Frame(entry & !level.offset_mask()) } else { Entry::Nothing };
        };
        if entry & INVALID != 0 || entry >> 2 & 3 != table_type {
            return Entry::Nothing;
        }
        let may_be_frame = self.has_large_frames && table_type <= REGION_THIRD;
        if may_be_frame && entry & FORMAT_CONTROL != 0 {
            return Entry::Frame(entry & !level.offset_mask());
        }
        Entry::Table(match table_type {
            SEGMENT => Table { origin: entry & !0x7ff, quarters: (0, 0) },
            _ => Table { origin: entry & !PAGE_MASK, quarters: (entry >> 6 & 3, entry & 3) },
        })
    }
}

/// The tables that an ASCE begins with.
fn first_table(asce: u64) -> (&'static [Level], Table) {
    let table_type = asce >> 2 & 3;
    let first = LEVELS.iter().position(|level| level.table_type == Some(table_type));
    let levels = LEVELS.get(first.unwrap_or(LEVELS.len())..).unwrap_or_default();
    (levels, Table { origin: asce & !PAGE_MASK, quarters: (0, asce & 3) })
}

impl Table {
    fn quarter(&self, quarter: u64) -> u64 {
        self.origin.wrapping_add(quarter.wrapping_mul(QUARTER_LEN as u64))
    }

    /// Real address of an entry, if its quarter is there.
    fn entry(&self, index: u64) -> Option<u64> {
        let (first, last) = self.quarters;
        let at = index.wrapping_mul(ENTRY_LEN);
        (first..=last).contains(&(index >> QUARTER_BITS)).then(|| self.origin.wrapping_add(at))
    }
}

impl Level {
    /// What tells this kind of table from all others: the same bytes may be a table of two kinds.
    fn tag(&self, has_large_frames: bool) -> u8 {
        u8::try_from(self.shift).unwrap_or(0) | u8::from(has_large_frames) << 7
    }

    const fn index_mask(&self) -> u64 {
        !(u64::MAX << self.bits)
    }

    const fn offset_mask(&self) -> u64 {
        !(u64::MAX << self.shift)
    }
}

/// Where a vCPU's own 8 KiB lie: a multiple of their size. They and those at 0 have changed places; all else is where it is.
#[derive(Clone, Copy, Debug)]
struct Prefix(u64);

impl Prefix {
    /// The absolute address of a real one, and how many of `len` bytes stay together.
    fn absolute(self, real: u64, len: u64) -> (Gpa, u64) {
        let offset = real % PREFIX_AREA;
        let left = PREFIX_AREA.wrapping_sub(offset).min(len);
        match real.wrapping_sub(offset) {
            _ if self.0 == 0 => (Gpa(real), len),
            0 => (Gpa(self.0 | offset), left),
            area if area == self.0 => (Gpa(offset), left),
            area if area < self.0 => (Gpa(real), self.0.wrapping_sub(real).min(len)),
            _ => (Gpa(real), len),
        }
    }

    /// Adds `len` bytes of virtual memory at `gva` that lie at `real`.
    fn add(self, gva: u64, real: u64, len: u64, list: &mut MappingList) -> Result<(), Error> {
        let mut done = 0;
        while done < len {
            let (gpa, together) = self.absolute(real.wrapping_add(done), len.wrapping_sub(done));
            // No configuration has memory at the end of all addresses; a frame there maps nothing.
            if gpa.checked_add(together).is_some() {
                list.add(Mapping { gpa, gva: Gva(gva | done), len: together })?;
            }
            done = done.saturating_add(together);
        }
        Ok(())
    }
}

/// Bytes from an address to the end of its page, whose offsets fill `mask`.
const fn rest(gva: Gva, mask: u64) -> u64 {
    (!gva.0 & mask).saturating_add(1)
}

fn register(registers: &RegisterFile, name: &'static str) -> Result<u64, Error> {
    registers.value(name).ok_or(Error::NoRegister { name, what: "walking the page tables" })
}

#[cfg(test)]
mod tests;
