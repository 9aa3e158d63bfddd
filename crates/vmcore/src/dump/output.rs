//! Where a dump goes: what `protocol` names.

use super::error::{QmpError, reason};
use super::request::Checked;
use std::fs::{File, OpenOptions};
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use vmcore_core::{FileSink, Sink, StreamSink, wrapper};

/// Only its owner may read a dump, and nobody write it again: it holds the guest's secrets.
const MODE: u32 = 0o400;

/// An output that is open.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// Whether a dump may be written to it in any order, from offset 0 on.
    is_ours: bool,
    is_seekable: bool,
}

impl Output {
    /// Opens a file, which is made or made empty, or takes a descriptor, which `fds` knows by its name.
    pub(super) fn open(protocol: &str, fds: impl FnOnce(&str) -> Option<OwnedFd>) -> Result<Self, QmpError> {
        if let Some(path) = protocol.strip_prefix("file:") {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path);
            let file = file
                .map_err(|error| QmpError::new(format!("Could not create '{path}': {}", reason(&error))))?;
            let is_ours = file.metadata().is_ok_and(|data| data.is_file());
            return Ok(Self { file, is_ours, is_seekable: is_ours });
        }
        let Some(name) = protocol.strip_prefix("fd:") else {
            return Err(QmpError::new("parameter 'protocol' must start with 'file:' or 'fd:'"));
        };
        let not_found = || QmpError::new(format!("File descriptor named '{name}' has not been found"));
        let mut file = File::from(fds(name).ok_or_else(not_found)?);
        let is_seekable = file.stream_position().is_ok();
        // It may be open for appending, or stand behind what is in the file already: it is written from where it is.
        Ok(Self { file, is_ours: false, is_seekable })
    }

    /// The sink for a dump in this format.
    pub(super) fn sink(&self, checked: &Checked) -> Result<Box<dyn Sink + '_>, QmpError> {
        if let Some(name) = checked.variant.and_then(|variant| variant.wrapper) {
            let wrapper = wrapper::by_name(name).map_err(|error| QmpError::of(&error))?;
            return Ok(wrapper.sink(Box::new(&self.file)));
        }
        if self.is_ours {
            return Ok(Box::new(FileSink(&self.file)));
        }
        if checked.format.abilities().streaming {
            return Ok(Box::new(StreamSink::new(&self.file)));
        }
        if !self.is_seekable {
            return Err(QmpError::new("kdump-raw formats require a seekable file"));
        }
        Ok(Box::new(FileSink(&self.file)))
    }
}
