//! BTF: the layout of its types that a kernel carries in its memory.
//!
//! ```text
//! header   0  magic 0xeb9f, 16 bits; version and flags, 8 bits each; then 32 bits each:
//!          4  length of the header; where types begin (counted from the header's end) and their length; the same of texts
//! type     0  offset of its name in the texts, 32 bits; info, 32 bits: bits 15:0 count, 28:24 kind, 31 whether it has bit fields
//!          8  its length in bytes, or another type, 32 bits; then what its kind has, see `entry_len`
//! member   0  offset of its name, number of its type, 32 bits each
//!          8  where it is: bits; if the type has bit fields in bits 23:0
//! ```
//!
//! Types are numbered from 1, in order.
//!
//! Source: Linux `Documentation/bpf/btf.rst`, `include/uapi/linux/btf.h`.

use crate::{Error, SymbolTable};
use vmcore_core::{Endianness, Gva, Kernel};

/// The longest BTF; that of large kernels has 12 MiB.
const MAX_LEN: u64 = 1 << 26;
const MAGIC: u64 = 0xeb9f;
/// Kinds of types that are looked for.
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;

/// All types of a kernel.
#[derive(Debug)]
pub(crate) struct Btf {
    endianness: Endianness,
    types: Vec<u8>,
    texts: Vec<u8>,
    /// Where each type begins, but for number 0, which is none.
    starts: Vec<usize>,
}

/// A struct.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Struct {
    /// Bytes.
    pub(crate) len: u64,
    /// Names, where they are in bytes, and numbers of their types.
    members: Vec<(String, u64, u32)>,
}

impl Struct {
    /// Where a member is in bytes.
    pub(crate) fn offset(&self, name: &'static str) -> Result<u64, Error> {
        self.member(name).map(|(offset, _)| offset).ok_or(Error::NoMember(name))
    }

    /// Where a member is in bytes, and the number of its type.
    pub(crate) fn member(&self, name: &str) -> Option<(u64, u32)> {
        self.members.iter().find(|member| member.0 == name).map(|(_, offset, number)| (*offset, *number))
    }
}

impl Btf {
    /// That of a kernel with these symbols.
    pub(crate) fn read(kernel: &Kernel, symbols: &SymbolTable) -> Result<Self, Error> {
        let [start, stop] = ["__start_BTF", "__stop_BTF"].map(|name| symbols.need(name));
        let (start, stop) = (start?, stop?);
        let len = stop.0.saturating_sub(start.0);
        if len > MAX_LEN {
            return Err(Error::Table {
                what: "the length of BTF",
                gva: start,
                found: len,
                expected: "at most 64 MiB",
            });
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        kernel.read(start, &mut bytes)?;
        Self::parse(&bytes, kernel.endianness(), start)
    }

    /// Of these bytes, which lie at `gva`.
    fn parse(bytes: &[u8], endianness: Endianness, gva: Gva) -> Result<Self, Error> {
        let bad = |what, found, expected| Error::Table { what, gva, found, expected };
        let number = |at: usize, len: usize| {
            let field = bytes.get(at..at + len).map(|field| endianness.decode(field));
            field.ok_or(bad("the length of BTF", bytes.len() as u64, "at least 24"))
        };
        let magic = number(0, 2)?;
        if magic != MAGIC {
            return Err(bad("the magic of BTF", magic, "0xeb9f"));
        }
        let header = number(4, 4)?;
        let part = |at| -> Result<Vec<u8>, Error> {
            let (offset, len) = (header.saturating_add(number(at, 4)?), number(at + 4, 4)?);
            let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(len)).ok());
            let part = range.and_then(|(start, end)| bytes.get(start..end));
            part.map(<[u8]>::to_vec).ok_or(bad(
                "the end of a part of BTF",
                offset.saturating_add(len),
                "within it",
            ))
        };
        let mut btf = Self { endianness, types: part(8)?, texts: part(16)?, starts: vec![0] };
        let mut at = 0;
        while at < btf.types.len() {
            let len = btf.entry_len(at).filter(|len| btf.types.len() - at >= *len);
            let len = len.ok_or(bad("a type of BTF", at as u64, "one that is known"))?;
            btf.starts.push(at);
            at += len;
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Option<u32> {
        let word = self.types.get(at..at.checked_add(4)?)?;
        u32::try_from(self.endianness.decode(word)).ok()
    }

    /// Kind, count, and whether there are bit fields, of the type at `at`.
    fn info(&self, at: usize) -> Option<(u32, usize, bool)> {
        let info = self.word(at + 4)?;
        Some((info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1))
    }

    /// Length of the type at `at` in bytes; `None` if its kind is not known.
    fn entry_len(&self, at: usize) -> Option<usize> {
        let (kind, count, _) = self.info(at)?;
        let more = match kind {
            // Pointers, forward declarations, typedefs, qualifiers, functions, floats, tags of types.
            2 | 7..=12 | 16 | 18 => 0,
            // Integers, variables, tags of declarations.
            1 | 14 | 17 => 4,
            ARRAY => 12,
            // Structs, unions, sections, enums of 64 bits.
            STRUCT | 5 | 15 | 19 => 12 * count,
            // Enums, prototypes.
            6 | 13 => 8 * count,
            _ => return None,
        };
        Some(12 + more)
    }

    fn text(&self, offset: u32) -> &[u8] {
        let text = usize::try_from(offset).ok().and_then(|start| self.texts.get(start..)).unwrap_or_default();
        &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())]
    }

    /// The struct of this name.
    pub(crate) fn find(&self, name: &'static str) -> Result<Struct, Error> {
        let found = self.starts.iter().skip(1).find_map(|at| self.struct_at(*at, name));
        found.ok_or(Error::NoMember(name))
    }

    fn struct_at(&self, at: usize, name: &str) -> Option<Struct> {
        let (_, count, has_bit_fields) = self.info(at).filter(|(kind, ..)| *kind == STRUCT)?;
        if self.text(self.word(at)?) != name.as_bytes() {
            return None;
        }
        let len = u64::from(self.word(at + 8)?);
        let members = (0..count).map(|index| {
            let at = at + 12 + 12 * index;
            let [text, number, bits] = [0, 4, 8].map(|offset| self.word(at + offset));
            let bits = if has_bit_fields { bits? & 0xff_ffff } else { bits? };
            Some((String::from_utf8_lossy(self.text(text?)).into_owned(), u64::from(bits / 8), number?))
        });
        Some(Struct { len, members: members.collect::<Option<_>>()? })
    }

    /// How many elements the array type of this number has.
    pub(crate) fn array_count(&self, number: u32) -> Option<u64> {
        let at = *self.starts.get(usize::try_from(number).ok()?)?;
        self.info(at).filter(|(kind, ..)| *kind == ARRAY)?;
        Some(u64::from(self.word(at + 20)?))
    }
}
