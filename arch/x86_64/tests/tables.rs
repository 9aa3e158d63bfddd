//! What is x86's own; what holds for every architecture is in `tests/tests/architectures.rs`.

use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Endianness, Machine, Note, NoteTable, RegisterFile, arch};

const NAMES: [&str; 2] = ["x86_64", "i386"];

fn arch_of(name: &str) -> &'static dyn Arch {
    arch::by_name(name).expect("the architecture is linked in")
}

/// The XSAVE note of an architecture, and one that is made of these registers.
fn xsave(name: &str, known: &[(&str, u64)]) -> (&'static NoteTable, Note) {
    let arch = arch_of(name);
    let mut registers = RegisterFile::new(arch.registers());
    for (register, value) in known {
        assert!(registers.set_value(register, *value), "{register}");
    }
    let table = arch.notes().iter().find(|table| table.name == "NT_X86_XSTATE").expect("both have one");
    (table, table.encode(&registers, 0, Endianness::Little, arch.notes()))
}

/// gdb 13.1 takes no register at all from a note that is shorter than XCR0 makes it.
#[test]
fn an_xsave_area_is_as_long_as_its_last_component() {
    let check = |name: &str, known: &[(&str, u64)], len: usize, xcr0: u64, components: u64| {
        let desc = xsave(name, known).1.desc;
        assert_eq!(desc.len(), len, "{name} {known:?}");
        assert_eq!(desc[464..472], xcr0.to_le_bytes(), "{name} {known:?}");
        assert_eq!(desc[512..520], components.to_le_bytes(), "{name} {known:?}");
    };
    for name in NAMES {
        check(name, &[("fcw", 0x27f)], 576, 3, 1);
        check(name, &[("st0", 1), ("xmm7", 1)], 576, 3, 3);
        check(name, &[("ymmh0", 1)], 832, 7, 4);
        check(name, &[("k7", 1)], 1152, 0x23, 0x20);
        check(name, &[("zmmh0", 1)], 1664, 0x43, 0x40);
        check(name, &[("pkru", 1)], 2696, 0x203, 0x200);
        // XCR0 as the guest has it: also of components that nothing is known of, or that we have no registers for.
        check(name, &[("xcr0", 3)], 576, 3, 0);
        check(name, &[("xcr0", 7)], 832, 7, 0);
        check(name, &[("xcr0", 0x1f)], 1088, 0x1f, 0);
        check(name, &[("xcr0", 0xe7), ("ymmh0", 1)], 2688, 0xe7, 4);
        check(name, &[("xcr0", 0x2e7)], 2696, 0x2e7, 0);
    }
    check("x86_64", &[("ymmh15", 1)], 832, 7, 4);
    check("x86_64", &[("zmm31", 1)], 2688, 0x83, 0x80);
}

#[test]
fn a_closed_gate_is_the_initial_state() {
    let read = |name: &str, note: &Note, len: usize| {
        let mut registers = RegisterFile::new(arch_of(name).registers());
        let table = arch_of(name).notes().iter().find(|table| table.matches(note)).unwrap();
        table.decode(&note.desc[..len], Endianness::Little, &mut registers);
        registers
    };
    for name in NAMES {
        let (_, mut note) =
            xsave(name, &[("fcw", 0x27f), ("st7", 5), ("xmm0", 7), ("mxcsr", 0x1fa0), ("ymmh0", 8)]);
        // As a processor leaves an area that it saved nothing but AVX to: what was there before is no register's.
        note.desc[512] = 4;
        let registers = read(name, &note, note.desc.len());
        let known = ["fcw", "st7", "xmm0", "mxcsr", "ymmh0", "k0"].map(|register| registers.value(register));
        assert_eq!(known, [Some(0x37f), Some(0), Some(0), Some(0x1fa0), Some(8), None], "{name}");
        // What the note has no room for is not known; without the bitmap, that is all but what needs none.
        let registers = read(name, &note, 515);
        let known = ["fcw", "xmm0", "mxcsr", "ymmh0"].map(|register| registers.value(register));
        assert_eq!(known, [None, None, Some(0x1fa0), None], "{name}");
    }
}

/// An area of initial states would be a claim that nobody made.
#[test]
fn xcr0_alone_makes_no_xsave_area() {
    for name in NAMES {
        let arch = arch_of(name);
        let mut registers = RegisterFile::new(arch.registers());
        registers.set_value("xcr0", 7);
        let machine = Machine::new(arch, Arc::new(BlockMemory::default()), vec![registers]);
        let notes = machine.encode_notes();
        assert!(notes.iter().all(|note| !note.is("LINUX", 0x202)), "{name}");
        let back = Machine::from_notes(machine.identity, machine.memory.clone(), notes);
        assert_eq!(back.vcpus[0].registers().value("xcr0"), Some(7), "{name}");
    }
}
