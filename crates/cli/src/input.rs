//! Opening a dump that the user named.

use crate::args::{NoteArgs, OpenArgs};
use crate::kernel;
use anyhow::{Context, anyhow};
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use vmcore::format::Opened;
use vmcore::{FileReader, Machine, ReadAt, Source, arch, format, source};

/// An opened dump.
pub(crate) struct Input {
    pub(crate) format: &'static str,
    /// What is around it.
    pub(crate) wrapper: Option<&'static str>,
    pub(crate) machine: Machine,
    /// Length of all its files.
    pub(crate) file_len: u64,
}

impl Input {
    /// Its format, and what is around it, as in "kdump, flat".
    pub(crate) fn format(&self) -> String {
        format_text(self.format, self.wrapper)
    }
}

/// A format, and what is around it, as in "kdump, flat".
pub(crate) fn format_text(format: &str, wrapper: Option<&str>) -> String {
    wrapper.map_or(format.to_owned(), |wrapper| format!("{format}, {wrapper}"))
}

/// The names of a dump's files, for messages.
pub(crate) fn names(paths: &[impl AsRef<Path>]) -> String {
    paths.iter().map(|path| path.as_ref().display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The running guest that is named, if it is not a dump.
pub(crate) fn live(inputs: &[String]) -> Option<(&'static dyn Source, &str)> {
    let [name] = inputs else { return None };
    source::of_uri(name).filter(|_| !Path::new(name).exists())
}

/// Opens the dump that lies in these files together; most lie in one.
pub(crate) fn open(paths: &[impl AsRef<Path>], args: &OpenArgs, note: &NoteArgs) -> anyhow::Result<Input> {
    let context = || format!("cannot open {}", names(paths));
    let files = open_files(paths)?;
    let file_len = files.iter().map(|file| file.byte_len()).sum();
    let opened = match &args.input_format {
        Some(name) => format::open_as(files, name),
        None => format::open(files),
    };
    let Opened { format, wrapper, mut machine } = opened.with_context(context)?;
    if let Some(name) = &args.arch {
        arch::by_name(name).and_then(|arch| machine.assume(arch)).with_context(context)?;
    }
    if let Some(path) = &note.vmcoreinfo {
        machine.guest_note = Some(kernel::read_note(path)?);
    }
    Ok(Input { format, wrapper, machine, file_len })
}

/// Opens the files, whatever is in them.
pub(crate) fn open_files(paths: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Arc<dyn ReadAt>>> {
    let mut files: Vec<Arc<dyn ReadAt>> = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let context = || format!("cannot open {}", path.display());
        // Opening a pipe would wait for its writer.
        if fs::metadata(path).with_context(context)?.file_type().is_fifo() {
            return Err(anyhow!("it is a pipe; dumps are read from files").context(context()));
        }
        let file = File::open(path).with_context(context)?;
        let reader = FileReader::new(file).with_context(context)?;
        if reader.byte_len() == 0 {
            return Err(anyhow!("the file is empty").context(context()));
        }
        files.push(Arc::new(reader));
    }
    Ok(files)
}
