//! Notes: how they are framed in a file. What their descriptors mean is told by [`crate::note_table`].
//!
//! ```text
//! 0       4       8      12            12+round4(namesz)
//! namesz  descsz  type   name + pad    desc + pad to 4
//! ```
//!
//! The header is three 32-bit words in the dump's byte order, in both classes.
//! Source: `spec/arch-notes.md` section 2; ELF gABI, "Note Section".

use crate::{Endianness, Error};
use std::fmt;

/// Length of a note's header.
pub const HEADER_LEN: usize = 12;

/// One note: an owner, a type that the owner defines, and a descriptor.
#[derive(Clone, PartialEq, Eq)]
pub struct Note {
    /// The name field as it stands, its final NUL included if there is one.
    pub name: Vec<u8>,
    /// Type number, as in `NT_PRSTATUS`.
    pub note_type: u32,
    /// The descriptor, without padding.
    pub desc: Vec<u8>,
}

impl Note {
    /// A note of `owner`, whose name is stored with a final NUL.
    #[must_use]
    pub fn new(owner: &str, note_type: u32, desc: Vec<u8>) -> Self {
        Self { name: [owner.as_bytes(), &[0]].concat(), note_type, desc }
    }

    /// The name without its final NUL.
    #[must_use]
    pub fn owner(&self) -> &[u8] {
        self.name.strip_suffix(&[0]).unwrap_or(&self.name)
    }

    /// Whether the note is of this owner and type.
    #[must_use]
    pub fn is(&self, owner: &str, note_type: u32) -> bool {
        self.note_type == note_type && self.owner() == owner.as_bytes()
    }

    /// Whether this is the guest's VMCOREINFO note.
    #[must_use]
    pub fn is_vmcoreinfo(&self) -> bool {
        self.is("VMCOREINFO", 0)
    }

    /// Length in a file: header, name and descriptor, both padded to 4 bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.name.len().next_multiple_of(4) + self.desc.len().next_multiple_of(4)
    }

    /// Appends the note to `out`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the name or the descriptor has 4 GiB or more.
    pub fn encode(&self, endianness: Endianness, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        for (what, len) in [("note name", self.name.len()), ("note descriptor", self.desc.len())] {
            if u32::try_from(len).is_err() {
                return Err(Error::TooLarge { what, found: len as u64, limit: u64::from(u32::MAX) });
            }
        }
        for word in [self.name.len() as u64, self.desc.len() as u64, u64::from(self.note_type)] {
            let mut bytes = [0; 4];
            endianness.encode(word, &mut bytes);
            out.extend_from_slice(&bytes);
        }
        for part in [&self.name, &self.desc] {
            out.extend_from_slice(part);
            out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        }
        Ok(())
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = String::from_utf8_lossy(self.owner());
        write!(f, "Note({owner}/{:#x}, {} bytes)", self.note_type, self.desc.len())
    }
}

/// Iterates over the notes of one `PT_NOTE` segment or note area.
///
/// It yields at most one error, then ends; each step moves forward.
#[derive(Clone, Debug)]
pub struct NoteIter<'a> {
    bytes: &'a [u8],
    position: usize,
    base: u64,
    endianness: Endianness,
    alignment: usize,
}

impl<'a> NoteIter<'a> {
    /// Notes in `bytes`, which stand at `base` in the file.
    ///
    /// `alignment` is the segment's `p_align`: 8 pads to 8 bytes, anything else to 4 (as BFD and elfutils do).
    #[must_use]
    pub fn new(bytes: &'a [u8], base: u64, endianness: Endianness, alignment: u64) -> Self {
        Self { bytes, position: 0, base, endianness, alignment: if alignment == 8 { 8 } else { 4 } }
    }

    /// Bytes consumed so far: where the next note would begin.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    fn read(&self) -> Result<(Note, usize), Error> {
        let rest = &self.bytes[self.position..];
        let truncated = |what, need: u64| Error::Truncated {
            what,
            offset: self.base + self.position as u64,
            need,
            have: rest.len() as u64,
        };
        let word =
            |i| self.endianness.u32_at(rest, i).ok_or_else(|| truncated("note header", HEADER_LEN as u64));
        let (name_len, desc_len, note_type) = (word(0)?, word(4)?, word(8)?);
        let name_end = HEADER_LEN as u64 + u64::from(name_len);
        let desc_start = name_end.next_multiple_of(self.alignment as u64);
        let desc_end = desc_start + u64::from(desc_len);
        let part = |start: u64, end: u64| {
            let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
            rest.get(range)
        };
        let name = part(HEADER_LEN as u64, name_end).ok_or_else(|| truncated("note name", name_end))?;
        let desc = part(desc_start, desc_end).ok_or_else(|| truncated("note descriptor", desc_end))?;
        let end = usize::try_from(desc_end.next_multiple_of(self.alignment as u64)).unwrap_or(rest.len());
        Ok((Note { name: name.to_vec(), note_type, desc: desc.to_vec() }, end.min(rest.len())))
    }
}

impl Iterator for NoteIter<'_> {
    type Item = Result<Note, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fewer bytes than a header are padding; an all-zero header ends the notes (Linux ends its own so).
        let rest = self.bytes.get(self.position..)?;
        if rest.len() < HEADER_LEN || rest[..HEADER_LEN].iter().all(|byte| *byte == 0) {
            self.bytes = &[];
            return None;
        }
        match self.read() {
            Ok((note, len)) => {
                self.position += len;
                Some(Ok(note))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notes() -> impl Strategy<Value = Vec<Note>> {
        let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
        let note = (bytes(9), 1..u32::MAX, bytes(40)).prop_map(|(name, note_type, desc)| Note {
            name,
            note_type,
            desc,
        });
        prop::collection::vec(note, 0..5)
    }

    fn order() -> impl Strategy<Value = Endianness> {
        prop_oneof![Just(Endianness::Little), Just(Endianness::Big)]
    }

    proptest! {
        #[test]
        fn notes_come_back_as_they_were(notes in notes(), order in order()) {
            let mut bytes = Vec::new();
            for note in &notes {
                let start = bytes.len();
                note.encode(order, &mut bytes)?;
                prop_assert_eq!(bytes.len() - start, note.encoded_len());
            }
            let back: Result<Vec<Note>, Error> = NoteIter::new(&bytes, 0, order, 0).collect();
            prop_assert_eq!(back?, notes);
        }

        #[test]
        fn hostile_notes_end(bytes in prop::collection::vec(any::<u8>(), 0..200), order in order(), align in 0..9u64) {
            let mut iter = NoteIter::new(&bytes, 0, order, align);
            let mut count = 0;
            while let Some(note) = iter.next() {
                count += 1;
                prop_assert!(count <= bytes.len() / HEADER_LEN);
                if note.is_err() {
                    prop_assert!(iter.next().is_none());
                }
            }
        }
    }

    #[test]
    fn linux_ends_its_notes_with_a_zero_header() {
        let mut bytes = Vec::new();
        Note::new("CORE", 1, vec![1, 2]).encode(Endianness::Little, &mut bytes).unwrap();
        bytes.extend([0; 24]);
        assert_eq!(NoteIter::new(&bytes, 0, Endianness::Little, 4).count(), 1);
    }
}
