//! What holds for every architecture that is linked in: its tables are sound, and say the same both ways.
//!
//! What they say stands in `tests/golden`, a file each.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vmcore::memory::BlockMemory;
use vmcore::note_table::NoteField;
use vmcore::{
    Arch, Class, Emit, Endianness, FieldValue, Gpa, Gva, Identity, Kernel, Machine, NoteScope, NoteTable,
    PerUnit, Register, RegisterFile, RegisterId, Units, Vmcoreinfo, arch,
};
use vmcore_tests::tables;

const CLASSES: [Class; 2] = [Class::Elf32, Class::Elf64];
const ORDERS: [Endianness; 2] = [Endianness::Little, Endianness::Big];

/// Every architecture with each of its notes.
fn notes() -> impl Iterator<Item = (&'static dyn Arch, &'static NoteTable)> {
    arch::all().iter().flat_map(|arch| arch.notes().iter().map(|table| (*arch, table)))
}

/// Every class and byte order that there is of an architecture.
fn identities(arch: &dyn Arch) -> Vec<Identity> {
    let kinds = CLASSES.into_iter().flat_map(|class| ORDERS.map(|endianness| (class, endianness)));
    let identity =
        |(class, endianness)| Identity { elf_machine: arch.elf_machine(), class, endianness, elf_flags: 0 };
    kinds.map(identity).filter(|identity| arch.accepts(identity)).collect()
}

fn ids(table: &'static [Register]) -> impl Iterator<Item = (RegisterId, &'static Register)> {
    (0..).map(RegisterId).zip(table)
}

/// What states how many units a note has.
fn units_of(table: &NoteTable) -> Option<Units> {
    table.fields.iter().find_map(|field| match field.value {
        FieldValue::Units(units) => Some(units),
        _ => None,
    })
}

/// Every count of units that a note can have; 0 for one whose fields have fixed places.
fn counts(table: &NoteTable) -> Vec<usize> {
    let Some(units) = units_of(table) else { return vec![0] };
    let step = usize::try_from(units.step).unwrap();
    (step..=usize::try_from(units.max).unwrap()).step_by(step).collect()
}

#[test]
fn the_tables_as_they_are() {
    for arch in arch::all() {
        insta::with_settings!({
            snapshot_path => "../golden",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(format!("{}-tables", arch.name()), tables::text(*arch));
            let table = arch.registers();
            insta::assert_snapshot!(format!("{}-target", arch.name()), table.target_description());
            let least = table.target_description_of(&table.gdb_rows(|_| false));
            insta::assert_snapshot!(format!("{}-least-target", arch.name()), least);
        });
    }
}

#[test]
fn each_kind_of_dump_is_of_one_architecture() {
    assert!(!arch::all().is_empty(), "the facade links some");
    for arch in arch::all() {
        assert!(!identities(*arch).is_empty(), "{}: it accepts no dump with its own e_machine", arch.name());
        let written = Machine::new(*arch, Arc::new(BlockMemory::default()), Vec::new()).identity;
        assert!(arch.accepts(&written), "{}: it does not read what it writes", arch.name());
        for identity in identities(*arch) {
            let accepting = arch::all().iter().filter(|arch| arch.accepts(&identity));
            let names: Vec<_> = accepting.map(|arch| arch.name()).collect();
            assert_eq!(names, [arch.name()], "{identity:?}");
        }
    }
}

#[test]
fn names_and_numbers_of_registers_are_unique() {
    for arch in arch::all() {
        let rows = arch.registers().rows;
        let mut names = BTreeSet::new();
        let (mut of_gdb, mut of_dwarf) = (BTreeSet::new(), BTreeMap::new());
        for row in rows {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(row.name.bytes().all(is_plain) && !row.name.is_empty(), "{} {}", arch.name(), row.name);
            assert!(names.insert(row.name), "{} has {} twice", arch.name(), row.name);
            assert!(row.bits > 0, "{} {}", arch.name(), row.name);
            let is_new = row.gdb.is_none_or(|gdb| of_gdb.insert(gdb.name));
            assert!(is_new, "{}: gdb has two of the name of {}", arch.name(), row.name);
            if let Some(other) = row.dwarf.and_then(|number| of_dwarf.insert(number.0, row.name)) {
                panic!("{}: {} and {other} have one DWARF number", arch.name(), row.name);
            }
        }
    }
}

#[test]
fn gdb_knows_the_first_rows() {
    for arch in arch::all() {
        let is_known = arch.registers().rows.iter().map(|row| row.gdb.is_some());
        assert!(is_known.is_sorted_by(|a, b| a >= b), "{}: gdb's number is the row", arch.name());
    }
}

