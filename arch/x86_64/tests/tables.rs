//! What the tables say, and that they say the same both ways.

use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, FieldValue, Identity, Machine, RegisterFile, RegisterId, arch};

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
                let value = match (field.register(), field.value) {
                    (Some(id), _) => rows[id.index()].name.to_owned(),
                    (None, FieldValue::Constant(number)) => number.to_string(),
                    (None, other) => format!("{other:?}"),
                };
                let gate = field.gate.map(|bit| format!(" if component {bit}")).unwrap_or_default();
                text += &format!("  {:>4} {:>2} {value}{gate}\n", field.offset, field.width);
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

#[test]
fn an_xsave_area_is_as_long_as_its_last_component() {
    let check = |known: &[&str], len: usize, components: u64| {
        let arch = arch_of("x86_64");
        let mut registers = RegisterFile::new(arch.registers());
        for name in known {
            assert!(registers.set_value(name, 1));
        }
        let table = arch.notes().iter().find(|table| table.name == "NT_X86_XSTATE").unwrap();
        let note = table.encode(&registers, 0, vmcore_core::Endianness::Little, arch.notes());
        assert_eq!(note.desc.len(), len, "{known:?}");
        assert_eq!(note.desc[512..520], components.to_le_bytes(), "{known:?}");
    };
    check(&["xcr0"], 576, 0);
    check(&["st0", "xmm15"], 576, 3);
    check(&["ymmh15"], 832, 4);
    check(&["k7"], 1152, 1 << 5);
    check(&["zmm31"], 2688, 1 << 7);
    check(&["pkru"], 2696, 1 << 9);
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
