//! Page tables: one walker for one address and for all of them.
//!
//! Every mode is a list of levels. What differs between modes stands in those rows, in the length of an entry and in the
//! root.
//!
//! Source: Intel SDM volume 3, chapter 4; `spec/arch-notes.md` section 7.1. QEMU's own walk, which `--paging` of
//! `dump-guest-memory` uses, differs where it is wrong (section 8): it gives user addresses the sign bits of the kernel's,
//! and drops leaves with software bits above bit 51.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, RegisterFile, Translation, memory,
};

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Of entries of 8 bytes. Where EFER.NXE is clear, no entry has it.
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of an index of PAE's first table.
const PAE_POINTER_BITS: u32 = 2;
/// The address in an 8-byte entry: bits 51 to 12. Above are protection keys, software bits and no-execute.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE_LEN: usize = 0x1000;

/// Which entries of a level map memory themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Never,
    IfPageSize,
    Always,
}

/// A level of page tables.
#[derive(Debug)]
struct Level {
    name: &'static str,
    /// log2 of what an entry maps, in bytes.
    shift: u32,
    /// log2 of the number of entries.
    bits: u32,
    leaf: Leaf,
}

const fn level(name: &'static str, shift: u32, bits: u32, leaf: Leaf) -> Level {
    Level { name, shift, bits, leaf }
}

static FIVE_LEVELS: [Level; 5] = [
    level("PML5", 48, 9, Leaf::Never),
    level("PML4", 39, 9, Leaf::Never),
    level("PDPT", 30, 9, Leaf::IfPageSize),
    level("PD", 21, 9, Leaf::IfPageSize),
    level("PT", 12, 9, Leaf::Always),
];
static PAE: [Level; 3] = [
    level("PDPT", 30, 2, Leaf::Never),
    level("PD", 21, 9, Leaf::IfPageSize),
    level("PT", 12, 9, Leaf::Always),
];
static LEGACY: [Level; 2] = [level("PD", 22, 10, Leaf::IfPageSize), level("PT", 12, 10, Leaf::Always)];
static LEGACY_WITHOUT_PSE: [Level; 2] = [level("PD", 22, 10, Leaf::Never), level("PT", 12, 10, Leaf::Always)];

/// How a vCPU translates addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// Bits of a virtual address.
    bits: u32,
    /// The tables; `None` while paging is off.
    tables: Option<Tables>,
}

#[derive(Clone, Copy, Debug)]
struct Tables {
    root: Gpa,
    entry_len: u64,
    levels: &'static [Level],
    /// Bits of an entry that are an address.
    address: u64,
}

impl Mode {
    /// The mode of a vCPU in a dump of x86_64.
    ///
    /// QEMU's notes lack EFER: without it, a vCPU with PAE paging in such a dump is in long mode.
    pub(crate) fn of_x86_64(registers: &RegisterFile) -> Result<Self, Error> {
        let cr4 = register(registers, "cr4")?;
        let is_paged = register(registers, "cr0")? & CR0_PG != 0;
        let is_long =
            registers.value("efer").map_or(is_paged && cr4 & CR4_PAE != 0, |efer| efer & EFER_LMA != 0);
        if !is_paged || !is_long {
            return Self::of_i386(registers);
        }
        let root = Gpa(register(registers, "cr3")? & ADDRESS);
        Ok(Self::long(root, cr4 & CR4_LA57 != 0, 0))
    }

    /// Long mode. `encryption` is the bit of an entry that says that the page is encrypted, or 0.
    pub(crate) fn long(root: Gpa, has_five_levels: bool, encryption: u64) -> Self {
        let (_, four) = FIVE_LEVELS.split_at(1);
        let (bits, levels) = if has_five_levels { (57, &FIVE_LEVELS[..]) } else { (48, four) };
        let tables = Tables { root, entry_len: 8, levels, address: ADDRESS & !encryption };
        Self { bits, tables: Some(tables) }
    }

