//! x86_64 and i386: registers, notes and page tables.

#![forbid(unsafe_code)]

pub mod notes;
mod paging;
pub mod registers;

use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, Machine, MappingList, NoteTable, PhysMemory,
    RegionKind, RegisterFile, RegisterTable, Translation,
};

/// `e_machine` of x86_64.
const EM_X86_64: u16 = 62;
/// `e_machine` of i386.
const EM_386: u16 = 3;
/// Pages are 4 KiB; nothing else has ever been.
const PAGE_SIZE: u64 = 0x1000;

/// A vCPU in long mode.
#[derive(Debug)]
pub struct X86_64;

/// A vCPU that is not in long mode. A 64-bit guest is one too, until its kernel has started.
#[derive(Debug)]
pub struct I386;

vmcore_core::inventory::submit! { ArchPlugin(&X86_64) }
vmcore_core::inventory::submit! { ArchPlugin(&I386) }

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }

    fn elf_machine(&self) -> u16 {
        EM_X86_64
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::x86_64::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::X86_64
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        let phys_base = machine.vmcoreinfo().and_then(|info| info.number("phys_base"));
        DumpInfo {
            class: Class::Elf64,
            endianness: Endianness::Little,
            elf_flags: 0,
            page_size: PAGE_SIZE,
            phys_base: phys_base.unwrap_or(0).cast_signed(),
            uts_machine: "x86_64",
        }
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        paging::Mode::of_x86_64(registers)?.translate(memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        paging::Mode::of_x86_64(registers)?.mappings(memory, seen, list)
    }
}

impl Arch for I386 {
    fn name(&self) -> &'static str {
        "i386"
    }

    fn elf_machine(&self) -> u16 {
        EM_386
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::i386::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::I386
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        // QEMU asks whether a region *ends* at or above 4 GiB. The BIOS does, so that all its dumps of PCs are 64-bit.
        let is_high = |last: u64| last > u64::from(u32::MAX);
        let ram = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
        let needs_64 = ram.map(|region| region.end().0.saturating_sub(1)).any(is_high);
        DumpInfo {
            class: if needs_64 { Class::Elf64 } else { Class::Elf32 },
            endianness: Endianness::Little,
            elf_flags: 0,
            page_size: PAGE_SIZE,
            phys_base: 0,
            uts_machine: "i686",
        }
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        paging::Mode::of_i386(registers)?.translate(memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        paging::Mode::of_i386(registers)?.mappings(memory, seen, list)
    }
}
