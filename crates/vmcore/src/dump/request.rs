//! The arguments and answers of QMP's `dump-guest-memory`, as serde types: what comes in and goes out as JSON
//! (feature `serde`).
//!
//! Source: `spec/elf-layout.md` part B; QEMU `qapi/dump.json`. Error texts are those of QEMU 10.0.

use super::error::QmpError;
use crate::{RangeFilter, format};
#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmcore_core::{Format, Gpa, Status, Variant};

/// Arguments of `dump-guest-memory`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct DumpRequest {
    /// Give memory the virtual addresses of the guest's page tables.
    pub paging: bool,
    /// Where the dump goes: `file:PATH` or `fd:NAME`.
    pub protocol: String,
    /// Return at once, and dump in a thread.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub detach: Option<bool>,
    /// First guest physical address, if only a range is wanted.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub begin: Option<i64>,
    /// Bytes from there on.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub length: Option<i64>,
    /// The format by QEMU's name; else `elf`. Names of [`format::all`] are taken too.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub format: Option<String>,
}

impl DumpRequest {
    /// A dump of all memory into a file, in the format of this name.
    #[must_use]
    pub fn to_file(path: &str, format: &str) -> Self {
        Self {
            paging: false,
            protocol: format!("file:{path}"),
            detach: None,
            begin: None,
            length: None,
            format: Some(format.to_owned()),
        }
    }

    /// The arguments of a QMP command.
    ///
    /// # Errors
    /// [`QmpError`], in QEMU's words: an argument is missing, of another type, or unknown.
    #[cfg(feature = "serde")]
    pub fn from_json(arguments: &serde_json::Value) -> Result<Self, QmpError> {
        for Argument { name, type_name, is_of_type, is_required } in ARGUMENTS {
            match arguments.get(name) {
                None if is_required => return Err(QmpError::new(format!("Parameter '{name}' is missing"))),
                Some(value) if !is_of_type(value) => {
                    let text = format!("Invalid parameter type for '{name}', expected: {type_name}");
                    return Err(QmpError::new(text));
                }
                _ => {}
            }
        }
        let names = arguments.as_object().into_iter().flat_map(|object| object.keys());
        if let Some(name) =
            names.into_iter().find(|name| ARGUMENTS.iter().all(|argument| argument.name != *name))
        {
            return Err(QmpError::new(format!("Parameter '{name}' is unexpected")));
        }
        serde_json::from_value(arguments.clone()).map_err(|error| QmpError::new(error.to_string()))
    }

    fn format_name(&self) -> &str {
        self.format.as_deref().unwrap_or(ELF)
    }

    /// Whether there is such a format: what QEMU tells before it looks at anything else.
    pub(super) fn check_format(&self) -> Result<(), QmpError> {
        let name = self.format_name();
        if QEMU_FORMATS.contains(&name) || format::by_name(name).is_ok() {
            return Ok(());
        }
        Err(QmpError::new(format!("Parameter 'format' does not accept value '{name}'")))
    }

    /// What is wrong with the arguments, whatever the guest is; and what they mean.
    pub(super) fn check(&self) -> Result<Checked, QmpError> {
        let name = self.format_name();
        let is_limited = self.paging || self.begin.is_some() || self.length.is_some();
        if is_limited && name != ELF && QEMU_FORMATS.contains(&name) {
            return Err(QmpError::new("kdump-compressed format doesn't support paging or filter"));
        }
        match (self.begin, self.length) {
            (Some(_), None) => return Err(QmpError::new("Parameter 'length' is missing")),
            (None, Some(_)) => return Err(QmpError::new("Parameter 'begin' is missing")),
            _ => {}
        }
        // QEMU knows it, or it would have been refused before: this program was built without it.
        let format =
            format::by_name(name).map_err(|_| QmpError::new(format!("{name} is not available now")))?;
        let variant = format.variants().iter().copied().find(|variant| variant.name == name);
        Ok(Checked { format, variant })
    }

