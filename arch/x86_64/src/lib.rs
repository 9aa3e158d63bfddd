//! x86_64 and i386: registers, notes and page tables.

#![forbid(unsafe_code)]

mod kernel;
pub mod notes;
mod paging;
pub mod registers;
mod stack;

use paging::Mode;
use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, Identity, KernelSpace, Machine, MappingList,
    NoteTable, PhysMemory, RegionKind, RegisterFile, RegisterTable, StackRules, Translation, Vmcoreinfo,
};

/// `e_machine` of x86_64.
const EM_X86_64: u16 = 62;
/// `e_machine` of i386.
const EM_386: u16 = 3;
/// Pages are 4 KiB; nothing else has ever been.
const PAGE_SIZE: u64 = 0x1000;

/// Below 4 GiB, where PCs have PCI memory, the firmware's ROM and the like (`spec/kdump.md` section 11.3).
const DEVICE_WINDOW: std::ops::Range<u64> = 0xc000_0000..0x1_0000_0000;

/// One of the two architectures: they differ in tables and in how a vCPU finds its paging mode.
struct X86 {
    name: &'static str,
    elf_machine: u16,
    registers: &'static RegisterTable,
    notes: &'static [NoteTable],
    uts_machines: &'static [&'static str],
    mode: fn(&RegisterFile) -> Result<Mode, Error>,
    class: fn(&Machine) -> Class,
    kernel_space: fn(&Vmcoreinfo) -> Result<kernel::Space, Error>,
    stack: &'static StackRules,
}

/// vCPUs in long mode.
static X86_64: X86 = X86 {
    name: "x86_64",
    elf_machine: EM_X86_64,
    registers: &registers::x86_64::TABLE,
    notes: notes::X86_64,
    uts_machines: &["x86_64"],
    mode: Mode::of_x86_64,
    class: |_| Class::Elf64,
    kernel_space: kernel::Space::new,
    stack: &stack::X86_64,
};

/// vCPUs that are not in long mode. A 64-bit guest is one of these too, until its kernel has started.
static I386: X86 = X86 {
    name: "i386",
    elf_machine: EM_386,
    registers: &registers::i386::TABLE,
    notes: notes::I386,
    uts_machines: &["i686", "i586", "i486", "i386"],
    mode: Mode::of_i386,
    class: class_of_i386,
    kernel_space: |_| {
        let found = "a kernel of i386".to_owned();
        Err(Error::Unsupported { what: "finding the address space of a kernel by its VMCOREINFO", found })
    },
    stack: &stack::I386,
};

vmcore_core::inventory::submit! { ArchPlugin(&X86_64) }
vmcore_core::inventory::submit! { ArchPlugin(&I386) }

/// 32 bits, unless some memory lies above 4 GiB.
///
/// QEMU asks whether a region *ends* at or above 4 GiB. The BIOS does, so that all its dumps of PCs are 64-bit.
fn class_of_i386(machine: &Machine) -> Class {
    let ram = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    let mut last_bytes = ram.map(|region| region.end().0.saturating_sub(1));
    if last_bytes.any(|last| last > u64::from(u32::MAX)) { Class::Elf64 } else { Class::Elf32 }
}

impl Arch for X86 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn elf_machine(&self) -> u16 {
        self.elf_machine
    }

    fn accepts(&self, identity: &Identity) -> bool {
        identity.elf_machine == self.elf_machine && identity.endianness == Endianness::Little
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        self.uts_machines
    }

    fn registers(&self) -> &'static RegisterTable {
        self.registers
    }

    fn notes(&self) -> &'static [NoteTable] {
        self.notes
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        // Only kernels of x86_64 state one.
        let phys_base = machine.vmcoreinfo().and_then(|info| info.number("phys_base"));
        DumpInfo {
            class: (self.class)(machine),
            endianness: Endianness::Little,
            elf_flags: 0,
            page_size: PAGE_SIZE,
            phys_base: phys_base.unwrap_or(0).cast_signed(),
            uts_machine: self.uts_machines[0],
            device_window: DEVICE_WINDOW,
        }
    }

    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error> {
        (self.mode)(registers)?.translate(memory, gva)
    }

    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        (self.mode)(registers)?.mappings(memory, seen, list)
    }

    fn kernel_space(
        &self,
        info: &Vmcoreinfo,
        _endianness: Endianness,
        _memory: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new((self.kernel_space)(info)?))
    }

    fn stack(&self) -> Option<&'static StackRules> {
        Some(self.stack)
    }
}
