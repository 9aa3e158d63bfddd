//! Small trees, entry by entry: each way to a root, each size of page, each quadrant.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE as REGISTERS;
use proptest::prelude::*;
use vmcore_core::memory::BlockMemory;

const VALID: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
/// Where the tables of these tests lie: partition table, process table, roots of the kernel and of process 5.
const PARTITIONS: u64 = 0x1_0000;
const PROCESSES: u64 = 0x10_0000;
const KERNEL: u64 = 0x2_0000;
const PROCESS: u64 = 0x4_0000;

/// Guest memory of 2 MiB with these words in it.
fn memory(words: &[(u64, u64)]) -> BlockMemory {
    let mut bytes = vec![0; 0x20_0000];
    for (at, word) in words {
        let at = usize::try_from(*at).unwrap();
        bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    }
    BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
}

/// Both roots, in tables as Linux has them; the kernel's maps 1 GiB from physical 0 on by a large page.
fn trees() -> Vec<(u64, u64)> {
    vec![
        (PARTITIONS, PARTITION_HR),
        (PARTITIONS + 8, PROCESSES | 4),
        (PROCESSES, LINUX_ROOT | KERNEL),
        (PROCESSES + 5 * 16, LINUX_ROOT | PROCESS),
        (KERNEL, VALID | 0x5_0000 | 9),
        (0x5_0000, VALID | LEAF | 0x18e),
    ]
}

fn with(words: &[(u64, u64)]) -> BlockMemory {
    memory(&[&trees(), words].concat())
}

fn file(values: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(&REGISTERS);
    values.iter().for_each(|(name, value)| assert!(registers.set_value(name, *value), "{name}"));
    registers
}

fn guest() -> RegisterFile {
    file(&[("msr", MSR_DR), ("lpcr", LPCR_HR), ("ptcr", 0), ("pidr", 5)])
}

fn hypervisor(lpid: u64) -> RegisterFile {
    file(&[
        ("msr", MSR_DR | MSR_HV),
        ("lpcr", LPCR_HR),
        ("ptcr", PARTITIONS | 4),
        ("lpidr", lpid),
        ("pidr", 5),
    ])
}

/// Both walks, on the same tables: rows are virtual address, physical address, bytes to the end of the page.
fn check(registers: &RegisterFile, memory: &BlockMemory, rows: &[(u64, u64, u64)]) {
    let mode = Mode::of(registers, memory).unwrap();
    let mut list = MappingList::default();
    mode.mappings(memory, &mut SeenTables::default(), &mut list).unwrap();
    let mappings = list.into_sorted();
    for (gva, gpa, len) in rows {
        let translation = mode.translate(memory, Gva(*gva)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (*gpa, *len), "{gva:#x}");
        let holds = |m: &&vmcore_core::Mapping| {
            gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == *gpa)
        };
        assert!(mappings.iter().any(|mapping| holds(&mapping)), "{gva:#x} in {mappings:x?}");
    }
}

fn fails(registers: &RegisterFile, memory: &BlockMemory, gva: u64) -> String {
    Mode::of(registers, memory).and_then(|mode| mode.translate(memory, Gva(gva))).unwrap_err().to_string()
}

#[test]
fn four_levels_and_all_page_sizes() {
    // Linux's software bits, and the bits of rights, cache and use, are no bits of the address.
    let low = 0x0600_0000_0000_018f;
    let memory = with(&[
        (0x5_0008, VALID | 0x5_1000 | 9),
        (0x5_1000, VALID | LEAF | low | 0x7_fe00_0000), // 2 MiB
        (0x5_1008, VALID | 0x5_2000 | 5),               // 64 KiB pages
        (0x5_1010, VALID | 0x5_3000 | 9),               // 4 KiB pages
        (0x5_2000 + 8 * 31, VALID | LEAF | low | 0x123_0000),
        (0x5_3000 + 8 * 511, VALID | LEAF | low | 0x1ff_ffff_ffff_f000),
        (PROCESS + 8 * 8191, VALID | 0x6_0000 | 9),
        (0x6_0000 + 8 * 511, VALID | LEAF | 0x4000_0000),
    ]);
    let rows = [
        (0xc000_0000_0001_2345, 0x1_2345, 0x3ffe_dcbb),
        (0xc000_0000_4000_0010, 0x7_fe00_0010, 0x1f_fff0),
        (0xc000_0000_403f_0004, 0x123_0004, 0xfffc),
        (0xc000_0000_405f_f008, 0x1ff_ffff_ffff_f008, 0xff8),
        (0x000f_ffff_ffff_fffe, 0x7fff_fffe, 2),
    ];
    check(&guest(), &memory, &rows);
    check(&hypervisor(0), &memory, &rows);
    let error = "0xc000000040400000 is not mapped: the level 4 entry at 0x53000 is 0x0";
    assert_eq!(fails(&guest(), &memory, 0xc000_0000_4040_0000), error);
}

