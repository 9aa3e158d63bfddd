//! The walks, on tables that are made by hand.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use proptest::prelude::*;
use vmcore_core::memory::BlockMemory;

const SCTLR_M: u64 = 1;
const SCTLR_EE: u64 = 1 << 25;
const EAE: u64 = 1 << 31;
const SVC: u64 = 0x13;
const LOW: u64 = 0x1_0000;
const HIGH: u64 = 0x2_0000;
/// Attributes that real descriptors have.
const SECTION: u64 = 0x1_1c0e;
const SUPER: u64 = 0x5_1c0e;
const SMALL: u64 = 0x47f;
const LARGE: u64 = 0x1041d;
const LONG: u64 = 0x0060_0000_0000_0704;

fn vcpu(known: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(&TABLE);
    for (name, value) in known {
        assert!(registers.set_value(name, *value), "{name}");
    }
    registers
}

/// A vCPU in supervisor mode: attributes below the addresses of its tables, and above them where they have 64 bits.
fn supervisor(ttbcr: u64) -> RegisterFile {
    let mut registers = vcpu(&[("cpsr", SVC), ("sctlr", SCTLR_M), ("ttbcr", ttbcr)]);
    let (above, below) = if ttbcr & EAE != 0 { (0x12 << 48, 0) } else { (0, 0x4a) };
    for (name, table) in [("ttbr0", LOW), ("ttbr1", HIGH)] {
        let name = if ttbcr & EAE != 0 { name.to_owned() } else { format!("{name}_el1") };
        registers.set_value(&name, above | table | below);
    }
    registers
}

/// Guest memory of 1 MiB with these words of `len` bytes in it.
fn memory(order: Endianness, len: usize, words: &[(u64, u64)]) -> BlockMemory {
    let mut bytes = vec![0; 0x10_0000];
    for (at, word) in words {
        let at = usize::try_from(*at).unwrap();
        order.encode(*word, &mut bytes[at..at + len]);
    }
    BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
}

fn short(words: &[(u64, u64)]) -> BlockMemory {
    memory(Endianness::Little, 4, words)
}

fn long(words: &[(u64, u64)]) -> BlockMemory {
    memory(Endianness::Little, 8, words)
}

fn listed(registers: &RegisterFile, memory: &BlockMemory) -> Result<Vec<Mapping>, Error> {
    let mut list = MappingList::default();
    mappings(registers, memory, &mut SeenTables::default(), &mut list)?;
    Ok(list.into_sorted())
}

/// Both walks, on the same tables: rows are virtual address, physical address, bytes to the end of what is mapped.
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

fn gpa(registers: &RegisterFile, memory: &BlockMemory, gva: u64) -> Option<u64> {
    translate(registers, memory, Gva(gva)).ok().map(|translation| translation.gpa.0)
}

#[test]
fn short_descriptors() {
    let page_table = 0x3_0400;
    let mut words = vec![
        (LOW + 4, page_table | 0x1e1),
        (LOW + 4 * 2, 0x8010_0000 | SECTION),
        (LOW + 4 * 4, 0x8020_0000 | SECTION | 1), // PXN
        (LOW + 4 * 0xfff, 0xfff0_0000 | SECTION),
        (page_table + 4 * 3, 0x8765_4000 | SMALL),
        (page_table + 4 * 4, 0x8765_5000 | SMALL & !1), // executable
    ];
    words.extend((16..32).map(|index| (page_table + 4 * index, 0x8bcd_0000 | LARGE)));
    // Bits 35 to 32 are 5, 39 to 36 are 0xa.
    words.extend((0x20..0x30).map(|index| (LOW + 4 * index, 0x9d50_0000 | 0xa << 5 | SUPER)));
    let rows = [
        (0x10_3ff0, 0x8765_4ff0, 0x10),
        (0x10_4000, 0x8765_5000, 0x1000),
        (0x11_2345, 0x8bcd_2345, 0xcbb),
        (0x20_0001, 0x8010_0001, 0xf_ffff),
        (0x40_0000, 0x8020_0000, 0x10_0000),
        (0x2ab_cdef, 0xa5_9dab_cdef, 0x4_3211),
        (0xffff_ffff, 0xffff_ffff, 1),
    ];
    let memory = short(&words);
    check(&supervisor(0), &memory, &rows);
    let mappings = listed(&supervisor(0), &memory).unwrap();
    let supersection = Mapping { gpa: Gpa(0xa5_9d00_0000), gva: Gva(0x200_0000), len: 0x100_0000 };
    let large = Mapping { gpa: Gpa(0x8bcd_0000), gva: Gva(0x11_0000), len: 0x1_0000 };
    assert!(mappings.contains(&supersection) && mappings.contains(&large), "{mappings:x?}");
    assert_eq!(
        error(&supervisor(0), &memory, 0x10_0000),
        "0x100000 is not mapped: the level 2 entry at 0x30400 is 0x0"
    );
    assert!(error(&supervisor(0), &memory, 0x30_0000).contains("the level 1 entry at 0x1000c is 0x0"));
    assert!(error(&supervisor(0), &memory, 1 << 32).contains("(32 bits)"));
    // Processors with long descriptors have TTBR0 twice.
    let mut both = supervisor(0);
    both.set_value("ttbr0", LOW | 0x4a);
    both.set_value("ttbr0_el1", 0);
    check(&both, &memory, &rows);
}

