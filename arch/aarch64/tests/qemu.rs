//! Our tables against the notes that QEMU 7.2 wrote of a vCPU in which every register holds its name.
//!
//! `data/qemu-7.2-sve-*.notes` are the note segments of `dump-guest-memory`, of `-machine virt -cpu max` at EL1 with vectors of
//! 64 bytes (`ZCR_EL1` 3), once with `SCTLR_EL1.EE` clear and once with it set. The values were written through the gdb stub.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore_arch_aarch64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::note::NoteIter;
use vmcore_core::{Class, Endianness, Identity, Machine, Note};

const DUMPS: [(Endianness, &[u8]); 2] = [
    (Endianness::Little, include_bytes!("data/qemu-7.2-sve-little.notes")),
    (Endianness::Big, include_bytes!("data/qemu-7.2-sve-big.notes")),
];

fn open(endianness: Endianness, bytes: &[u8]) -> Machine {
    let notes: Vec<Note> = NoteIter::new(bytes, 0, endianness, 0).collect::<Result<_, _>>().unwrap();
    let identity = Identity { elf_machine: 183, class: Class::Elf64, endianness, elf_flags: 0 };
    Machine::from_notes(identity, Arc::new(BlockMemory::default()), notes)
}

/// What a register holds, least significant byte first.
fn expected(name: &str) -> Option<Vec<u8>> {
    let number = name.get(1..).and_then(|digits| digits.parse::<u32>().ok());
    let vector = |number: u32, parts: u32| {
        let part = |part| format!("z{number:02}:part-{part}:cpu0.").into_bytes();
        (0..parts).flat_map(part).collect::<Vec<u8>>()
    };
    Some(match (name, number) {
        ("sp" | "pc", _) => format!("{name}::cpu0").into_bytes(),
        ("pstate", _) => vec![0xc5, 0x03, 0x00, 0x60],
        ("fpsr", _) => vec![0x9f, 0x00, 0x00, 0x08],
        ("fpcr", _) => vec![0x00, 0x00, 0xc0, 0x07],
        ("vg", _) => vec![8],
        ("ffr", _) => b"ffr:cpu0".to_vec(),
        (_, Some(number)) if name.starts_with('x') => format!("x{number:02}:cpu0").into_bytes(),
        (_, Some(number)) if name.starts_with('p') => format!("p{number:02}:cpu0").into_bytes(),
        (_, Some(number)) if name.starts_with('v') => vector(number, 1),
        (_, Some(number)) if name.starts_with('z') => vector(number, 4),
        _ => return None,
    })
}

#[test]
fn every_register_holds_its_name() {
    for (endianness, bytes) in DUMPS {
        let machine = open(endianness, bytes);
        let [vcpu] = &machine.vcpus[..] else { panic!("{endianness}: {} vCPUs", machine.vcpus.len()) };
        let mut count = 0;
        for (_, row, value) in vcpu.registers().iter() {
            let mut expected =
                expected(row.name).unwrap_or_else(|| panic!("{} is not in these notes", row.name));
            expected.resize(row.byte_len(), 0);
            assert_eq!(value, expected, "{endianness} {}", row.name);
            count += 1;
        }
        assert_eq!(count, 34 + 34 + 1 + 49, "{endianness}");
        assert_eq!(machine.dump_info().endianness, endianness, "which the notes do not say");
    }
}

/// But for the largest length of vectors that the processor has, which is none of the vCPU's registers: 256 bytes here.
#[test]
fn our_own_notes_are_qemus() {
    for (endianness, bytes) in DUMPS {
        let mut machine = open(endianness, bytes);
        let mut theirs: Vec<Note> = machine.vcpus[0].carried().to_vec();
        machine.vcpus[0].registers_mut(machine.arch.unwrap());
        let sve = &mut theirs[2].desc;
        assert_eq!(endianness.u32_at(sve, 4), Some(8768));
        sve.copy_within(0..4, 4);
        assert_eq!(endianness.decode(&sve[10..12]), 256);
        sve.copy_within(8..10, 10);
        let ours = machine.encode_notes();
        assert_eq!(ours, theirs, "{endianness}");
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| ours.desc == theirs.desc), "{endianness}");
    }
}
