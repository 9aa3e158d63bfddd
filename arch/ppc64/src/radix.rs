//! A radix tree: the page tables of one process or of the kernel.
//!
//! ```text
//! process-table entry ─► root ─► directory ─► directory ─► page table
//!                        EA 51:39   38:30       29:21       20:12 or 20:16     POWER9 and POWER10
//! ```
//!
//! No level has a fixed size: the process-table entry and each directory entry say how many bits the next one takes. Entries
//! are 8 bytes, big-endian in little-endian guests too.
//!
//! Source: Power ISA 3.1B, book III, section 6.7.10, "Radix Tree Translation"; `spec/arch-notes.md` section 7.4.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::RangeInclusive;
use vmcore_core::arch::{Access, SeenTables};
use vmcore_core::{Endianness, Error, Gpa, Gva, Mapping, MappingList, PhysMemory, Translation, memory};

const VALID: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
/// The encoded access authority of a leaf.
const READ: u64 = 1 << 2;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 0;
/// Where the next directory lies, in an entry of a directory and of the process table.
const DIRECTORY: u64 = 0x0fff_ffff_ffff_ff00;
/// How many bits of the address the next directory takes.
const SIZE: u64 = 0x1f;
/// Where the memory lies that a leaf maps.
const FRAME: u64 = 0x01ff_ffff_ffff_f000;
/// The smallest page, as a log2.
const MIN_SHIFT: u32 = 12;
/// log2 of the number of entries of a directory: what any processor has, and some more.
const INDEX_BITS: RangeInclusive<u32> = 5..=16;
/// Names of the levels: with 5 bits each and pages of 4 KiB there is room for so many in 62 bits.
const LEVELS: [&str; 10] = [
    "level 1", "level 2", "level 3", "level 4", "level 5", "level 6", "level 7", "level 8", "level 9",
    "level 10",
];
const ENTRY_LEN: u64 = 8;
/// Directories are read in pieces of so many bytes, if they have more.
const PIECE_LEN: usize = 0x1000;
/// The largest small page, as a log2: 64 KiB. Entries that map more are large pages' or directories'.
const MAX_PAGE_SHIFT: u32 = 16;

/// A directory, and what of the address the ones above have not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    at: u64,
    /// log2 of what the whole directory maps, in bytes.
    span: u32,
    /// log2 of its number of entries.
    bits: u32,
}

enum Entry {
    Nothing,
    Frame(u64),
    Directory(Directory),
}

impl Directory {
    /// The root that the first doubleword of a process-table entry tells.
    pub(crate) fn root(entry: u64) -> Option<Self> {
        let size = (entry >> 58 & 0x18 | entry >> 5 & 7).saturating_add(31);
        Self::new(entry, u32::try_from(size).unwrap_or(0))
    }

    /// `None` if no processor has directories of that size.
    fn new(entry: u64, span: u32) -> Option<Self> {
        let bits = u32::try_from(entry & SIZE).unwrap_or(0);
        let is_possible = INDEX_BITS.contains(&bits) && bits.saturating_add(MIN_SHIFT) <= span;
        is_possible.then_some(Self { at: entry & DIRECTORY, span, bits })
    }

    /// log2 of what it maps, in bytes: the bits of an address.
    pub(crate) fn span(&self) -> u32 {
        self.span
    }

    /// log2 of what an entry maps, in bytes.
    const fn shift(&self) -> u32 {
        self.span.saturating_sub(self.bits)
    }

    const fn offset_mask(&self) -> u64 {
        !(u64::MAX << self.shift())
    }

    fn entry_at(&self, index: u64) -> Gpa {
        Gpa(self.at.wrapping_add(index.wrapping_mul(ENTRY_LEN)))
    }

    fn decode(&self, entry: u64) -> Entry {
        if entry & VALID == 0 {
            Entry::Nothing
        } else if entry & LEAF != 0 {
            Entry::Frame(entry & FRAME & !self.offset_mask())
        } else {
            Self::new(entry, self.shift()).map_or(Entry::Nothing, Entry::Directory)
        }
    }

