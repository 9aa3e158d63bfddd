//! The note that a guest has stated, at the moment of a dump: it is taken, or refused with a reason.
//!
//! Source: `spec/vmcoreinfo.md` section 4; QEMU 7.2 and 10.0 `dump/dump.c` (behaviour).

use crate::device::FORMAT_ELF;
use std::{error, fmt};
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Endianness, Error, Gpa, Note, NoteIter, PhysMemory};

/// The most bytes of guest memory that are taken for a note.
pub const MAX_LEN: u32 = 1 << 20;
/// Length of a note's header, of which nothing may be missing.
const HEADER_LEN: u32 = 12;
/// The longest name. QEMU takes 1 MiB; no owner of notes has more than a few letters.
const MAX_NAME_LEN: u32 = 255;
/// How the text of each kernel's note begins, and of no other note.
pub(crate) const FIRST_KEY: &[u8] = b"OSRELEASE=";

/// Where a guest says that its note lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Its format; only [`FORMAT_ELF`] is known.
    pub guest_format: u16,
    /// Address of its header.
    pub gpa: Gpa,
    /// Bytes that the guest has for it; it need not fill them.
    pub len: u32,
}

/// Why a guest's note is not taken; the text is the warning for the user.
///
/// QEMU warns in the same cases, but for [`Refusal::Empty`] and [`Refusal::Text`], in which it writes what is there.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// There is a device, but the guest has stated nothing since the reset, or withdrawn it.
    NotStated,
    /// A format that is not known.
    Format(u16),
    /// Too few bytes for a header, or more than any note has.
    Len(u32),
    /// It lies where no memory is.
    Outside(Gpa),
    /// It could not be read.
    Unreadable {
        /// Where it lies.
        gpa: Gpa,
        /// Why.
        source: Error,
    },
    /// Nothing but zeros: never filled, or freed.
    Empty(Gpa),
    /// A header that cannot be right, in neither byte order.
    Header {
        /// Where it lies.
        gpa: Gpa,
        /// `n_namesz`, in the guest's byte order.
        name_len: u32,
        /// `n_descsz`.
        desc_len: u32,
        /// What the guest stated.
        len: u32,
    },
    /// It is called VMCOREINFO, but no kernel wrote it.
    Text(Gpa),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = "the guest's note";
        match self {
            Self::NotStated => write!(
                f,
                "the guest has not stated where its note is: it has no driver for the vmcoreinfo device, or not yet"
            ),
            Self::Format(format) => {
                write!(f, "{note} has format {format}, expected {FORMAT_ELF} (an ELF note)")
            }
            Self::Len(len) => write!(f, "{note} has {len} bytes, expected {HEADER_LEN} to {MAX_LEN}"),
            Self::Outside(gpa) => write!(f, "{note} at {gpa} lies outside of its memory"),
            Self::Unreadable { gpa, source: _ } => write!(f, "{note} at {gpa} cannot be read"),
            Self::Empty(gpa) => write!(f, "{note} at {gpa} is empty"),
            Self::Header { gpa, name_len, desc_len, len } => write!(
                f,
                "the header of {note} at {gpa} is invalid: {name_len:#x} bytes of name and {desc_len:#x} of text in {len:#x}"
            ),
            Self::Text(gpa) => {
                write!(f, "{note} at {gpa} is called VMCOREINFO, but does not begin with OSRELEASE=")
            }
        }
    }
}

impl error::Error for Refusal {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Stated {
    /// Reads the note, whatever its name and type.
    ///
    /// Its header may have either byte order, because a kernel may have another one than `endianness`, the guest's: the
    /// length of the name is sane in one of them only.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn read(&self, memory: &dyn PhysMemory, endianness: Endianness) -> Result<Note, Refusal> {
        let Self { guest_format, gpa, len } = *self;
        if guest_format != FORMAT_ELF {
            return Err(Refusal::Format(guest_format));
        }
        if !(HEADER_LEN..=MAX_LEN).contains(&len) {
            return Err(Refusal::Len(len));
        }
        let header = read(memory, gpa, HEADER_LEN)?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(Refusal::Empty(gpa));
        }
        let found = orders(endianness).map(|order| (order, Lengths::of(&header, order)));
        let fit = found.into_iter().find(|(_, lengths)| lengths.note_len().is_some_and(|need| need <= len));
        let Some((order, lengths)) = fit else {
            let [(_, Lengths { name: name_len, desc: desc_len }), _] = found;
            return Err(Refusal::Header { gpa, name_len, desc_len, len });
        };
        let bytes = read(memory, gpa, lengths.note_len().unwrap_or(len))?;
        let note = NoteIter::new(&bytes, gpa.0, order, 4).next().transpose();
        let note = note.map_err(|source| Refusal::Unreadable { gpa, source })?.ok_or(Refusal::Empty(gpa))?;
        if note.is_vmcoreinfo() && !is_of_a_kernel(&note) {
            return Err(Refusal::Text(gpa));
        }
        Ok(note)
    }
}