#[test]
fn quadrants() {
    let memory = with(&[(PROCESS, VALID | 0x6_0000 | 9), (0x6_0000, VALID | LEAF | 0x4000_0000)]);
    // A hypervisor without a guest sees partition 0 in all of them.
    let mode = Mode::of(&hypervisor(0), &memory).unwrap();
    for (quadrant, gpa) in [(0, 0x4000_0000), (1, 0x4000_0000), (2, 0), (3, 0)] {
        assert_eq!(mode.translate(&memory, Gva(quadrant << 62)).unwrap().gpa.0, gpa, "{quadrant}");
    }
    assert_eq!(
        fails(&hypervisor(7), &memory, 1 << 62),
        "address translation of a guest of the guest is not supported: LPIDR is 0x7"
    );
    assert_eq!(
        fails(&guest(), &memory, 1 << 62),
        "0x4000000000000000 is not a canonical address of this vCPU (62 bits)"
    );
    for gva in [1 << 52, 0xc010_0000_0000_0000_u64, 1 << 61] {
        assert_eq!(
            fails(&guest(), &memory, gva),
            format!("{gva:#x} is not a canonical address of this vCPU (52 bits)")
        );
    }
    let mut nested = hypervisor(7);
    nested.set_value("msr", MSR_DR);
    assert!(fails(&nested, &memory, 0).starts_with("address translation of a guest of the guest"));
}

#[test]
fn a_process_that_has_no_tree() {
    let memory = with(&[]);
    let mut registers = hypervisor(0);
    for (pid, entry) in [(6, PROCESSES + 6 * 16), (1 << 20, PROCESSES + (16 << 20)), (u64::MAX, u64::MAX)] {
        registers.set_value("pidr", pid);
        let error = format!("0x1000 is not mapped: the process-table entry at {entry:#x} is 0x0");
        assert_eq!(fails(&registers, &memory, 0x1000), error, "{pid:#x}");
        check(&registers, &memory, &[(0xc000_0000_0000_0000, 0, 1 << 30)]);
    }
    // QEMU's notes lack PIDR, LPCR and PTCR: the kernel's half is known all the same.
    let of_qemu = file(&[("msr", MSR_DR)]);
    check(&of_qemu, &memory, &[(0xc000_0000_0000_0000, 0, 1 << 30)]);
    assert_eq!(
        fails(&of_qemu, &memory, 0),
        "register pidr is not known for this vCPU, an address of a process needs it"
    );
}

#[test]
fn the_hash_mmu_is_named() {
    let memory = memory(&[(PARTITIONS, 0x123)]);
    let hash = file(&[("msr", MSR_DR), ("lpcr", 0x201)]);
    assert_eq!(
        fails(&hash, &memory, 0),
        "address translation by the hash MMU is not supported: LPCR is 0x201"
    );
    assert_eq!(
        fails(&hypervisor(0), &memory, 0),
        "address translation by the hash MMU is not supported: the partition-table entry at 0x10000 is 0x123"
    );
}

#[test]
fn a_process_table_is_one_that_its_tree_maps() {
    let known = with(&[]);
    assert_eq!(find_process_table(&known).unwrap().map(|tables| tables.base), Some(PROCESSES));
    // Another size of tree; a root that maps something else there; nothing.
    for words in [
        vec![(PROCESSES, (LINUX_ROOT + 0x20) | KERNEL)],
        vec![(0x5_0000, VALID | LEAF | 0x4000_0000)],
        trees().iter().map(|(at, _)| (*at, 0)).collect(),
    ] {
        let memory = with(&words);
        assert!(find_process_table(&memory).unwrap().is_none());
        let missing =
            "is not known for this vCPU, a guest without Linux's process table in its memory needs it";
        assert_eq!(fails(&guest(), &memory, 0), format!("register ptcr {missing}"));
        assert_eq!(fails(&file(&[("msr", MSR_DR)]), &memory, 0), format!("register lpcr {missing}"));
    }
}

