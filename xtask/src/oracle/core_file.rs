//! A plain reader of ELF cores of either byte order, from a file or from a pipe.
//!
//! It trusts what it reads: its inputs are QEMU's dumps and ours, and a wrong one fails the test anyway.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where PCs have memory of devices and firmware, below 4 GiB.
pub(crate) const FIRMWARE: std::ops::Range<u64> = 0xc000_0000..1 << 32;

/// ELF machines, by their numbers in the ELF header.
pub(crate) const EM_386: u16 = 3;
pub(crate) const EM_PPC64: u16 = 21;
pub(crate) const EM_S390: u16 = 22;
pub(crate) const EM_ARM: u16 = 40;
pub(crate) const EM_X86_64: u16 = 62;
pub(crate) const EM_AARCH64: u16 = 183;
pub(crate) const EM_RISCV: u16 = 243;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Byte order of the words of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = array_at(bytes, at);
        if self == Self::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(crate) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = array_at(bytes, at);
        if self == Self::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    pub(crate) fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let bytes = array_at(bytes, at);
        if self == Self::Big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) owner: String,
    pub(crate) note_type: u32,
    pub(crate) desc: Vec<u8>,
}

/// Everything before the memory.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) is_64: bool,
    pub(crate) order: Order,
    pub(crate) machine: u16,
    pub(crate) segments: Vec<Segment>,
    pub(crate) notes: Vec<Note>,
    /// Bytes that were read: the position in a pipe.
    pub(crate) len: u64,
}

impl Head {
    /// Reads up to the end of the notes and no byte more.
    pub(crate) fn read(input: &mut impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        need(&mut bytes, input, 52)?;
        let (is_64, order) = match bytes[..6] {
            [0x7f, b'E', b'L', b'F', class @ 1..=2, 1] => (class == 2, Order::Little),
            [0x7f, b'E', b'L', b'F', class @ 1..=2, 2] => (class == 2, Order::Big),
            _ => bail!("not an ELF file: it starts with {:x?}", &bytes[..6]),
        };
        let (phoff, entsize, count) = if is_64 {
            need(&mut bytes, input, 64)?;
            (order.u64(&bytes, 32), order.u16(&bytes, 54), order.u16(&bytes, 56))
        } else {
            (u64::from(order.u32(&bytes, 28)), order.u16(&bytes, 42), order.u16(&bytes, 44))
        };
        if count == 0xffff {
            bail!("too many segments for this reader");
        }
        let phoff = usize::try_from(phoff)?;
        need(&mut bytes, input, phoff + usize::from(entsize) * usize::from(count))?;
        let (mut segments, mut notes_at) = (Vec::new(), None);
        for index in 0..usize::from(count) {
            let (kind, segment) = segment(&bytes, phoff + index * usize::from(entsize), is_64, order);
            match kind {
                PT_LOAD => segments.push(segment),
                PT_NOTE => {
                    notes_at = Some((usize::try_from(segment.offset)?, usize::try_from(segment.filesz)?))
                }
                other => bail!("segment {index} has type {other:#x}"),
            }
        }
        let (start, len) = notes_at.context("the dump has no notes")?;
        need(&mut bytes, input, start + len)?;
        let notes = notes(&bytes[start..start + len], order)?;
        let machine = order.u16(&bytes, 18);
        Ok(Self { is_64, order, machine, segments, notes, len: bytes.len() as u64 })
    }

    /// Descriptors of all notes of an owner and type, in order.
    pub(crate) fn notes_of(&self, owner: &str, note_type: u32) -> Vec<&[u8]> {
        let notes = self.notes.iter().filter(|note| note.owner == owner && note.note_type == note_type);
        notes.map(|note| note.desc.as_slice()).collect()
    }

    /// The value of a line of the VMCOREINFO note.
    pub(crate) fn vmcoreinfo(&self, key: &str) -> Result<String> {
        let note = self.notes.iter().find(|note| note.owner == "VMCOREINFO").context("no VMCOREINFO note")?;
        let text = String::from_utf8_lossy(&note.desc);
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(str::to_owned).with_context(|| format!("VMCOREINFO has no {key}"))
    }

    /// Bytes of memory.
    pub(crate) fn memory_len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.memsz).sum()
    }

    /// A number of VMCOREINFO that is hexadecimal, with 0x.
    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        let value = self.vmcoreinfo(&format!("NUMBER({name})"))?;
        Ok(u64::from_str_radix(value.trim_start_matches("0x"), 16)?)
    }

    /// An address of VMCOREINFO, which has no 0x.
    pub(crate) fn symbol(&self, name: &str) -> Result<u64> {
        Ok(u64::from_str_radix(&self.vmcoreinfo(&format!("SYMBOL({name})"))?, 16)?)
    }
}

