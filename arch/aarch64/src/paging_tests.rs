//! The walks, on tables that are made by hand.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use proptest::prelude::*;
use vmcore_core::memory::BlockMemory;

// Fields of TCR_EL1.
const TG0: [(u32, u64); 3] = [(12, 0), (14, 2 << 14), (16, 1 << 14)];
const TG1: [(u32, u64); 3] = [(12, 2 << 30), (14, 1 << 30), (16, 3 << 30)];
const EPD0: u64 = 1 << 7;
const EPD1: u64 = 1 << 23;
const IPS_52: u64 = 6 << 32;
const TBI0: u64 = 1 << 37;
const TBI1: u64 = 1 << 38;
const DS: u64 = 1 << 59;

const SCTLR_ON: u64 = 1;
const EL1H: u64 = 5;
const EL2H: u64 = 9;
/// Attributes that real leaves have: access flag, shareability, type of memory, no execution, and bits for software.
const ATTRIBUTES: u64 = 0x0078_0000_0000_0404;

/// TCR of two ranges of `bits` bits with granules of `1 << shift` bytes.
fn tcr(shift: u32, bits: u64) -> u64 {
    let code = |codes: [(u32, u64); 3]| codes.iter().find(|(granule, _)| *granule == shift).unwrap().1;
    (64 - bits) | (64 - bits) << 16 | code(TG0) | code(TG1)
}

fn vcpu(known: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(&TABLE);
    for (name, value) in known {
        assert!(registers.set_value(name, *value), "{name}");
    }
    registers
}