    /// The mode of a vCPU that is not in long mode.
    pub(crate) fn of_i386(registers: &RegisterFile) -> Result<Self, Error> {
        let (cr0, cr3, cr4) =
            (register(registers, "cr0")?, register(registers, "cr3")?, register(registers, "cr4")?);
        let tables = if cr0 & CR0_PG == 0 {
            None
        } else if cr4 & CR4_PAE != 0 {
            Some(Tables { root: Gpa(cr3 & 0xffff_ffe0), entry_len: 8, levels: &PAE, address: ADDRESS })
        } else {
            let levels = if cr4 & CR4_PSE != 0 { &LEGACY } else { &LEGACY_WITHOUT_PSE };
            Some(Tables { root: Gpa(cr3 & 0xffff_f000), entry_len: 4, levels, address: ADDRESS })
        };
        Ok(Self { bits: 32, tables })
    }

    /// Whether virtual addresses are not physical ones.
    pub(crate) fn is_paged(&self) -> bool {
        self.tables.is_some()
    }

    /// The other root of a vCPU of Linux with page-table isolation: the kernel's, which stands before that of programs.
    pub(crate) fn before_isolation(self) -> Self {
        let root = |tables: Tables| Tables { root: Gpa(tables.root.0 & !0x1000), ..tables };
        Self { tables: self.tables.map(root), ..self }
    }

    /// Walks the tables for one address.
    pub(crate) fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        if self.extend(gva.0) != gva.0 {
            return Err(Error::NotCanonical { gva, bits: self.bits });
        }
        let Some(tables) = self.tables else {
            return Ok(Translation::unprotected(Gpa(gva.0), rest(gva, 0xfff)));
        };
        let mut table = tables.root;
        let mut access = Access { read: true, write: true, execute: true };
        let mut last = ("", table, 0);
        for level in tables.levels {
            let index = gva.0 >> level.shift & level.index_mask();
            // A table is aligned to its length.
            let at = Gpa(table.0 | index.wrapping_mul(tables.entry_len));
            let entry = tables.read_entry(memory, at)?;
            if entry & PRESENT == 0 {
                return Err(Error::NotMapped { gva, level: level.name, at, entry });
            }
            // The directory pointers of PAE permit nothing and forbid nothing: those bits are reserved there.
            if level.bits != PAE_POINTER_BITS {
                access.write &= entry & WRITABLE != 0;
                access.execute &= tables.entry_len == 4 || entry & NO_EXECUTE == 0;
            }
            if level.is_leaf(entry) {
                let gpa = Gpa(tables.frame(level, entry).0 | gva.0 & level.offset_mask());
                return Ok(Translation { gpa, len: rest(gva, level.offset_mask()), access: Some(access) });
            }
            table = Gpa(entry & tables.address);
            last = (level.name, at, entry);
        }
        // The last level of every mode is all leaves.
        Err(Error::NotMapped { gva, level: last.0, at: last.1, entry: last.2 })
    }

    /// Adds all that the tables map.
    pub(crate) fn mappings(
        &self,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let Some(tables) = self.tables else { return Ok(()) };
        // Without its root a vCPU has no tables at all; below that, what is missing maps nothing.
        tables.read_entry(memory, tables.root)?;
        self.add_table(memory, &tables, tables.levels, tables.root, Gva(0), seen, list)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the state of a recursion that is five levels deep at the most"
    )]
    fn add_table(
        &self,
        memory: &dyn PhysMemory,
        tables: &Tables,
        levels: &[Level],
        table: Gpa,
        start: Gva,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let Some((level, below)) = levels.split_first() else { return Ok(()) };
        if !seen.insert(table, start, level.tag())? {
            return Ok(());
        }
        let mut bytes = [0; TABLE_LEN];
        let entry_len = usize::try_from(tables.entry_len).unwrap_or(8);
        let len = entry_len << level.bits;
        let Some(bytes) = bytes.get_mut(..len) else { return Ok(()) };
        // What cannot be read is zero: not present.
        memory.read_at(table, bytes)?;
        for (index, entry) in (0_u64..).zip(bytes.chunks_exact(entry_len)) {
            let entry = Endianness::Little.decode(entry);
            if entry & PRESENT == 0 {
                continue;
            }
            let gva = Gva(start.0 | index << level.shift);
            if level.is_leaf(entry) {
                let mapping = Mapping {
                    gpa: tables.frame(level, entry),
                    gva: Gva(self.extend(gva.0)),
                    len: 1 << level.shift,
                };
                list.add(mapping)?;
            } else {
                self.add_table(memory, tables, below, Gpa(entry & tables.address), gva, seen, list)?;
            }
        }
        Ok(())
    }

    /// The address with the bits above its highest one set like that one; 32-bit addresses have zeros there.
    fn extend(&self, address: u64) -> u64 {
        let unused = u64::BITS.saturating_sub(self.bits);
        if self.bits == 32 {
            return address << unused >> unused;
        }
        ((address << unused).cast_signed() >> unused).cast_unsigned()
    }
}

