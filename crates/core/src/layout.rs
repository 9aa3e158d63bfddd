//! The plan of a dump: every byte of the file to be written, before the first is.

use crate::{Error, Gpa, PageStream};
use std::fmt;
use std::ops::Range;

/// What fills an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Guest memory from this address on.
    Memory(Gpa),
    /// Zeros; a hole where the sink has holes.
    Zeros,
    /// A bit for each number from 0 on, from the lowest of each byte; those in the ranges, which ascend, are set.
    Bits(Vec<Range<u64>>),
    /// The table of the page stream behind it.
    PageTable,
    /// Pages, packed: how long it becomes is known when it is written.
    Pages(PageStream),
}

/// A range of the output and what fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes; of [`Fill::Pages`] the most that it can be.
    pub len: u64,
    /// What it is, as in "program headers".
    pub name: &'static str,
    /// What fills it.
    pub fill: Fill,
}

/// All extents of an output file, in order: they neither overlap nor leave a gap. Pages are the last.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Layout {
    extents: Vec<Extent>,
    file_len: u64,
}

impl Layout {
    /// The extents in ascending order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Length of the finished file in bytes; with a page stream, the most that it can be.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Bytes of guest memory in it.
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        let memory = |extent: &&Extent| matches!(extent.fill, Fill::Memory(_) | Fill::Pages(_));
        self.extents.iter().filter(memory).map(|extent| extent.len).sum()
    }

    /// Appends an extent of `len` bytes; nothing for 0.
    ///
    /// # Errors
    /// [`Error::Range`] if the file would pass 2^63 bytes, the most that a file can have.
    pub fn push(&mut self, name: &'static str, len: u64, fill: Fill) -> Result<(), Error> {
        debug_assert!(!matches!(&fill, Fill::Bytes(bytes) if bytes.len() as u64 != len));
        if len == 0 {
            return Ok(());
        }
        let end = self.file_len.checked_add(len).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(Error::Range { what: name, start: self.file_len, len })?;
        self.extents.push(Extent { offset: self.file_len, len, name, fill });
        self.file_len = end;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// As [`Layout::push`].
    pub fn push_bytes(&mut self, name: &'static str, bytes: Vec<u8>) -> Result<(), Error> {
        self.push(name, bytes.len() as u64, Fill::Bytes(bytes))
    }

    /// Appends a page stream: its table, the one page that all zero pages share, and the pages.
    ///
    /// The table has room for `entries`, or as many as there are pages if that is more; those without a page are zero.
    ///
    /// # Errors
    /// As [`Layout::push`].
    pub fn push_pages(&mut self, stream: PageStream, entries: u64) -> Result<(), Error> {
        let (count, page_size) = (stream.count(), u64::from(stream.page_size));
        let len = |count: u64, each: u64| {
            let range = Error::Range { what: "pages", start: self.file_len, len: count };
            count.checked_mul(each).ok_or(range)
        };
        let table_len = len(count.max(entries), stream.codec.entry_len() as u64)?;
        let pages_len = len(count, page_size)?;
        self.push("page table", table_len, Fill::PageTable)?;
        self.push("zero page", page_size, Fill::Zeros)?;
        self.push("pages", pages_len, Fill::Pages(stream))
    }

    /// Whether it can only be written where offsets may come in any order.
    #[must_use]
    pub fn needs_seeking(&self) -> bool {
        self.extents.iter().any(|extent| matches!(extent.fill, Fill::Pages(_)))
    }

    /// Appends zeros up to `offset`.
    ///
    /// # Errors
    /// As [`Layout::push`], and [`Error::Range`] if the file is longer already.
    pub fn pad_to(&mut self, offset: u64) -> Result<(), Error> {
        let start = self.file_len;
        let len = offset.checked_sub(start).ok_or(Error::Range { what: "padding", start, len: 0 })?;
        self.push("padding", len, Fill::Zeros)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Extent { offset, len, name, fill } in &self.extents {
            write!(f, "{offset:#012x} {len:#012x} {name}")?;
            match fill {
                Fill::Memory(gpa) => write!(f, " at {gpa}")?,
                Fill::Bits(ranges) => write!(f, " {ranges:x?}")?,
                Fill::Pages(stream) => write!(f, " at most: {:x?}", stream.pages)?,
                Fill::Bytes(_) | Fill::Zeros | Fill::PageTable => {}
            }
            writeln!(f)?;
        }
        writeln!(f, "{:#012x} end", self.file_len)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The smallest number at or above `at` that is congruent to `target` modulo `alignment`, a power of two.
///
/// # Errors
/// [`Error::Range`] past 2^64.
pub fn align_like(at: u64, target: u64, alignment: u64) -> Result<u64, Error> {
    let gap = target.wrapping_sub(at) & (alignment - 1);
    at.checked_add(gap).ok_or(Error::Range { what: "alignment", start: at, len: gap })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_follow_each_other() {
        let mut layout = Layout::default();
        layout.push_bytes("header", vec![1, 2, 3]).unwrap();
        layout.push("nothing", 0, Fill::Zeros).unwrap();
        layout.pad_to(0x10).unwrap();
        layout.push("memory", 0x1000, Fill::Memory(Gpa(0x4000))).unwrap();
        assert!(layout.pad_to(0).is_err());
        assert_eq!((layout.file_len(), layout.memory_len()), (0x1010, 0x1000));
        assert_eq!(
            layout.to_string(),
            "0x0000000000 0x0000000003 header\n0x0000000003 0x000000000d padding\n\
             0x0000000010 0x0000001000 memory at 0x4000\n0x0000001010 end\n"
        );
        assert!(layout.push("memory", u64::MAX >> 1, Fill::Zeros).is_err());
    }

    #[test]
    fn offsets_are_congruent_to_addresses() {
        assert_eq!(align_like(0x1490, 0xa_0000, 0x1000).unwrap(), 0x2000);
        assert_eq!(align_like(0x2000, 0x1800, 0x1000).unwrap(), 0x2800);
        assert_eq!(align_like(0x2800, 0x1800, 0x1000).unwrap(), 0x2800);
        assert!(align_like(u64::MAX, 0, 0x1000).is_err());
    }
}
