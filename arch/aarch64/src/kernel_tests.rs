//! A kernel of a few pages, and vCPUs that use it or do not.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use vmcore_core::memory::BlockMemory;

const VOFFSET: u64 = 0xffff_a910_0000_0000;
/// The image lies at 0, its first table here.
const ROOT: u64 = 0x8000;
const LANDMARK: Gva = Gva(VOFFSET + 0x20_0010);

fn info(page_size: u64, more: &str) -> String {
    format!(
        "PAGESIZE={page_size}\nNUMBER(kimage_voffset)={VOFFSET:#x}\nSYMBOL(swapper_pg_dir)={:x}\n\
        SYMBOL(init_uts_ns)={:x}\n{more}",
        VOFFSET + ROOT,
        LANDMARK.0
    )
}

fn space(text: &str) -> Result<Space, Error> {
    Space::new(&Vmcoreinfo::parse(text.as_bytes()), Endianness::Little)
}

fn memory(words: &[(u64, u64)]) -> BlockMemory {
    let mut bytes = vec![0; 0x4_0000];
    for (at, word) in words {
        let at = usize::try_from(*at).unwrap();
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
}

/// Index of an address in a table whose entries map `1 << shift` bytes, as an offset.
const fn slot(gva: u64, shift: u32, bits: u32) -> u64 {
    (gva >> shift & !(u64::MAX << bits)) * 8
}

/// 4 KiB and 48 bits: the image in blocks of 2 MiB, and a block of 1 GiB of the linear map.
fn small_pages() -> BlockMemory {
    let image = |at: u64, shift: u32| at + slot(VOFFSET, shift, 9);
    memory(&[
        (image(ROOT, 39), 0x9003),
        (image(0x9000, 30), 0xa003),
        (image(0xa000, 21), 0x0000_0701),
        (image(0xa000, 21) + 8, 0x0020_0701), // bits 9 and 8 are shareability
        (ROOT, 0xb003),
        (0xb000 + 8, 0x4000_0701),
        // An earlier kernel: its image lies at the same place, and was mapped elsewhere.
        (0x2_0000 + 8, 0x9003),
    ])
}

const FOUR_LEVELS: &str = "NUMBER(VA_BITS)=48\nNUMBER(TCR_EL1_T1SZ)=0x10\nNUMBER(MAX_PHYSMEM_BITS)=48\n";

#[test]
fn the_image_and_the_walk_agree() {
    let space = space(&info(4096, FOUR_LEVELS)).unwrap();
    assert_eq!(space.image(LANDMARK), Some(Gpa(0x20_0010)));
    let found = |gva: u64| space.translate(&small_pages(), Gva(gva)).map(|found| (found.gpa.0, found.len));
    assert_eq!(found(LANDMARK.0).unwrap(), (0x20_0010, 0x1f_fff0));
    assert_eq!(found(0xffff_0000_4000_1000).unwrap(), (0x4000_1000, 0x3fff_f000));
    assert_eq!(
        found(0xffff_8000_0000_0000).unwrap_err().to_string(),
        "0xffff800000000000 is not mapped: the level 0 entry at 0x8800 is 0x0"
    );
    // The same bits, of a program.
    assert!(matches!(found(LANDMARK.0 & !(u64::MAX << 48)), Err(Error::NotCanonical { bits: 48, .. })));
}

#[test]
fn a_vcpu_uses_it_also_while_it_runs_a_program() {
    let space = space(&info(4096, FOUR_LEVELS)).unwrap();
    let used = |pstate: u64, sctlr: u64, ttbr1: u64| {
        let mut registers = RegisterFile::new(&TABLE);
        let tcr = 16 | 16 << 16 | 2 << 30;
        for (name, value) in
            [("pstate", pstate), ("sctlr_el1", sctlr), ("tcr_el1", tcr), ("ttbr1_el1", ttbr1)]
        {
            assert!(registers.set_value(name, value), "{name}");
        }
        space.is_used_by(&registers, &small_pages())
    };
    assert_eq!(used(5, 1, 0x1234_0000_0000_8001), Some(true));
    assert_eq!(used(0, 1, 0x8000), Some(true), "EL0");
    assert_eq!(used(0, 1, 0x6000), Some(true), "page-table isolation");
    assert_eq!(used(0, 1, 0x3000), Some(false));
    assert_eq!(used(5, 1, 0x2_0000), Some(false), "another kernel");
    assert_eq!(used(5, 0, 0x8000), None, "translation is off");
    // QEMU's own notes have none of these registers.
    assert_eq!(space.is_used_by(&RegisterFile::new(&TABLE), &small_pages()), None);
}

#[test]
fn a_table_for_more_bits_than_the_processor_has() {
    // 64 KiB pages: both numbers of bits take three levels, and the entries that 48 bits can name are the last 64.
    let keys = "NUMBER(VA_BITS)=52\nNUMBER(TCR_EL1_T1SZ)=0x10\nNUMBER(MAX_PHYSMEM_BITS)=48\n";
    let at = slot(VOFFSET, 42, 10);
    assert!(at >= 960 * 8);
    let memory = memory(&[
        (ROOT + at, 0x1_0003),
        (0x1_0000 + slot(VOFFSET, 29, 13), 0x2000_0701), // a block of 512 MiB
    ]);
    let found = |space: Space| space.translate(&memory, Gva(VOFFSET + 0x1234));
    let found = found(space(&info(0x1_0000, keys)).unwrap()).unwrap();
    assert_eq!((found.gpa, found.len), (Gpa(0x2000_1234), 0x2000_0000 - 0x1234));
    // 4 KiB pages: 52 bits would be a level more, which the kernel leaves out.
    let keys = "NUMBER(VA_BITS)=52\nNUMBER(TCR_EL1_T1SZ)=0x10\nNUMBER(MAX_PHYSMEM_BITS)=48\n";
    let found = space(&info(4096, keys)).unwrap().translate(&small_pages(), LANDMARK).unwrap();
    assert_eq!(found.gpa, Gpa(0x20_0010));
}

#[test]
fn addresses_of_52_bits() {
    let keys = "NUMBER(VA_BITS)=52\nNUMBER(TCR_EL1_T1SZ)=0xc\nNUMBER(MAX_PHYSMEM_BITS)=52\n";
    // LPA: the uppermost bits in 15 to 12.
    let memory_64k = memory(&[
        (ROOT + slot(VOFFSET, 42, 10), 0x1_0003),
        (0x1_0000 + slot(VOFFSET, 29, 13), 0x2_0003),
        (0x2_0000, 0x0000_1234_0001_a703),
    ]);
    let found = space(&info(0x1_0000, keys)).unwrap().translate(&memory_64k, Gva(VOFFSET)).unwrap();
    assert_eq!((found.gpa, found.len), (Gpa(0x000a_1234_0001_0000), 0x1_0000));
    // LPA2: 51 and 50 in bits 9 and 8, and a level -1.
    let memory_4k = memory(&[
        (ROOT + slot(VOFFSET, 48, 4), 0x9003),
        (0x9000 + slot(VOFFSET, 39, 9), 0xa003),
        (0xa000 + slot(VOFFSET, 30, 9), 0x0002_0000_4000_0301),
    ]);
    let found = space(&info(4096, keys)).unwrap().translate(&memory_4k, Gva(VOFFSET)).unwrap();
    assert_eq!((found.gpa, found.len), (Gpa(0x000e_0000_4000_0000), 0x4000_0000));
}

#[test]
fn a_missing_key_is_named() {
    let error = |text: &str| space(text).err().unwrap().to_string();
    let sentence =
        |key: &str| format!("VMCOREINFO has no usable {key}, walking the kernel's page tables needs it");
    assert_eq!(error(""), sentence("NUMBER(kimage_voffset)"));
    assert_eq!(error("NUMBER(kimage_voffset)=0x0"), sentence("SYMBOL(swapper_pg_dir)"));
    assert_eq!(error(&info(4096, "")), sentence("NUMBER(VA_BITS)"));
    assert_eq!(error(&info(8192, "")), sentence("PAGESIZE"));
    assert_eq!(error(&info(4096, "NUMBER(VA_BITS)=53")), sentence("NUMBER(VA_BITS)"));
    assert_eq!(
        error(&info(4096, "NUMBER(VA_BITS)=48\nNUMBER(TCR_EL1_T1SZ)=0x40")),
        sentence("NUMBER(TCR_EL1_T1SZ)")
    );
    assert!(space(&info(4096, "NUMBER(VA_BITS)=39")).is_ok(), "as kernels before 5.9 say it");
}
