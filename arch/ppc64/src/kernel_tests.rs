//! A kernel at 0, with a radix tree or a list of its vmemmap.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

use super::*;
use crate::registers::TABLE;
use std::sync::Arc;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Machine, Note};

const LINEAR: u64 = 0xc000_0000_0000_0000;
const ROOT: u64 = 0x1_0000;
const VMALLOC: u64 = 0xc008_0000_0000_0000;
const VMEMMAP: u64 = 0xc00c_0000_0000_0000;
const HEAD: u64 = 0x100;
const VALID: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
/// Bits of the MSR: 64 bits, and translation of instructions and data.
const SF: u64 = 1 << 63;
const IR_DR: u64 = 0x30;

/// The keys of Linux 6.1; the list's nodes are {list, phys, virt_addr}.
const INFO: &str = "PAGESIZE=65536\nSYMBOL(swapper_pg_dir)=c000000000010000\nSYMBOL(vmemmap_list)=c000000000000100\n\
    SYMBOL(mmu_vmemmap_psize)=c000000000000110\nSYMBOL(mmu_psize_defs)=c000000000000200\n\
    SIZE(mmu_psize_def)=96\nOFFSET(mmu_psize_def.shift)=4\nOFFSET(vmemmap_backing.list)=0\n\
    OFFSET(vmemmap_backing.phys)=8\nOFFSET(vmemmap_backing.virt_addr)=16\n";

/// Guest memory that is being made.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new() -> Self {
        Self(vec![0; 0x8_0000])
    }

    fn put(mut self, at: u64, word: &[u8]) -> Self {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + word.len()].copy_from_slice(word);
        self
    }

    fn entry(self, at: u64, entry: u64) -> Self {
        self.put(at, &entry.to_be_bytes())
    }

    /// A tree of 13, 9, 9 and 5 bits: the linear map as one page of 1 GiB, a page of vmalloc, 2 MiB of vmemmap.
    fn tree(self) -> Self {
        let slot = |gva: u64| ROOT + (gva >> 39 & 0x1fff) * 8;
        self.entry(slot(LINEAR), VALID | 0x2_0000 | 9)
            .entry(0x2_0000, VALID | LEAF | 0x18e)
            .entry(slot(VMALLOC), VALID | 0x2_1000 | 9)
            .entry(0x2_1000, VALID | 0x2_2000 | 9)
            .entry(0x2_2000, VALID | 0x2_3000 | 5)
            .entry(0x2_3000 + 8, VALID | LEAF | 0x7_0000 | 0x18e)
            .entry(slot(VMEMMAP), VALID | 0x2_4000 | 9)
            .entry(0x2_4000, VALID | 0x2_5000 | 9)
            .entry(0x2_5000, VALID | LEAF | 0x20_0000 | 0x18e)
    }

    /// A list of blocks of 64 KiB, the last of which points to `end`.
    fn list(self, blocks: &[(u64, u64)], end: u64) -> Self {
        let node = |index: u64| 0x400 + index * 24;
        let last = blocks.len() as u64;
        let mut bytes = self
            .put(HEAD, &(LINEAR | node(0)).to_le_bytes())
            .put(0x110, &2_u32.to_le_bytes())
            .put(0x200 + 2 * 96 + 4, &16_u32.to_le_bytes());
        for (index, (start, physical)) in (0..).zip(blocks) {
            let next = if index + 1 == last { end } else { LINEAR | node(index + 1) };
            for (offset, word) in [(0, next), (8, *physical), (16, *start)] {
                bytes = bytes.put(node(index) + offset, &word.to_le_bytes());
            }
        }
        bytes
    }

    fn memory(self) -> BlockMemory {
        BlockMemory::new(vec![(Gpa(0), self.0)]).unwrap()
    }
}

fn space(text: &str, memory: &BlockMemory) -> Result<Space, Error> {
    Space::new(&Vmcoreinfo::parse(text.as_bytes()), Endianness::Little, memory)
}

fn check(space: &Space, memory: &BlockMemory, rows: &[(u64, u64, u64)]) {
    for (gva, gpa, len) in rows {
        let found = space.translate(memory, Gva(*gva)).unwrap();
        assert_eq!((found.gpa.0, found.len), (*gpa, *len), "{gva:#x}");
    }
}

#[test]
fn a_radix_kernel_with_its_vmemmap_in_the_tree() {
    let memory = Bytes::new().tree().memory();
    let space = space(INFO, &memory).unwrap();
    assert_eq!(space.image(Gva(LINEAR | 0x1234)), Some(Gpa(0x1234)));
    check(
        &space,
        &memory,
        &[
            (LINEAR | 0x1234, 0x1234, VMALLOC - LINEAR - 0x1234),
            (VMALLOC | 0x1_0010, 0x7_0010, 0xfff0),
            (VMEMMAP | 0x40, 0x20_0040, 0x20_0000 - 0x40),
        ],
    );
    let error = |gva: u64| space.translate(&memory, Gva(gva)).unwrap_err();
    assert!(matches!(error(VMALLOC), Error::NotMapped { .. }));
    assert!(matches!(error(0x1000), Error::NotCanonical { .. }), "an address of a program");
}

