//! s390x: registers, notes and dynamic address translation.

#![forbid(unsafe_code)]

mod dat;
mod kernel;
pub mod notes;
pub mod registers;
mod stack;

use dat::Space;
use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gpa, Gva, Identity, KernelSpace, Machine,
    MappingList, NoteTable, PhysMemory, RegisterFile, RegisterTable, StackRules, Translation, Vmcoreinfo,
};

/// `e_machine` of s390 and s390x.
const EM_S390: u16 = 22;
/// `e_machine` before there was an official one; dumps of old kernels have it.
const EM_S390_OLD: u16 = 0xa390;
/// Where the first page of absolute memory has the address of VMCOREINFO, for stand-alone dumpers.
///
/// Source: `spec/vmcoreinfo.md` section 5.5; Linux `arch/s390/include/asm/lowcore.h` (`vmcore_info`).
const VMCORE_INFO: Gpa = Gpa(0xe0c);
/// Pages are 4 KiB; nothing else has ever been.
const PAGE_SIZE: u64 = 0x1000;

struct S390x;

vmcore_core::inventory::submit! { ArchPlugin(&S390x) }

impl Arch for S390x {
    fn name(&self) -> &'static str {
        "s390x"
    }

    fn elf_machine(&self) -> u16 {
        EM_S390
    }

    /// 31-bit s390 has the same `e_machine`, and other notes.
    fn accepts(&self, identity: &Identity) -> bool {
        [EM_S390, EM_S390_OLD].contains(&identity.elf_machine)
            && identity.class == Class::Elf64
            && identity.endianness == Endianness::Big
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &["s390x"]
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::NOTES
    }

    fn dump_info(&self, _machine: &Machine) -> DumpInfo {
        DumpInfo {
            class: Class::Elf64,
            endianness: Endianness::Big,
            elf_flags: 0,
            page_size: PAGE_SIZE,
            phys_base: 0,
            uts_machine: self.uts_machines()[0],
            // Devices are reached by instructions of their own, not through memory.
            device_window: 0..0,
        }
    }

    fn note_pointer(&self) -> Option<Gpa> {
        Some(VMCORE_INFO)
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        Space::of(registers)?.translate(memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        Space::of(registers)?.mappings(memory, seen, list)
    }

    fn kernel_space(
        &self,
        info: &Vmcoreinfo,
        _endianness: Endianness,
        memory: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new(kernel::LinuxSpace::new(info, memory)?))
    }

    fn stack(&self) -> Option<&'static StackRules> {
        Some(&stack::RULES)
    }
}
