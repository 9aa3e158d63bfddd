//! The walks, on tables that are made by hand.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use proptest::prelude::*;
use vmcore_core::memory::BlockMemory;

const SUPERVISOR: u64 = 1;
const MACHINE: u64 = 3;
const SBE: u64 = 1 << 36;
/// Attributes that real leaves have: readable, executable, global, accessed, dirty, a bit for software, uncached.
const ATTRIBUTES: u64 = 1 << 61 | 0x1eb;
/// The first table.
const ROOT: u64 = 0x1_0000;

/// An entry that points to a table.
const fn table(gpa: u64) -> u64 {
    gpa >> 2 | VALID
}

const fn leaf(gpa: u64) -> u64 {
    gpa >> 2 | ATTRIBUTES
}

fn vcpu(known: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(&TABLE);
    for (name, value) in known {
        assert!(registers.set_value(name, *value), "{name}");
    }
    registers
}

/// A vCPU in supervisor mode, with an ASID.
fn supervisor(mode: u64) -> RegisterFile {
    vcpu(&[("priv", SUPERVISOR), ("satp", mode << 60 | 0x1234 << 44 | ROOT >> 12)])
}

/// Guest memory of 1 MiB with these words in it.
fn memory(order: Endianness, words: &[(u64, u64)]) -> BlockMemory {
    let mut bytes = vec![0; 0x10_0000];
    for (at, word) in words {
        let at = usize::try_from(*at).unwrap();
        order.encode(*word, &mut bytes[at..at + 8]);
    }
    BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
}

fn little(words: &[(u64, u64)]) -> BlockMemory {
    memory(Endianness::Little, words)
}

fn listed(registers: &RegisterFile, memory: &BlockMemory) -> Result<Vec<Mapping>, Error> {
    let mut list = MappingList::default();
    mappings(registers, memory, &mut SeenTables::default(), &mut list)?;
    Ok(list.into_sorted())
}

/// Both walks, on the same tables: rows are virtual address, physical address, bytes to the end of the page.
fn check(registers: &RegisterFile, memory: &BlockMemory, rows: &[(u64, u64, u64)]) {
    let mappings = listed(registers, memory).unwrap();
    for (gva, gpa, len) in rows {
        let translation = translate(registers, memory, Gva(*gva)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (*gpa, *len), "{gva:#x}");
        let holds =
            |m: &&Mapping| gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == *gpa);
        assert!(mappings.iter().any(|mapping| holds(&mapping)), "{gva:#x} in {mappings:x?}");
    }
}

fn error(registers: &RegisterFile, memory: &BlockMemory, gva: u64) -> String {
    translate(registers, memory, Gva(gva)).unwrap_err().to_string()
}

/// Tables below one another from `ROOT` on, of so many levels: entry 1 of each leads to the next, entries 2 and 511 are leaves.
fn nested(levels: u32) -> BlockMemory {
    let words = (0..levels).rev().flat_map(|level| {
        let at = ROOT + u64::from(levels - 1 - level) * 0x1000;
        let page = 1 << (12 + 9 * level);
        let next = if level == 0 { leaf(0x5000) } else { table(at + 0x1000) };
        [(at + 8, next), (at + 8 * 2, leaf(page * 2)), (at + 8 * 511, leaf(page))]
    });
    little(&words.collect::<Vec<_>>())
}

#[test]
fn sv39() {
    let rows = [
        (0x4020_1008, 0x5008, 0xff8),
        (0x4020_2ff0, 0x2ff0, 0x10),
        (0x4040_0010, 0x40_0010, 0x1f_fff0),
        (0x8000_0001, 0x8000_0001, 0x3fff_ffff),
        (0xffff_ffff_c000_0000, 0x4000_0000, 0x4000_0000),
    ];
    check(&supervisor(8), &nested(3), &rows);
    assert_eq!(
        error(&supervisor(8), &nested(3), 0x4020_0000),
        "0x40200000 is not mapped: the level 0 entry at 0x12000 is 0x0"
    );
    assert_eq!(
        error(&supervisor(8), &nested(3), 0x40_c000_0000),
        "0x40c0000000 is not a canonical address of this vCPU (39 bits)"
    );
    assert!(error(&supervisor(8), &nested(3), 0xffff_ff7f_c000_0000).contains("(39 bits)"));
}