/// TTBCR.N: TTBR0 is for the first 2^(32-N) bytes, with a table of so many descriptors fewer.
#[test]
fn two_ranges_of_short_descriptors() {
    for n in 1..8_u32 {
        let middle = 1_u64 << (32 - n);
        let index = middle >> 20;
        let memory = short(&[
            (LOW + 4 * (index - 1), 0x8000_0000 | SECTION),
            // TTBR1's table counts from address 0, though it is not for those.
            (HIGH + 4 * (index - 1), 0x8100_0000 | SECTION),
            (HIGH + 4 * index, 0x8200_0000 | SECTION),
            (HIGH + 4 * 0xfff, 0x8300_0000 | SECTION),
        ]);
        let rows = [
            (middle - 1, 0x800f_ffff, 1),
            (middle, 0x8200_0000, 0x10_0000),
            (0xfff0_0004, 0x8300_0004, 0xf_fffc),
        ];
        let vcpu = supervisor(n.into());
        check(&vcpu, &memory, &rows);
        assert_eq!(listed(&vcpu, &memory).unwrap().len(), 3, "{n}");
        // PD0, PD1
        let (low, high) = (supervisor(u64::from(n) | 1 << 4), supervisor(u64::from(n) | 1 << 5));
        assert_eq!((gpa(&low, &memory, middle - 1), gpa(&low, &memory, middle)), (None, Some(0x8200_0000)));
        assert_eq!((gpa(&high, &memory, middle - 1), gpa(&high, &memory, middle)), (Some(0x800f_ffff), None));
        assert_eq!((listed(&low, &memory).unwrap().len(), listed(&high, &memory).unwrap().len()), (2, 1));
    }
    // The first table is aligned to its length only.
    let mut vcpu = supervisor(7);
    vcpu.set_value("ttbr0_el1", LOW | 0x280 | 0x4a);
    assert_eq!(gpa(&vcpu, &short(&[(LOW + 0x284, 0x8000_0000 | SECTION)]), 0x10_0000), Some(0x8000_0000));
}

#[test]
fn long_descriptors() {
    let memory = long(&[
        (LOW, 0x3_0003),
        (LOW + 8 * 2, LONG | 0xab_c000_0001),  // a block of 1 GiB
        (LOW + 8 * 3, 0x2000_0000_0003_1003),  // bits of a table that are none of its address
        (0x3_0000 + 8, LONG | 0x01_2340_0001), // 2 MiB
        (0x3_0000 + 8 * 2, 0x3_2003),
        (0x3_1000 + 8 * 511, 0x3_2003),
        (0x3_2000 + 8 * 3, LONG | 0xff_ffff_f003),
        (0x3_2000 + 8 * 4, LONG | 0x5001), // reserved
    ]);
    let rows = [
        (0x20_0010, 0x01_2340_0010, 0x1f_fff0),
        (0x40_3ff0, 0xff_ffff_fff0, 0x10),
        (0x8000_0001, 0xab_c000_0001, 0x3fff_ffff),
        (0xffe0_3000, 0xff_ffff_f000, 0x1000),
    ];
    check(&supervisor(EAE), &memory, &rows);
    assert_eq!(
        error(&supervisor(EAE), &memory, 0x40_4000),
        format!("0x404000 is not mapped: the level 3 entry at 0x32020 is {:#x}", LONG | 0x5001)
    );
    assert!(error(&supervisor(EAE), &memory, 0).contains("the level 2 entry at 0x30000 is 0x0"));
    assert!(error(&supervisor(EAE), &memory, 0x4000_0000).contains("the level 1 entry at 0x10008 is 0x0"));
    assert!(error(&supervisor(EAE), &memory, 1 << 32).contains("(32 bits)"));
}