impl Tables {
    fn read_entry(&self, memory: &dyn PhysMemory, at: Gpa) -> Result<u64, Error> {
        if self.entry_len == 4 {
            return Ok(u32::from_le_bytes(memory::read_array(memory, at, "page table")?).into());
        }
        Ok(u64::from_le_bytes(memory::read_array(memory, at, "page table")?))
    }

    /// Where the memory lies that a leaf maps.
    fn frame(&self, level: &Level, entry: u64) -> Gpa {
        let mut address = entry & self.address;
        if self.entry_len == 4 && level.shift == 22 {
            // PSE-36: bits 20 to 13 of a 4 MiB entry are bits 39 to 32 of the address.
            address = (entry & 0xffc0_0000) | (entry >> 13 & 0xff) << 32;
        }
        Gpa(address & !level.offset_mask())
    }
}

impl Level {
    fn is_leaf(&self, entry: u64) -> bool {
        match self.leaf {
            Leaf::Never => false,
            Leaf::IfPageSize => entry & PAGE_SIZE_BIT != 0,
            Leaf::Always => true,
        }
    }

    /// What tells this kind of table from all others: vCPUs in different modes may use one table, each in its own way.
    fn tag(&self) -> u8 {
        let kind = match (self.bits, self.leaf) {
            (9, _) => 0,
            (10, Leaf::Never) => 0x40,
            (10, _) => 0x80,
            (_, _) => 0xc0,
        };
        // Shifts take 6 bits.
        u8::try_from(self.shift).unwrap_or(0) | kind
    }

    const fn index_mask(&self) -> u64 {
        !(u64::MAX << self.bits)
    }

