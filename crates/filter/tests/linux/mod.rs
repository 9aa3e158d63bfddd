//! A made-up Linux guest: VMCOREINFO, sections and `struct page`s, written by constants of its own.
//!
//! ```text
//! gpa 0            sections of 128 pages each: the RAM whose pages are judged
//! gpa DATA         mem_section, its root, structs: RAM that is in no section
//! ```

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::arch::SeenTables;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Arch, DumpInfo, DumpState, Endianness, Error, Gpa, Gva, Kernel, KernelSpace, Machine, MappingList,
    NoteTable, PhysMemory, RegisterFile, RegisterTable, Translation, Vmcoreinfo,
};
use vmcore_filter::{Filter, Level, ScanOptions, Selection};

pub(crate) const PAGE: u64 = 0x1000;
/// Pages of a section.
pub(crate) const SECTION: u64 = 128;
pub(crate) const SECTION_BITS: u32 = 19;
/// Where the kernel's data lies.
pub(crate) const DATA: u64 = 1 << 30;
const DATA_LEN: u64 = 0x8_0000;
/// What is added to a physical address to make a virtual one.
pub(crate) const BASE: u64 = 0xffff_8000_0000_0000;
/// In the kernel's data.
const ROOTS: u64 = DATA;
const ROOT: u64 = DATA + 0x1000;
const POINTERS: u64 = DATA + 0x2000;
const STRUCTS: u64 = DATA + 0x4000;

/// What a kernel of this family says and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// 3.16: order and destructor in list links.
    Lru,
    /// 4.9: u16.
    Wide,
    /// 6.1: u8.
    Narrow,
    /// 6.4: in the second half of a folio.
    Folio,
    /// 6.6: in flags.
    Flag,
    /// 6.12: types.
    Typed,
    /// 7.2: types, `compound_info`.
    Info,
}

impl Family {
    pub(crate) const ALL: [Self; 7] =
        [Self::Lru, Self::Wide, Self::Narrow, Self::Folio, Self::Flag, Self::Typed, Self::Info];

    fn is_typed(self) -> bool {
        matches!(self, Self::Typed | Self::Info)
    }
}

pub(crate) const LRU: u64 = 1 << 4;
pub(crate) const WAITERS: u64 = 1 << 7;
const SLAB: u64 = 1 << 9;
pub(crate) const PRIVATE: u64 = 1 << 13;
const HEAD: u64 = 1 << 16;
const HUGETLB: u64 = 1 << 8;
pub(crate) const POISON: u64 = 1 << 22;
const FREE_HUGE_PAGE: u64 = 0xffff_ffff_8123_4560;
const INODE: u64 = 0xffff_8880_0000_1000;

/// Offsets in `struct page`.
const FLAGS: u64 = 0;
const COMPOUND_HEAD: u64 = 8;
const LIST: u64 = 8;
const MAPPING: u64 = 24;
const PRIVATE_FIELD: u64 = 40;
const MAPCOUNT: u64 = 48;
const REFCOUNT: u64 = 52;
/// In the second one.
const DTOR: u64 = 16;
const ORDER: u64 = 18;

/// A guest under construction.
#[derive(Clone)]
pub(crate) struct Linux {
    pub(crate) family: Family,
    pub(crate) struct_len: u64,
    pub(crate) endianness: Endianness,
    pub(crate) ram: Vec<Range<u64>>,
    pub(crate) keys: Vec<(String, String)>,
    /// Virtual pages, by their offset from BASE, that are not mapped.
    pub(crate) unmapped: BTreeSet<u64>,
    is_scattered: bool,
    pub(crate) data: Vec<u8>,
    sections: u64,
}

impl Linux {
    /// A guest with some sections, all pages of which are in use by the kernel.
    pub(crate) fn new(family: Family, struct_len: u64, endianness: Endianness, sections: u64) -> Self {
        Self::on_pages(family, struct_len, endianness, sections, false)
    }