/// T0SZ and T1SZ.
#[test]
fn two_ranges_of_long_descriptors() {
    // Tables that begin with level 1 at the root, and with level 2 at 0x100 in the next page.
    let block = |table: u64, index: u64, gpa: u64| (table + 8 * index, LONG | gpa | 1);
    let check_both = |sizes: u64, words: &[(u64, u64)], rows: &[(u64, u64, u64)], unmapped: &[u64]| {
        let (vcpu, memory) = (supervisor(EAE | sizes), long(words));
        check(&vcpu, &memory, rows);
        let mappings = listed(&vcpu, &memory).unwrap();
        for gva in unmapped {
            assert!(translate(&vcpu, &memory, Gva(*gva)).is_err(), "{sizes:#x} {gva:#x}");
            assert!(
                !mappings.iter().any(|m| gva.wrapping_sub(m.gva.0) < m.len),
                "{sizes:#x} {gva:#x} {mappings:x?}"
            );
        }
    };
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let all = |table: u64, base: u64| (0..4).map(move |index| block(table, index, base + (index << 30)));
    let both: Vec<_> = all(LOW, 0x10_0000_0000).chain(all(HIGH, 0x20_0000_0000)).collect();
    // As Linux has it: TTBR1 is for what is above 2 GiB, with a table that counts from address 0.
    let rows =
        [(2 * GIB - 4, 0x10_7fff_fffc, 4), (2 * GIB, 0x20_8000_0000, GIB), (4 * GIB - 1, 0x20_ffff_ffff, 1)];
    check_both(1, &both, &rows, &[]);
    // The last 2 GiB, with a table for them alone.
    let rows =
        [(2 * GIB - 4, 0x10_7fff_fffc, 4), (2 * GIB, 0x20_0000_0000, GIB), (3 * GIB, 0x20_4000_0000, GIB)];
    check_both(1 << 16, &both, &rows, &[]);
    // Both for less; nothing between.
    let level2 =
        [block(LOW, 0, 0x10_0000_0000), block(LOW, 255, 0x10_0020_0000), block(HIGH, 15, 0x20_0000_0000)];
    let rows = [
        (0, 0x10_0000_0000, 2 * MIB),
        (510 * MIB, 0x10_0020_0000, 2 * MIB),
        (4 * GIB - 2 * MIB, 0x20_0000_0000, 2 * MIB),
    ];
    check_both(3 | 7 << 16, &level2, &rows, &[512 * MIB, 4 * GIB - 34 * MIB, 2 * GIB]);
    // A border inside of a block: it ends what is mapped.
    let rows = [
        (0, 0x10_0000_0000, 2 * MIB),
        (32 * MIB, 0x20_0200_0000, GIB - 32 * MIB),
        (3 * GIB, 0x20_c000_0000, GIB),
    ];
    let words: Vec<_> = all(HIGH, 0x20_0000_0000).chain([block(LOW, 0, 0x10_0000_0000)]).collect();
    check_both(7, &words, &rows, &[2 * MIB]);
    let words: Vec<_> = all(LOW, 0x10_0000_0000).collect();
    check_both(7 << 16, &words, &[(4 * GIB - 32 * MIB - 1, 0x10_fdff_ffff, 1)], &[4 * GIB - 32 * MIB]);
    // ... and inside of what a table maps.
    let words = [(HIGH, 0x4_0003), block(0x4_0000, 15, 0x20_0000_0000), block(0x4_0000, 16, 0x20_0020_0000)];
    check_both(7, &words, &[(32 * MIB, 0x20_0020_0000, 2 * MIB)], &[30 * MIB]);
    // EPD0, EPD1
    let memory = long(&both);
    let (low, high) = (supervisor(EAE | 1 | 1 << 7), supervisor(EAE | 1 | 1 << 23));
    assert_eq!((gpa(&low, &memory, 0), gpa(&low, &memory, 2 * GIB)), (None, Some(0x20_8000_0000)));
    assert_eq!((gpa(&high, &memory, 0), gpa(&high, &memory, 2 * GIB)), (Some(0x10_0000_0000), None));
}

#[test]
fn without_translation_virtual_is_physical() {
    let vcpu = vcpu(&[("sctlr", 0)]);
    let translation = translate(&vcpu, &short(&[]), Gva(0xffff_fff0)).unwrap();
    assert_eq!((translation.gpa.0, translation.len), (0xffff_fff0, 0x10));
    assert!(error(&vcpu, &short(&[]), 1 << 32).contains("(32 bits)"));
    assert!(listed(&vcpu, &short(&[])).unwrap().is_empty());
}

