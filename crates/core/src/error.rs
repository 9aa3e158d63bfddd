//! The error of reading, planning and writing dumps: what, where, found, expected.

use crate::{Gpa, Gva};
use std::{error, fmt, io};

/// Why a dump could not be read, planned or written.
///
/// Offsets are bytes from the start of the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file or the buffer ends inside a structure.
    Truncated {
        /// The structure.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its length in bytes.
        need: u64,
        /// What is there of it, in bytes.
        have: u64,
    },
    /// A field holds what it must not hold.
    Invalid {
        /// The field.
        what: &'static str,
        /// Where it stands.
        offset: u64,
        /// Its value.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The operating system refused to read or write.
    Io {
        /// What was read or written, as in "reading the ELF header".
        what: &'static str,
        /// Where in the file.
        offset: u64,
        /// Its reason.
        source: io::Error,
    },
    /// A range leaves the space that it lies in.
    Range {
        /// The range.
        what: &'static str,
        /// Its first byte.
        start: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A number is larger than the format or our own bound allows.
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How much of it there is.
        found: u64,
        /// The most that is possible.
        limit: u64,
    },
    /// Something that this program does not do.
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// The architecture is not known, and what is asked for depends on it.
    UnknownArch {
        /// What was asked for.
        what: &'static str,
        /// What the dump says: 0 (`EM_NONE`) if nothing.
        elf_machine: u16,
    },
    /// No guest physical address belongs to a virtual one.
    NotMapped {
        /// The virtual address.
        gva: Gva,
        /// The level of the page table at which the walk ended.
        level: &'static str,
        /// Where the entry lies.
        at: Gpa,
        /// The entry.
        entry: u64,
    },
    /// A virtual address that no page table can map.
    NotCanonical {
        /// The virtual address.
        gva: Gva,
        /// Bits of a virtual address in the vCPU's paging mode.
        bits: u32,
    },
    /// Guest memory that was needed is not in the dump or cannot be read.
    NoMemory {
        /// What was to be read there.
        what: &'static str,
        /// Where.
        gpa: Gpa,
    },
    /// A vCPU lacks a register that is needed.
    NoRegister {
        /// The register.
        name: &'static str,
        /// What needs it.
        what: &'static str,
    },
    /// The guest's VMCOREINFO is not known: there is no such note.
    NoVmcoreinfo {
        /// What needs it.
        what: &'static str,
    },
    /// The guest's VMCOREINFO lacks what is needed of it.
    NoKey {
        /// The key, as in `SYMBOL(swapper_pg_dir)`.
        key: String,
        /// What needs it.
        what: &'static str,
    },
    /// The source of a live guest failed.
    Source {
        /// Scheme of its URI.
        scheme: &'static str,
        /// Its own error.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// No plugin answers to a name.
    Unknown {
        /// Kind of plugin: format, architecture, source.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// No format plugin recognizes the file.
    UnknownFormat {
        /// Its first bytes in hex.
        head: String,
        /// The formats that there are.
        known: String,
    },
    /// The job was cancelled.
    Cancelled,
}

// By hand: a derive's macros take longer to compile than this crate, and every plugin waits for it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what, offset, need, have } => {
                write!(f, "{what} at offset {offset:#x}: {need} bytes are needed, {have} are left")
            }
            Self::Invalid { what, offset, found, expected } => {
                write!(f, "{what} at offset {offset:#x} is {found:#x}, expected {expected}")
            }
            Self::Io { what, offset, source: _ } => write!(f, "{what} at offset {offset:#x}"),
            Self::Range { what, start, len } => {
                write!(f, "{what}: {start:#x} + {len:#x} bytes is out of range")
            }
            Self::TooLarge { what, found, limit } => write!(f, "{what}: {found} is more than {limit}"),
            Self::Unsupported { what, found } => write!(f, "{what} is not supported: {found}"),
            Self::UnknownArch { what, elf_machine: 0 } => {
                write!(f, "{what} needs to know the architecture: the dump does not state it")
            }
            Self::UnknownArch { what, elf_machine } => {
                write!(
                    f,
                    "{what} needs to know the architecture: none that is linked in is ELF machine {elf_machine}"
                )
            }
            Self::NotMapped { gva, level, at, entry } => {
                write!(f, "{gva} is not mapped: the {level} entry at {at} is {entry:#x}")
            }
            Self::NotCanonical { gva, bits } => {
                write!(f, "{gva} is not a canonical address of this vCPU ({bits} bits)")
            }
            Self::NoMemory { what, gpa } => write!(f, "{what}: guest memory at {gpa} is not available"),
            Self::NoRegister { name, what } => {
                write!(f, "register {name} is not known for this vCPU, {what} needs it")
            }
            Self::NoVmcoreinfo { what } => {
                write!(f, "{what} needs the guest's VMCOREINFO, which is not known")
            }
            Self::NoKey { key, what } => write!(f, "VMCOREINFO has no usable {key}, {what} needs it"),
            Self::Source { scheme, source: _ } => write!(f, "source {scheme}"),
            Self::Unknown { what, name, known } => write!(f, "unknown {what} `{name}`; linked in: {known}"),
            Self::UnknownFormat { head, known } => {
                write!(f, "the file is in no known dump format (it begins {head}); linked in: {known}")
            }
            Self::Cancelled => write!(f, "cancelled"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Source { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl Error {
    /// Whether the registers of a vCPU do not lead to page tables that can be walked: one is missing, or the tables are of a kind
    /// that is not supported, as those of ppc64's hash MMU. The guest's kernel may know more.
    #[must_use]
    pub fn lacks_page_tables(&self) -> bool {
        matches!(self, Self::NoRegister { .. } | Self::Unsupported { .. })
    }
}
