//! What the tables say, and that they say the same both ways.

use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Arch, Endianness, FieldValue, Identity, Machine, Note, NoteTable, RegisterFile, RegisterId, arch,
};

const NAMES: [&str; 2] = ["x86_64", "i386"];

fn arch_of(name: &str) -> &'static dyn Arch {
    arch::by_name(name).expect("the architecture is linked in")
}

#[test]
fn target_descriptions() {
    for name in NAMES {
        insta::assert_snapshot!(format!("target_{name}"), arch_of(name).registers().target_description());
    }
}

/// Registers and notes as a person reads them.
#[test]
fn rendered_tables() {
    for name in NAMES {
        let arch = arch_of(name);
        let rows = arch.registers().rows;
        let mut text = String::new();
        for row in rows {
            let dwarf = row.dwarf.map_or("-".to_owned(), |number| number.0.to_string());
            let gdb = row.gdb.map_or("-", |gdb| gdb.name);
            text +=
                &format!("{:<15} {:>3} {:<11?} dwarf {dwarf:<3} gdb {gdb}\n", row.name, row.bits, row.group);
        }
        for table in arch.notes() {
            let (owner, note_type, len) = (table.owner, table.note_type, table.desc_len);
            text += &format!("\n{owner}/{note_type:#x} {}: {len} bytes, {:?}\n", table.name, table.scope);
            for field in table.fields {
                let name = |id: RegisterId| rows[id.index()].name;
                let value = match field.value {
                    FieldValue::Register(id) => name(id).to_owned(),
                    FieldValue::RegisterOr(id, number) => format!("{} or {number:#x}", name(id)),
                    FieldValue::RegisterOrGates(id, always) => format!("{} or Gates | {always:#x}", name(id)),
                    FieldValue::Constant(number) => number.to_string(),
                    other => format!("{other:?}"),
                };
                let mask =
                    if field.mask == u64::MAX { String::new() } else { format!(" & {:#x}", field.mask) };
                let gate = field
                    .gate
                    .filter(|_| table.gates.is_some())
                    .map(|bit| format!(" if component {bit}"))
                    .unwrap_or_default();
                text += &format!("  {:>4} {:>2} {value}{mask}{gate}\n", field.offset, field.width);
            }
        }
        insta::assert_snapshot!(format!("tables_{name}"), text);
    }
}

#[test]
fn fields_lie_in_their_note_and_do_not_overlap() {
    for table in NAMES.iter().flat_map(|name| arch_of(name).notes()) {
        let mut fields: Vec<(usize, usize)> =
            table.fields.iter().map(|field| (field.offset, field.width)).collect();
        fields.sort_unstable();
        assert!(fields.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{}", table.name);
        let fixed = table.fields.iter().filter(|field| field.gate.is_none());
        assert!(
            fixed.map(|field| field.offset + field.width).max() <= Some(table.desc_len),
            "{}",
            table.name
        );
    }
}

#[test]
fn gdb_knows_the_first_rows() {
    for name in NAMES {
        let known: Vec<bool> = arch_of(name).registers().rows.iter().map(|row| row.gdb.is_some()).collect();
        assert!(known.is_sorted_by(|a, b| a >= b), "gdb's number of a register is its row");
    }
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

proptest! {
    /// Registers become notes and come back: those that are known, and no others but such as share a note with them.
    #[test]
    fn registers_to_notes_to_registers(
        name in prop::sample::select(&NAMES[..]),
        values in prop::collection::vec(prop::option::of(any::<[u8; 64]>()), 200),
    ) {
        let arch = arch_of(name);
        let mut registers = RegisterFile::new(arch.registers());
        for (id, value) in (0..).map(RegisterId).zip(&values).take(arch.registers().rows.len()) {
            if let Some(value) = value {
                let is_attribute = arch.registers().rows[id.index()].name.ends_with("_attr");
                // Of the attributes' word the other bits are pieces of base and limit.
                registers.set(id, if is_attribute { &[0, 0x93, 0xa0] } else { value });
            }
        }
        let memory = Arc::new(BlockMemory::default());
        let machine = Machine::new(arch, memory.clone(), vec![registers.clone(), RegisterFile::new(arch.registers())]);
        let identity = Identity { elf_machine: arch.elf_machine(), ..machine.identity };
        let back = Machine::from_notes(identity, memory, machine.encode_notes());
        prop_assert_eq!(back.vcpus.len(), 2);
        for (id, row, value) in registers.iter() {
            prop_assert_eq!(back.vcpus[0].registers().get(id), Some(value), "{}", row.name);
        }
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
    }
}