    /// The same; with `is_scattered`, consecutive virtual pages of structs lie apart.
    pub(crate) fn on_pages(
        family: Family,
        struct_len: u64,
        endianness: Endianness,
        sections: u64,
        is_scattered: bool,
    ) -> Self {
        let mut linux = Self {
            family,
            struct_len,
            endianness,
            ram: vec![0..sections * SECTION],
            keys: keys(family, struct_len),
            unmapped: BTreeSet::new(),
            is_scattered,
            data: vec![0; size(DATA_LEN)],
            sections,
        };
        linux.put(ROOTS, 8, BASE + ROOT);
        linux.put(POINTERS, 8, BASE + ROOTS);
        linux.put(POINTERS + 8, 8, BASE + STRUCTS);
        for section in 0..sections {
            linux.put_section(ROOT + section * 16, section);
        }
        for pfn in 0..sections * SECTION {
            linux.set(pfn, MAPCOUNT, 4, 0xffff_ffff);
            linux.set(pfn, REFCOUNT, 4, 1);
        }
        linux
    }

    /// Writes the record of a section: the address of its structs less that of its first page, and flags.
    fn put_section(&mut self, gpa: u64, section: u64) {
        let first = section * SECTION * self.struct_len;
        let structs = BASE + STRUCTS + first;
        self.put(gpa, 8, structs.wrapping_sub(first) | 0x2f);
    }

    pub(crate) fn absent(&mut self, section: u64) {
        self.put(ROOT + section * 16, 8, 0);
    }

    pub(crate) fn put(&mut self, gpa: u64, len: usize, value: u64) {
        let start = size(gpa - DATA);
        self.endianness.encode(value, &mut self.data[start..start + len]);
    }

    /// Sets a field of a struct.
    fn set(&mut self, pfn: u64, offset: u64, len: usize, value: u64) {
        let mut bytes = vec![0; len];
        self.endianness.encode(value, &mut bytes);
        for (index, byte) in (0..).zip(bytes) {
            let at = self.gpa_of(STRUCTS - DATA + pfn * self.struct_len + offset + index) - DATA;
            self.data[size(at)] = byte;
        }
    }

    /// Where virtual memory at this offset from `BASE + DATA` lies.
    fn gpa_of(&self, offset: u64) -> u64 {
        let page = offset / PAGE;
        let is_struct = offset >= STRUCTS - DATA;
        // Pages change places in pairs.
        let page = if self.is_scattered && is_struct { page ^ 1 } else { page };
        DATA + page * PAGE + offset % PAGE
    }

    pub(crate) fn free(&mut self, pfn: u64, order: u64) {
        for inner in pfn..pfn + (1 << order) {
            self.set(inner, MAPCOUNT, 4, 0xffff_ffff);
            self.set(inner, REFCOUNT, 4, 0);
        }
        self.bad_free(pfn, order);
    }

    /// The first page of a free block, whatever the others say.
    pub(crate) fn bad_free(&mut self, pfn: u64, order: u64) {
        let buddy = if self.family.is_typed() { 0xf000_0000 } else { (-129_i32).cast_unsigned() };
        self.set(pfn, MAPCOUNT, 4, buddy.into());
        self.set(pfn, PRIVATE_FIELD, 8, order);
    }

    pub(crate) fn cache(&mut self, pfn: u64, flags: u64) {
        self.set(pfn, FLAGS, 8, LRU | flags);
        self.set(pfn, MAPPING, 8, INODE);
    }

    pub(crate) fn anonymous(&mut self, pfn: u64, flags: u64) {
        self.set(pfn, FLAGS, 8, LRU | flags);
        self.set(pfn, MAPPING, 8, INODE | 1);
    }

    pub(crate) fn flags(&mut self, pfn: u64, flags: u64) {
        self.set(pfn, FLAGS, 8, flags);
    }

    pub(crate) fn mapcount(&mut self, pfn: u64, value: u64) {
        self.set(pfn, MAPCOUNT, 4, value);
    }

    /// Takes a page for the slab allocator, with marks that would be a program's.
    pub(crate) fn slab(&mut self, pfn: u64) {
        self.set(pfn, MAPPING, 8, INODE | 1);
        if self.family.is_typed() {
            self.set(pfn, MAPCOUNT, 4, 0xf500_0000);
        } else {
            self.set(pfn, FLAGS, 8, SLAB);
        }
    }

    pub(crate) fn offline(&mut self, pfn: u64) {
        let offline = if self.family.is_typed() { 0xf100_0000 } else { (-257_i32).cast_unsigned() };
        self.set(pfn, MAPCOUNT, 4, offline.into());
    }

