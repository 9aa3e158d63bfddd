//! What the tests share: the dumps that real QEMUs made of our own bare-metal guests (`tests/fixtures/README.md`).

#![forbid(unsafe_code)]

pub mod gdb;
pub mod hostile;
pub mod tables;
pub mod target_description;
pub mod unwind;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmcore::{DumpOptions, DumpState, Error, ExecuteOptions, Machine, StreamSink, execute, format};

/// The folder of the fixtures.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The text of a fixture.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("a fixture of that name")
}

/// The bytes of a dump: `NAME` of `NAME.elf.gz`.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn dump(name: &str) -> Vec<u8> {
    unpacked(&format!("{name}.elf.gz"))
}

/// The bytes of a fixture that is packed.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn unpacked(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(folder().join(name)).expect("a fixture of that name");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("the fixture is sound");
    bytes
}

/// The names of all fixtures that end in `suffix`, without it, sorted.
///
/// # Panics
/// If the folder is gone or holds none.
#[must_use]
pub fn names(suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder of fixtures");
    let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(suffix)?.to_owned())).collect();
    names.sort();
    assert!(!names.is_empty(), "no fixture ends in {suffix}");
    names
}

/// Opens a dump in memory.
///
/// # Errors
/// Those of [`format::open`].
pub fn open(bytes: Vec<u8>) -> Result<Machine, Error> {
    Ok(format::open(vec![Arc::new(bytes)])?.machine)
}

/// The bytes of an ELF core of `machine`.
///
/// # Errors
/// Those of planning and writing.
pub fn write(machine: &Machine, options: &DumpOptions) -> Result<Vec<u8>, Error> {
    let layout = format::by_name("elf")?.plan(machine, options)?;
    let mut bytes = Vec::new();
    let sink = StreamSink::new(&mut bytes);
    execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default())?;
    Ok(bytes)
}
