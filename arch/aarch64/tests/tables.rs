//! What is aarch64's own; what holds for every architecture is in `tests/tests/architectures.rs`.

use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_aarch64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Endianness, Machine, Note, NoteTable, RegisterFile, arch};

const ORDERS: [Endianness; 2] = [Endianness::Little, Endianness::Big];

fn aarch64() -> &'static dyn Arch {
    arch::by_name("aarch64").expect("the architecture is linked in")
}

fn registers(known: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(aarch64().registers());
    for (name, value) in known {
        assert!(registers.set_value(name, *value), "{name}");
    }
    registers
}

fn table(name: &str) -> &'static NoteTable {
    aarch64().notes().iter().find(|table| table.name == name).expect("there is such a note")
}

fn encode(name: &str, registers: &RegisterFile, endianness: Endianness) -> Note {
    table(name).encode(registers, 0, endianness, aarch64().notes())
}

fn decode(name: &str, desc: &[u8], endianness: Endianness) -> RegisterFile {
    let mut registers = registers(&[]);
    table(name).decode(desc, endianness, &mut registers);
    registers
}

/// Lengths as QEMU and Linux compute them; seen in dumps for 16 and 64 bytes.
#[test]
fn an_sve_note_is_as_long_as_the_vectors_make_it() {
    for (vl, len) in [(16, 592), (32, 1136), (64, 2224), (128, 4400), (256, 8768)] {
        let desc = encode("NT_ARM_SVE", &registers(&[("vg", vl / 8)]), Endianness::Little).desc;
        assert_eq!(desc.len(), len, "{vl}");
        assert_eq!(desc[..4], u32::try_from(len).unwrap().to_le_bytes(), "{vl}");
        assert_eq!(desc[8..10], u16::try_from(vl).unwrap().to_le_bytes(), "{vl}");
    }
    // Room for every vector that there can be.
    assert_eq!(encode("NT_ARM_SVE", &registers(&[("z0", 1)]), Endianness::Little).desc.len(), 8768);
    assert_eq!(encode("NT_ARM_SVE", &registers(&[("vg", 3)]), Endianness::Little).desc.len(), 8768);
}

#[test]
fn vectors_of_sve_are_strings_of_bytes_in_both_orders() {
    let known = registers(&[("vg", 4), ("z31", 0x1122), ("p1", 0x33), ("ffr", 0x44), ("fpcr", 0x5566_7788)]);
    for (order, fpcr) in ORDERS.into_iter().zip([[0x88, 0x77, 0x66, 0x55], [0x55, 0x66, 0x77, 0x88]]) {
        let desc = encode("NT_ARM_SVE", &known, order).desc;
        assert_eq!(desc[16 + 31 * 32..][..3], [0x22, 0x11, 0]);
        assert_eq!(desc[16 + 32 * 32 + 4], 0x33);
        assert_eq!(desc[16 + 32 * 32 + 16 * 4], 0x44);
        // 16 + 1024 + 68 = 1108, rounded up to 1120.
        assert_eq!(desc[1124..1128], fpcr);
        assert_eq!(desc.len(), 1136);
    }
}

#[test]
fn an_sve_note_that_makes_no_sense_says_nothing() {
    let known = registers(&[("vg", 4), ("z0", 7), ("fpsr", 9)]);
    let desc = encode("NT_ARM_SVE", &known, Endianness::Little).desc;
    let check = |what: &str, change: &dyn Fn(&mut Vec<u8>), z0: Option<u64>, fpsr: Option<u64>| {
        let mut desc = desc.clone();
        change(&mut desc);
        let back = decode("NT_ARM_SVE", &desc, Endianness::Little);
        assert_eq!((back.value("z0"), back.value("fpsr")), (z0, fpsr), "{what}");
    };
    check("as it is", &|_| {}, Some(7), Some(9));
    check("flags: it holds what NT_PRFPREG holds", &|desc| desc[12] = 0, None, None);
    check("other flags", &|desc| desc[12] = 3, Some(7), Some(9));
    for vl in [0, 8, 17, 33, 0x1ff] {
        check("vl", &|desc| desc[8..10].copy_from_slice(&u16::to_le_bytes(vl)), None, None);
    }
    check("vl is longer than the note", &|desc| desc[8..10].copy_from_slice(&[0, 1]), Some(7), None);
    check("size is shorter than the note", &|desc| desc[..4].copy_from_slice(&[100, 0, 0, 0]), Some(7), None);
    check("cut off", &|desc| desc.truncate(47), None, None);
    check("cut off in the header", &|desc| desc.truncate(9), None, None);
}