    /// Makes a compound page of `1 << order` pages that begin at `pfn`.
    pub(crate) fn compound(&mut self, pfn: u64, order: u64, flags: u64) {
        self.set(pfn, FLAGS, 8, HEAD | flags);
        for tail in pfn + 1..pfn + (1 << order) {
            self.set(tail, COMPOUND_HEAD, 8, BASE + STRUCTS + pfn * self.struct_len + 1);
        }
        self.state_order(pfn, order);
    }

    /// Takes the mark of a tail away.
    pub(crate) fn untail(&mut self, pfn: u64) {
        self.set(pfn, COMPOUND_HEAD, 8, 0);
    }

    pub(crate) fn state_order(&mut self, pfn: u64, order: u64) {
        match self.family {
            // The link to the head overlays the first link of the list.
            Family::Lru => self.set(pfn + 1, LIST + 8, 2, order),
            Family::Wide => self.set(pfn + 1, ORDER, 2, order),
            Family::Narrow | Family::Folio => self.set(pfn + 1, ORDER, 1, order),
            Family::Flag | Family::Typed | Family::Info => {
                self.set(pfn + 1, FLAGS, 8, 0x40_0000 << 8 | order)
            }
        }
    }

    /// Makes a page of hugetlbfs.
    pub(crate) fn hugetlb(&mut self, pfn: u64, order: u64) {
        self.compound(pfn, order, 0);
        match self.family {
            Family::Lru => {
                // Kernels that old have no mark in the link.
                for tail in pfn + 1..pfn + (1 << order) {
                    self.set(tail, COMPOUND_HEAD, 8, 0);
                }
                self.set(pfn + 1, LIST, 8, FREE_HUGE_PAGE);
            }
            Family::Wide => self.set(pfn + 1, DTOR, 2, 2),
            Family::Narrow | Family::Folio => self.set(pfn + 1, DTOR, 1, 2),
            Family::Flag => self.set(pfn + 1, FLAGS, 8, HUGETLB | order),
            Family::Typed | Family::Info => self.set(pfn, MAPCOUNT, 4, 0xf400_0000),
        }
    }

    pub(crate) fn key(&mut self, name: &str, value: impl std::fmt::Display) {
        self.without(name);
        self.keys.push((name.to_owned(), value.to_string()));
    }

    pub(crate) fn without(&mut self, name: &str) {
        self.keys.retain(|(key, _)| key != name);
    }

    /// FLATMEM in place of SPARSEMEM.
    pub(crate) fn flat(&mut self) {
        self.without_sections();
        self.key("SYMBOL(mem_map)", format_args!("{:x}", BASE + POINTERS + 8));
    }

    /// One virtual array in place of sections.
    pub(crate) fn vmemmap(&mut self) {
        self.without_sections();
        self.key("SYMBOL(vmemmap)", format_args!("{:x}", BASE + STRUCTS));
    }

    /// SPARSEMEM without EXTREME.
    pub(crate) fn plain_sections(&mut self) {
        self.key("SYMBOL(mem_section)", format_args!("{:x}", BASE + ROOT));
        self.key("LENGTH(mem_section)", 1 << (36 - SECTION_BITS));
        self.key("NUMBER(MAX_PHYSMEM_BITS)", 36);
    }

    /// The address of the pointer to the roots, as the kernel's symbols have it.
    pub(crate) fn section_pointer(&mut self) {
        self.key("SYMBOL(mem_section)", format_args!("{:x}", BASE + POINTERS));
    }

