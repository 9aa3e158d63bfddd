//! What is s390x's own; what holds for every architecture is in `tests/tests/architectures.rs`.

use std::sync::Arc;
use vmcore_arch_s390x as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Class, Endianness, Identity, Machine, RegisterFile, arch};

fn s390x() -> &'static dyn Arch {
    arch::by_name("s390x").expect("the architecture is linked in")
}

/// What QEMU writes for two vCPUs takes 2480 bytes, in this order.
#[test]
fn the_notes_of_a_vcpu_are_qemus() {
    let mut registers = RegisterFile::new(s390x().registers());
    for name in ["r0", "fpc", "prefix", "cr0", "cputm", "ckc", "todpr", "v0_low", "v16", "gsd"] {
        assert!(registers.set_value(name, 1), "{name}");
    }
    let machine = Machine::new(s390x(), Arc::new(BlockMemory::default()), vec![registers.clone(), registers]);
    let notes = machine.encode_notes();
    let types: Vec<u32> = notes.iter().map(|note| note.note_type).collect();
    assert_eq!(types[..10], [1, 2, 0x305, 0x304, 0x301, 0x302, 0x303, 0x309, 0x30a, 0x30b]);
    assert_eq!(notes.iter().map(vmcore_core::Note::encoded_len).sum::<usize>(), 2480);
    assert_eq!(machine.identity.endianness, Endianness::Big);
    assert_eq!(notes[10].desc[32..36], [0, 0, 0, 2], "pr_pid of the second");
    assert_eq!(notes[0].desc[328..332], [0, 0, 0, 1], "pr_fpvalid");
}

#[test]
fn what_is_accepted() {
    let identity = |elf_machine, class, endianness| Identity { elf_machine, class, endianness, elf_flags: 0 };
    for (identity, is_ours) in [
        (identity(22, Class::Elf64, Endianness::Big), true),
        (identity(0xa390, Class::Elf64, Endianness::Big), true),
        (identity(22, Class::Elf32, Endianness::Big), false),
        (identity(22, Class::Elf64, Endianness::Little), false),
        (identity(21, Class::Elf64, Endianness::Big), false),
    ] {
        assert_eq!(s390x().accepts(&identity), is_ours, "{identity:?}");
    }
}

/// QEMU 7.2 writes `pr_pid` in the byte order of its host.
#[test]
fn numbers_of_vcpus_in_the_other_byte_order_are_set_right() {
    let memory = Arc::new(BlockMemory::default());
    let registers = RegisterFile::new(s390x().registers());
    let machine = Machine::new(s390x(), memory.clone(), vec![registers.clone(), registers]);
    let right = machine.encode_notes();
    let with_numbers = |numbers: [u32; 2]| {
        let mut notes = right.clone();
        for (note, number) in notes.iter_mut().filter(|note| note.is("CORE", 1)).zip(numbers) {
            note.desc[32..36].copy_from_slice(&number.to_be_bytes());
        }
        Machine::from_notes(machine.identity, memory.clone(), notes)
    };
    let repaired = with_numbers([1 << 24, 2 << 24]);
    assert_eq!(repaired.encode_notes(), right);
    assert!(repaired.findings[0].text.contains("the other byte order"), "{:?}", repaired.findings);
    // A kernel's own dump says which process ran: that is carried along, unless somebody knows better.
    let mut carried = with_numbers([0x0100_0000, 4711]);
    assert!(carried.findings.is_empty());
    assert_ne!(carried.encode_notes(), right);
    carried.number_vcpus();
    assert_eq!(carried.encode_notes(), right);
}
