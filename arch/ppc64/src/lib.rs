//! ppc64, big- and little-endian: registers, notes and the radix page tables.

#![forbid(unsafe_code)]

mod kernel;
mod mmu;
pub mod notes;
mod radix;
pub mod registers;
mod stack;

use mmu::{Mode, Tables};
use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, Identity, KernelSpace, Machine, MappingList,
    NoteTable, PhysMemory, RegisterFile, RegisterTable, StackRules, Translation, Vcpu, Vmcoreinfo,
};

/// `e_machine` of ppc64.
const EM_PPC64: u16 = 21;
/// Where nothing tells the size of pages, it is this; the kernels of distributions have 64 KiB.
const PAGE_SIZE: u64 = 0x1000;
/// From 32 TiB on, where PCI memory of both pseries and PowerNV machines begins.
const DEVICE_WINDOW: std::ops::Range<u64> = 1 << 45..1 << 46;

/// MSR: data are little-endian now.
const MSR_LE: u64 = 1 << 0;
/// MSR: the hypervisor runs.
const MSR_HV: u64 = 1 << 60;
/// LPCR: interrupts that a guest takes make it little-endian.
const LPCR_ILE: u64 = 1 << 25;
/// HID0: interrupts that a hypervisor takes make it little-endian. The bit has moved after POWER8.
const HID0_HILE_POWER8: u64 = 1 << 44;
const HID0_HILE: u64 = 1 << 59;
/// The upper half of PVR of all POWER8: 8E, 8NVL, 8.
const POWER8: [u64; 3] = [0x4b, 0x4c, 0x4d];

struct Ppc64;

vmcore_core::inventory::submit! { ArchPlugin(&Ppc64) }

/// The byte order in which the vCPU would take an interrupt: that of its kernel.
fn interrupt_endianness(registers: &RegisterFile) -> Option<Endianness> {
    // A note has zero for an MSR that is not known: both mean the same.
    let is_little = if registers.value("msr").unwrap_or(0) & MSR_HV != 0 {
        let is_power8 = POWER8.contains(&(registers.value("pvr")? >> 16));
        registers.value("hid0")? & if is_power8 { HID0_HILE_POWER8 } else { HID0_HILE } != 0
    } else {
        registers.value("lpcr")? & LPCR_ILE != 0
    };
    Some(if is_little { Endianness::Little } else { Endianness::Big })
}

/// The size of pages by the page tables of the first vCPU that has any.
fn page_size(machine: &Machine) -> Option<u64> {
    let memory = &*machine.memory;
    if memory.is_sequential() {
        return None;
    }
    let tables = machine.vcpus.iter().find_map(|vcpu| Tables::of(vcpu.registers(), memory).ok())?;
    tables.page_size(memory)
}

impl Arch for Ppc64 {
    fn name(&self) -> &'static str {
        "ppc64"
    }

    fn elf_machine(&self) -> u16 {
        EM_PPC64
    }

    fn accepts(&self, identity: &Identity) -> bool {
        identity.elf_machine == EM_PPC64 && identity.class == Class::Elf64
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &["ppc64le", "ppc64"]
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::NOTES
    }

    /// Little-endian if any vCPU is so now, else as interrupts are taken, else as the dump says.
    ///
    /// A vCPU that is big-endian now may be in firmware. And QEMU 7.2 asks HID0 of a guest that has none, so that it calls
    /// every pseries guest big-endian.
    fn endianness(&self, machine: &Machine) -> Endianness {
        let registers = || machine.vcpus.iter().map(Vcpu::registers);
        if registers().any(|registers| registers.value("msr").is_some_and(|msr| msr & MSR_LE != 0)) {
            return Endianness::Little;
        }
        registers().find_map(interrupt_endianness).unwrap_or(machine.identity.endianness)
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        let endianness = self.endianness(machine);
        let stated = machine.vmcoreinfo().and_then(|info| info.page_size());
        DumpInfo {
            class: Class::Elf64,
            endianness,
            elf_flags: 0,
            page_size: stated.or_else(|| page_size(machine)).unwrap_or(PAGE_SIZE),
            phys_base: 0,
            uts_machine: if endianness == Endianness::Little { "ppc64le" } else { "ppc64" },
            device_window: DEVICE_WINDOW,
        }
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        Mode::of(registers, memory)?.translate(memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        Mode::of(registers, memory)?.mappings(memory, seen, list)
    }

    fn kernel_space(
        &self,
        info: &Vmcoreinfo,
        endianness: Endianness,
        memory: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new(kernel::Space::new(info, endianness, memory)?))
    }

    fn stack(&self) -> Option<&'static StackRules> {
        Some(&stack::RULES)
    }
}