    /// DISCONTIGMEM: two nodes that meet in the middle of a section.
    pub(crate) fn nodes(&mut self) {
        self.without_sections();
        let pgdat = POINTERS + 0x100;
        let split = SECTION + 50;
        for (node, frames) in [(0, 0..split), (3, split..self.sections * SECTION)] {
            let at = pgdat + node * 0x40;
            self.put(POINTERS + 0x40 + node * 8, 8, BASE + at);
            self.put(at + 8, 8, BASE + STRUCTS + frames.start * self.struct_len);
            self.put(at + 16, 8, frames.start);
            self.put(at + 24, 8, frames.end - frames.start);
        }
        self.put(POINTERS + 0x20, 8, 0b1001);
        self.key("SYMBOL(node_data)", format_args!("{:x}", BASE + POINTERS + 0x40));
        self.key("LENGTH(node_data)", 8);
        self.key("SYMBOL(node_online_map)", format_args!("{:x}", BASE + POINTERS + 0x20));
        self.key("SIZE(nodemask_t)", 8);
        self.key("SIZE(pglist_data)", 0x40);
        self.key("OFFSET(pglist_data.node_mem_map)", 8);
        self.key("OFFSET(pglist_data.node_start_pfn)", 16);
        self.key("OFFSET(pglist_data.node_spanned_pages)", 24);
    }

    fn without_sections(&mut self) {
        self.keys.retain(|(key, _)| !key.contains("mem_section") && !key.contains("SECTION_SIZE_BITS"));
    }

    /// Takes away the virtual page that the struct of `pfn` lies in.
    pub(crate) fn unmap_struct(&mut self, pfn: u64) {
        self.unmapped.insert((STRUCTS + pfn * self.struct_len) / PAGE);
    }

    /// The page frame that the struct of `pfn` lies in.
    pub(crate) fn frame_of_struct(&self, pfn: u64) -> u64 {
        self.gpa_of(STRUCTS - DATA + pfn * self.struct_len) / PAGE
    }

    pub(crate) fn info(&self) -> Vmcoreinfo {
        let lines: Vec<String> = self.keys.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        Vmcoreinfo::parse(lines.concat().as_bytes())
    }

    pub(crate) fn memory(&self) -> BlockMemory {
        let ram = self.ram.iter().map(|frames| {
            let len = size((frames.end - frames.start) * PAGE);
            (Gpa(frames.start * PAGE), vec![0x55; len])
        });
        BlockMemory::new(ram.chain([(Gpa(DATA), self.data.clone())]).collect()).expect("blocks apart")
    }

    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel_in(Arc::new(self.memory()))
    }

    pub(crate) fn kernel_in(&self, memory: Arc<dyn PhysMemory>) -> Kernel {
        Kernel::new(&Plain(self.clone()), self.info(), self.endianness, memory)
            .expect("a kernel needs no key")
    }

    pub(crate) fn scan(&self, level: u32, threads: usize, strict: bool) -> Result<Selection, Error> {
        let filter = Filter::new(&self.kernel(), Level::new(level)?)?;
        filter.scan(&[], ScanOptions { threads, strict, ..ScanOptions::default() }, &DumpState::default())
    }

    /// The page frames that are left out.
    pub(crate) fn removed(&self, level: u32) -> BTreeSet<u64> {
        frames(&self.scan(level, 1, false).expect("the guest can be analyzed"))
    }
}

pub(crate) fn frames(selection: &Selection) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let (mut pfn, end) = (0, (DATA + DATA_LEN) / PAGE);
    while pfn < end {
        let (is_removed, len) = selection.removed().run(pfn, end - pfn);
        found.extend((pfn..pfn + len).filter(|_| is_removed));
        pfn += len;
    }
    found
}

pub(crate) fn size(len: u64) -> usize {
    usize::try_from(len).expect("it is small")
}