#[test]
fn the_list_comes_before_the_tree() {
    let blocks = [(VMEMMAP + 0x1_0000, 0x6_0000), (VMEMMAP, 0x5_0000)];
    let memory = Bytes::new().tree().list(&blocks, 0).memory();
    check(
        &space(INFO, &memory).unwrap(),
        &memory,
        &[
            (VMEMMAP | 0xffc0, 0x5_ffc0, 0x40),
            (VMEMMAP | 0x1_0000, 0x6_0000, 0x1_0000),
            (VMEMMAP | 0x2_0000, 0x22_0000, 0x1e_0000), // behind it
        ],
    );
}

#[test]
fn a_kernel_on_a_hash_mmu() {
    let old_vmemmap = 0xf000_0000_0000_0000;
    let memory = Bytes::new().list(&[(old_vmemmap, 0x5_0000)], 0).memory();
    let hash = space(INFO, &memory).unwrap();
    check(
        &hash,
        &memory,
        &[(old_vmemmap | 0x40, 0x5_0040, 0xffc0), (LINEAR | 0x1234, 0x1234, VMALLOC - LINEAR - 0x1234)],
    );
    assert_eq!(
        hash.translate(&memory, Gva(VMALLOC)).unwrap_err().to_string(),
        "an address outside the linear map is not supported: \
        a hash MMU (there is no radix tree at 0xc000000000010000)"
    );
    // With pages of 4 KiB the linear map is smaller.
    let small = space(&INFO.replace("65536", "4096"), &memory).unwrap();
    assert!(matches!(small.translate(&memory, Gva(0xc000_3d00_0000_0000)), Err(Error::Unsupported { .. })));
    assert_eq!(hash.is_used_by(&RegisterFile::new(&TABLE), &memory), None);
    // A vCPU's own tables are not read: the kernel says where its memory lies.
    let mut registers = RegisterFile::new(&TABLE);
    assert!(registers.set_value("lpcr", 0) && registers.set_value("msr", SF | IR_DR));
    let mut machine = Machine::new(&crate::Ppc64, Arc::new(memory), vec![registers]);
    let refused = machine.translate(0, Gva(LINEAR | 0x1234)).unwrap_err();
    assert!(refused.lacks_page_tables(), "{refused}");
    machine.identity.endianness = Endianness::Little;
    machine.guest_note =
        Some(Note { name: b"VMCOREINFO\0".to_vec(), note_type: 0, desc: INFO.as_bytes().to_vec() });
    assert_eq!(machine.translate(0, Gva(LINEAR | 0x1234)).unwrap().gpa, Gpa(0x1234));
}

#[test]
fn a_list_that_begins_again_ends() {
    let blocks = [(VMEMMAP, 0x5_0000), (VMEMMAP + 0x1_0000, 0x6_0000)];
    let memory = Bytes::new().list(&blocks, LINEAR | 0x400).memory();
    let space = space(INFO, &memory).unwrap();
    assert_eq!(space.vmemmap.blocks.len(), 2);
}

#[test]
fn the_root_of_the_vcpus_tree_tells_whether_it_uses_it() {
    // A hypervisor: its partition table at 0x3_0000, its process table at 0x3_1000.
    let processes = |root: u64| {
        let tables = Bytes::new().tree().entry(0x3_0000, VALID).entry(0x3_0008, 0x3_1000);
        tables.entry(0x3_1000, 0x4000_0000_0000_00ad | root).memory()
    };
    let mut registers = RegisterFile::new(&TABLE);
    for (name, value) in [("msr", 1 << 60 | 0x30), ("lpcr", 1 << 20), ("ptcr", 0x3_0000)] {
        assert!(registers.set_value(name, value), "{name}");
    }
    let used = |memory: &BlockMemory| space(INFO, memory).unwrap().is_used_by(&registers, memory);
    assert_eq!(used(&processes(ROOT)), Some(true));
    assert_eq!(used(&processes(0x4_0000)), Some(false), "another kernel");
    assert!(registers.set_value("lpcr", 0));
    let used = |memory: &BlockMemory| space(INFO, memory).unwrap().is_used_by(&registers, memory);
    assert_eq!(used(&processes(ROOT)), None, "no radix tree");
}

#[test]
fn a_missing_key_is_named() {
    let memory = Bytes::new().list(&[(VMEMMAP, 0x5_0000)], 0).memory();
    let error = |text: &str| space(text, &memory).err().unwrap().to_string();
    assert_eq!(
        error("PAGESIZE=65536"),
        "VMCOREINFO has no usable SYMBOL(swapper_pg_dir), walking the kernel's page tables needs it"
    );
    let keys = [
        "SYMBOL(mmu_vmemmap_psize)",
        "SYMBOL(mmu_psize_defs)",
        "SIZE(mmu_psize_def)",
        "OFFSET(mmu_psize_def.shift)",
    ];
    let fields = ["list", "phys", "virt_addr"].map(|field| format!("OFFSET(vmemmap_backing.{field})"));
    for key in keys.into_iter().chain(fields.iter().map(String::as_str)) {
        let text: String = INFO.split_inclusive('\n').filter(|line| !line.starts_with(key)).collect();
        let sentence =
            format!("VMCOREINFO has no usable {key}, reading the kernel's list of vmemmap needs it");
        assert_eq!(error(&text), sentence);
    }
    // What is not there is not needed where the list is empty.
    assert!(space("SYMBOL(swapper_pg_dir)=c000000000010000", &memory).is_ok());
}
