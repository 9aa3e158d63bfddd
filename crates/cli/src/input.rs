//! Opening a dump that the user named.

use anyhow::Context;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use vmcore::format::Opened;
use vmcore::{FileReader, Machine, ReadAt, format};

/// An opened dump.
pub(crate) struct Input {
    /// Its format, and what is around it, as in "kdump, flat".
    pub(crate) format: String,
    pub(crate) machine: Machine,
    pub(crate) file_len: u64,
}

/// Opens the dump at `path`.
pub(crate) fn open(path: &Path) -> anyhow::Result<Input> {
    open_all(&[path])
}

/// Opens the dump that lies in these files together.
pub(crate) fn open_all(paths: &[&Path]) -> anyhow::Result<Input> {
    let names = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let mut files: Vec<Arc<dyn ReadAt>> = Vec::new();
    let mut file_len = 0;
    for path in paths {
        let context = || format!("cannot open {}", path.display());
        let file = File::open(path).with_context(context)?;
        let reader = FileReader::new(file).with_context(context)?;
        file_len += reader.byte_len();
        files.push(Arc::new(reader));
    }
    let opened = format::open(files).with_context(|| format!("cannot open {}", names()))?;
    let Opened { format, wrapper, machine } = opened;
    let format = wrapper.map_or(format.to_owned(), |wrapper| format!("{format}, {wrapper}"));
    Ok(Input { format, machine, file_len })
}
