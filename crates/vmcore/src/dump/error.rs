//! Errors in QMP's form, in the words of QEMU 10.0 (`spec/elf-layout.md` B2).

use super::guest::Obstacle;
use std::{error, fmt, io};
use vmcore_core::execute::WRITING;
use vmcore_core::format::EMPTY_RANGE;
use vmcore_core::{Error, Extent, Layout};

/// An error as QMP reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QmpError {
    /// Its class; of dumps always `GenericError`.
    pub class: String,
    /// What is wrong, for people.
    pub desc: String,
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.desc)
    }
}

impl error::Error for QmpError {}

/// What QEMU says of a part of the dump that could not be written, by the name of the extent.
#[rustfmt::skip] // a table is read by column
const PARTS: &[(&str, &str)] = &[
    ("ELF header",               "write elf header"),
    ("section header 0",         "write section headers"),
    ("program headers",          "write program header table"),
    ("notes",                    "write elf notes"),
    ("memory",                   "save memory"),
    ("header",                   "write disk dump header"),
    ("sub header and notes",     "write kdump sub header"),
    ("bitmap of what exists",    "set dump_bitmap"),
    ("bitmap of what is stored", "set dump_bitmap"),
    ("page table",               "write page desc"),
    ("zero page",                "write page data (zero page)"),
    ("pages",                    "write page data"),
];

impl QmpError {
    pub(super) fn new(desc: impl Into<String>) -> Self {
        Self { class: "GenericError".to_owned(), desc: desc.into() }
    }

    /// An error of the library, with its causes.
    pub(super) fn of(error: &Error) -> Self {
        if matches!(error, Error::Range { what: EMPTY_RANGE, .. }) {
            return Self::new("dump: no guest memory to dump");
        }
        let mut desc = format!("dump: {error}");
        let mut source = error::Error::source(error);
        while let Some(error) = source {
            desc += &format!(": {error}");
            source = error.source();
        }
        Self::new(desc)
    }

    /// An error of writing what `layout` plans.
    pub(super) fn of_writing(error: &Error, layout: &Layout) -> Self {
        let Error::Io { what: WRITING, offset, source } = error else { return Self::of(error) };
        let extents = layout.extents();
        let name = |extent: &Extent| {
            let phrase = PARTS.iter().find(|(name, _)| *name == extent.name);
            phrase.map_or_else(|| format!("write {}", extent.name), |(_, phrase)| (*phrase).to_owned())
        };
        let index = extents.partition_point(|extent| extent.offset <= *offset);
        let part = index.checked_sub(1).map_or_else(|| "write".to_owned(), |index| name(&extents[index]));
        Self::new(format!("dump: failed to {part}: {}", reason(source)))
    }
}

impl From<Obstacle> for QmpError {
    fn from(obstacle: Obstacle) -> Self {
        Self::new(match obstacle {
            Obstacle::IncomingMigration => "Dump not allowed during incoming migration.",
            Obstacle::Migration => {
                "disallowing migration blocker (migration/snapshot in progress) for: \
                 Live migration disabled: dump-guest-memory in progress"
            }
        })
    }
}

/// What the operating system says, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
