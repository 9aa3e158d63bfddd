//! Opening a dump that the user named.

use anyhow::Context;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use vmcore::{FileReader, Format, Machine, ReadAt, format};

/// An opened dump.
pub(crate) struct Input {
    pub(crate) format: &'static dyn Format,
    pub(crate) machine: Machine,
    pub(crate) file_len: u64,
}

/// Opens the dump at `path`.
pub(crate) fn open(path: &Path) -> anyhow::Result<Input> {
    let context = || format!("cannot open {}", path.display());
    let file = File::open(path).with_context(context)?;
    let reader = FileReader::new(file).with_context(context)?;
    let file_len = reader.byte_len();
    let (format, machine) = format::open(Arc::new(reader)).with_context(context)?;
    Ok(Input { format, machine, file_len })
}