#[test]
fn sv48() {
    let rows = [
        (0x80_4020_1008, 0x5008, 0xff8),
        (0x80_4040_0010, 0x40_0010, 0x1f_fff0),
        (0x80_8000_0001, 0x8000_0001, 0x3fff_ffff),
        (0x100_0000_0002, 0x100_0000_0002, 0x7f_ffff_fffe),
        (0xffff_ff80_0000_0000, 0x80_0000_0000, 0x80_0000_0000),
    ];
    check(&supervisor(9), &nested(4), &rows);
    assert!(error(&supervisor(9), &nested(4), 0x8000_0000_0000).contains("(48 bits)"));
    assert!(error(&supervisor(9), &nested(4), 0xffff_0000_0000_0000).contains("(48 bits)"));
    assert!(
        error(&supervisor(9), &nested(4), 0xffff_8000_0000_0000).contains("the level 3 entry at 0x10800")
    );
}

#[test]
fn sv57() {
    let rows = [
        (0x1_0080_4020_1008, 0x5008, 0xff8),
        (0x1_0080_4040_0010, 0x40_0010, 0x1f_fff0),
        (0x1_0080_8000_0001, 0x8000_0001, 0x3fff_ffff),
        (0x1_0100_0000_0002, 0x100_0000_0002, 0x7f_ffff_fffe),
        (0x2_0000_0000_0002, 0x2_0000_0000_0002, 0xffff_ffff_fffe),
        (0xffff_0000_0000_0000, 0x1_0000_0000_0000, 0x1_0000_0000_0000),
    ];
    check(&supervisor(10), &nested(5), &rows);
    assert!(error(&supervisor(10), &nested(5), 1 << 56).contains("(57 bits)"));
    assert!(error(&supervisor(10), &nested(5), 0xfeff_ffff_ffff_ffff).contains("(57 bits)"));
    assert!(error(&supervisor(10), &nested(5), 0).contains("the level 4 entry at 0x10000"));
}

/// 16 entries alike; each maps its own part of the page.
#[test]
fn a_page_of_64_kib() {
    let entry = NAPOT | leaf(0x7_8000);
    let words: Vec<_> = (16..32).map(|index| (0x1_2000 + index * 8, entry)).collect();
    let tables = [(ROOT, table(0x1_1000)), (0x1_1000, table(0x1_2000))];
    let memory = little(&[&words[..], &tables].concat());
    let rows = [(0x1_0000, 0x7_0000, 0x1000), (0x1_8123, 0x7_8123, 0xedd), (0x1_ffff, 0x7_ffff, 1)];
    check(&supervisor(8), &memory, &rows);
    let mapping = Mapping { gpa: Gpa(0x7_0000), gva: Gva(0x1_0000), len: 0x1_0000 };
    assert_eq!(listed(&supervisor(8), &memory).unwrap(), [mapping]);
}