    /// Walks the tree from this root for an address, of which the bits above [`Directory::span`] do not count.
    pub(crate) fn translate(mut self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        let mut not_mapped = Error::NotMapped { gva, level: "root", at: Gpa(self.at), entry: 0 };
        for level in LEVELS {
            let index = gva.0 >> self.shift() & !(u64::MAX << self.bits);
            let at = self.entry_at(index);
            let entry = u64::from_be_bytes(memory::read_array(memory, at, "page table")?);
            not_mapped = Error::NotMapped { gva, level, at, entry };
            match self.decode(entry) {
                Entry::Nothing => break,
                Entry::Frame(frame) => {
                    let offset = gva.0 & self.offset_mask();
                    let len = self.offset_mask().wrapping_sub(offset).saturating_add(1);
                    let has = |bit| entry & bit != 0;
                    let access = Access { read: has(READ), write: has(WRITE), execute: has(EXECUTE) };
                    return Ok(Translation { gpa: Gpa(frame | offset), len, access: Some(access) });
                }
                Entry::Directory(next) => self = next,
            }
        }
        Err(not_mapped)
    }

    /// Adds all that the tree maps, from the virtual address `start` on.
    ///
    /// The depth is bounded: each level takes at least 5 bits.
    pub(crate) fn mappings(
        &self,
        memory: &dyn PhysMemory,
        start: u64,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let tag = u8::try_from(self.shift()).unwrap_or(0);
        let gva = |index: u64| start | index << self.shift();
        let mut buffer = [0; PIECE_LEN];
        for first in self.pieces() {
            if !seen.insert(self.entry_at(first), Gva(gva(first)), tag)? {
                continue;
            }
            let entries = self.read_piece(memory, first, &mut buffer)?;
            for (index, entry) in (first..).zip(entries.chunks_exact(8)) {
                let gva = gva(index);
                match self.decode(Endianness::Big.decode(entry)) {
                    Entry::Nothing => {}
                    Entry::Frame(frame) => {
                        list.add(Mapping { gpa: Gpa(frame), gva: Gva(gva), len: 1 << self.shift() })?;
                    }
                    Entry::Directory(next) => next.mappings(memory, gva, seen, list)?,
                }
            }
        }
        Ok(())
    }

    /// log2 of the size of small pages: what an entry of the lowest directories maps.
    ///
    /// Looks at `budget` pieces of directories, depth first.
    pub(crate) fn page_shift(&self, memory: &dyn PhysMemory, budget: &mut u32) -> Option<u32> {
        let mut buffer = [0; PIECE_LEN];
        for first in self.pieces() {
            *budget = budget.checked_sub(1)?;
            let entries = self.read_piece(memory, first, &mut buffer).ok()?;
            for entry in entries.chunks_exact(8) {
                let Entry::Directory(next) = self.decode(Endianness::Big.decode(entry)) else { continue };
                if next.shift() <= MAX_PAGE_SHIFT {
                    return Some(next.shift());
                }
                if let Some(shift) = next.page_shift(memory, budget) {
                    return Some(shift);
                }
            }
        }
        None
    }

    /// The first entry of each piece.
    fn pieces(&self) -> impl Iterator<Item = u64> {
        (0..1_u64 << self.bits).step_by(PIECE_LEN >> 3)
    }

    /// The entries of a piece. What cannot be read is zero: not valid.
    fn read_piece<'a>(
        &self,
        memory: &dyn PhysMemory,
        first: u64,
        buffer: &'a mut [u8; PIECE_LEN],
    ) -> Result<&'a [u8], Error> {
        let piece = buffer.get_mut(..PIECE_LEN.min(8 << self.bits)).unwrap_or_default();
        memory.read_at(self.entry_at(first), piece)?;
        Ok(piece)
    }
}
