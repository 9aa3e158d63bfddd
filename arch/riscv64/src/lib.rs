//! riscv64: registers, notes and page tables.

#![forbid(unsafe_code)]

mod kernel;
pub mod notes;
mod paging;
pub mod registers;
mod stack;

use vmcore_core::arch::SeenTables;
use vmcore_core::{
    Arch, ArchPlugin, Class, DumpInfo, Endianness, Error, Gva, Identity, KernelSpace, Machine, MappingList,
    NoteTable, PhysMemory, RegisterFile, RegisterTable, StackRules, Translation, Vcpu, Vmcoreinfo,
};

/// `e_machine` of RISC-V, of all widths.
const EM_RISCV: u16 = 243;
/// `e_flags`: floating-point arguments are doubles. gdb takes no floating-point registers from a core without it.
const EF_RISCV_FLOAT_ABI_DOUBLE: u32 = 4;
/// Pages are 4 KiB; larger ones are made of them.
const PAGE_SIZE: u64 = 0x1000;

/// `misa`: extension D, floating point of double precision.
const MISA_D: u64 = 1 << 3;
/// `mstatus`: memory accesses of the kernel, and page tables, are big-endian.
const MSTATUS_SBE: u64 = 1 << 36;
/// `priv` of firmware, which sees physical memory.
const MACHINE_MODE: u64 = 3;

struct Riscv64;

vmcore_core::inventory::submit! { ArchPlugin(&Riscv64) }

/// The byte order of the vCPU's kernel. QEMU asks for that of its applications instead.
fn endianness(registers: &RegisterFile) -> Option<Endianness> {
    let is_big = registers.value("mstatus")? & MSTATUS_SBE != 0;
    Some(if is_big { Endianness::Big } else { Endianness::Little })
}

fn is_machine_mode(registers: &RegisterFile) -> bool {
    registers.value("priv") == Some(MACHINE_MODE)
}

/// Whether the vCPU has floating-point registers of 64 bits. A `misa` of 0 says nothing.
fn has_doubles(registers: &RegisterFile) -> bool {
    let misa = registers.value("misa").filter(|misa| *misa != 0);
    registers.value("ft0").is_some() && misa.is_none_or(|misa| misa & MISA_D != 0)
}

impl Arch for Riscv64 {
    fn name(&self) -> &'static str {
        "riscv64"
    }

    fn elf_machine(&self) -> u16 {
        EM_RISCV
    }

    /// riscv32 has the same `e_machine`, and other notes.
    fn accepts(&self, identity: &Identity) -> bool {
        identity.elf_machine == EM_RISCV && identity.class == Class::Elf64
    }

    fn uts_machines(&self) -> &'static [&'static str] {
        &["riscv64"]
    }

    fn registers(&self) -> &'static RegisterTable {
        &registers::TABLE
    }

    fn notes(&self) -> &'static [NoteTable] {
        notes::NOTES
    }

    fn endianness(&self, machine: &Machine) -> Endianness {
        let known = machine.vcpus.iter().map(Vcpu::registers).find_map(endianness);
        known.unwrap_or(machine.identity.endianness)
    }

    fn dump_info(&self, machine: &Machine) -> DumpInfo {
        let has_doubles = machine.vcpus.iter().map(Vcpu::registers).any(has_doubles);
        DumpInfo {
            class: Class::Elf64,
            endianness: self.endianness(machine),
            elf_flags: if has_doubles { EF_RISCV_FLOAT_ABI_DOUBLE } else { 0 },
            page_size: PAGE_SIZE,
            phys_base: 0,
            uts_machine: self.uts_machines()[0],
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