    /// The range of memory that is wanted.
    pub(super) fn range(&self) -> Result<Option<RangeFilter>, QmpError> {
        let (Some(begin), Some(length)) = (self.begin, self.length) else { return Ok(None) };
        // QEMU takes negative numbers, and dumps what nobody asked for.
        let number = |name: &str, value: i64| {
            u64::try_from(value)
                .map_err(|_| QmpError::new(format!("parameter '{name}' expects a number from 0 on")))
        };
        let (begin, len) = (number("begin", begin)?, number("length", length)?);
        if len == 0 {
            return Err(QmpError::new("parameter 'length' expects a non-zero size"));
        }
        Ok(Some(RangeFilter { begin: Gpa(begin), len }))
    }
}

/// An argument as QMP's schema has it.
#[cfg(feature = "serde")]
struct Argument {
    name: &'static str,
    type_name: &'static str,
    is_of_type: fn(&serde_json::Value) -> bool,
    is_required: bool,
}

#[cfg(feature = "serde")]
const fn argument(
    name: &'static str,
    type_name: &'static str,
    is_of_type: fn(&serde_json::Value) -> bool,
    is_required: bool,
) -> Argument {
    Argument { name, type_name, is_of_type, is_required }
}

/// All of them, in the order in which QEMU looks at them.
#[cfg(feature = "serde")]
#[rustfmt::skip] // a table is read by column
const ARGUMENTS: [Argument; 6] = [
    argument("paging",   "boolean", serde_json::Value::is_boolean, true),
    argument("protocol", "string",  serde_json::Value::is_string,  true),
    argument("detach",   "boolean", serde_json::Value::is_boolean, false),
    argument("begin",    "integer", serde_json::Value::is_i64,     false),
    argument("length",   "integer", serde_json::Value::is_i64,     false),
    argument("format",   "string",  serde_json::Value::is_string,  false),
];

const ELF: &str = "elf";
/// QEMU's names of formats, in the order in which it lists them.
const QEMU_FORMATS: [&str; 8] = [
    ELF,
    "kdump-zlib",
    "kdump-raw-zlib",
    "kdump-lzo",
    "kdump-raw-lzo",
    "kdump-snappy",
    "kdump-raw-snappy",
    "win-dmp",
];

/// Arguments that fit together.
pub(super) struct Checked {
    pub(super) format: &'static dyn Format,
    /// QEMU's name of it, if that says more than the format.
    pub(super) variant: Option<Variant>,
}

/// The words of QMP's `DumpStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum DumpStatus {
    /// There was no dump yet.
    None,
    /// A dump is under way.
    Active,
    /// The last dump is complete.
    Completed,
    /// The last dump has failed, or was cancelled.
    Failed,
}

impl From<Status> for DumpStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::None => Self::None,
            Status::Active => Self::Active,
            Status::Completed => Self::Completed,
            Status::Failed | Status::Cancelled => Self::Failed,
        }
    }
}

/// The answer to `query-dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub struct DumpQueryResult {
    /// Where the dump stands.
    pub status: DumpStatus,
    /// Bytes of guest memory that are done, before compression.
    pub completed: u64,
    /// Bytes of guest memory that the dump holds.
    pub total: u64,
}

/// The data of the event `DUMP_COMPLETED`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub struct DumpCompleted {
    /// How it ended.
    pub result: DumpQueryResult,
    /// Why it failed, if it did.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub error: Option<String>,
}

/// The answer to `query-dump-guest-memory-capability`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub struct DumpGuestMemoryCapability {
    /// The names of the formats that this program was built with.
    pub formats: Vec<String>,
}

impl DumpGuestMemoryCapability {
    /// QEMU's names first, in its order; then the rest of ours.
    #[must_use]
    pub fn of_this_program() -> Self {
        let known: Vec<&str> =
            QEMU_FORMATS.into_iter().filter(|name| format::by_name(name).is_ok()).collect();
        let all = format::all().iter().flat_map(|format| {
            let variants = format.variants().iter().map(|variant| variant.name);
            std::iter::once(format.name()).chain(variants)
        });
        let more = all.filter(|name| !known.contains(name));
        Self { formats: known.iter().copied().chain(more).map(str::to_owned).collect() }
    }
}