#[test]
fn without_translation_addresses_are_real() {
    let memory = memory(&[]);
    let real = file(&[("msr", 0), ("hrmor", 0x100_0000)]);
    let hypervisor = file(&[("msr", MSR_HV), ("hrmor", 0x100_0000)]);
    for (registers, gva, gpa) in [
        (&real, 0x1_0010, 0x1_0010),
        (&real, 0xf000_0000_0001_0010, 0x1_0010),
        (&hypervisor, 0x1_0010, 0x101_0010),
        (&hypervisor, 0x8000_0000_0001_0010, 0x1_0010),
    ] {
        let mode = Mode::of(registers, &memory).unwrap();
        let translation = mode.translate(&memory, Gva(gva)).unwrap();
        assert_eq!((translation.gpa.0, translation.len), (gpa, 0xff0), "{gva:#x}");
        let mut list = MappingList::default();
        mode.mappings(&memory, &mut SeenTables::default(), &mut list).unwrap();
        assert_eq!(list.into_sorted(), []);
    }
}

#[test]
fn the_size_of_pages_is_that_of_the_lowest_directories() {
    let size = |memory: &BlockMemory| Tables::of(&guest(), memory).unwrap().page_size(memory);
    assert_eq!(size(&with(&[])), None, "there are large pages only");
    for (bits, len) in [(5, 0x1_0000), (9, 0x1000)] {
        let memory = with(&[(0x5_0010, VALID | 0x5_1000 | 9), (0x5_1ff8, VALID | 0x5_2000 | bits)]);
        assert_eq!(size(&memory), Some(len));
    }
}

#[test]
fn sizes_that_no_processor_has_end_the_walk() {
    for bits in [0, 4, 17, 31] {
        let memory = with(&[(0x5_0008, VALID | 0x5_1000 | bits)]);
        let error = fails(&guest(), &memory, 0xc000_0000_4000_0000);
        assert!(error.contains("not mapped: the level 2 entry at 0x50008 is 0x800000000005"), "{error}");
    }
    // A page smaller than 4 KiB.
    let memory = with(&[(0x5_0008, VALID | 0x5_1000 | 9), (0x5_1000, VALID | 0x5_2000 | 10)]);
    assert!(fails(&guest(), &memory, 0xc000_0000_4000_0000).contains("the level 3 entry"));
}

#[test]
fn trees_that_map_themselves_end_in_an_error() {
    let root = (0..8192).map(|i| (PROCESS + 8 * i, VALID | 0x6_0000 | 9));
    let directory = (0..512).map(|i| (0x6_0000 + 8 * i, VALID | 0x6_0000 | 5));
    let memory = with(&root.chain(directory).collect::<Vec<_>>());
    let mode = Mode::of(&guest(), &memory).unwrap();
    let result = mode.mappings(&memory, &mut SeenTables::default(), &mut MappingList::default());
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    assert!(mode.translate(&memory, Gva(0)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the tables, a walk ends; and what it finds, the other walk finds too.
    #[test]
    fn random_trees(
        words in prop::collection::vec((
            prop_oneof![Just(KERNEL), Just(PROCESS), (0..16_u64).prop_map(|page| 0x5_0000 + page * 0x1000)],
            0..8_u64,
            prop_oneof![
                any::<u64>(),
                (0..16_u64, 0..12_u64, any::<bool>()).prop_map(|(page, bits, leaf)| {
                    VALID | if leaf { LEAF } else { 0 } | (0x5_0000 + page * 0x1000) | bits
                }),
            ],
        ), 0..64),
        gva: u64, is_hypervisor: bool,
    ) {
        let words: Vec<(u64, u64)> = words.into_iter().map(|(at, index, word)| (at + 8 * index, word)).collect();
        let memory = with(&words);
        let registers = if is_hypervisor { hypervisor(0) } else { guest() };
        // The tree may no longer map the process table.
        let Ok(mode) = Mode::of(&registers, &memory) else { return Ok(()) };
        let _ = mode.translate(&memory, Gva(gva));
        let mut list = MappingList::default();
        if mode.mappings(&memory, &mut SeenTables::default(), &mut list).is_ok() {
            for mapping in list.into_sorted() {
                prop_assert_eq!(mode.translate(&memory, mapping.gva)?.gpa, mapping.gpa);
            }
        }
        if let Mode::Radix { tables, .. } = mode {
            let _ = tables.page_size(&memory);
        }
    }
}

#[test]
fn leaves_permit() {
    let memory = with(&[(0x5_0008, VALID | LEAF | 1 << 30 | 0x105)]);
    let mode = Mode::of(&guest(), &memory).unwrap();
    for (gva, expected) in [(0xc000_0000_0000_0000, "rw-"), (0xc000_0000_4000_0000, "r-x")] {
        let access = mode.translate(&memory, Gva(gva)).unwrap().access.unwrap();
        assert_eq!(access.to_string(), expected, "{gva:#x}");
    }
}
