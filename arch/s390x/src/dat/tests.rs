//! Small tables, entry by entry: each level, each size of frame, the prefix.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use proptest::prelude::*;
use vmcore_core::memory::BlockMemory;

/// Where the vCPUs of these tests have their prefix area, if they have one.
const PREFIX: u64 = 0xc000;

/// Guest memory of 128 KiB with these words in it.
fn memory(words: &[(u64, u64)]) -> BlockMemory {
    let mut bytes = vec![0; 0x2_0000];
    for (at, word) in words {
        let at = usize::try_from(*at).unwrap();
        bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    }
    BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
}

/// A vCPU in the primary space, with large frames.
fn space(asce: u64, prefix: u64) -> Space {
    of(&[("pswm", PSW_DAT), ("cr1", asce), ("cr0", CR0_EDAT), ("prefix", prefix)]).unwrap()
}

fn of(values: &[(&str, u64)]) -> Result<Space, Error> {
    let mut registers = RegisterFile::new(&TABLE);
    values.iter().for_each(|(name, value)| assert!(registers.set_value(name, *value)));
    Space::of(&registers)
}

/// Both walks, on the same tables: rows are virtual address, physical address, bytes that stay together.
fn check(space: Space, memory: &BlockMemory, rows: &[(u64, u64, u64)]) {
    let mut list = MappingList::default();
    space.mappings(memory, &mut SeenTables::default(), &mut list).unwrap();
    let mappings = list.into_sorted();
    for (gva, gpa, len) in rows {
        let translation = space.translate(memory, Gva(*gva)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (*gpa, *len), "{gva:#x}");
        let holds =
            |m: &&Mapping| gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == *gpa);
        assert!(mappings.iter().any(|mapping| holds(&mapping)), "{gva:#x} in {mappings:x?}");
    }
}

fn fails(space: Space, memory: &BlockMemory, gva: u64) -> String {
    space.translate(memory, Gva(gva)).unwrap_err().to_string()
}

#[test]
fn five_tables_and_all_sizes_of_frames() {
    // The table types 3, 2, 1, 0 stand in bits 3:2; the lengths are those of whole tables. Bit 0x200 (protection) counts nothing.
    let memory = memory(&[
        (0x4000 + 8 * 2047, 0x8000 | 0xf),
        (0x8000 + 8 * 1024, 0x1_0000 | 0x20b),
        (0x1_0000, 0x1_4000 | 0x7),
        (0x1_0008, 0x1_8000_0000 | 0x404), // 2 GiB
        (0x1_4000, 0x1_8800 | 0x200),
        (0x1_4008, 0x0070_0000 | 0x400), // 1 MiB
        (0x1_8800 + 8 * 255, 0x7_7000 | 0x200),
    ]);
    let top = 2047 << 53 | 1024 << 42;
    let rows = [
        (top | 0xf_f123, 0x7_7123, 0xedd),
        (top | 0x10_0010, 0x70_0010, 0xf_fff0),
        (top | 0x8000_0004, 0x1_8000_0004, 0x7fff_fffc),
    ];
    check(space(0x4000 | 0xf, 0), &memory, &rows);
    assert_eq!(
        fails(space(0x4000 | 0xf, 0), &memory, top | 0x1_0000_0000),
        "0xfff0000100000000 is not mapped: the region-third entry at 0x10010 is 0x0"
    );
}

/// Zeros are a segment entry that is valid, and a page entry that maps frame 0; above, they are of the wrong type.
#[test]
fn what_zeros_mean() {
    let empty = memory(&[]);
    check(space(0x4000, 0), &empty, &[(0x5123, 0x123, 0xedd)]);
    assert_eq!(
        fails(space(0x4000 | 4, 0), &empty, 0),
        "0x0 is not mapped: the region-third entry at 0x4000 is 0x0"
    );
    // Memory that is not in the dump has no zeros either.
    let missing = space(0x1_f000 | 3, 0);
    let error = missing.translate(&empty, Gva(0x2000_0000)).unwrap_err();
    assert_eq!(error.to_string(), "page table: guest memory at 0x20000 is not available");
    let mut list = MappingList::default();
    missing.mappings(&empty, &mut SeenTables::default(), &mut list).unwrap();
    assert!(list.into_sorted().iter().all(|mapping| mapping.gva.0 + mapping.len <= 0x2000_0000));
    let error = space(0x10_0000, 0).mappings(&empty, &mut SeenTables::default(), &mut MappingList::default());
    assert!(matches!(error, Err(Error::NoMemory { gpa: Gpa(0x10_0000), .. })));
}

