//! What a dump's header says of a guest, and which notes its registers call for.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore_arch_arm as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Class, Endianness, Gpa, Identity, Machine, Note, RegisterFile, arch};

const EE: u64 = 1 << 25;

fn arm() -> &'static dyn Arch {
    arch::by_name("arm").unwrap()
}

/// A machine with 8 bytes of memory at each of these addresses, whose vCPUs know these registers.
fn machine(memory: &[u64], vcpus: &[&[(&str, u64)]]) -> Machine {
    let vcpu = |known: &&[(&str, u64)]| {
        let mut registers = RegisterFile::new(arm().registers());
        assert!(known.iter().all(|(name, value)| registers.set_value(name, *value)));
        registers
    };
    let memory = BlockMemory::new(memory.iter().map(|gpa| (Gpa(*gpa), vec![0; 8])).collect()).unwrap();
    Machine::new(arm(), Arc::new(memory), vcpus.iter().map(vcpu).collect())
}

#[test]
fn the_identity_of_a_guest() {
    let info = machine(&[0x8000_0000, 0x4000_0000], &[&[]]).dump_info();
    assert_eq!((info.class, info.endianness, info.elf_flags), (Class::Elf32, Endianness::Little, 0));
    assert_eq!((info.page_size, info.phys_base, info.uts_machine), (0x1000, 0x4000_0000, "armv7l"));
    assert!(info.device_window.is_empty());
}

#[test]
fn memory_above_4_gib_makes_a_64_bit_dump() {
    let class = |memory: &[u64]| machine(memory, &[]).dump_info().class;
    assert_eq!(class(&[]), Class::Elf32);
    assert_eq!(class(&[0xffff_fff8]), Class::Elf32);
    assert_eq!(class(&[0x4000_0000, 0xffff_fff9]), Class::Elf64);
    assert_eq!(class(&[0x1_0000_0000]), Class::Elf64);
}

#[test]
fn both_classes_and_byte_orders_are_accepted() {
    let identity = |elf_machine, class, endianness| Identity { elf_machine, class, endianness, elf_flags: 0 };
    for class in [Class::Elf32, Class::Elf64] {
        for endianness in [Endianness::Little, Endianness::Big] {
            assert!(arm().accepts(&identity(40, class, endianness)));
            assert!(!arm().accepts(&identity(183, class, endianness)));
        }
    }
}

#[test]
fn byte_order_is_that_of_the_kernel() {
    let check = |vcpus: &[&[(&str, u64)]], expected, name| {
        let info = machine(&[], vcpus).dump_info();
        assert_eq!((info.endianness, info.uts_machine), (expected, name));
    };
    check(&[], Endianness::Little, "armv7l");
    check(&[&[], &[("sctlr", EE)]], Endianness::Big, "armv7b");
    check(&[&[("sctlr", 0), ("sctlr_s", EE)]], Endianness::Little, "armv7l");
}

/// What QEMU writes for two vCPUs takes 896 bytes.
#[test]
fn which_notes_registers_call_for() {
    let kinds = |known: &[(&str, u64)]| {
        let notes = machine(&[], &[known]).encode_notes();
        let name = |note: &Note| {
            let table = arm().notes().iter().find(|table| table.matches(note));
            table.map_or("VMCORE", |table| table.name)
        };
        notes.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds(&[]), "NT_PRSTATUS");
    assert_eq!(kinds(&[("d31", 1)]), "NT_PRSTATUS NT_ARM_VFP");
    assert_eq!(kinds(&[("ttbr0", 1), ("fpscr", 1)]), "NT_PRSTATUS VMCORE");
    let two = machine(&[], &[&[("d0", 0)], &[("d0", 0)]]);
    assert_eq!(two.encode_notes().iter().map(Note::encoded_len).sum::<usize>(), 896);
}

#[test]
fn a_vcpu_in_both_byte_orders() {
    for (sctlr, word) in [(0, [4, 3, 2, 1]), (EE, [1, 2, 3, 4])] {
        let known = [
            ("sctlr", sctlr),
            ("r0", 0x0102_0304),
            ("cpsr", 0x0102_0304),
            ("d31", 0x0102_0304),
            ("fpscr", 1),
        ];
        let machine = machine(&[], &[&[("sctlr", sctlr)], &known]);
        let notes = machine.encode_notes();
        let [_, _, status, float, _] = &notes[..] else { panic!("{notes:?}") };
        let number = |at: usize| machine.identity.endianness.u32_at(&status.desc, at);
        assert_eq!(
            (status.desc.len(), number(24), number(140), number(144)),
            (148, Some(2), Some(u32::MAX), Some(1))
        );
        assert_eq!((&status.desc[72..76], &status.desc[136..140]), (&word[..], &word[..]));
        assert_eq!(float.desc.len(), 260);
        assert_eq!(float.desc[248..256].iter().filter(|byte| **byte != 0).count(), 4);
        let back = Machine::from_notes(machine.identity, machine.memory.clone(), notes);
        assert_eq!(back.vcpus[1].registers().value("d31"), Some(0x0102_0304));
        assert_eq!(back.vcpus[1].registers().value("orig_r0"), Some(0xffff_ffff));
    }
}