#[test]
fn program_counter_and_stack_pointer_are_registers() {
    for arch in arch::all() {
        let table = arch.registers();
        for name in [table.program_counter, table.stack_pointer] {
            let row = table.find(name).and_then(|id| table.row(id)).expect(name);
            assert!(row.gdb.is_some(), "{}: gdb needs {name}", arch.name());
            assert!([32, 64].contains(&row.bits), "{}: {name} holds an address", arch.name());
        }
    }
}

#[test]
fn the_first_note_begins_a_vcpu() {
    for arch in arch::all() {
        let first = arch.notes().first().expect("notes");
        assert!(matches!(first.emit, Emit::Always), "{}: {}", arch.name(), first.name);
        assert_eq!(first.scope, NoteScope::Vcpu, "{}: {}", arch.name(), first.name);
    }
}

/// A note is found by owner and type.
#[test]
fn notes_are_told_apart() {
    for arch in arch::all() {
        let kinds: BTreeSet<_> = arch.notes().iter().map(|table| (table.owner, table.note_type)).collect();
        let names: BTreeSet<_> = arch.notes().iter().map(|table| table.name).collect();
        assert_eq!((kinds.len(), names.len()), (arch.notes().len(), arch.notes().len()), "{}", arch.name());
    }
}

#[test]
fn fields_do_not_overlap() {
    for (arch, table) in notes() {
        for count in counts(table) {
            let mut places: Vec<_> = table.fields.iter().map(|field| field.place(count)).collect();
            places.sort_unstable_by_key(|place| place.start);
            for pair in places.windows(2) {
                assert!(
                    pair[0].end <= pair[1].start,
                    "{} {}, {count} units: {pair:?}",
                    arch.name(),
                    table.name
                );
            }
        }
    }
}

/// A field wider than its register holds zeros; one that is narrower would lose bits, unless its mask says that they mean
/// nothing.
#[test]
fn fields_have_room_for_their_registers() {
    for (arch, table) in notes() {
        let what = |field: &NoteField| format!("{} {} at {}", arch.name(), table.name, field.offset);
        for field in table.fields {
            let most = counts(table).into_iter().max().unwrap();
            let width = field.place(most).len();
            assert!(width > 0, "{}", what(field));
            assert!(field.mask == u64::MAX || width <= 8, "{}: a mask has 64 bits", what(field));
            if let Some(id) = field.register() {
                let row = arch.registers().row(id).unwrap_or_else(|| panic!("{}: no such row", what(field)));
                let is_count = matches!(field.value, FieldValue::Units(_));
                assert!(is_count || width >= row.byte_len(), "{}: {} bits", what(field), row.bits);
            }
        }
    }
}

/// Where a note speaks of another one, of its length, of gates or units, the thing is there.
#[test]
fn what_fields_refer_to_is_there() {
    for (arch, table) in notes() {
        let name = format!("{} {}", arch.name(), table.name);
        let stands_at = |offset: usize, width: usize, value: FieldValue| {
            let place = |field: &&NoteField| (field.offset, field.width) == (offset, width);
            table.fields.iter().find(place).is_some_and(|field| field.value == value)
        };
        assert!(table.size_field.is_none_or(|offset| stands_at(offset, 4, FieldValue::DescLen)), "{name}");
        assert!(table.gates.is_none_or(|offset| stands_at(offset, 8, FieldValue::Gates)), "{name}");
        for field in table.fields {
            assert!(field.per_unit == PerUnit::NONE || units_of(table).is_some(), "{name}: no units");
            if let FieldValue::HasNote(owner, note_type) = field.value {
                let is_it = |other: &NoteTable| (other.owner, other.note_type) == (owner, note_type);
                assert!(arch.notes().iter().any(is_it), "{name}: no note {owner}/{note_type:#x}");
            }
        }
        if let Emit::IfAny(ids) = table.emit {
            assert!(!ids.is_empty(), "{name} is never written");
            assert!(ids.iter().all(|id| table.holds(*id)), "{name} is called for by what it does not hold");
        }
    }
}

/// Every register that the note has behind one of `gates` or behind none; the others that fields ask say that there are these
/// gates and so many units.
fn registers_behind(arch: &dyn Arch, table: &NoteTable, gates: &[u8], count: usize) -> RegisterFile {
    let mut registers = RegisterFile::new(arch.registers());
    let is_open = |field: &&NoteField| field.gate.is_none_or(|bit| gates.contains(&bit));
    for field in table.fields.iter().filter(is_open) {
        let bitmap = gates.iter().fold(0_u64, |bitmap, bit| bitmap | 1 << bit);
        match field.value {
            FieldValue::RegisterOrGates(id, _) => registers.set(id, &bitmap.to_le_bytes()),
            FieldValue::Units(units) => registers.set(units.register, &count.to_le_bytes()),
            _ => field.register().into_iter().for_each(|id| registers.set(id, &[0xff; 256])),
        }
    }
    registers
}

