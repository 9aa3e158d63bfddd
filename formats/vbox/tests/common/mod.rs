//! What the tests of this crate share: writing into memory, and a writer of cores that shares no code with ours.

#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::Arc;
use vmcore_core::{DumpOptions, DumpState, Error, ExecuteOptions, Format, Machine, StreamSink, execute};
use vmcore_format_vbox::Vbox;

/// The names of all forms.
pub(crate) fn forms() -> Vec<Option<&'static str>> {
    let named = Vbox.variants().iter().map(|variant| Some(variant.name));
    [None].into_iter().chain(named).collect()
}

/// Options that ask for a form.
pub(crate) fn options(variant: Option<&'static str>) -> DumpOptions {
    DumpOptions { variant, ..DumpOptions::default() }
}

/// The bytes of the core of `machine`.
pub(crate) fn write(machine: &Machine, options: &DumpOptions) -> Result<Vec<u8>, Error> {
    let layout = Vbox.plan(machine, options)?;
    let mut bytes = Vec::new();
    let sink = StreamSink::new(&mut bytes);
    execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default())?;
    assert_eq!(bytes.len() as u64, layout.file_len());
    Ok(bytes)
}

/// Opens a core in memory.
pub(crate) fn open(bytes: &[u8]) -> Result<Machine, Error> {
    Vbox.open(Arc::new(bytes.to_vec()))
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

/// A note: its name as it stands, and 4-aligned parts.
pub(crate) fn note(name: &[u8], note_type: u32, desc: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len(), desc.len(), note_type as usize] {
        bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    for part in [name, desc] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A core descriptor.
pub(crate) fn descriptor(format: u32, version: u32, cpus: u32) -> Vec<u8> {
    [0xc01a_c0de, format, 24, version, 53488, cpus].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// A core as VirtualBox lays it out, `EI_VERSION` 0: with these notes, and ranges of memory: address, length, contents.
pub(crate) fn core_of(machine: u16, notes: &[u8], ranges: &[(u64, u64, &[u8])]) -> Vec<u8> {
    let count = u16::try_from(ranges.len() + 1).unwrap();
    let mut bytes = b"\x7fELF\x02\x01\0\0\0\0\0\0\0\0\0\0\x04\0".to_vec();
    bytes.extend(machine.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([0; 4]);
    bytes.extend([64, 56, count, 64, 0, 0].iter().flat_map(|half: &u16| half.to_le_bytes()));
    let mut phdr = |kind: u32, offset: u64, paddr: u64, filesz: u64, memsz: u64| {
        bytes.extend([kind, 4].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([offset, 0, paddr, filesz, memsz, 0].iter().flat_map(|word| word.to_le_bytes()));
    };
    let mut offset = 64 + 56 * u64::from(count);
    phdr(4, offset, 0, notes.len() as u64, notes.len() as u64);
    offset += notes.len() as u64;
    for (gpa, len, contents) in ranges {
        phdr(1, offset, *gpa, contents.len() as u64, *len);
        offset += contents.len() as u64;
    }
    bytes.extend(notes);
    bytes.extend(ranges.iter().flat_map(|(.., contents)| *contents));
    bytes
}