#[test]
fn an_address_is_as_long_as_the_first_table_makes_it() {
    let memory = memory(&[]);
    for (table_type, bits) in [(0, 31), (1, 42), (2, 53)] {
        let error = fails(space(0x4000 | table_type << 2 | 3, 0), &memory, 1 << bits);
        assert_eq!(
            error,
            format!("{:#x} is not a canonical address of this vCPU ({bits} bits)", 1_u64 << bits)
        );
    }
    assert!(!fails(space(0x4000 | 0xf, 0), &memory, u64::MAX).contains("canonical"));
}

#[test]
fn only_the_stated_quarters_of_a_table_are_there() {
    // The second of four quarters of segments (64 KiB at 0x8000); the ASCE has one quarter.
    let entries = [
        (0x4000, 0x8000 | 1 << 6 | 1 | 4),
        (0x8000 + 0x0ff8, 0x0010_0400),
        (0x8000 + 0x1000, 0x0020_0400),
        (0x8000 + 0x1ff8, 0x0030_0400),
        (0x8000 + 0x2000, 0x0040_0400),
    ];
    let memory = memory(&entries);
    let space = space(0x4000 | 4, 0);
    check(space, &memory, &[(0x2000_0000, 0x20_0000, 0x10_0000), (0x3ff0_0000, 0x30_0000, 0x10_0000)]);
    for gva in [0x1ff0_0000, 0x4000_0000] {
        let error = format!("{gva:#x} is not mapped: the region-third entry at 0x4000 is 0x8045");
        assert_eq!(fails(space, &memory, gva), error);
    }
    assert_eq!(
        fails(space, &memory, 512 << 31),
        "0x10000000000 is not mapped: the ASCE entry at 0x4000 is 0x4004"
    );
    // Nothing but the two frames, though the other quarters lie in memory too: zeros there are page tables at 0.
    let mut list = MappingList::default();
    space.mappings(&memory, &mut SeenTables::default(), &mut list).unwrap();
    assert!(list.into_sorted().iter().all(|mapping| (0x2000_0000..0x4000_0000).contains(&mapping.gva.0)));
}

#[test]
fn without_edat_entries_are_tables() {
    let tables = memory(&[(0x4000, 0x8c00), (0x8800, 0x9000)]);
    check(space(0x4000, 0), &tables, &[(0x1000, 0x1000, 0xf_f000)]);
    // The origin of a page table is a multiple of 2 KiB: 0x8800.
    let small = of(&[("pswm", PSW_DAT), ("cr1", 0x4000), ("cr0", !CR0_EDAT), ("prefix", 0)]).unwrap();
    check(small, &tables, &[(0x10, 0x9010, 0xff0)]);
    for entry in [PAGE_INVALID, PAGE_RESERVED] {
        let error = format!("0x0 is not mapped: the page entry at 0x8800 is {entry:#x}");
        assert_eq!(fails(small, &memory(&[(0x4000, 0x8c00), (0x8800, entry)]), 0), error);
    }
    let error = "0x0 is not mapped: the segment entry at 0x4000 is 0x820";
    assert_eq!(fails(small, &memory(&[(0x4000, 0x820)]), 0), error);
}

#[test]
fn tables_and_frames_are_real_addresses() {
    // The segment table is said to lie at 0x1000: in this vCPU's own area, that is at absolute 0xd000. The page table is said
    // to lie in the prefix area, that is at absolute 0x0800.
    let memory = memory(&[
        (PREFIX + 0x1000, PREFIX | 0x800),
        (0x800, 0x1000),
        (0x808, PREFIX),
        (0x810, 0xb000),
        (0x818, PREFIX + 0x2000),
    ]);
    let rows = [
        (0x10, PREFIX + 0x1010, 0xff0),
        (0x1010, 0x10, 0xff0),
        (0x2010, 0xb010, 0xff0),
        (0x3010, PREFIX + 0x2010, 0xff0),
    ];
    check(space(0x1000, PREFIX), &memory, &rows);
}

#[test]
fn a_large_frame_is_cut_at_the_prefix() {
    let memory = memory(&[(0x4000, 0x400), (0x4008, 0x10_0400)]);
    let rows = [
        (0x1ffc, PREFIX + 0x1ffc, 4),
        (0x2000, 0x2000, PREFIX - 0x2000),
        (PREFIX + 1, 1, 0x1fff),
        (PREFIX + 0x2000, PREFIX + 0x2000, 0x10_0000 - PREFIX - 0x2000),
        (0x10_0000, 0x10_0000, 0x10_0000),
    ];
    check(space(0x4000, PREFIX), &memory, &rows);
}

