//! What a dump's header says of a guest, and which notes its registers call for.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore_arch_riscv64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Class, Endianness, Identity, Machine, Note, RegisterFile, arch};

const SBE: u64 = 1 << 36;
const UBE: u64 = 1 << 6;
const MISA_GC: u64 = 0x8000_0000_0014_112d;
const D: u64 = 1 << 3;

fn riscv64() -> &'static dyn Arch {
    arch::by_name("riscv64").unwrap()
}

/// A machine whose vCPUs know these registers.
fn machine(vcpus: &[&[(&str, u64)]]) -> Machine {
    let vcpu = |known: &&[(&str, u64)]| {
        let mut registers = RegisterFile::new(riscv64().registers());
        assert!(known.iter().all(|(name, value)| registers.set_value(name, *value)));
        registers
    };
    Machine::new(riscv64(), Arc::new(BlockMemory::default()), vcpus.iter().map(vcpu).collect())
}

#[test]
fn the_identity_of_a_guest() {
    let info = machine(&[&[]]).dump_info();
    assert_eq!((info.class, info.endianness, info.elf_flags), (Class::Elf64, Endianness::Little, 0));
    assert_eq!((info.page_size, info.phys_base, info.uts_machine), (0x1000, 0, "riscv64"));
    assert!(info.device_window.is_empty());
}

#[test]
fn riscv32_is_refused() {
    let identity = |elf_machine, class, endianness| Identity { elf_machine, class, endianness, elf_flags: 0 };
    for (identity, is_ours) in [
        (identity(243, Class::Elf64, Endianness::Little), true),
        (identity(243, Class::Elf64, Endianness::Big), true),
        (identity(243, Class::Elf32, Endianness::Little), false),
        (identity(243, Class::Elf32, Endianness::Big), false),
        (identity(244, Class::Elf64, Endianness::Little), false),
    ] {
        assert_eq!(riscv64().accepts(&identity), is_ours, "{identity:?}");
    }
}

#[test]
fn byte_order_is_that_of_the_kernel() {
    let check = |vcpus: &[&[(&str, u64)]], expected| assert_eq!(machine(vcpus).identity.endianness, expected);
    check(&[], Endianness::Little);
    check(&[&[("mstatus", SBE)]], Endianness::Big);
    check(&[&[("mstatus", UBE)]], Endianness::Little);
    check(&[&[], &[("mstatus", SBE)]], Endianness::Big);
}

#[test]
fn flags_tell_gdb_of_floating_point() {
    let check =
        |known: &[(&str, u64)], expected| assert_eq!(machine(&[&[], known]).dump_info().elf_flags, expected);
    check(&[("ft0", 0), ("misa", MISA_GC)], 4);
    check(&[("ft0", 0), ("misa", 0)], 4);
    check(&[("ft0", 0)], 4);
    check(&[("ft0", 0), ("misa", MISA_GC & !D)], 0);
    check(&[("misa", MISA_GC)], 0);
}

/// What QEMU writes for two vCPUs takes 792 bytes.
#[test]
fn which_notes_registers_call_for() {
    let kinds = |known: &[(&str, u64)]| {
        let notes = machine(&[known]).encode_notes();
        let name = |note: &Note| {
            let table = riscv64().notes().iter().find(|table| table.matches(note));
            table.map_or("VMCORE", |table| table.name)
        };
        notes.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds(&[]), "NT_PRSTATUS");
    assert_eq!(machine(&[&[], &[]]).encode_notes().iter().map(Note::encoded_len).sum::<usize>(), 792);
    assert_eq!(kinds(&[("ft11", 1)]), "NT_PRSTATUS NT_PRFPREG");
    assert_eq!(kinds(&[("v31", 1), ("vlenb", 16)]), "NT_PRSTATUS NT_RISCV_VECTOR");
    assert_eq!(kinds(&[("satp", 1), ("vlenb", 16)]), "NT_PRSTATUS VMCORE");
}

#[test]
fn a_vcpu() {
    let known = [("pc", 0x11), ("ra", 0x22), ("t6", 0x33), ("ft0", 0x44), ("ft11", 0x55), ("fcsr", 0x66)];
    let notes = machine(&[&[], &known]).encode_notes();
    let [_, status, float] = &notes[..] else { panic!("{notes:?}") };
    assert_eq!(
        (status.desc.len(), status.desc[32], status.desc[112], status.desc[120]),
        (376, 2, 0x11, 0x22)
    );
    assert_eq!((status.desc[360], status.desc[368]), (0x33, 1), "pr_fpvalid");
    assert_eq!((float.desc.len(), float.desc[0], float.desc[248], float.desc[256]), (264, 0x44, 0x55, 0x66));
}

#[test]
fn vectors_are_strings_of_bytes_in_both_orders() {
    for (mstatus, vl) in [(0, [7, 0, 0, 0, 0, 0, 0, 0]), (SBE, [0, 0, 0, 0, 0, 0, 0, 7])] {
        let known = [("mstatus", mstatus), ("vlenb", 32), ("vl", 7), ("v1", 0x1122), ("v31", 0x3344)];
        let machine = machine(&[&known]);
        let desc = &machine.encode_notes()[1].desc;
        assert_eq!(desc.len(), 40 + 32 * 32);
        assert_eq!(desc[8..16], vl);
        assert_eq!(desc[40 + 32..][..3], [0x22, 0x11, 0]);
        assert_eq!(desc[40 + 31 * 32..][..3], [0x44, 0x33, 0]);
        let back = Machine::from_notes(machine.identity, machine.memory.clone(), machine.encode_notes());
        assert_eq!(back.vcpus[0].registers().value("v31"), Some(0x3344));
    }
}
