//! What looks like a note in guest memory: the test that an address must pass before anything is made of it.
//!
//! ```text
//! 0        4        8       12                24      24+round4(descsz)
//! namesz   descsz   0       VMCOREINFO\0\0    text    12 zeros            a note
//!                                             text    zeros               the kernel's copy without a header
//! ```
//!
//! The header is in the kernel's byte order.
//! Source: `spec/vmcoreinfo.md` sections 1 and 5.2; of Xen's note section 5.5 and Xen `common/kexec.c`.

use crate::note::FIRST_KEY;
use vmcore_core::{Endianness, Gpa, Note, PhysMemory, Vmcoreinfo};

/// Distance of the name from the header's start.
pub(crate) const NAME_OFFSET: usize = 12;
/// How the names of both notes begin, the kernel's and Xen's.
pub(crate) const NAME_START: &[u8] = b"VMCOREINFO";
/// Name fields with their padding.
const NAME: &[u8] = b"VMCOREINFO\0\0";
const XEN_NAME: &[u8] = b"VMCOREINFO_XEN\0\0";
/// A text is shorter than a page of the guest, and says something.
const TEXT_LEN: std::ops::RangeInclusive<usize> = 64..=0x1_0000;
/// How much of a text without a header is read at once.
const STEP: usize = 0x1000;
/// Keys that Xen always gives, and no kernel.
const XEN_KEY: &str = "domain_list";

/// How a candidate lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A note with its header.
    Note,
    /// The text alone.
    Text,
}

/// A note, or the text of one, that lies in guest memory and is a kernel's, as far as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where its header begins, or its text.
    pub gpa: Gpa,
    /// Which of both it is.
    pub shape: Shape,
    text: Vec<u8>,
    info: Vmcoreinfo,
}

impl Candidate {
    /// What lies at `gpa`, if it is a note or a text of one, all of it in memory. `endianness` is the guest's.
    #[must_use]
    pub fn read(memory: &dyn PhysMemory, gpa: Gpa, endianness: Endianness) -> Option<Self> {
        let (shape, text) = match read_named(memory, gpa, NAME, endianness) {
            Some(text) => (Shape::Note, text),
            None => (Shape::Text, read_text(memory, gpa)?),
        };
        let is_text = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
        if !TEXT_LEN.contains(&text.len()) || !text.starts_with(FIRST_KEY) || !text.iter().all(is_text) {
            return None;
        }
        let info = Vmcoreinfo::parse(&text);
        let is_complete = info.page_size().is_some() && info.symbol("init_uts_ns").is_some();
        is_complete.then_some(Self { gpa, shape, text, info })
    }

    /// What it says.
    #[must_use]
    pub fn info(&self) -> &Vmcoreinfo {
        &self.info
    }

    /// The note for a dump. Its text ends with a line break, without which drgn would not see the last line.
    #[must_use]
    pub fn note(&self) -> Note {
        let mut text = self.text.clone();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Note::new("VMCOREINFO", 0, text)
    }

    /// Whether both say the same, wherever they lie.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// The note of a Xen hypervisor that lies at `gpa`: `VMCOREINFO_XEN`, whose text fills what is left of a page with zeros.
#[must_use]
pub(crate) fn read_xen(memory: &dyn PhysMemory, gpa: Gpa, endianness: Endianness) -> Option<Note> {
    let desc = read_named(memory, gpa, XEN_NAME, endianness)?;
    let info = Vmcoreinfo::parse(&desc);
    let is_complete = info.page_size().is_some() && info.symbol(XEN_KEY).is_some();
    is_complete.then(|| Note::new("VMCOREINFO_XEN", 0, desc))
}

/// The descriptor of the note at `gpa` that has this name field and type 0.
fn read_named(memory: &dyn PhysMemory, gpa: Gpa, name: &[u8], endianness: Endianness) -> Option<Vec<u8>> {
    let mut head = [0; NAME_OFFSET + XEN_NAME.len()];
    let head = &mut head[..NAME_OFFSET + name.len()];
    read(memory, gpa, head)?;
    let word = |offset| endianness.u32_at(head, offset);
    // The length of the name is that of the field but for one byte of padding.
    let name_len = name.len() as u64 - 1;
    let is_named = word(0).map(u64::from) == Some(name_len) && head.ends_with(name) && word(8) == Some(0);
    let len = usize::try_from(word(4)?).ok().filter(|len| is_named && TEXT_LEN.contains(len))?;
    let mut desc = vec![0; len];
    read(memory, gpa.checked_add(head.len() as u64)?, &mut desc)?;
    Some(desc)
}

/// The text at `gpa` up to its first NUL.
fn read_text(memory: &dyn PhysMemory, gpa: Gpa) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() <= *TEXT_LEN.end() {
        let start = text.len();
        text.resize(start + STEP, 0);
        let at = gpa.checked_add(start as u64)?;
        let unreadable = memory.read_at(at, &mut text[start..]).ok()?;
        if !text.starts_with(FIRST_KEY) {
            return None;
        }
        if let Some(end) = text[start..].iter().position(|byte| *byte == 0) {
            // What cannot be read is zero, too.
            let is_there = unreadable.ranges().first().is_none_or(|range| range.start > at.0 + end as u64);
            text.truncate(start + end);
            return is_there.then_some(text);
        }
    }
    None
}