fn keys(family: Family, struct_len: u64) -> Vec<(String, String)> {
    let release = match family {
        Family::Lru => "3.16.0-4-amd64",
        Family::Wide => "4.9.0-19-amd64",
        Family::Narrow => "6.1.0-50-amd64",
        Family::Folio => "6.4.0-1-amd64",
        Family::Flag => "6.6.0-1-amd64",
        Family::Typed => "6.12.0-1-amd64",
        Family::Info => "7.2.0-1-amd64",
    };
    let mut keys = format!(
        "OSRELEASE={release}\nPAGESIZE=4096\nSIZE(page)={struct_len}\nOFFSET(page.flags)={FLAGS}\n\
        OFFSET(page.mapping)={MAPPING}\nOFFSET(page.private)={PRIVATE_FIELD}\nOFFSET(page._mapcount)={MAPCOUNT}\n\
        NUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PG_swapcache)=10\nNUMBER(PG_swapbacked)=19\n\
        NUMBER(PG_head_mask)={HEAD}\nNUMBER(PG_hwpoison)=22\nLENGTH(zone.free_area)=11\n\
        SYMBOL(mem_section)={:x}\nSIZE(mem_section)=16\nOFFSET(mem_section.section_mem_map)=0\n\
        NUMBER(SECTION_SIZE_BITS)={SECTION_BITS}\n",
        BASE + ROOTS
    );
    keys += match family {
        Family::Lru => {
            "OFFSET(page._count)=52\nOFFSET(page.lru)=8\nOFFSET(list_head.next)=0\nOFFSET(list_head.prev)=8\n\
            SYMBOL(free_huge_page)=ffffffff81234560\n"
        }
        Family::Wide | Family::Narrow => {
            "OFFSET(page._refcount)=52\nOFFSET(page.compound_order)=18\n\
            OFFSET(page.compound_dtor)=16\nNUMBER(HUGETLB_PAGE_DTOR)=2\nOFFSET(page.compound_head)=8\n"
        }
        Family::Folio => {
            "OFFSET(page._refcount)=52\nNUMBER(HUGETLB_PAGE_DTOR)=2\nOFFSET(page.compound_head)=8\n"
        }
        Family::Flag => "OFFSET(page._refcount)=52\nNUMBER(PG_hugetlb)=8\nOFFSET(page.compound_head)=8\n",
        Family::Typed => "OFFSET(page._refcount)=52\nOFFSET(page.compound_head)=8\n",
        Family::Info => "OFFSET(page._refcount)=52\nOFFSET(page.compound_info)=8\n",
    };
    if family == Family::Folio {
        keys += &format!(
            "OFFSET(folio._folio_order)={}\nOFFSET(folio._folio_dtor)={}\n",
            struct_len + ORDER,
            struct_len + DTOR
        );
    }
    keys += if family.is_typed() {
        "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456\nNUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=4043309056\n\
        NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592\n\
        NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)=-150994944\n"
    } else {
        "NUMBER(PG_slab)=9\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\nNUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257\n"
    };
    keys.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// The architecture of the guest: a page of virtual memory is one of physical memory, by arithmetic.
struct Plain(Linux);

static REGISTERS: RegisterTable = RegisterTable {
    gdb_architecture: "plain",
    rows: &[],
    gdb_types: &[],
    gdb_features: &[],
    program_counter: "pc",
    stack_pointer: "sp",
};

impl Arch for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }
    fn elf_machine(&self) -> u16 {
        0xfffe
    }
    fn uts_machines(&self) -> &'static [&'static str] {
        &[]
    }
    fn registers(&self) -> &'static RegisterTable {
        &REGISTERS
    }
    fn notes(&self) -> &'static [NoteTable] {
        &[]
    }
    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        DumpInfo {
            class: machine.identity.class,
            endianness: self.0.endianness,
            elf_flags: 0,
            page_size: PAGE,
            phys_base: 0,
            uts_machine: "plain",
            device_window: 0..0,
        }
    }
    fn translate(&self, _: &RegisterFile, _: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        Ok(Translation::unprotected(Gpa(gva.0), 1))
    }
    fn mappings(
        &self,
        _: &RegisterFile,
        _: &dyn PhysMemory,
        _: &mut SeenTables,
        _: &mut MappingList,
    ) -> Result<(), Error> {
        Ok(())
    }
    fn kernel_space(
        &self,
        _: &Vmcoreinfo,
        _: Endianness,
        _: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new(Space(self.0.clone())))
    }
}

struct Space(Linux);

impl KernelSpace for Space {
    fn image(&self, _: Gva) -> Option<Gpa> {
        None
    }
    fn translate(&self, _: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        let offset = gva.0.wrapping_sub(BASE + DATA);
        if offset >= DATA_LEN || self.0.unmapped.contains(&((DATA + offset) / PAGE)) {
            return Err(Error::NotMapped { gva, level: "page", at: Gpa(0), entry: 0 });
        }
        Ok(Translation::unprotected(Gpa(self.0.gpa_of(offset)), PAGE - offset % PAGE))
    }
    fn is_used_by(&self, _: &RegisterFile, _: &dyn PhysMemory) -> Option<bool> {
        None
    }
}