/// As long as the table says; with the end of the last field where fields are many: behind an open gate, or at a place that
/// counts units.
#[test]
fn a_note_is_as_long_as_its_table_says() {
    for (arch, table) in notes() {
        let all: BTreeSet<u8> = table.fields.iter().filter_map(|field| field.gate).collect();
        let sets = all.iter().map(|bit| vec![*bit]).chain([vec![], all.iter().copied().collect()]);
        for gates in sets {
            // Without a bitmap all is there, whatever the gate.
            let is_there = |field: &&NoteField| {
                table.gates.is_none() || field.gate.is_none_or(|bit| gates.contains(&bit))
            };
            for (index, count) in counts(table).into_iter().enumerate() {
                let what = format!("{} {}, gates {gates:?}, {count} units", arch.name(), table.name);
                let end = table.fields.iter().filter(is_there).map(|field| field.place(count).end).max();
                let is_least = (table.gates.is_none() || gates.is_empty()) && index == 0;
                if is_least {
                    assert!(end.unwrap_or(0) <= table.desc_len, "{what}: a field ends at {end:?}");
                }
                let expected = end.unwrap_or(0).max(table.desc_len);
                let registers = registers_behind(arch, table, &gates, count);
                for endianness in ORDERS {
                    let desc = table.encode(&registers, 0, endianness, arch.notes()).desc;
                    assert_eq!(desc.len(), expected, "{what}");
                    let stated = table.size_field.and_then(|offset| endianness.u32_at(&desc, offset));
                    assert!(
                        stated.is_none_or(|size| size as usize == expected),
                        "{what}: it says {stated:?}"
                    );
                }
            }
        }
    }
}

/// A dump's byte order and class, and the registers of a vCPU in it.
#[derive(Clone, Debug)]
struct Guest {
    arch: &'static str,
    identity: Identity,
    registers: RegisterFile,
}

/// Guests of every architecture, class and byte order.
fn guests() -> impl Strategy<Value = Guest> {
    let kind = |arch: &'static dyn Arch| identities(arch).into_iter().map(|identity| (arch.name(), identity));
    let kinds: Vec<_> = arch::all().iter().copied().flat_map(kind).collect();
    prop::sample::select(kinds).prop_flat_map(|(name, identity)| {
        let arch = arch::by_name(name).unwrap();
        let value = |row: &Register| prop::option::of(prop::collection::vec(any::<u8>(), row.byte_len()));
        let values: Vec<_> = arch.registers().rows.iter().map(value).collect();
        values.prop_map(move |values| Guest { arch: name, identity, registers: possible(arch, &values) })
    })
}

/// The registers, without what no vCPU can have: bits that mean nothing, lengths of vectors that do not exist, and parts of
/// vectors beyond their length.
fn possible(arch: &dyn Arch, values: &[Option<Vec<u8>>]) -> RegisterFile {
    let mut registers = RegisterFile::new(arch.registers());
    for ((id, _), value) in ids(arch.registers().rows).zip(values) {
        value.iter().for_each(|value| registers.set(id, value));
    }
    for table in arch.notes() {
        let mut count = 0;
        if let Some(Units { register, step, max, .. }) = units_of(table) {
            count = max;
            if let Some(value) = registers.get(register) {
                count = step * (1 + Endianness::Little.decode(value) % (max / step));
                registers.set(register, &count.to_le_bytes());
            }
        }
        for field in table.fields.iter().filter(|field| !matches!(field.value, FieldValue::Units(_))) {
            let Some((id, value)) = field.register().and_then(|id| Some((id, registers.get(id)?.to_vec())))
            else {
                continue;
            };
            let mask = field.mask.to_le_bytes().into_iter().chain(std::iter::repeat(0xff));
            let value: Vec<u8> = value.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
            let len = match field.per_unit.width {
                0 => value.len(),
                _ => field.place(usize::try_from(count).unwrap()).len().min(value.len()),
            };
            registers.set(id, &value[..len]);
        }
    }
    registers
}

/// What the address space of a kernel is made of, on any architecture.
const KERNEL_KEYS: [&str; 29] = [
    "PAGESIZE",
    "KERNELOFFSET",
    "KERNELOFFPHYS",
    "SAMODE31",
    "EAMODE31",
    "SYMBOL(swapper_pg_dir)",
    "SYMBOL(init_top_pgt)",
    "SYMBOL(init_uts_ns)",
    "SYMBOL(vmemmap_list)",
    "SYMBOL(mmu_vmemmap_psize)",
    "SYMBOL(mmu_psize_defs)",
    "SIZE(mmu_psize_def)",
    "OFFSET(mmu_psize_def.shift)",
    "OFFSET(vmemmap_backing.list)",
    "OFFSET(vmemmap_backing.phys)",
    "OFFSET(vmemmap_backing.virt_addr)",
    "NUMBER(phys_base)",
    "NUMBER(pgtable_l5_enabled)",
    "NUMBER(sme_mask)",
    "NUMBER(VA_BITS)",
    "NUMBER(TCR_EL1_T1SZ)",
    "NUMBER(MAX_PHYSMEM_BITS)",
    "NUMBER(kimage_voffset)",
    "NUMBER(KERNEL_LINK_ADDR)",
    "NUMBER(va_kernel_pa_offset)",
    "NUMBER(PAGE_OFFSET)",
    "NUMBER(phys_ram_base)",
    "NUMBER(RADIX_MMU)",
    "NUMBER(VMALLOC_START)",
];

