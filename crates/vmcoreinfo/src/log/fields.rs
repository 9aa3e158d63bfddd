//! Structures of the guest's kernel, as far as its VMCOREINFO tells of them.

use std::ops::Range;
use vmcore_core::{Error, Gva, Kernel};

/// What needs all this, for errors.
pub(super) const WHAT: &str = "reading the kernel's log";
/// The longest table that is read: the descriptors of a log of 128 MiB fit. The usual log has 128 KiB to 16 MiB.
const MAX_TABLE_LEN: u64 = 1 << 29;
/// The longest structure: those of kernels have at most 100 bytes.
const MAX_STRUCT_LEN: u64 = 1 << 12;

/// A structure of the kernel: how long it is, and, asked one by one, where its fields lie.
pub(super) struct Struct<'a> {
    kernel: &'a Kernel,
    name: &'static str,
    pub(super) len: usize,
}

/// Where a field lies in its structure.
pub(super) type Field = Range<usize>;

impl<'a> Struct<'a> {
    pub(super) fn new(kernel: &'a Kernel, name: &'static str) -> Result<Self, Error> {
        let len = bounded(kernel.value("SIZE", name, WHAT)?, "SIZE of a structure of the log")?;
        Ok(Self { kernel, name, len })
    }

    /// A field of `len` bytes.
    pub(super) fn field(&self, name: &str, len: usize) -> Result<Field, Error> {
        let start = self.kernel.value("OFFSET", &format!("{}.{name}", self.name), WHAT)?;
        let start = bounded(start, "OFFSET of a field of the log")?;
        self.check(start..start + len)
    }

    /// A field of `len` bytes right behind another, which VMCOREINFO does not name.
    pub(super) fn behind(&self, field: &Field, len: usize) -> Result<Field, Error> {
        self.check(field.end..field.end + len)
    }

    /// A field of a structure that is itself the field `outer`.
    pub(super) fn field_in(&self, outer: &Field, name: &str, len: usize) -> Result<Field, Error> {
        let inner = self.field(name, len)?;
        Ok(outer.start + inner.start..outer.start + inner.end)
    }

    fn check(&self, field: Field) -> Result<Field, Error> {
        if field.end <= self.len {
            return Ok(field);
        }
        let what = "end of a field of the log in its structure";
        Err(Error::TooLarge { what, found: field.end as u64, limit: self.len as u64 })
    }
}

/// A length or an offset inside a structure.
fn bounded(found: u64, what: &'static str) -> Result<usize, Error> {
    let number = usize::try_from(found).ok().filter(|_| found <= MAX_STRUCT_LEN);
    number.ok_or(Error::TooLarge { what, found, limit: MAX_STRUCT_LEN })
}

/// `LENGTH(name)`: how many characters an array inside a structure has.
pub(super) fn length(kernel: &Kernel, name: &str) -> Result<usize, Error> {
    bounded(kernel.value("LENGTH", name, WHAT)?, "LENGTH of a field of the log")
}

/// Bytes of a word of the kernel, its `unsigned long` and its pointers.
///
/// The class of the dump does not tell it: a 64-bit guest may lie in a 32-bit core. A `list_head` is two pointers, and every kernel
/// since 2.6.24 states its size.
pub(super) fn word_len(kernel: &Kernel) -> Result<usize, Error> {
    match kernel.value("SIZE", "list_head", WHAT)? {
        8 => Ok(4),
        16 => Ok(8),
        other => Err(Error::Unsupported { what: WHAT, found: format!("a list_head of {other} bytes") }),
    }
}

/// The number of `len` bytes, at most 8, at an address.
pub(super) fn number_at(kernel: &Kernel, gva: Gva, len: usize) -> Result<u64, Error> {
    Ok(kernel.endianness().decode(&bytes_at(kernel, gva, len as u64)?))
}

/// `len` bytes at an address, if no kernel's log is shorter.
pub(super) fn bytes_at(kernel: &Kernel, gva: Gva, len: u64) -> Result<Vec<u8>, Error> {
    let fitting = usize::try_from(len).ok().filter(|_| len <= MAX_TABLE_LEN);
    let what = "bytes of a table of the kernel's log";
    let mut bytes = vec![0; fitting.ok_or(Error::TooLarge { what, found: len, limit: MAX_TABLE_LEN })?];
    kernel.read(gva, &mut bytes)?;
    Ok(bytes)
}

/// What stands before the first NUL.
pub(super) fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The byte behind the facility: `flags` in five bits and `level` in three. C lays out bit fields from the lowest bit on a
/// little-endian machine and from the highest on a big-endian one, so that the level, which is the second, stands at the
/// other end.
pub(super) fn level(byte: u64, order: vmcore_core::Endianness) -> u8 {
    let level = match order {
        vmcore_core::Endianness::Little => byte >> 5,
        vmcore_core::Endianness::Big => byte & 7,
    };
    u8::try_from(level & 7).unwrap_or(0)
}