#[test]
fn real_addresses_have_the_prefix_too() {
    for values in [
        &[("pswm", 0), ("prefix", PREFIX)][..],
        &[("pswm", PSW_DAT), ("cr1", ASCE_REAL_SPACE), ("cr0", 0), ("prefix", PREFIX)],
    ] {
        let space = of(values).unwrap();
        for (gva, gpa, len) in [(0x10, PREFIX | 0x10, 0xff0), (PREFIX, 0, 0x1000), (u64::MAX, u64::MAX, 1)] {
            assert_eq!(
                space.translate(&memory(&[]), Gva(gva)).unwrap(),
                Translation::unprotected(Gpa(gpa), len)
            );
        }
        let mut list = MappingList::default();
        space.mappings(&memory(&[]), &mut SeenTables::default(), &mut list).unwrap();
        assert_eq!(list.into_sorted(), []);
    }
}

#[test]
fn the_psw_chooses_the_space() {
    let asce = |index: u64| {
        of(&[
            ("pswm", PSW_DAT | index << 46),
            ("cr1", 0x1000),
            ("cr7", 0x7000),
            ("cr13", 0xd000),
            ("cr0", 0),
            ("prefix", 0),
        ])
        .unwrap()
        .asce
    };
    assert_eq!([0, 1, 2, 3].map(asce), [0x1000, 0x1000, 0x7000, 0xd000].map(Some));
    let error = of(&[("pswm", PSW_DAT | 3 << 46), ("prefix", 0), ("cr1", 0), ("cr7", 0)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "register cr13 is not known for this vCPU, walking the page tables needs it"
    );
    assert!(of(&[("pswm", 0)]).is_err(), "real addresses mean nothing without the prefix");
}

#[test]
fn tables_that_map_themselves_end_in_an_error() {
    // One table of 64 KiB that is its own region-first, -second and -third table, up to bits 3:2.
    let words: Vec<(u64, u64)> = (0..512)
        .flat_map(|i| {
            [(0x4000, 0x5000 | 0xc), (0x5000, 0x6000 | 8), (0x6000, 0x7000 | 4)]
                .map(|(at, entry)| (at + 8 * i, entry))
        })
        .collect();
    let error = space(0x4000 | 0xc, 0)
        .mappings(&memory(&words), &mut SeenTables::default(), &mut MappingList::default())
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
    #[test]
    fn random_tables(
        words in prop::collection::vec((0..0x2_0000_u64 / 8, prop_oneof![any::<u64>(), (0..32_u64, 0..0x1000_u64).prop_map(|(frame, low)| frame << 12 | low)]), 0..128),
        gva: u64, asce in 0x4000..0x4010_u64, prefix in 0..16_u64, edat: bool,
    ) {
        // Invalid but for those words, so that the tables are few.
        let mut all: Vec<(u64, u64)> = (0..0x2_0000 / 8).map(|index| (index * 8, INVALID | PAGE_INVALID)).collect();
        words.iter().for_each(|(index, word)| all[usize::try_from(*index).unwrap()].1 = *word);
        let memory = memory(&all);
        let space = of(&[
            ("pswm", PSW_DAT), ("cr1", asce), ("cr0", if edat { CR0_EDAT } else { 0 }), ("prefix", prefix * PREFIX_AREA),
        ])?;
        let _ = space.translate(&memory, Gva(gva));
        let mut list = MappingList::default();
        if space.mappings(&memory, &mut SeenTables::default(), &mut list).is_ok() {
            for mapping in list.into_sorted() {
                let translation = space.translate(&memory, mapping.gva)?;
                prop_assert_eq!(translation.gpa, mapping.gpa);
                // A merged mapping may hold several frames, but no frame reaches past it unless another mapping holds its rest.
                prop_assert!(translation.len > 0);
            }
        }
    }
}

#[test]
fn tables_and_frames_permit_together() {
    let memory = memory(&[
        (0x4000, 0x1_8800),
        (0x4008, 0x0070_0000 | FORMAT_CONTROL | PROTECTED | NO_EXECUTE),
        (0x4010, 0x1_8800 | PROTECTED),
        (0x1_8800, 0x7000),
        (0x1_8808, 0x8000 | PROTECTED),
        (0x1_8810, 0x9000 | NO_EXECUTE),
    ]);
    for (gva, expected) in [
        (0, "rwx"),
        (0x1000, "r-x"),
        (0x2000, "rw-"),
        (0x10_0000, "r--"),
        (0x20_0000, "r-x"),
        (0x20_2000, "r--"),
    ] {
        let access = space(0x4000, 0).translate(&memory, Gva(gva)).unwrap().access.unwrap();
        assert_eq!(access.to_string(), expected, "{gva:#x}");
    }
}