#[test]
fn entries_that_map_nothing() {
    let tables = [(ROOT, table(0x1_1000)), (0x1_1000, table(0x1_2000))];
    let check = |at: u64, entry: u64, is_mapped: bool| {
        let memory = little(&[&tables[..], &[(at, entry)]].concat());
        let result = translate(&supervisor(8), &memory, Gva(0));
        assert_eq!(result.is_ok(), is_mapped, "{entry:#x}: {result:?}");
        assert_eq!(listed(&supervisor(8), &memory).unwrap().is_empty(), !is_mapped, "{entry:#x}");
    };
    let page = 0x1_2000;
    check(page, leaf(0x5000), true);
    check(page, leaf(0x5000) & !VALID, false);
    check(page, 0x5000 >> 2 | VALID | READ, true);
    check(page, 0x5000 >> 2 | VALID | EXECUTE, true);
    check(page, 0x5000 >> 2 | VALID | WRITE, false);
    check(page, 0x5000 >> 2 | VALID | WRITE | EXECUTE, false);
    check(page, table(0x5000), false);
    (54..=60).for_each(|bit| check(page, leaf(0x5000) | 1 << bit, false));
    // 64 KiB is the only size of a page of several entries.
    (0..16).for_each(|size| check(page, NAPOT | leaf(0x7_0000 | size << 12), size == 8));
    // Large pages are aligned, and never of several entries.
    let large = 0x1_1000;
    check(large, leaf(0x20_0000), true);
    (12..21).for_each(|bit| check(large, leaf(0x20_0000 | 1 << bit), false));
    check(large, NAPOT | leaf(0x20_0000), false);
    check(ROOT, leaf(0x4000_0000), true);
    check(ROOT, leaf(0x4020_0000), false);
    // A pointer has no attributes of memory.
    let pointer = |more: u64| {
        let memory =
            little(&[(ROOT, table(0x1_1000)), (0x1_1000, table(0x1_2000) | more), (0x1_2000, leaf(0x5000))]);
        translate(&supervisor(8), &memory, Gva(0)).is_ok()
    };
    assert!(pointer(0) && pointer(3 << 8), "bits for software");
    assert!(!pointer(1 << 54) && !pointer(1 << 61) && !pointer(1 << 62) && !pointer(NAPOT));
}

#[test]
fn the_highest_page() {
    let memory = little(&[(ROOT, leaf(0xff_ffff_c000_0000))]);
    check(&supervisor(8), &memory, &[(0x3fff_ffff, 0xff_ffff_ffff_ffff, 1)]);
}

#[test]
fn without_translation_virtual_is_physical() {
    let tables = 8 << 60 | ROOT >> 12;
    for known in
        [&[("satp", 0)][..], &[("satp", 0x0fff_ffff_ffff_ffff)], &[("priv", MACHINE), ("satp", tables)]]
    {
        let translation = translate(&vcpu(known), &nested(3), Gva(0x80_0000_0000_0ff0)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (0x80_0000_0000_0ff0, 0x10));
        assert!(error(&vcpu(known), &nested(3), 1 << 56).contains("(56 bits)"));
        assert!(listed(&vcpu(known), &nested(3)).unwrap().is_empty());
    }
    assert!(
        !listed(&vcpu(&[("priv", 0), ("satp", tables)]), &nested(3)).unwrap().is_empty(),
        "an application"
    );
}

#[test]
fn what_is_not_known() {
    let text = "register satp is not known for this vCPU, walking the page tables needs it";
    assert_eq!(error(&vcpu(&[]), &little(&[]), 0), text);
    for mode in [1, 7, 11, 15] {
        let text = error(&supervisor(mode), &little(&[]), 0);
        assert!(text.contains(&format!("mode {mode} ")), "{text}");
        assert!(matches!(listed(&supervisor(mode), &little(&[])), Err(Error::Unsupported { .. })));
    }
    // Without a mode, that of a kernel.
    check(&vcpu(&[("satp", 8 << 60 | ROOT >> 12)]), &nested(3), &[(0x4020_1000, 0x5000, 0x1000)]);
}

#[test]
fn entries_are_in_the_byte_order_of_the_kernel() {
    let words = [(ROOT, leaf(0x4000_0000))];
    let mut vcpu = supervisor(8);
    assert!(translate(&vcpu, &memory(Endianness::Big, &words), Gva(0)).is_err());
    vcpu.set_value("mstatus", SBE);
    check(&vcpu, &memory(Endianness::Big, &words), &[(0, 0x4000_0000, 0x4000_0000)]);
}

#[test]
fn tables_that_are_not_there() {
    let outside = vcpu(&[("satp", 8 << 60 | 0x8_0000)]);
    let text = "page table: guest memory at 0x80000000 is not available";
    assert_eq!(error(&outside, &little(&[]), 0), text);
    assert_eq!(listed(&outside, &little(&[])).unwrap_err().to_string(), text);
    // Below the root, what is missing maps nothing.
    let memory = little(&[(ROOT, table(0x8000_0000)), (ROOT + 8, leaf(0x4000_0000))]);
    assert_eq!(error(&supervisor(8), &memory, 0), text);
    check(&supervisor(8), &memory, &[(0x4000_0000, 0x4000_0000, 0x4000_0000)]);
}

