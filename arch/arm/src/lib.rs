//! 32-bit Arm: registers, notes and page tables.

#![forbid(unsafe_code)]

pub mod notes;
mod paging;
mod regime;
pub mod registers;
mod stack;

use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, Identity, Machine, MappingList, NoteTable,
    PhysMemory, Region, RegionKind, RegisterFile, RegisterTable, StackRules, Translation, Vcpu,
};

/// `e_machine` of 32-bit Arm.
const EM_ARM: u16 = 40;
/// Pages are 4 KiB; larger ones are made of them.
const PAGE_SIZE: u64 = 0x1000;

/// 32-bit Arm, in either byte order.
struct Arm;

vmcore_core::inventory::submit! { ArchPlugin(&Arm) }

fn ram(machine: &Machine) -> impl Iterator<Item = &Region> {
    machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram)
}

impl Arch for Arm {
    fn name(&self) -> &'static str {
        "arm"
    }

    fn elf_machine(&self) -> u16 {
        EM_ARM
    }

    /// A guest with long descriptors may have memory above 4 GiB; its dump is a 64-bit one.
    fn accepts(&self, identity: &Identity) -> bool {
        identity.elf_machine == EM_ARM
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &[
            "armv7l",
            "armv7b",
            "armv6l",
            "armv6b",
            "armv5tel",
            "armv5tejl",
            "armv4tl",
            "armv8l",
            "armv8b",
            "arm",
        ]
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::NOTES
    }

    fn endianness(&self, machine: &Machine) -> Endianness {
        let known = machine.vcpus.iter().map(Vcpu::registers).find_map(regime::endianness_of_kernel);
        known.unwrap_or(machine.identity.endianness)
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        let is_high = ram(machine).any(|region| region.end().0.saturating_sub(1) > u64::from(u32::MAX));
        let endianness = self.endianness(machine);
        DumpInfo {
            // QEMU writes 32 bits always, and cuts addresses off.
            class: if is_high { Class::Elf64 } else { Class::Elf32 },
            endianness,
            elf_flags: 0,
            page_size: PAGE_SIZE,
            phys_base: ram(machine).next().map_or(0, |region| region.gpa.0).cast_signed(),
            uts_machine: match endianness {
                Endianness::Little => "armv7l",
                Endianness::Big => "armv7b",
            },
            // Firmware and devices lie below RAM.
            device_window: 0..0,
        }
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        paging::translate(registers, memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        paging::mappings(registers, memory, seen, list)
    }

    fn stack(&self) -> Option<&'static StackRules> {
        Some(&stack::RULES)
    }
}
