//! aarch64: registers, notes and page tables.

#![forbid(unsafe_code)]

mod kernel;
pub mod notes;
mod paging;
mod regime;
pub mod registers;
mod stack;

use regime::Regime;
use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, KernelSpace, Machine, MappingList, NoteTable,
    PhysMemory, RegionKind, RegisterFile, RegisterTable, StackRules, Translation, Vcpu, Vmcoreinfo,
};

/// `e_machine` of aarch64.
const EM_AARCH64: u16 = 183;
/// What kernels use unless they say otherwise. QEMU claims 64 KiB for all guests.
const PAGE_SIZE: u64 = 0x1000;

/// 64-bit Arm, in either byte order.
struct Aarch64;

vmcore_core::inventory::submit! { ArchPlugin(&Aarch64) }

impl Arch for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }

    fn elf_machine(&self) -> u16 {
        EM_AARCH64
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &["aarch64", "aarch64_be", "arm64"]
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::NOTES
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        let info = machine.vmcoreinfo();
        let regimes = || machine.vcpus.iter().map(Vcpu::registers).map(Regime::of_kernel);
        let stated = info.as_ref().and_then(|info| info.page_size());
        // With KASLR an offset "below 0" is usual: only sums with it are addresses.
        let phys_offset = info.as_ref().and_then(|info| info.number("PHYS_OFFSET"));
        let lowest_ram = || {
            let mut ram = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
            ram.next().map(|region| region.gpa.0)
        };
        DumpInfo {
            class: Class::Elf64,
            endianness: regimes()
                .find_map(|regime| regime.endianness())
                .unwrap_or(machine.identity.endianness),
            elf_flags: 0,
            page_size: stated
                .or_else(|| regimes().find_map(|regime| regime.kernel_page_size()))
                .unwrap_or(PAGE_SIZE),
            phys_base: phys_offset.or_else(lowest_ram).unwrap_or(0).cast_signed(),
            uts_machine: "aarch64",
            // Firmware and devices lie below RAM, where boards have them at all.
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

    fn kernel_space(
        &self,
        info: &Vmcoreinfo,
        endianness: Endianness,
        _memory: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new(kernel::Space::new(info, endianness)?))
    }

    fn stack(&self) -> Option<&'static StackRules> {
        Some(&stack::RULES)
    }
}
