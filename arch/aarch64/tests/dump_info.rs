//! What a dump's header says of a guest.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore_arch_aarch64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Class, Endianness, Gpa, Machine, Note, RegisterFile, arch};

const EL2_HOST: [(&str, u64); 2] = [("pstate", 9), ("hcr_el2", 1 << 34)];
const EE: u64 = 1 << 25;

/// A machine whose vCPUs know these registers.
fn machine(vcpus: &[&[(&str, u64)]]) -> Machine {
    let arch = arch::by_name("aarch64").unwrap();
    let vcpu = |known: &&[(&str, u64)]| {
        let mut registers = RegisterFile::new(arch.registers());
        assert!(known.iter().all(|(name, value)| registers.set_value(name, *value)));
        registers
    };
    let memory = BlockMemory::new(vec![(Gpa(0x8000_0000), vec![0; 8]), (Gpa(0x4000_0000), vec![0; 8])]);
    Machine::new(arch, Arc::new(memory.unwrap()), vcpus.iter().map(vcpu).collect())
}

#[test]
fn the_identity_of_a_guest() {
    let info = machine(&[&[]]).dump_info();
    assert_eq!((info.class, info.elf_flags, info.uts_machine), (Class::Elf64, 0, "aarch64"));
    assert!(info.device_window.is_empty());
}

#[test]
fn byte_order_is_that_of_the_kernel() {
    let check = |vcpus: &[&[(&str, u64)]], expected| assert_eq!(machine(vcpus).identity.endianness, expected);
    check(&[], Endianness::Little);
    check(&[&[("sctlr_el1", EE)]], Endianness::Big);
    check(&[&[], &[("sctlr_el1", EE)]], Endianness::Big);
    let host = |sctlr: u64| [EL2_HOST[0], EL2_HOST[1], ("sctlr_el1", !sctlr & EE), ("sctlr_el2", sctlr)];
    check(&[&host(EE)], Endianness::Big);
    check(&[&host(0)], Endianness::Little);
    // Firmware at EL3 is not the kernel.
    check(&[&[("pstate", 13), ("sctlr_el3", 0), ("sctlr_el1", EE)]], Endianness::Big);
}

#[test]
fn a_dump_keeps_its_byte_order() {
    let mut machine = machine(&[&[]]);
    machine.identity.endianness = Endianness::Big;
    assert_eq!(machine.dump_info().endianness, Endianness::Big);
}

#[test]
fn page_size_is_that_of_the_kernel() {
    let tg1 = |code: u64| [("tcr_el1", code << 30)];
    let check =
        |vcpus: &[&[(&str, u64)]], expected| assert_eq!(machine(vcpus).dump_info().page_size, expected);
    check(&[&[]], 0x1000);
    check(&[&tg1(0)], 0x1000);
    check(&[&tg1(1)], 0x4000);
    check(&[&tg1(2)], 0x1000);
    check(&[&tg1(3)], 0x1_0000);
    check(&[&tg1(0), &tg1(1)], 0x4000);
    check(&[&[EL2_HOST[0], EL2_HOST[1], ("tcr_el1", 1 << 30), ("tcr_el2", 3 << 30)]], 0x1_0000);
    let mut stated = machine(&[&tg1(3)]);
    stated.guest_note = Some(Note::new("VMCOREINFO", 0, b"PAGESIZE=16384\n".to_vec()));
    assert_eq!(stated.dump_info().page_size, 0x4000);
}

#[test]
fn phys_base_is_the_kernels_offset_or_where_ram_begins() {
    let mut machine = machine(&[]);
    assert_eq!(machine.dump_info().phys_base, 0x4000_0000);
    for (text, expected) in [
        ("0x40000000", 0x4000_0000),
        ("0xffffbf5c00000000", -0x40a4_0000_0000), // as kernels with KASLR have it
        ("-4096", -4096),
    ] {
        let text = format!("NUMBER(PHYS_OFFSET)={text}\n").into_bytes();
        machine.guest_note = Some(Note::new("VMCOREINFO", 0, text));
        assert_eq!(machine.dump_info().phys_base, expected);
    }
}