/// All of `buf`, or nothing.
fn read(memory: &dyn PhysMemory, gpa: Gpa, buf: &mut [u8]) -> Option<()> {
    memory.read_at(gpa, buf).is_ok_and(|unreadable| unreadable.is_empty()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore_core::memory::BlockMemory;

    const TEXT: &str = "OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff82200010\nCRASHTIME=1\n";
    const AT: u64 = 0x1000;

    /// What a kernel leaves in memory: a note and the zeros behind it.
    fn note(name: &str, text: &[u8], order: Endianness) -> Vec<u8> {
        let mut bytes = Vec::new();
        Note::new(name, 0, text.to_vec()).encode(order, &mut bytes).unwrap();
        bytes
    }

    fn memory(at: u64, bytes: &[u8]) -> BlockMemory {
        let mut ram = vec![0; 0x3000];
        let start = usize::try_from(at - AT).unwrap();
        ram[start..start + bytes.len()].copy_from_slice(bytes);
        BlockMemory::new(vec![(Gpa(AT), ram)]).unwrap()
    }

    #[track_caller]
    fn check(at: u64, bytes: &[u8], order: Endianness, expected: Option<Shape>) {
        let found = Candidate::read(&memory(at, bytes), Gpa(at), order);
        assert_eq!(found.map(|found| found.shape), expected);
    }

    #[test]
    fn each_rule() {
        use Endianness::{Big, Little};
        let good = note("VMCOREINFO", TEXT.as_bytes(), Little);
        check(AT, &good, Little, Some(Shape::Note));
        check(AT + 0x7fc, &good, Little, Some(Shape::Note));
        check(AT, &note("VMCOREINFO", TEXT.as_bytes(), Big), Big, Some(Shape::Note));
        check(AT, TEXT.as_bytes(), Big, Some(Shape::Text));
        // The other byte order, another name or type.
        check(AT, &good, Big, None);
        check(AT, &note("VMCOREINFI", TEXT.as_bytes(), Little), Little, None);
        check(AT, &[&good[..8], &[1], &good[9..]].concat(), Little, None);
        // Lines that must be there, and bytes that must not.
        let with = |old: &str, new: &str| TEXT.replace(old, new).into_bytes();
        for text in [
            with("OSRELEASE", "OSRELEASX"),
            with("PAGESIZE=4096", "PAGESIZE=4095"),
            with("PAGESIZE", "PAGESIZ"),
            with("init_uts_ns", "init_uts_no"),
            with("CRASHTIME", "CRASHTIM\t"),
            with("CRASHTIME", "CRASHTIM\u{7f}"),
            with("CRASHTIME", "CRASHTIM\0"),
            b"OSRELEASE=1\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=1\n".to_vec(),
        ] {
            check(AT, &note("VMCOREINFO", &text, Little), Little, None);
        }
        // Longer than any page.
        let long = |len: usize| [TEXT.as_bytes(), &vec![b'A'; len - TEXT.len()]].concat();
        let mut huge = memory(AT, &[]);
        for (len, is_one) in [(0x1_0000, true), (0x1_0001, false)] {
            for bytes in [note("VMCOREINFO", &long(len), Little), long(len)] {
                huge = BlockMemory::new(vec![(Gpa(AT), [bytes, vec![0; 16]].concat())]).unwrap();
                assert_eq!(Candidate::read(&huge, Gpa(AT), Little).is_some(), is_one, "{len:#x}");
            }
        }
        assert!(Candidate::read(&huge, Gpa(u64::MAX - 3), Little).is_none());
    }

    #[test]
    fn all_of_it_is_in_memory() {
        let good = note("VMCOREINFO", TEXT.as_bytes(), Endianness::Little);
        let end = AT + 0x3000;
        let read = |at: u64, bytes: &[u8]| {
            let start = usize::try_from(at - AT).unwrap();
            let mut ram = vec![0; 0x3000];
            let len = bytes.len().min(ram.len() - start);
            ram[start..start + len].copy_from_slice(&bytes[..len]);
            let memory = BlockMemory::new(vec![(Gpa(AT), ram)]).unwrap();
            Candidate::read(&memory, Gpa(at), Endianness::Little).is_some()
        };
        assert!(read(end - good.len() as u64, &good));
        assert!(!read(end - good.len() as u64 + 4, &good));
        assert!(!read(end - 8, &good));
        assert!(read(end - TEXT.len() as u64 - 1, TEXT.as_bytes()));
        assert!(!read(end - TEXT.len() as u64, TEXT.as_bytes()), "where it ends is not known");
    }

    #[test]
    fn the_note_of_a_dump_ends_with_a_line() {
        let old = TEXT.trim_end();
        let found = Candidate::read(&memory(AT, old.as_bytes()), Gpa(AT), Endianness::Little).unwrap();
        assert_eq!(found.note(), Note::new("VMCOREINFO", 0, TEXT.as_bytes().to_vec()));
        assert_eq!(found.info().get("CRASHTIME"), Some("1"));
    }

    #[test]
    fn xen_has_a_name_of_its_own() {
        let text = [b"PAGESIZE=4096\nSYMBOL(domain_list)=ffff82d0405a0000\n".to_vec(), vec![0; 200]].concat();
        let bytes = note("VMCOREINFO_XEN", &text, Endianness::Little);
        let memory = memory(AT, &bytes);
        let found = read_xen(&memory, Gpa(AT), Endianness::Little).unwrap();
        assert_eq!(found, Note::new("VMCOREINFO_XEN", 0, text));
        assert!(Candidate::read(&memory, Gpa(AT), Endianness::Little).is_none());
        assert!(read_xen(&memory, Gpa(AT), Endianness::Big).is_none());
    }
}
