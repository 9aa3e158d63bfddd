//! What the tables say, and that they say the same both ways.

use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_s390x as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Class, Endianness, FieldValue, Identity, Machine, RegisterFile, RegisterId, arch};

fn s390x() -> &'static dyn Arch {
    arch::by_name("s390x").expect("the architecture is linked in")
}

#[test]
fn target_description() {
    insta::assert_snapshot!(s390x().registers().target_description());
}

/// Registers and notes as a person reads them.
#[test]
fn rendered_tables() {
    let rows = s390x().registers().rows;
    let mut text = String::new();
    for row in rows {
        let dwarf = row.dwarf.map_or("-".to_owned(), |number| number.0.to_string());
        let gdb = row.gdb.map_or("-", |gdb| gdb.name);
        text += &format!("{:<11} {:>3} {:<8?} dwarf {dwarf:<3} gdb {gdb}\n", row.name, row.bits, row.group);
    }
    for table in s390x().notes() {
        let (owner, note_type, len) = (table.owner, table.note_type, table.desc_len);
        text += &format!("\n{owner}/{note_type:#x} {}: {len} bytes\n", table.name);
        for field in table.fields {
            let value = match field.value {
                FieldValue::Register(id) => rows[id.index()].name.to_owned(),
                other => format!("{other:?}"),
            };
            text += &format!("  {:>4} {:>2} {value}\n", field.offset, field.width);
        }
    }
    insta::assert_snapshot!(text);
}

/// Row by row what QEMU's gdb stub says of itself (`gdb-registers.tsv`): number, name, width, type, group, feature.
#[test]
fn gdb_is_told_what_qemu_tells_it() {
    let known = s390x().registers().rows.iter().map_while(|row| row.gdb).enumerate();
    let ours = known.map(|(number, gdb)| {
        let (name, bits, ty, feature) = (gdb.name, gdb.bits, gdb.ty, gdb.feature);
        format!("{number}\t{name}\t{bits}\t{ty}\t{}\t{feature}", gdb.group.unwrap_or_default())
    });
    let ours: Vec<String> = ours.collect();
    let theirs: Vec<&str> = include_str!("gdb-registers.tsv").lines().skip(1).collect();
    assert_eq!(ours, theirs);
    let behind = s390x().registers().rows.iter().skip(ours.len());
    assert_eq!(behind.filter(|row| row.gdb.is_some()).count(), 0, "gdb's number of a register is its row");
}

#[test]
fn fields_lie_in_their_note_and_do_not_overlap() {
    for table in s390x().notes() {
        let mut fields: Vec<(usize, usize)> =
            table.fields.iter().map(|field| (field.offset, field.width)).collect();
        fields.sort_unstable();
        assert!(fields.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{}", table.name);
        assert!(fields.iter().all(|(offset, width)| offset + width <= table.desc_len), "{}", table.name);
    }
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

proptest! {
    /// Registers become notes and come back: those that are known, and no others but such as share a note with them.
    #[test]
    fn registers_to_notes_to_registers(values in prop::collection::vec(prop::option::of(any::<[u8; 64]>()), 200)) {
        let mut registers = RegisterFile::new(s390x().registers());
        for (id, value) in (0..).map(RegisterId).zip(&values).take(s390x().registers().rows.len()) {
            if let Some(value) = value {
                registers.set(id, value);
            }
        }
        let memory = Arc::new(BlockMemory::default());
        let machine = Machine::new(s390x(), memory.clone(), vec![registers.clone(), RegisterFile::new(s390x().registers())]);
        let back = Machine::from_notes(machine.identity, memory, machine.encode_notes());
        prop_assert_eq!(back.vcpus.len(), 2);
        for (id, row, value) in registers.iter() {
            prop_assert_eq!(back.vcpus[0].registers().get(id), Some(value), "{}", row.name);
        }
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
    }
}