/// The note that a file holds: one with its header, in either byte order, or its text alone. Zeros may follow.
///
/// The text ends with a line break then, without which drgn would not see the last line, and its lines end as a kernel ends them,
/// wherever the file was edited. `None` if no kernel wrote it.
#[must_use]
pub fn of_bytes(bytes: Vec<u8>) -> Option<Note> {
    if !bytes.starts_with(FIRST_KEY) {
        let stated = Stated { guest_format: FORMAT_ELF, gpa: Gpa(0), len: u32::try_from(bytes.len()).ok()? };
        let memory = BlockMemory::new(vec![(stated.gpa, bytes)]).ok()?;
        return stated.read(&memory, Endianness::Little).ok().filter(is_of_a_kernel);
    }
    let mut text = bytes;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    // No kernel writes this character.
    text.retain(|byte| *byte != b'\r');
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    Some(Note::new("VMCOREINFO", 0, text))
}

/// Whether this is a VMCOREINFO note that a kernel wrote.
#[must_use]
pub fn is_of_a_kernel(note: &Note) -> bool {
    note.is_vmcoreinfo() && note.desc.starts_with(FIRST_KEY)
}

/// What a note's header says of its length.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    name: u32,
    desc: u32,
}

impl Lengths {
    fn of(header: &[u8], order: Endianness) -> Self {
        let word = |offset| order.u32_at(header, offset).unwrap_or(0);
        Self { name: word(0), desc: word(4) }
    }

    /// Bytes of the whole note, if that can be.
    fn note_len(self) -> Option<u32> {
        let is_sane = (1..=MAX_NAME_LEN).contains(&self.name) && self.desc <= MAX_LEN;
        is_sane.then(|| HEADER_LEN + self.name.next_multiple_of(4) + self.desc.next_multiple_of(4))
    }
}

/// Both byte orders, the guest's first.
fn orders(endianness: Endianness) -> [Endianness; 2] {
    match endianness {
        Endianness::Little => [Endianness::Little, Endianness::Big],
        Endianness::Big => [Endianness::Big, Endianness::Little],
    }
}