/// A vCPU at EL1: the lower range begins at 0x1_0000, the upper one at 0x2_0000.
fn el1(tcr: u64) -> RegisterFile {
    vcpu(&[
        ("pstate", EL1H),
        ("sctlr_el1", SCTLR_ON),
        ("tcr_el1", tcr),
        ("ttbr0_el1", 0x1234_0000_0001_0001),
        ("ttbr1_el1", 0x1234_0000_0002_0001),
    ])
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

/// Both walks, on the same tables: rows are virtual address, physical address, bytes to the end of the page or block.
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

#[test]
fn granules_of_4_kib() {
    let memory = little(&[
        (0x2_0000 + 8 * 511, 0x2_1003),
        (0x2_1000 + 8 * 2, ATTRIBUTES | 0x0000_7fff_c000_0001), // a block of 1 GiB
        (0x2_1000, 0x1800_0000_0002_2003), // bits of a table that are none of its address
        (0x2_2000 + 8, ATTRIBUTES | 0x0020_0001), // 2 MiB
        (0x2_2000, 0x2_3003),
        (0x2_3000 + 8, ATTRIBUTES | 0x0000_9003),
        (0x1_0000, 0x1_1003),
        (0x1_1000, 0x1_2003),
        (0x1_2000, 0x1_3003),
        (0x1_3000 + 8 * 5, ATTRIBUTES | 0x0000_0003),
    ]);
    let rows = [
        (0xffff_ff80_0000_1008, 0x9008, 0xff8),
        (0xffff_ff80_0020_0010, 0x20_0010, 0x1f_fff0),
        (0xffff_ff80_8000_0001, 0x7fff_c000_0001, 0x3fff_ffff),
        (0x5ff0, 0xff0, 0x10),
    ];
    let vcpu = el1(tcr(12, 48));
    check(&vcpu, &memory, &rows);
    assert_eq!(
        error(&vcpu, &memory, 0xffff_ff80_0000_0000),
        "0xffffff8000000000 is not mapped: the level 3 entry at 0x23000 is 0x0"
    );
    assert_eq!(
        error(&vcpu, &memory, 0x1000_0000_0000_5000),
        "0x1000000000005000 is not a canonical address of this vCPU (48 bits)"
    );
    // A level less: the table that was the second is the first.
    let mut less = el1(tcr(12, 39));
    less.set_value("ttbr1_el1", 0x2_1000);
    less.set_value("ttbr0_el1", 0x1_1000);
    check(&less, &memory, &rows);
    // Two levels, of which the first has 2 entries.
    let mut short = el1(tcr(12, 31));
    short.set_value("ttbr1_el1", 0x2_1010);
    check(&short, &memory, &[(0xffff_ffff_8000_0004, 0x7fff_c000_0004, 0x3fff_fffc)]);
    // One level.
    let mut one = el1(tcr(12, 16));
    one.set_value("ttbr0_el1", 0x1_3000);
    check(&one, &memory, &[(0x5ff0, 0xff0, 0x10)]);
}

#[test]
fn granules_of_16_kib() {
    let memory = little(&[
        // 48 bits: level 0 has 2 entries. Level 1 has no blocks.
        (0x2_0008, 0x2_4003),
        (0x2_4000, 0x2_8003),
        (0x2_4008, 0x0010_0000_0001),
        (0x2_8000 + 8, ATTRIBUTES | 0x0000_0f00_0000_0001), // a block of 32 MiB
        (0x2_8000, 0x2_c003),
        (0x2_c000 + 8, ATTRIBUTES | 0x8003),
    ]);
    let vcpu = el1(tcr(14, 48) | EPD0);
    let rows =
        [(0xffff_8000_0000_4010, 0x8010, 0x3ff0), (0xffff_8000_0200_0000, 0x0f00_0000_0000, 0x200_0000)];
    check(&vcpu, &memory, &rows);
    assert!(
        error(&vcpu, &memory, 0xffff_8010_0000_0000).contains("the level 1 entry at 0x24008 is 0x1000000001")
    );
    let mut less = el1(tcr(14, 47) | EPD0);
    less.set_value("ttbr1_el1", 0x2_4000);
    check(&less, &memory, &rows);
    let mut two = el1(tcr(14, 36) | EPD0);
    two.set_value("ttbr1_el1", 0x2_8000);
    check(&two, &memory, &[(0xffff_fff0_0000_4010, 0x8010, 0x3ff0)]);
}

#[test]
fn granules_of_64_kib() {
    let memory = little(&[
        // 48 bits: level 1 has 64 entries; 52 bits: 1024, of which the upper range of 48 bits are the last 64.
        (0x2_0000, 0x3_0003),
        (0x2_0008, 0x0400_0000_0001),
        (0x3_0000 + 8, ATTRIBUTES | 0x0000_0000_2000_1001), // a block of 512 MiB
        (0x3_0000, 0x4_0003),
        (0x4_0000 + 8, ATTRIBUTES | 0x0005_2003),
    ]);
    let vcpu = el1(tcr(16, 48) | EPD0);
    check(
        &vcpu,
        &memory,
        &[(0xffff_0000_0001_0010, 0x5_0010, 0xfff0), (0xffff_0000_2000_0000, 0x2000_0000, 0x2000_0000)],
    );
    assert!(
        error(&vcpu, &memory, 0xffff_0400_0000_0000).contains("level 1"),
        "no blocks with 48-bit addresses"
    );
    // FEAT_LPA: bits 15 to 12 are bits 51 to 48.
    check(
        &el1(tcr(16, 48) | EPD0 | IPS_52),
        &memory,
        &[
            (0xffff_0000_0001_0010, 0x2_0000_0005_0010, 0xfff0),
            (0xffff_0000_2000_0000, 0x1_0000_2000_0000, 0x2000_0000),
            (0xffff_0400_0000_0000, 0x0400_0000_0000, 0x400_0000_0000),
        ],
    );
    // FEAT_LVA.
    check(&el1(tcr(16, 52) | EPD0), &memory, &[(0xfff0_0000_0001_0010, 0x5_0010, 0xfff0)]);
    let mut two = el1(tcr(16, 42) | EPD0);
    two.set_value("ttbr1_el1", 0x3_0000);
    check(&two, &memory, &[(0xffff_fc00_0001_0010, 0x5_0010, 0xfff0)]);
}

/// FEAT_LPA2: a level more, blocks one level higher, and bits 51 and 50 of an address in bits 9 and 8.
#[test]
fn addresses_of_52_bits_with_small_granules() {
    let small = little(&[
        // Level -1 has 16 entries.
        (0x2_0000 + 8 * 15, 0x2_1003),
        (0x2_1000, 0x2_2003),
        (0x2_1008, 0x0003_8000_0000_0301), // a block of 512 GiB
        (0x2_2000, 0x2_3003),
        (0x2_3000, 0x2_4003),
        (0x2_4000, 0x0000_0000_0000_9103),
    ]);
    let vcpu = el1(tcr(12, 52) | DS | EPD0 | IPS_52);
    let rows = [
        (0xffff_0000_0000_0000, 0x4_0000_0000_9000, 0x1000),
        (0xffff_0080_0000_0000, 0xf_8000_0000_0000, 0x80_0000_0000),
    ];
    check(&vcpu, &small, &rows);
    assert!(error(&vcpu, &small, 0xfff0_0000_0000_0000).contains("the level -1 entry at 0x20000 is 0x0"));
    let large = little(&[
        (0x2_0000, 0x2_4003),
        (0x2_4000, 0x000c_0000_0000_0101 | 1 << 47), // a block of 64 GiB, software bits in 51 and 50
        (0x2_4008, 0x2_8003),
        (0x2_8000, 0x2_c003),
        (0x2_c000, 0x0000_0000_0000_8203),
    ]);
    check(
        &el1(tcr(14, 52) | DS | EPD0 | IPS_52),
        &large,
        &[
            (0xfff0_0000_0000_0000, 0x4_8000_0000_0000, 0x10_0000_0000),
            (0xfff0_0010_0000_0000, 0x8_0000_0000_8000, 0x4000),
        ],
    );
    // Without DS, there are no 52-bit addresses, and bits 9 and 8 are attributes.
    assert!(error(&el1(tcr(12, 52) | EPD0), &small, rows[0].0).contains("not a canonical address"));
}

/// Bits 5 to 2 of TTBR are bits 51 to 48 of the first table's address: here of one that no memory has.
#[test]
fn a_first_table_above_48_bits() {
    let mut vcpu = el1(tcr(16, 48) | IPS_52 | EPD0);
    vcpu.set_value("ttbr1_el1", 0x2_0000 | 0x3 << 2);
    let text = "page table: guest memory at 0x3000000020000 is not available";
    assert_eq!(error(&vcpu, &little(&[]), 0xffff_0000_0000_0000), text);
    assert_eq!(listed(&vcpu, &little(&[])).unwrap_err().to_string(), text);
    vcpu.set_value("tcr_el1", tcr(16, 48) | EPD0);
    assert!(listed(&vcpu, &little(&[])).unwrap().is_empty(), "with 48 bits they are no part of it");
    // Two descriptors would be aligned to 16 bytes; these bits are none of the address all the same.
    let mut short = el1(tcr(14, 48) | DS | IPS_52 | EPD0);
    short.set_value("ttbr1_el1", 0x2_0000 | 0xc << 2);
    let text = error(&short, &little(&[]), 0xffff_0000_0000_0000);
    assert_eq!(text, "page table: guest memory at 0xc000000020000 is not available");
}

#[test]
fn tags_and_switched_off_ranges() {
    let memory = little(&[(0x1_3000, 0x5003), (0x2_3000, 0x6003)]);
    let vcpu = |more| {
        let mut vcpu = el1(tcr(12, 21) | more);
        vcpu.set_value("ttbr0_el1", 0x1_3000);
        vcpu.set_value("ttbr1_el1", 0x2_3000);
        vcpu
    };
    const HIGH: u64 = 0xffff_ffff_ffe0_0000;
    const TAG: u64 = 0x5a << 56;
    check(&vcpu(0), &memory, &[(0, 0x5000, 0x1000), (HIGH, 0x6000, 0x1000)]);
    let gpa = |vcpu, gva| translate(&vcpu, &memory, Gva(gva)).ok().map(|translation| translation.gpa.0);
    assert_eq!((gpa(vcpu(0), TAG), gpa(vcpu(0), HIGH ^ TAG)), (None, None));
    assert_eq!((gpa(vcpu(TBI0), TAG), gpa(vcpu(TBI0), HIGH ^ TAG)), (Some(0x5000), None));
    assert_eq!((gpa(vcpu(TBI1), TAG), gpa(vcpu(TBI1), HIGH ^ TAG)), (None, Some(0x6000)));
    assert_eq!((gpa(vcpu(EPD0), 0), gpa(vcpu(EPD0), HIGH)), (None, Some(0x6000)));
    assert_eq!((gpa(vcpu(EPD1), 0), gpa(vcpu(EPD1), HIGH)), (Some(0x5000), None));
    assert_eq!(listed(&vcpu(EPD1), &memory).unwrap().len(), 1);
    // A reserved granule, and a range that is too small, have no tables either.
    assert_eq!((gpa(vcpu(3 << 14), 0), gpa(vcpu(0x3f), 0)), (None, None));
    // Between the ranges.
    assert_eq!((gpa(vcpu(0), 1 << 21), gpa(vcpu(0), HIGH - 1)), (None, None));
}

#[test]
fn without_translation_virtual_is_physical() {
    let vcpu = vcpu(&[("sctlr_el1", 0)]);
    let translation = translate(&vcpu, &little(&[]), Gva(0xf_ffff_ffff_fff0)).unwrap();
    assert_eq!((translation.gpa.0, translation.len), (0xf_ffff_ffff_fff0, 0x10));
    assert!(error(&vcpu, &little(&[]), 1 << 52).contains("(52 bits)"));
    assert!(listed(&vcpu, &little(&[])).unwrap().is_empty());
}

#[test]
fn descriptors_are_in_the_byte_order_of_data() {
    let words = [(0x1_3000, 0x5003)];
    let mut vcpu = el1(tcr(12, 21) | EPD1);
    vcpu.set_value("ttbr0_el1", 0x1_3000);
    assert!(translate(&vcpu, &memory(Endianness::Big, &words), Gva(0)).is_err());
    vcpu.set_value("sctlr_el1", SCTLR_ON | 1 << 25);
    check(&vcpu, &memory(Endianness::Big, &words), &[(4, 0x5004, 0xffc)]);
}

#[test]
fn the_regime_is_that_of_the_exception_level() {
    const E2H: u64 = 1 << 34;
    const TGE: u64 = 1 << 27;
    let memory = little(&[(0x1000, 0x1_1003), (0x2000, 0x2_2003), (0x3000, 0x3_3003), (0x4000, 0x4_4003)]);
    let mut vcpu = el1(tcr(12, 21));
    // One range: TG0, PS and TBI stand elsewhere.
    let single = 64 - 21;
    for (name, value) in [
        ("ttbr0_el1", 0x1000),
        ("sctlr_el2", SCTLR_ON),
        ("ttbr0_el2", 0x2000),
        ("sctlr_el3", SCTLR_ON),
        ("tcr_el3", single | 1 << 20),
        ("ttbr0_el3", 0x3000),
        ("ttbr1_el2", 0x4000),
    ] {
        vcpu.set_value(name, value);
    }
    let mut gpa = |pstate, hcr, tcr_el2, gva| {
        for (name, value) in [("pstate", pstate), ("hcr_el2", hcr), ("tcr_el2", tcr_el2)] {
            vcpu.set_value(name, value);
        }
        translate(&vcpu, &memory, Gva(gva))
            .map(|translation| translation.gpa.0)
            .map_err(|error| error.to_string())
    };
    const HIGH: u64 = 0xffff_ffff_ffe0_0000;
    let host = tcr(12, 21);
    assert_eq!(gpa(EL1H, 0, 0, 0), Ok(0x1_1000));
    assert_eq!(gpa(0, 0, 0, 0), Ok(0x1_1000), "EL0 of a kernel at EL1");
    assert_eq!(gpa(EL1H, E2H, host, 0), Ok(0x1_1000), "a guest of a host at EL2, without a second stage");
    assert_eq!(gpa(EL2H, 0, single, 0), Ok(0x2_2000));
    assert!(gpa(EL2H, 0, single, HIGH).is_err(), "EL2 has one range");
    assert_eq!(gpa(EL2H, E2H, host, HIGH), Ok(0x4_4000));
    assert_eq!(gpa(0, E2H | TGE, host, HIGH), Ok(0x4_4000), "EL0 of a host at EL2");
    assert_eq!(gpa(13, 0, 0, 0x7f << 56), Ok(0x3_3000), "EL3, with a tag");
    assert_eq!(gpa(0x10, 0, 0, 0), Ok(0x1_1000), "a 32-bit application");
    let refused = |result: Result<u64, String>, what| {
        let text = result.unwrap_err();
        assert!(text.starts_with("address translation is not supported: ") && text.contains(what), "{text}");
    };
    refused(gpa(0x13, 0, 0, 0), "AArch32 code above EL0");
    refused(gpa(EL1H, 1, 0, 0), "a second stage at EL2");
}

#[test]
fn descriptors_of_128_bits_are_refused() {
    let mut vcpu = el1(tcr(12, 48));
    vcpu.set_value("tcr2_el1", 1 << 5);
    assert!(error(&vcpu, &little(&[]), 0).contains("128-bit descriptors"));
    assert!(matches!(listed(&vcpu, &little(&[])), Err(Error::Unsupported { .. })));
}

#[test]
fn registers_that_are_not_known() {
    let check = |known: &[(&str, u64)], name: &str| {
        let text = error(&vcpu(known), &little(&[]), 0);
        assert_eq!(
            text,
            format!("register {name} is not known for this vCPU, walking the page tables needs it")
        );
    };
    check(&[], "sctlr_el1");
    check(&[("sctlr_el1", SCTLR_ON)], "tcr_el1");
    check(&[("sctlr_el1", SCTLR_ON), ("tcr_el1", tcr(12, 48))], "ttbr0_el1");
    check(&[("pstate", EL2H)], "hcr_el2");
    check(&[("pstate", EL2H), ("hcr_el2", 0)], "sctlr_el2");
}

/// A kernel thread need not have a table for applications that is in the dump.
#[test]
fn one_root_is_enough() {
    let mut vcpu = el1(tcr(12, 21));
    vcpu.set_value("ttbr0_el1", 0x1000_0000);
    vcpu.set_value("ttbr1_el1", 0x2_3000);
    let memory = little(&[(0x2_3000, 0x6003)]);
    let mapping = Mapping { gpa: Gpa(0x6000), gva: Gva(0xffff_ffff_ffe0_0000), len: 0x1000 };
    assert_eq!(listed(&vcpu, &memory).unwrap(), [mapping]);
    vcpu.set_value("ttbr1_el1", 0x1000_0000);
    assert!(matches!(listed(&vcpu, &memory), Err(Error::NoMemory { .. })));
}

/// The first table of a short range is part of one that another vCPU sees whole.
#[test]
fn ranges_of_other_lengths_do_not_share_what_they_have_seen() {
    let memory = little(&[(0x1_3000 + 8, 0x5003), (0x1_3000 + 8 * 100, 0x7003)]);
    let (mut seen, mut list) = (SeenTables::default(), MappingList::default());
    for bits in [16, 21] {
        let mut vcpu = el1(tcr(12, bits) | EPD1);
        vcpu.set_value("ttbr0_el1", 0x1_3000);
        mappings(&vcpu, &memory, &mut seen, &mut list).unwrap();
    }
    assert_eq!(list.into_sorted().len(), 2);
}

#[test]
fn tables_that_map_themselves_everywhere_end_in_an_error() {
    for (shift, bits) in [(12, 48), (14, 47), (16, 48)] {
        let all: Vec<(u64, u64)> = (0..1 << (shift - 3)).map(|i| (0x1_0000 + 8 * i, 0x1_0003)).collect();
        let error = listed(&el1(tcr(shift, bits) | EPD1), &little(&all)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
    #[test]
    fn random_tables(
        words in prop::collection::vec(
            (0..0x10_0000_u64 / 8, prop_oneof![any::<u64>(), (0..16_u64).prop_map(|i| i << 16 | 3)]), 0..64,
        ),
        roots in prop::collection::vec((0..0x2000_u64, 0..16_u64), 0..32),
        gva: u64, granule in 0..3_u32, bits in 12..60_u64, flags: u64, is_big: bool,
    ) {
        let order = if is_big { Endianness::Big } else { Endianness::Little };
        let words = words.into_iter().map(|(index, word)| (index * 8, word));
        let roots = roots.into_iter().map(|(index, table)| (0x1_0000 + index * 8, table << 16 | 3));
        let memory = memory(order, &words.chain(roots).collect::<Vec<_>>());
        let mut registers = el1(tcr(12 + 2 * granule, bits) | flags & (DS | IPS_52 | TBI0 | TBI1 | EPD0 | EPD1));
        registers.set_value("sctlr_el1", SCTLR_ON | u64::from(is_big) << 25);
        let _ = translate(&registers, &memory, Gva(gva));
        if let Ok(mappings) = listed(&registers, &memory) {
            for mapping in mappings {
                let translation = translate(&registers, &memory, mapping.gva)?;
                // Several leaves may give one virtual range; the start of a merged one is the start of a leaf.
                prop_assert_eq!(translation.gpa, mapping.gpa);
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
fn tables_and_leaves_permit_together() {
    let memory = little(&[
        (0x1_0000, VALID | FOR_PROGRAMS | UXN),
        (0x1_0008, VALID | FOR_PROGRAMS | READ_ONLY | PXN),
        (0x1_0010, VALID | READ_ONLY | DIRTY_BIT_MODIFIER | PXN),
        (0x1_0018, 0x3_0003 | READ_ONLY_TABLE | PXN_TABLE),
        (0x1_0020, 0x3_0003 | UXN_TABLE),
        (0x3_0000, VALID),
    ]);
    for (number, expected) in (0..).zip(["rw-", "r-x", "rw-", "r--", "rwx"]) {
        let access = translate(&el1(tcr(12, 39)), &memory, Gva(number << 30)).unwrap().access.unwrap();
        assert_eq!(access.to_string(), expected, "{number}");
    }
}