    const fn offset_mask(&self) -> u64 {
        !(u64::MAX << self.shift)
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
#[expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]
mod tests {
    use super::*;
    use crate::registers::{i386, x86_64};
    use proptest::prelude::*;
    use vmcore_core::memory::BlockMemory;

    /// Guest memory of 64 KiB with these words in it, each as wide as an entry of the mode.
    fn memory(entry_len: usize, words: &[(u64, u64)]) -> BlockMemory {
        let mut bytes = vec![0; 0x1_0000];
        for (at, word) in words {
            let at = usize::try_from(*at).unwrap();
            bytes[at..at + entry_len].copy_from_slice(&word.to_le_bytes()[..entry_len]);
        }
        BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
    }

    fn long_mode(cr3: u64, cr4: u64) -> Mode {
        let mut registers = RegisterFile::new(&x86_64::TABLE);
        for (name, value) in [("cr0", CR0_PG), ("cr3", cr3), ("cr4", cr4 | CR4_PAE), ("efer", EFER_LMA)] {
            registers.set_value(name, value);
        }
        Mode::of_x86_64(&registers).unwrap()
    }

    fn protected_mode(cr0: u64, cr3: u64, cr4: u64) -> Mode {
        let mut registers = RegisterFile::new(&i386::TABLE);
        for (name, value) in [("cr0", cr0), ("cr3", cr3), ("cr4", cr4)] {
            registers.set_value(name, value);
        }
        Mode::of_i386(&registers).unwrap()
    }

    /// Both walks, on the same tables: rows are virtual address, physical address, bytes to the end of the page.
    fn check(mode: Mode, memory: &BlockMemory, rows: &[(u64, u64, u64)]) {
        let mut list = MappingList::default();
        mode.mappings(memory, &mut SeenTables::default(), &mut list).unwrap();
        let mappings = list.into_sorted();
        for (gva, gpa, len) in rows {
            let translation = mode.translate(memory, Gva(*gva)).unwrap();
            assert_eq!((translation.gpa.0, translation.len), (*gpa, *len), "{gva:#x}");
            let holds =
                |m: &&Mapping| gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == *gpa);
            assert!(mappings.iter().any(|mapping| holds(&mapping)), "{gva:#x} in {mappings:x?}");
        }
    }

    #[test]
    fn four_levels_and_all_page_sizes() {
        // The kernel's half, software bits 58 to 52 and no-execute in the leaves, PCID in CR3.
        let high = 0x87f0_0000_0000_0000;
        let memory = memory(
            8,
            &[
                (0x1000 + 8 * 511, 0x2003),
                (0x1000, 0x5003),
                (0x2000 + 8 * 510, 0x3003),
                (0x2000 + 8 * 509, high | 0x1_4000_0083),
                (0x3000, 0x4003),
                (0x3000 + 8, high | 0x0060_1083), // PAT, bit 12, is not a bit of the address
                (0x4000 + 8, high | 0x0070_0003),
                (0x5000, 0x6003),
                (0x6000, 0x7003),
                (0x7000 + 8 * 5, 0x0000_9007),
            ],
        );
        check(
            long_mode(0x1fff, 0),
            &memory,
            &[
                (0xffff_ffff_8000_1234, 0x70_0234, 0xdcc),
                (0xffff_ffff_8020_0010, 0x60_0010, 0x1f_fff0),
                (0xffff_ffff_4000_0001, 0x1_4000_0001, 0x3fff_ffff),
                (0x5008, 0x9008, 0xff8),
            ],
        );
        let error = long_mode(0x1000, 0).translate(&memory, Gva(0xffff_ffff_8000_0000)).unwrap_err();
        assert_eq!(error.to_string(), "0xffffffff80000000 is not mapped: the PT entry at 0x4000 is 0x0");
        let error = long_mode(0x1000, 0).translate(&memory, Gva(0x8000_0000_0000)).unwrap_err();
        assert!(error.to_string().contains("not a canonical address of this vCPU (48 bits)"));
        let error = long_mode(0x100_0000, 0).translate(&memory, Gva(0)).unwrap_err();
        assert_eq!(error.to_string(), "page table: guest memory at 0x1000000 is not available");
    }

    #[test]
    fn tables_and_leaves_permit_together() {
        let check = |mode: Mode, memory: &BlockMemory, gva: u64, expected: &str| {
            let access = mode.translate(memory, Gva(gva)).unwrap().access.unwrap();
            assert_eq!(access.to_string(), expected, "{gva:#x}");
        };
        let words = &[
            (0x1000, 0x2007),
            (0x2000, 0x3005),
            (0x2008, 0x4007),
            (0x3000, 0x83),
            (0x4000, NO_EXECUTE | 0x83),
            (0x4008, 0x5007),
            (0x5000, 0x9001),
            (0x5008, 0x9003),
        ];
        let memory_of_long = memory(8, words);
        for (gva, expected) in [(0, "r-x"), (0x4000_0000, "rw-"), (0x4020_0000, "r-x"), (0x4020_1000, "rwx")]
        {
            check(long_mode(0x1000, 0), &memory_of_long, gva, expected);
        }
        let memory_of_pae = memory(8, &[(0x1020, 0x2001), (0x2000, 0x83), (0x2008, NO_EXECUTE | 0x81)]);
        check(protected_mode(CR0_PG, 0x1020, CR4_PAE), &memory_of_pae, 0, "rwx");
        check(protected_mode(CR0_PG, 0x1020, CR4_PAE), &memory_of_pae, 0x20_0000, "r--");
        let memory_of_legacy = memory(4, &[(0x1000, 0x81), (0x1004, 0x83)]);
        check(protected_mode(CR0_PG, 0x1000, CR4_PSE), &memory_of_legacy, 0, "r-x");
        check(protected_mode(CR0_PG, 0x1000, CR4_PSE), &memory_of_legacy, 0x40_0000, "rwx");
    }

    #[test]
    fn five_levels() {
        let memory = memory(8, &[(0x1000 + 8 * 0x110, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)]);
        check(long_mode(0x1000, CR4_LA57), &memory, &[(0xff10_0000_0000_0000, 0, 1 << 30)]);
    }

    #[test]
    fn pae() {
        let memory = memory(
            8,
            &[(0x1020 + 8 * 3, 0x2001), (0x2000, 0x3003), (0x2008, 0x1_0060_0083), (0x3000, 0x1_0000_4003)],
        );
        let rows = [(0xc000_0004, 0x1_0000_4004, 0xffc), (0xc020_0000, 0x1_0060_0000, 0x20_0000)];
        check(protected_mode(CR0_PG, 0x1020, CR4_PAE), &memory, &rows);
        let mode = protected_mode(CR0_PG, 0x1020, CR4_PAE);
        assert!(mode.translate(&memory, Gva(0x1_0000_0000)).is_err(), "addresses have 32 bits");
    }

    #[test]
    fn legacy_tables_with_and_without_large_pages() {
        let memory = memory(4, &[(0x1000 + 4 * 0x300, 0x0040_2083), (0x1000, 0x2003), (0x2004, 0x7003)]);
        let large = protected_mode(CR0_PG, 0x1000, CR4_PSE);
        check(large, &memory, &[(0xc000_1000, 0x1_0040_1000, 0x3f_f000), (0x1ffc, 0x7ffc, 4)]);
        let small = protected_mode(CR0_PG, 0x1000, 0);
        assert!(
            small.translate(&memory, Gva(0xc000_1000)).is_err(),
            "without PSE the entry is a table at 0x402000"
        );
    }

    #[test]
    fn without_paging_virtual_is_physical() {
        let mode = protected_mode(0, 0x1000, 0);
        let translation = mode.translate(&memory(8, &[]), Gva(0xffff_fff0)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (0xffff_fff0, 0x10));
        let mut list = MappingList::default();
        mode.mappings(&memory(8, &[]), &mut SeenTables::default(), &mut list).unwrap();
        assert_eq!(list.into_sorted(), []);
    }

    /// Windows maps its own tables by one slot of the root that points to the root.
    #[test]
    fn a_root_that_maps_itself_ends() {
        let memory = memory(8, &[(0x1000 + 8 * 0x1ed, 0x1003), (0x1000, 0x2003), (0x2000, 0x83)]);
        check(
            long_mode(0x1000, 0),
            &memory,
            &[(0x1000, 0x1000, 0x3fff_f000), (0xffff_f6fb_7dbe_df68, 0x1f68, 0x98)],
        );
    }

    /// A vCPU that is still in PAE mode sees 4 entries of a table of which one in long mode sees 512.
    #[test]
    fn modes_do_not_share_what_they_have_seen() {
        let memory =
            memory(8, &[(0x1000, 0x2003), (0x2000 + 8 * 4, 0x4000_0083), (0x2000, 0x3003), (0x3000, 0x83)]);
        let (mut seen, mut list) = (SeenTables::default(), MappingList::default());
        protected_mode(CR0_PG, 0x2000, CR4_PAE).mappings(&memory, &mut seen, &mut list).unwrap();
        long_mode(0x1000, 0).mappings(&memory, &mut seen, &mut list).unwrap();
        let mapping = |gpa, gva, len| Mapping { gpa: Gpa(gpa), gva: Gva(gva), len };
        let expected = [mapping(0, 0, 0x20_0000), mapping(0x4000_0000, 0x1_0000_0000, 0x4000_0000)];
        assert_eq!(list.into_sorted(), expected);
    }

    /// A table of small pages in order, seen from 2^27 places: each place is one mapping, found without 512 look-ups.
    #[test]
    fn aliases_of_a_full_table_end_soon() {
        let words: Vec<(u64, u64)> = (0..512)
            .flat_map(|i| {
                [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, i << 12 | 3)]
                    .map(|(at, entry)| (at + 8 * i, entry))
            })
            .collect();
        let (mut seen, mut list) = (SeenTables::default(), MappingList::default());
        let error = long_mode(0x1000, 0).mappings(&memory(8, &words), &mut seen, &mut list).unwrap_err();
        assert!(matches!(error, Error::TooLarge { what: "page tables of the guest", .. }), "{error}");
        // Each of the tables that were walked gave one mapping; those of a 2 MiB step are apart in one space.
        assert!(list.into_sorted().len() > SeenTables::MAX / 2);
    }