fn read(memory: &dyn PhysMemory, gpa: Gpa, len: u32) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![0; len as usize];
    match memory.read_at(gpa, &mut bytes) {
        Ok(unreadable) if unreadable.is_empty() => Ok(bytes),
        Ok(_) | Err(Error::Range { .. }) => Err(Refusal::Outside(gpa)),
        Err(source) => Err(Refusal::Unreadable { gpa, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, device};
    use proptest::prelude::*;

    const TEXT: &[u8] = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n";
    /// Header, padded name, padded text.
    const NOTE_LEN: u32 = 12 + 12 + 32;
    /// A page of memory lies here, and the guest's note.
    const AT: Gpa = Gpa(0x5000);

    fn memory(bytes: &[u8]) -> BlockMemory {
        let mut page = vec![0; 0x1000];
        page[..bytes.len()].copy_from_slice(bytes);
        BlockMemory::new(vec![(AT, page)]).unwrap()
    }

    fn encoded(note: &Note, order: Endianness) -> Vec<u8> {
        let mut bytes = Vec::new();
        note.encode(order, &mut bytes).unwrap();
        bytes
    }

    /// A header alone.
    fn header(words: [u32; 3]) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], stated: Stated, expected: Result<&Note, &str>) {
        let found = stated.read(&memory(bytes), Endianness::Little);
        assert_eq!(found.as_ref().map_err(ToString::to_string), expected.map_err(str::to_owned));
    }

    #[test]
    fn each_rule_of_the_dump() {
        let note = Note::new("VMCOREINFO", 0, TEXT.to_vec());
        let bytes = encoded(&note, Endianness::Little);
        let at = |gpa, len| Stated { guest_format: FORMAT_ELF, gpa, len };
        let stated = at(AT, 0x1024 - 0x100);
        check(&bytes, stated, Ok(&note));
        check(&bytes, at(AT, NOTE_LEN), Ok(&note));
        // The kernel's byte order may be the other one.
        check(&encoded(&note, Endianness::Big), stated, Ok(&note));
        // Any other note is taken too.
        let other = Note::new("OTHER", 7, vec![1, 2, 3]);
        check(&encoded(&other, Endianness::Little), stated, Ok(&other));

        check(
            &bytes,
            Stated { guest_format: 2, ..stated },
            Err("the guest's note has format 2, expected 1 (an ELF note)"),
        );
        let len = |len: u32| format!("the guest's note has {len} bytes, expected 12 to 1048576");
        for wrong in [0, 11, MAX_LEN + 1, u32::MAX] {
            check(&bytes, at(AT, wrong), Err(&len(wrong)));
        }
        check(&bytes, at(AT, 12), Err(&invalid(11, 30, 12)));
        check(&bytes, at(AT, NOTE_LEN - 1), Err(&invalid(11, 30, NOTE_LEN - 1)));
        check(&header([0, 4, 0]), stated, Err(&invalid(0, 4, stated.len)));
        check(&header([256, 4, 0]), stated, Err(&invalid(256, 4, stated.len)));
        check(&header([11, u32::MAX, 0]), stated, Err(&invalid(11, u32::MAX, stated.len)));
        check(&[], stated, Err("the guest's note at 0x5000 is empty"));
        let wrong = Note::new("VMCOREINFO", 0, b"hello".to_vec());
        let text = "the guest's note at 0x5000 is called VMCOREINFO, but does not begin with OSRELEASE=";
        check(&encoded(&wrong, Endianness::Little), stated, Err(text));
        for (gpa, len) in [(0x4000, 64), (0x6000, 64), (0x4ffc, 64), (u64::MAX, 64)] {
            let text = format!("the guest's note at {gpa:#x} lies outside of its memory");
            check(&bytes, at(Gpa(gpa), len), Err(&text));
        }
        // A note may claim more than it has, but not more than memory.
        check(&bytes, at(AT, MAX_LEN), Ok(&note));
        let longer = header([11, 0x1000, 0]);
        check(&longer, at(AT, 0x2000), Err("the guest's note at 0x5000 lies outside of its memory"));
    }

    fn invalid(name_len: u32, desc_len: u32, len: u32) -> String {
        format!(
            "the header of the guest's note at 0x5000 is invalid: {name_len:#x} bytes of name and {desc_len:#x} of text in {len:#x}"
        )
    }

    #[test]
    fn a_device_that_was_told_nothing_gives_nothing() {
        let note = Note::new("VMCOREINFO", 0, TEXT.to_vec());
        let memory = memory(&encoded(&note, Endianness::Little));
        let state = device::State {
            has_vmcoreinfo: true,
            host_format: 0,
            guest_format: FORMAT_ELF,
            size: NOTE_LEN,
            paddr: AT.0,
        };
        assert_eq!(Device::from(state).note(&memory, Endianness::Little).unwrap(), note);
        let state = device::State { has_vmcoreinfo: false, ..state };
        let refusal = Device::from(state).note(&memory, Endianness::Little).unwrap_err();
        assert!(matches!(refusal, Refusal::NotStated));
    }

    #[test]
    fn a_file_holds_a_note_or_its_text() {
        let note = Note::new("VMCOREINFO", 0, TEXT.to_vec());
        for order in [Endianness::Little, Endianness::Big] {
            let bytes = encoded(&note, order);
            assert_eq!(of_bytes([&bytes[..], &[0; 12]].concat()).as_ref(), Some(&note));
            assert_eq!(of_bytes(bytes[..bytes.len() - 4].to_vec()), None);
        }
        assert_eq!(of_bytes(TEXT.trim_ascii_end().to_vec()).as_ref(), Some(&note));
        assert_eq!(of_bytes([TEXT, &[0; 100]].concat()).as_ref(), Some(&note));
        assert_eq!(of_bytes(b"OSRELEASE=6.1.0\r\nPAGESIZE=4096\r\n".to_vec()).as_ref(), Some(&note));
        for bad in [&b""[..], b"hello", &encoded(&Note::new("OTHER", 0, TEXT.to_vec()), Endianness::Little)] {
            assert_eq!(of_bytes(bad.to_vec()), None);
        }
    }

    proptest! {
        /// Whatever a guest states: a note that fits, or a refusal.
        #[test]
        fn hostile_statements_end(bytes in prop::collection::vec(any::<u8>(), 0..64), gpa: u64, len: u32, near: bool) {
            let gpa = if near { Gpa(AT.0 + gpa % 0x1000) } else { Gpa(gpa) };
            let stated = Stated { guest_format: FORMAT_ELF, gpa, len };
            if let Ok(note) = stated.read(&memory(&bytes), Endianness::Big) {
                prop_assert!(note.encoded_len() <= len as usize);
            }
        }
    }
}
