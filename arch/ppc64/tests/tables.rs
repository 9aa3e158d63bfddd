//! What is ppc64's own; what holds for every architecture is in `tests/tests/architectures.rs`.

use std::sync::Arc;
use vmcore_arch_ppc64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Class, Endianness, Identity, Machine, Note, RegisterFile, arch};

fn ppc64() -> &'static dyn Arch {
    arch::by_name("ppc64").expect("the architecture is linked in")
}

fn registers(values: &[(&str, u64)]) -> RegisterFile {
    let mut registers = RegisterFile::new(ppc64().registers());
    values.iter().for_each(|(name, value)| assert!(registers.set_value(name, *value), "{name}"));
    registers
}

fn machine(identity: Endianness, vcpus: &[&[(&str, u64)]]) -> Machine {
    let memory = Arc::new(BlockMemory::default());
    let mut machine = Machine::new(ppc64(), memory, vcpus.iter().map(|values| registers(values)).collect());
    machine.identity.endianness = identity;
    machine
}

#[test]
fn vector_notes_have_the_owner_and_the_places_that_readers_expect() {
    let values = [("vr1", 0x1122), ("vscr", 0x1_0000), ("vrsave", 7), ("vs0_low", 3), ("acc", 9)];
    for (endianness, vr1, vscr, vrsave) in [
        (Endianness::Little, (16, [0x22, 0x11]), (514, 1), (528, 7)),
        (Endianness::Big, (30, [0x11, 0x22]), (525, 1), (531, 7)),
    ] {
        let notes = machine(endianness, &[&values]).encode_notes();
        let kinds: Vec<_> =
            notes.iter().map(|note| (note.owner(), note.note_type, note.desc.len())).collect();
        let linux = b"LINUX".as_slice();
        assert_eq!(
            kinds,
            [(b"CORE".as_slice(), 1, 504), (linux, 0x100, 544), (linux, 0x102, 256), (linux, 0x101, 140)]
        );
        let vmx = &notes[1].desc;
        assert_eq!((&vmx[vr1.0..vr1.0 + 2], vmx[vscr.0], vmx[vrsave.0]), (&vr1.1[..], vscr.1, vrsave.1));
    }
}

/// QEMU's owner is `CORE`, its VSCR stands at 524 in both byte orders, its VRSAVE is 0.
#[test]
fn qemus_vector_notes_are_read_and_the_right_ones_stand_beside_them() {
    let mut vmx = vec![0; 544];
    vmx[..2].copy_from_slice(&[0x22, 0x11]);
    vmx[524..528].copy_from_slice(&0x1_0000_u32.to_le_bytes());
    let theirs = vec![
        Note::new("CORE", 1, vec![0; 504]),
        Note::new("CORE", 0x100, vmx),
        Note::new("CORE", 0x102, vec![5; 256]),
        Note::new("CORE", 0x101, vec![0; 140]),
    ];
    let identity = machine(Endianness::Little, &[]).identity;
    let machine = Machine::from_notes(identity, Arc::new(BlockMemory::default()), theirs.clone());
    let file = machine.vcpus[0].registers();
    let known = ["vr0", "vscr", "vrsave", "vs31_low", "acc"].map(|name| file.value(name));
    assert_eq!(known, [Some(0x1122), Some(0x1_0000), None, Some(0x0505_0505_0505_0505), None]);
    let ours = machine.encode_notes();
    assert_eq!(ours[..4], theirs);
    let kinds: Vec<_> = ours[4..].iter().map(|note| (note.owner(), note.note_type)).collect();
    assert_eq!(kinds, [(b"LINUX".as_slice(), 0x100), (b"LINUX".as_slice(), 0x102)]);
    assert_eq!(ours[4].desc[514], 1);
    let back = Machine::from_notes(identity, Arc::new(BlockMemory::default()), ours.clone());
    assert_eq!(back.encode_notes(), ours, "converting again changes nothing");
}

#[test]
fn what_is_accepted() {
    let identity = |elf_machine, class, endianness| Identity { elf_machine, class, endianness, elf_flags: 0 };
    for (identity, is_ours) in [
        (identity(21, Class::Elf64, Endianness::Big), true),
        (identity(21, Class::Elf64, Endianness::Little), true),
        (identity(21, Class::Elf32, Endianness::Big), false),
        (identity(20, Class::Elf64, Endianness::Big), false),
    ] {
        assert_eq!(ppc64().accepts(&identity), is_ours, "{identity:?}");
    }
}

const HV: u64 = 1 << 60;
const LE: u64 = 1;
const ILE: u64 = 1 << 25;
const POWER8: u64 = 0x4d_0200;
const POWER9: u64 = 0x4e_1202;

/// What the registers say, against what the dump says.
#[test]
fn the_byte_order_is_the_guests() {
    use Endianness::{Big, Little};
    let check = |vcpus: &[&[(&str, u64)]], order_if_big: Endianness, order_if_little: Endianness| {
        for (stated, order) in [(Big, order_if_big), (Little, order_if_little)] {
            assert_eq!(ppc64().endianness(&machine(stated, vcpus)), order, "{vcpus:x?}, {stated}");
        }
    };
    check(&[], Big, Little);
    check(&[&[("msr", 0)]], Big, Little);
    check(&[&[("msr", 0)], &[("msr", LE)]], Little, Little);
    check(&[&[("msr", 0), ("lpcr", 0)]], Big, Big);
    check(&[&[("msr", 0)], &[("msr", 0), ("lpcr", ILE)]], Little, Little);
    // A hypervisor's interrupts are HID0's; LPCR speaks of its guests.
    check(&[&[("msr", HV), ("lpcr", ILE)]], Big, Little);
    check(&[&[("msr", HV), ("lpcr", 0), ("pvr", POWER9), ("hid0", 1 << 59)]], Little, Little);
    check(&[&[("msr", HV), ("lpcr", ILE), ("pvr", POWER9), ("hid0", 1 << 44)]], Big, Big);
    check(&[&[("msr", HV), ("pvr", POWER8), ("hid0", 1 << 44)]], Little, Little);
    let info = |order| ppc64().dump_info(&machine(order, &[]));
    assert_eq!((info(Big).uts_machine, info(Little).uts_machine), ("ppc64", "ppc64le"));
    assert_eq!((info(Big).endianness, info(Little).endianness), (Big, Little));
}

/// What a machine's VMCOREINFO says of pages counts first.
#[test]
fn the_page_size() {
    let mut machine = machine(Endianness::Little, &[]);
    assert_eq!(machine.dump_info().page_size, 0x1000);
    machine.guest_note = Some(Note::new("VMCOREINFO", 0, b"PAGESIZE=65536\n".to_vec()));
    assert_eq!(machine.dump_info().page_size, 0x1_0000);
}