    /// The stack for returns to 16-bit code: Linux maps one page every 64 KiB, 65,536 times.
    #[test]
    fn one_page_at_65536_places_is_listed() {
        let mut words = vec![(0x1000 + 8 * 510, 0x2003)];
        words.extend((0..4).map(|i| (0x2000 + 8 * i, 0x3003)));
        words.extend((0..512).map(|i| (0x3000 + 8 * i, 0x4003)));
        words.extend((0..512).step_by(16).map(|i| (0x4000 + 8 * i, 0x5003)));
        let mut list = MappingList::default();
        long_mode(0x1000, 0).mappings(&memory(8, &words), &mut SeenTables::default(), &mut list).unwrap();
        assert_eq!(list.into_sorted().len(), 65_536);
    }

    #[test]
    fn tables_that_map_themselves_everywhere_end_in_an_error() {
        let all: Vec<(u64, u64)> = (0..512).map(|i| (0x1000 + 8 * i, 0x1003)).collect();
        let mut list = MappingList::default();
        let error = long_mode(0x1000, 0)
            .mappings(&memory(8, &all), &mut SeenTables::default(), &mut list)
            .unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
        #[test]
        fn random_tables(
            words in prop::collection::vec((0..0x1_0000_u64 / 8, prop_oneof![any::<u64>(), (0..16u64).prop_map(|i| i << 12 | 3)]), 0..64),
            gva: u64, five: bool, kind in 0..3,
        ) {
            let words: Vec<(u64, u64)> = words.into_iter().map(|(index, word)| (index * 8, word)).collect();
            let memory = memory(8, &words);
            let mode = match kind {
                0 => long_mode(0x1000, if five { CR4_LA57 } else { 0 }),
                1 => protected_mode(CR0_PG, 0x1000, CR4_PAE),
                _ => protected_mode(CR0_PG, 0x1000, CR4_PSE),
            };
            let _ = mode.translate(&memory, Gva(gva));
            let mut list = MappingList::default();
            if mode.mappings(&memory, &mut SeenTables::default(), &mut list).is_ok() {
                for mapping in list.into_sorted() {
                    let translation = mode.translate(&memory, mapping.gva)?;
                    // Several leaves may give one virtual range; the start of a merged one is the start of a leaf.
                    prop_assert_eq!(translation.gpa, mapping.gpa);
                }
            }
        }
    }
}