#[test]
fn descriptors_are_in_the_byte_order_of_data() {
    for (ttbcr, len, word) in [(0, 4, 0x8000_0000 | SECTION), (EAE, 8, LONG | 0x8000_0001)] {
        let memory = memory(Endianness::Big, len, &[(LOW, word)]);
        let mut vcpu = supervisor(ttbcr);
        assert_ne!(gpa(&vcpu, &memory, 4), Some(0x8000_0004));
        vcpu.set_value("sctlr", SCTLR_M | SCTLR_EE);
        assert_eq!(gpa(&vcpu, &memory, 4), Some(0x8000_0004));
        assert_eq!(listed(&vcpu, &memory).unwrap()[0].gpa, Gpa(0x8000_0000));
    }
}

#[test]
fn secure_code_has_registers_of_its_own() {
    let memory = short(&[(LOW, 0x8000_0000 | SECTION), (0x4_0000, 0x8100_0000 | SECTION)]);
    let mut vcpu = supervisor(0);
    for (name, value) in [("sctlr_s", SCTLR_M), ("ttbcr_s", 0), ("ttbr0_el1_s", 0x4_0000), ("ttbr1_el1_s", 0)]
    {
        vcpu.set_value(name, value);
    }
    let mut at = |cpsr, scr| {
        vcpu.set_value("cpsr", cpsr);
        vcpu.set_value("scr", scr);
        gpa(&vcpu, &memory, 0)
    };
    assert_eq!((at(SVC, 1), at(SVC, 0)), (Some(0x8000_0000), Some(0x8100_0000)));
    assert_eq!(at(0x16, 1), Some(0x8100_0000), "monitor mode");
}

#[test]
fn what_is_not_known_or_not_done() {
    let check = |known: &[(&str, u64)], expected: &str| {
        let text = error(&vcpu(known), &short(&[]), 0);
        assert!(text.contains(expected), "{text}");
        assert!(listed(&vcpu(known), &short(&[])).is_err(), "{expected}");
    };
    let on = [("sctlr", SCTLR_M)];
    check(&[], "register sctlr is not known");
    check(&on, "register ttbcr is not known");
    check(&[on[0], ("ttbcr", 0)], "register ttbr0_el1 is not known");
    check(&[on[0], ("ttbcr", EAE), ("ttbr1", 0)], "register ttbr0 is not known");
    check(&[on[0], ("ttbcr", 0), ("scr", 0)], "register sctlr_s is not known");
    check(&[("cpsr", 0x1a)], "Hyp mode");
    check(&[("hcr", 1)], "a second stage");
    check(&[on[0], ("fcseidr", 1 << 25)], "Fast Context Switch");
    // Nothing needs TTBR1 where it is for nothing.
    let known = [on[0], ("ttbcr", 0), ("ttbr0_el1", LOW), ("hcr", 0), ("scr", 1), ("fcseidr", 0)];
    assert!(listed(&vcpu(&known), &short(&[])).unwrap().is_empty());
}

#[test]
fn tables_that_are_not_there() {
    let mut vcpu = supervisor(1);
    vcpu.set_value("ttbr0_el1", 0x8000_0000);
    let memory = short(&[(HIGH + 4 * 0xfff, 0x8000_0000 | SECTION), (HIGH + 4 * 0xffe, 0x9000_0001)]);
    assert_eq!(error(&vcpu, &memory, 0), "page table: guest memory at 0x80000000 is not available");
    // One root is enough; below it, what is missing maps nothing.
    assert_eq!(listed(&vcpu, &memory).unwrap().len(), 1);
    vcpu.set_value("ttbr1_el1", 0x8000_0000);
    assert!(matches!(listed(&vcpu, &memory), Err(Error::NoMemory { .. })));
}

/// Two vCPUs use one table, for ranges that begin at different addresses.
#[test]
fn ranges_of_other_lengths_do_not_share_what_they_have_seen() {
    let memory =
        short(&[(HIGH + 4 * 0x500, 0x8000_0000 | SECTION), (HIGH + 4 * 0x900, 0x8100_0000 | SECTION)]);
    let (mut seen, mut list) = (SeenTables::default(), MappingList::default());
    for n in [1, 2] {
        mappings(&supervisor(n), &memory, &mut seen, &mut list).unwrap();
    }
    let found: Vec<u64> = list.into_sorted().iter().map(|mapping| mapping.gva.0).collect();
    assert!(found.contains(&0x5000_0000) && found.contains(&0x9000_0000), "{found:x?}");
}

