//! What the tests of this crate share: writing into memory, and a reader of ELF headers that shares no code with ours.

#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use vmcore_core::{
    DumpOptions, DumpState, Error, ExecuteOptions, Format, Layout, Machine, StreamSink, execute,
};
use vmcore_format_elf::Elf;

/// The bytes of the core of `machine`.
pub(crate) fn write(machine: &Machine, options: &DumpOptions) -> Result<Vec<u8>, Error> {
    Ok(bytes_of(machine, &Elf.plan(machine, options)?))
}

/// The bytes that a layout plans.
pub(crate) fn bytes_of(machine: &Machine, layout: &Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sink = StreamSink::new(&mut bytes);
    execute(layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default()).unwrap();
    bytes
}

/// Opens a core in memory.
pub(crate) fn open(bytes: &[u8]) -> Result<Machine, Error> {
    Elf.open(Arc::new(bytes.to_vec()))
}

/// All of a machine's memory, region by region.
pub(crate) fn memory_of(machine: &Machine) -> Vec<(u64, Vec<u8>)> {
    let read = |region: &vmcore_core::Region| {
        let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
        assert!(machine.memory.read_at(region.gpa, &mut bytes).unwrap().is_empty());
        (region.gpa.0, bytes)
    };
    machine.memory.regions().iter().map(read).collect()
}

/// The fields of a program header that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
    pub(crate) align: u64,
}

/// Reads little-endian program headers by the offsets of the gABI.
pub(crate) fn segments(file: &[u8]) -> Vec<Segment> {
    let u16_at = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let is_64 = file[4] == 2;
    let (phoff, shoff, phnum, info) = if is_64 {
        (u64_at(32), u64_at(40), u16_at(56), 44)
    } else {
        (u64::from(u32_at(28)), u64::from(u32_at(32)), u16_at(44), 28)
    };
    let (phoff, shoff) = (usize::try_from(phoff).unwrap(), usize::try_from(shoff).unwrap());
    let count = if phnum == 0xffff { u32_at(shoff + info) } else { u32::from(phnum) };
    let segment = |index: usize| {
        if is_64 {
            let at = phoff + 56 * index;
            let word = |i: usize| u64_at(at + 8 * i);
            let [offset, vaddr, paddr, filesz, memsz, align] = [1, 2, 3, 4, 5, 6].map(word);
            Segment { kind: u32_at(at), offset, vaddr, paddr, filesz, memsz, align }
        } else {
            let word = |i: usize| u64::from(u32_at(phoff + 32 * index + 4 * i));
            let [offset, vaddr, paddr, filesz, memsz, align] = [1, 2, 3, 4, 5, 7].map(word);
            Segment { kind: u32_at(phoff + 32 * index), offset, vaddr, paddr, filesz, memsz, align }
        }
    };
    (0..usize::try_from(count).unwrap()).map(segment).collect()
}