/// A dump on disk.
pub(crate) struct CoreFile {
    pub(crate) head: Head,
    pub(crate) file: File,
}

impl CoreFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let mut file = File::open(path)?;
            Ok(Self { head: Head::read(&mut file)?, file })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    /// Reads memory that lies in one segment. Bytes behind `p_filesz` are zero.
    pub(crate) fn read_physical(&self, paddr: u64, bytes: &mut [u8]) -> Result<()> {
        let len = bytes.len() as u64;
        let mut segments = self.head.segments.iter();
        let holds = |segment: &&Segment| {
            segment.offset != u64::MAX
                && paddr >= segment.paddr
                && paddr - segment.paddr + len <= segment.memsz
        };
        let segment =
            segments.find(holds).with_context(|| format!("no segment holds {paddr:#x}, {len:#x} bytes"))?;
        let start = paddr - segment.paddr;
        let stored = usize::try_from(segment.filesz.saturating_sub(start).min(len))?;
        let (stored, rest) = bytes.split_at_mut(stored);
        rest.fill(0);
        let context = || format!("reading {len:#x} bytes of segment {:#x}", segment.paddr);
        self.file.read_exact_at(stored, segment.offset + start).with_context(context)
    }

    /// The addresses of the pages of 4 KiB that begin with lines of that text, the first of which may be cut off.
    pub(crate) fn pages_of(&self, line: &str) -> Result<Vec<u64>> {
        let text = format!("{line}\n").repeat(4);
        let mut page = vec![0; 4096];
        let mut pages = Vec::new();
        for segment in &self.head.segments {
            for paddr in (segment.paddr..segment.paddr + segment.memsz).step_by(page.len()) {
                let len = page.len().min(usize::try_from(segment.paddr + segment.memsz - paddr)?);
                self.read_physical(paddr, &mut page[..len])?;
                if page.windows(text.len()).take(64).any(|bytes| bytes == text.as_bytes()) {
                    pages.push(paddr);
                }
            }
        }
        Ok(pages)
    }
}

fn segment(bytes: &[u8], at: usize, is_64: bool, order: Order) -> (u32, Segment) {
    let kind = order.u32(bytes, at);
    let word = |index: usize| u64::from(order.u32(bytes, at + 4 * index));
    let long = |index: usize| order.u64(bytes, at + 8 * index);
    let segment = if is_64 {
        Segment { offset: long(1), vaddr: long(2), paddr: long(3), filesz: long(4), memsz: long(5) }
    } else {
        Segment { offset: word(1), vaddr: word(2), paddr: word(3), filesz: word(4), memsz: word(5) }
    };
    (kind, segment)
}

fn notes(bytes: &[u8], order: Order) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let field = |index: usize| {
            bytes.get(at + 4 * index..at + 4 * index + 4).map(|_| order.u32(bytes, at + 4 * index))
        };
        let (name_len, desc_len, note_type) = match (field(0), field(1), field(2)) {
            (Some(name), Some(desc), Some(kind)) => (usize::try_from(name)?, usize::try_from(desc)?, kind),
            _ => bail!("the note at {at:#x} is cut off"),
        };
        let name_at = at + 12;
        let desc_at = name_at + name_len.next_multiple_of(4);
        let (owner, desc) = (bytes.get(name_at..name_at + name_len), bytes.get(desc_at..desc_at + desc_len));
        let (owner, desc) = owner.zip(desc).with_context(|| format!("the note at {at:#x} is cut off"))?;
        let owner = String::from_utf8_lossy(owner).trim_end_matches('\0').to_owned();
        notes.push(Note { owner, note_type, desc: desc.to_vec() });
        at = desc_at + desc_len.next_multiple_of(4);
    }
    Ok(notes)
}

/// Reads until `len` bytes are there.
fn need(bytes: &mut Vec<u8>, input: &mut impl Read, len: usize) -> Result<()> {
    let missing = len.saturating_sub(bytes.len()) as u64;
    let got = input.by_ref().take(missing).read_to_end(bytes)? as u64;
    if got < missing {
        bail!("the dump ends after {} bytes, its head needs {len}", bytes.len());
    }
    Ok(())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has that length")
}