/// One table is the first of a vCPU, whose upper half maps negative addresses, and the second of another.
#[test]
fn tables_of_two_modes_are_told_apart() {
    let memory = little(&[(ROOT + 8 * 511, leaf(0x4000_0000)), (0x2_0000, table(ROOT))]);
    let (mut seen, mut list) = (SeenTables::default(), MappingList::default());
    for satp in [8 << 60 | ROOT >> 12, 9 << 60 | 0x20] {
        mappings(&vcpu(&[("satp", satp)]), &memory, &mut seen, &mut list).unwrap();
    }
    let found: Vec<u64> = list.into_sorted().iter().map(|mapping| mapping.gva.0).collect();
    assert_eq!(found, [0x7f_c000_0000, 0xffff_ffff_c000_0000]);
}

#[test]
fn tables_that_map_themselves_everywhere_end_in_an_error() {
    let all: Vec<(u64, u64)> = (0..512).map(|index| (ROOT + 8 * index, table(ROOT))).collect();
    for mode in [9, 10] {
        let error = listed(&supervisor(mode), &little(&all)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
    // 1 + 512 + 512² tables are too many as well.
    assert!(matches!(listed(&supervisor(8), &little(&all)), Err(Error::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
    #[test]
    fn random_tables(
        words in prop::collection::vec(
            (0..0x10_0000_u64 / 8, prop_oneof![any::<u64>(), (0..16_u64).prop_map(|i| table(i << 12)),
                any::<u64>().prop_map(|bits| bits & 0x8000_ffff_ffff_ffff | 3)]), 0..64,
        ),
        roots in prop::collection::vec((0..0x400_u64, 0..4_u64), 0..32),
        leaves in prop::collection::vec((0..0x400_u64, any::<u64>()), 0..32),
        gva: u64, mode in 8..11_u64, is_big: bool,
    ) {
        let order = if is_big { Endianness::Big } else { Endianness::Little };
        let words = words.into_iter().map(|(index, word)| (index * 8, word));
        let roots = roots.into_iter().map(|(index, next)| (ROOT + index * 8, table(ROOT + (next << 12))));
        let leaves = leaves.into_iter().map(|(index, bits)| (ROOT + index * 8, bits & 0xf_ffff_ffff << 28 | 3));
        let memory = memory(order, &words.chain(roots).chain(leaves).collect::<Vec<_>>());
        let mut registers = supervisor(mode);
        registers.set_value("mstatus", if is_big { SBE } else { 0 });
        let _ = translate(&registers, &memory, Gva(gva));
        if let Ok(mappings) = listed(&registers, &memory) {
            for mapping in mappings {
                prop_assert_eq!(translate(&registers, &memory, mapping.gva)?.gpa, mapping.gpa);
                let last = mapping.len - 1;
                let translation = translate(&registers, &memory, Gva(mapping.gva.0 + last))?;
                prop_assert_eq!(translation.gpa.0, mapping.gpa.0 + last);
            }
        }
    }

    #[test]
    fn random_registers(values in prop::collection::vec(prop::option::of(any::<u64>()), 300), gva: u64) {
        let names = TABLE.rows.iter().map(|row| row.name);
        let known: Vec<_> = names.zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
        let memory = little(&[(0, u64::MAX)]);
        let _ = translate(&vcpu(&known), &memory, Gva(gva));
        let _ = listed(&vcpu(&known), &memory);
    }
}

#[test]
fn leaves_permit() {
    let leaf = |number: u64, bits| (ROOT + 8 * number, number << 28 | VALID | bits);
    let memory = little(&[leaf(0, READ), leaf(1, READ | WRITE), leaf(2, READ | EXECUTE), leaf(3, EXECUTE)]);
    for (number, expected) in (0..).zip(["r--", "rw-", "r-x", "--x"]) {
        let access = translate(&supervisor(8), &memory, Gva(number << 30)).unwrap().access.unwrap();
        assert_eq!(access.to_string(), expected);
    }
}