/// There are no more tables than addresses: 4 GiB of small pages.
#[test]
fn tables_that_map_themselves_everywhere_end() {
    let all: Vec<(u64, u64)> = (0..512).map(|index| (LOW + 8 * index, LOW | 3)).collect();
    let found = listed(&supervisor(EAE), &long(&all)).unwrap();
    assert_eq!(found.iter().map(|mapping| mapping.len).sum::<u64>(), 1 << 32);
    let all: Vec<(u64, u64)> = (0..4096).map(|index| (LOW + 4 * index, LOW | 1)).collect();
    let found = listed(&supervisor(0), &short(&all)).unwrap();
    assert_eq!(found.iter().map(|mapping| mapping.len).sum::<u64>(), 1 << 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
    #[test]
    fn random_tables(
        words in prop::collection::vec(
            (0..0x10_0000_u64 / 8, prop_oneof![any::<u64>(), (0..16_u64).prop_map(|i| i << 16 | 3)]), 0..64,
        ),
        roots in prop::collection::vec((0..0x4000_u64, 0..16_u64, 0..4_u64), 0..32),
        gva: u32, is_long: bool, is_big: bool, sizes: u32,
    ) {
        let order = if is_big { Endianness::Big } else { Endianness::Little };
        let words = words.into_iter().map(|(index, word)| (index * 8, word));
        let roots = roots.into_iter().map(|(index, table, low)| (LOW + index * 8, table << 16 | low));
        let words: Vec<_> = words.chain(roots).filter(|(at, _)| *at < 0x10_0000).collect();
        let memory = memory(order, if is_long { 8 } else { 4 }, &words);
        let ttbcr = u64::from(sizes) & 0x0087_00b7 | if is_long { EAE } else { 0 };
        let mut registers = supervisor(ttbcr);
        registers.set_value("sctlr", SCTLR_M | if is_big { SCTLR_EE } else { 0 });
        let _ = translate(&registers, &memory, Gva(gva.into()));
        for mapping in listed(&registers, &memory)? {
            for at in [0, mapping.len - 1] {
                let translation = translate(&registers, &memory, Gva(mapping.gva.0 + at))?;
                prop_assert_eq!(translation.gpa.0, mapping.gpa.0 + at);
                prop_assert!(translation.len > 0);
            }
        }
        if let Ok(translation) = translate(&registers, &memory, Gva(gva.into())) {
            let gva = u64::from(gva);
            let holds = |m: &Mapping| gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == translation.gpa.0);
            prop_assert!(listed(&registers, &memory)?.iter().any(holds));
        }
    }

    #[test]
    fn random_registers(values in prop::collection::vec(prop::option::of(any::<u64>()), 300), gva: u64) {
        let names = TABLE.rows.iter().map(|row| row.name);
        let known: Vec<_> = names.zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
        let memory = short(&[(0, u64::MAX)]);
        let _ = translate(&vcpu(&known), &memory, Gva(gva));
        let _ = listed(&vcpu(&known), &memory);
    }
}

#[test]
fn descriptors_permit() {
    let check = |registers: &RegisterFile, memory: &BlockMemory, rows: &[(u64, &str)]| {
        for (gva, expected) in rows {
            let access = translate(registers, memory, Gva(*gva)).unwrap().access.unwrap();
            assert_eq!(access.to_string(), *expected, "{gva:#x}");
        }
    };
    let memory = short(&[
        (LOW, SECTION),
        (LOW + 4, 0x10_0000 | SECTION | 1 << 15 | 1 << 4),
        (LOW + 8, 0x3_0001),
        (0x3_0000, SMALL),
        (0x3_0004, 0x1000 | 1 << 9 | SMALL & !1),
    ]);
    check(&supervisor(0), &memory, &[(0, "rwx"), (0x10_0000, "r--"), (0x20_0000, "rw-"), (0x20_1000, "r-x")]);
    let memory = long(&[
        (LOW, LONG | LONG_VALID),
        (LOW + 8, 0x4000_0000 | 1 << 7 | LONG_VALID | 1 << 10),
        (LOW + 16, LONG_READ_ONLY_TABLE | LONG_XN_TABLE | 0x3_0000 | LONG_TABLE | LONG_VALID),
        (0x3_0000, LONG_VALID | 1 << 10),
    ]);
    check(&supervisor(EAE), &memory, &[(0, "rw-"), (0x4000_0000, "r-x"), (0x8000_0000, "r--")]);
}