/// The first bytes of a big-endian dump (`spec/arch-notes.md` section 10).
#[test]
fn a_big_endian_vcpu() {
    let known = registers(&[("sctlr_el1", 1 << 25), ("x0", 0x0102_0304_0506_0708), ("v0", 1)]);
    let machine = Machine::new(aarch64(), Arc::new(BlockMemory::default()), vec![known]);
    assert_eq!(machine.identity.endianness, Endianness::Big);
    let notes = machine.encode_notes();
    let mut bytes = Vec::new();
    notes[0].encode(Endianness::Big, &mut bytes).unwrap();
    assert_eq!(bytes[..20], *b"\0\0\0\x05\0\0\x01\x88\0\0\0\x01CORE\0\0\0\0");
    assert_eq!(notes[0].desc[32..36], [0, 0, 0, 1], "pr_pid");
    assert_eq!(notes[0].desc[112..120], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(notes[0].desc[384..388], [0, 0, 0, 1], "pr_fpvalid");
    assert_eq!(notes[1].desc[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

/// QEMU's stub names registers that no note of the field holds: they go into ours.
#[test]
fn which_notes_registers_call_for() {
    let kinds = |known: &[(&str, u64)]| {
        let machine = Machine::new(aarch64(), Arc::new(BlockMemory::default()), vec![registers(known)]);
        let name = |note: &Note| {
            let table = aarch64().notes().iter().find(|table| table.matches(note));
            table.map_or("VMCORE", |table| table.name)
        };
        machine.encode_notes().iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds(&[]), "NT_PRSTATUS");
    assert_eq!(kinds(&[("v9", 1)]), "NT_PRSTATUS NT_PRFPREG");
    assert_eq!(kinds(&[("p3", 1)]), "NT_PRSTATUS NT_ARM_SVE");
    assert_eq!(kinds(&[("vg", 2), ("fpsr", 0), ("ttbr1_el1", 1)]), "NT_PRSTATUS VMCORE");
    let all = [("tpidr_el0", 1), ("pauth_cmask", 1), ("v0", 1), ("ffr", 1), ("tcr_el1", 1)];
    assert_eq!(kinds(&all), "NT_PRSTATUS NT_PRFPREG NT_ARM_SVE NT_ARM_TLS NT_ARM_PAC_MASK VMCORE");
}

#[test]
fn names_are_qemus_in_lower_case_but_for_pstate_and_the_names_of_aarch32() {
    let rows = aarch64().registers().rows.iter().filter_map(|row| Some((row.name, row.gdb?.name)));
    // AArch32 has no exception levels in its names.
    let is_alike = |name: &str, gdb: &str| name == gdb || name.strip_suffix("_el1") == Some(gdb);
    let other: Vec<_> = rows.filter(|(name, gdb)| !is_alike(name, &gdb.to_lowercase())).collect();
    let expected = [("pstate", "cpsr"), ("amair_el1", "AMAIR0")];
    assert_eq!(other, expected);
}

proptest! {
    #[test]
    fn a_mutated_note_never_panics(
        desc in prop::collection::vec(any::<u8>(), 0..700), vl in 0..300_u16, is_big: bool,
    ) {
        let order = ORDERS[usize::from(is_big)];
        for table in aarch64().notes() {
            let mut desc = desc.clone();
            if let Some(field) = desc.get_mut(8..10) {
                order.encode(vl.into(), field);
            }
            let _ = decode(table.name, &desc, order);
        }
    }
}
