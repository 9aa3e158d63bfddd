//! Guests that are made up: every virtual address is the physical one, so that a test can say what lies where; and all words
//! are little-endian.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;
use vmcore_arch_aarch64 as _;
use vmcore_arch_ppc64 as _;
use vmcore_arch_riscv64 as _;
use vmcore_arch_s390x as _;
use vmcore_arch_x86_64 as _;
use vmcore_core::arch::{self, SeenTables};
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Arch, DumpInfo, Endianness, Error, Gpa, Gva, KernelSpace, Machine, MappingList, Note, NoteTable,
    PhysMemory, RegisterFile, RegisterTable, StackRules, Translation, Vmcoreinfo, memory,
};

/// A real architecture without page tables.
struct Flat(&'static str);

static X86_64: Flat = Flat("x86_64");
static AARCH64: Flat = Flat("aarch64");
static PPC64: Flat = Flat("ppc64");
static RISCV64: Flat = Flat("riscv64");
static S390X: Flat = Flat("s390x");

impl Flat {
    fn real(&self) -> &'static dyn Arch {
        arch::by_name(self.0).expect("it is linked in")
    }
}

/// To itself, page by page, where there is memory.
fn flat(memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
    let gpa = Gpa(gva.0);
    memory::read_array::<1>(memory, gpa, "a page")?;
    Ok(Translation::unprotected(gpa, 0x1000 - gva.0 % 0x1000))
}

struct FlatSpace;

impl KernelSpace for FlatSpace {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(Gpa(gva.0))
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        flat(memory, gva)
    }

    fn is_used_by(&self, _: &RegisterFile, _: &dyn PhysMemory) -> Option<bool> {
        None
    }
}

impl Arch for Flat {
    fn name(&self) -> &'static str {
        self.0
    }

    fn elf_machine(&self) -> u16 {
        self.real().elf_machine()
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &[]
    }

    fn registers(&self) -> &'static RegisterTable {
        self.real().registers()
    }

    fn notes(&self) -> &'static [NoteTable] {
        self.real().notes()
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        self.real().dump_info(machine)
    }

    fn translate(&self, _: &RegisterFile, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        flat(memory, gva)
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
        Ok(Box::new(FlatSpace))
    }

    fn stack(&self) -> Option<&'static StackRules> {
        self.real().stack()
    }
}

/// What lies in memory, and what VMCOREINFO says of it.
pub(crate) struct Guest {
    arch: &'static dyn Arch,
    blocks: Vec<(Gpa, Vec<u8>)>,
    info: String,
    registers: RegisterFile,
}

impl Guest {
    pub(crate) fn x86_64() -> Self {
        Self::new(&X86_64)
    }

    pub(crate) fn aarch64() -> Self {
        Self::new(&AARCH64)
    }

    pub(crate) fn ppc64() -> Self {
        Self::new(&PPC64)
    }

    pub(crate) fn riscv64() -> Self {
        Self::new(&RISCV64)
    }

    pub(crate) fn s390x() -> Self {
        Self::new(&S390X)
    }

    fn new(arch: &'static dyn Arch) -> Self {
        let registers = RegisterFile::new(arch.registers());
        Self { arch, blocks: Vec::new(), info: String::new(), registers }
    }

    pub(crate) fn bytes(mut self, at: u64, bytes: Vec<u8>) -> Self {
        self.blocks.push((Gpa(at), bytes));
        self
    }

    pub(crate) fn words(self, at: u64, words: &[u64]) -> Self {
        self.bytes(at, words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    pub(crate) fn says(mut self, line: &str) -> Self {
        self.info += line;
        self.info.push('\n');
        self
    }

    pub(crate) fn register(mut self, name: &str, value: u64) -> Self {
        assert!(self.registers.set_value(name, value), "there is no {name}");
        self
    }

    /// The kernel's own list of its symbols, from `at` on. Each is its address (behind `at`), its type and its name.
    pub(crate) fn symbols(self, at: u64, symbols: &[(u64, &str)]) -> Self {
        // Token n is the character n, but for the first, which are pieces of text.
        let pieces = ["start_", "_orc_unwind"];
        let (mut table, mut index) = (Vec::new(), Vec::new());
        for token in 0..=u8::MAX {
            index.extend(u16::try_from(table.len()).expect("it is small").to_le_bytes());
            match pieces.get(usize::from(token)) {
                Some(piece) => table.extend_from_slice(piece.as_bytes()),
                None => table.push(token),
            }
            table.push(0);
        }
        let mut names = Vec::new();
        for (_, name) in symbols {
            let mut tokens = Vec::new();
            let mut rest = *name;
            while let Some(first) = rest.bytes().next() {
                let piece = pieces.iter().position(|piece| rest.starts_with(piece));
                let len = piece.map_or(1, |piece| pieces[piece].len());
                tokens.push(piece.map_or(first, |piece| u8::try_from(piece).expect("it is small")));
                rest = &rest[len..];
            }
            // The first name is written in the longer of the two ways.
            let len = u8::try_from(tokens.len()).expect("it is small");
            if names.is_empty() {
                names.extend([len | 0x80, 0])
            } else {
                names.push(len)
            }
            names.extend(tokens);
        }
        // Memory ends with a page, not with the list.
        names.resize(0x1000, 0);
        let count = u32::try_from(symbols.len()).expect("it is small");
        let offset = |(gva, _): &(u64, &str)| u32::try_from(gva - at).expect("it is small").to_le_bytes();
        self.bytes(at, count.to_le_bytes().to_vec())
            .words(at + 8, &[at])
            .bytes(at + 0x1_0000, symbols.iter().flat_map(offset).collect())
            .bytes(at + 0x2_0000, names)
            .bytes(at + 0x3_0000, index)
            .bytes(at + 0x4_0000, [table, vec![0; 0x1000]].concat())
            .says(&format!("SYMBOL(kallsyms_num_syms)={at:x}"))
            .says(&format!("SYMBOL(kallsyms_relative_base)={:x}", at + 8))
            .says(&format!("SYMBOL(kallsyms_offsets)={:x}", at + 0x1_0000))
            .says(&format!("SYMBOL(kallsyms_names)={:x}", at + 0x2_0000))
            .says(&format!("SYMBOL(kallsyms_token_index)={:x}", at + 0x3_0000))
            .says(&format!("SYMBOL(kallsyms_token_table)={:x}", at + 0x4_0000))
    }

    pub(crate) fn machine(self) -> Machine {
        let memory = BlockMemory::new(self.blocks).expect("blocks do not overlap");
        let mut machine = Machine::new(self.arch, Arc::new(memory), vec![self.registers]);
        machine.identity.endianness = Endianness::Little;
        machine.guest_note = Some(Note::new("VMCOREINFO", 0, self.info.into_bytes()));
        machine
    }
}

/// Writes bytes over a machine's memory; where there is none, nothing.
pub(crate) fn change(machine: &mut Machine, bytes: impl IntoIterator<Item = (u64, u8)>) {
    let mut blocks = Vec::new();
    for region in machine.memory.regions() {
        let mut block = vec![0; usize::try_from(region.len).expect("it is small")];
        machine.memory.read_at(region.gpa, &mut block).expect("it is there");
        blocks.push((region.gpa, block));
    }
    for (at, byte) in bytes {
        for (gpa, block) in &mut blocks {
            let place = at.checked_sub(gpa.0).and_then(|place| usize::try_from(place).ok());
            if let Some(slot) = place.and_then(|place| block.get_mut(place)) {
                *slot = byte;
            }
        }
    }
    machine.memory = Arc::new(BlockMemory::new(blocks).expect("they do not overlap"));
}