/// Numbers that make something of it, and such that do not: flags and counts of bits, places in a small memory, also in the
/// linear map of ppc64, and any others.
fn kernel_numbers() -> impl Strategy<Value = u64> {
    let place = (0..0x4000u64).prop_map(|at| at & !7);
    prop_oneof![
        Just(0),
        Just(0x1000),
        0..65u64,
        place.clone(),
        place.prop_map(|at| 0xc000_0000_0000_0000 | at),
        any::<u64>(),
    ]
}

/// A VMCOREINFO that says nearly all, in the base of each key.
fn kernel_infos() -> impl Strategy<Value = String> {
    let value = prop::option::weighted(0.95, kernel_numbers());
    prop::collection::vec(value, KERNEL_KEYS.len()).prop_map(|values| {
        let line = |(key, value): (&str, Option<u64>)| match value {
            None => String::new(),
            Some(value) if key == "PAGESIZE" => format!("{key}={}\n", 0x1000_u64 << (value % 5)),
            Some(value) if key.starts_with("SYMBOL") || !key.contains('(') => format!("{key}={value:x}\n"),
            Some(value) => format!("{key}={value:#x}\n"),
        };
        KERNEL_KEYS.into_iter().zip(values).map(line).collect()
    })
}

/// A little memory: words that are entries of tables, or pointers, in either byte order.
fn kernel_memory() -> impl Strategy<Value = BlockMemory> {
    let flags = prop::sample::select(vec![0, 1, 3, 7, 0x83, 0xf, 0x24, 0x401, 1 << 63 | 9, 3 << 62]);
    let entry = (kernel_numbers(), flags).prop_map(|(at, flags)| at | flags);
    let word = (entry, any::<bool>()).prop_map(|(word, is_big)| if is_big { word.to_be() } else { word });
    prop::collection::vec(word, 0x800).prop_map(|words| {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
    })
}

proptest! {
    /// Whatever a guest says of its kernel: the kernel's tables are walked or are not, and each walk ends.
    #[test]
    fn kernels_that_lie(
        guest in guests(),
        info in kernel_infos(),
        memory in kernel_memory(),
        addresses in prop::collection::vec(kernel_numbers(), 8),
    ) {
        let arch = arch::by_name(guest.arch).unwrap();
        let info = Vmcoreinfo::parse(info.as_bytes());
        let Ok(kernel) = Kernel::new(arch, info, guest.identity.endianness, Arc::new(memory)) else {
            return Ok(());
        };
        for address in addresses.into_iter().flat_map(|address| [address, !address]) {
            if let Ok(found) = kernel.translate(Gva(address)) {
                prop_assert!(address.checked_add(found.len - 1).is_some(), "{address:#x}: {found:?}");
            }
            let _ = kernel.space().image(Gva(address));
        }
        let _ = kernel.space().is_used_by(&guest.registers, &**kernel.memory());
    }

    /// Registers become notes and come back: those that are known, and no others but such as share a note with them.
    ///
    /// The registers may tell that the guest has the other byte order, as those of a little-endian ppc64 guest in a dump of
    /// QEMU 7.2 do. Then the notes are read in the order of the dump, and written in that of the guest.
    #[test]
    fn registers_to_notes_to_registers(guest in guests()) {
        let arch = arch::by_name(guest.arch).unwrap();
        let memory = Arc::new(BlockMemory::default());
        let vcpus = vec![guest.registers.clone(), RegisterFile::new(arch.registers())];
        let mut machine = Machine::new(arch, memory.clone(), vcpus);
        machine.identity = guest.identity;
        let back = Machine::from_notes(guest.identity, memory, machine.encode_notes());

        machine.identity.endianness = arch.endianness(&machine);
        prop_assert_eq!(back.arch.map(Arch::name), Some(guest.arch));
        prop_assert_eq!(back.identity, machine.identity);
        prop_assert_eq!(back.findings.is_empty(), machine.identity == guest.identity);
        prop_assert_eq!(back.vcpus.len(), 2);
        for (id, row, value) in guest.registers.iter() {
            prop_assert_eq!(back.vcpus[0].registers().get(id), Some(value), "{}", row.name);
        }
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
    }
}
