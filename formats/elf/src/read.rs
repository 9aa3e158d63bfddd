//! Opens a core: QEMU's of any version, `/proc/vmcore`, cloud-hypervisor's, ours.
//!
//! Trusted are `e_phoff`, `e_phentsize` and the program headers; section headers only for `PN_XNUM`, because QEMU 7.2
//! writes one of them in the wrong byte order. What a known program does wrong is a [`Finding`], and is set right.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod miscounted;

use crate::header::{
    EF_INCOMPLETE, EI_NIDENT, ET_CORE, Ehdr, PN_XNUM, PT_LOAD, PT_NOTE, Phdr, Shdr, header_len, nowhere,
    read_ident,
};
use std::sync::Arc;
use vmcore_core::read_at::read_vec;
use vmcore_core::{
    Class, Endianness, Error, Finding, Gpa, Gva, Identity, Machine, Mapping, Note, NoteIter, Piece, PieceMap,
    PieceMemory, Place, ReadAt, Record, Severity,
};

/// The most program headers that are read and written: over a million of them. Real dumps have a handful, those with
/// virtual addresses thousands.
pub(crate) const MAX_PROGRAM_HEADERS_LEN: u64 = 64 << 20;
/// The most notes that are read: a vCPU has a dozen at the most.
const MAX_NOTES: usize = 1 << 17;
/// The most bytes of notes that are read, all segments together: 250 vCPUs have 150 KiB.
const MAX_NOTES_LEN: u64 = 64 << 20;

/// Whether a file that begins with `head` is an ELF core.
pub(crate) fn is_core(head: &[u8]) -> bool {
    let Some((class, endianness)) = read_ident(head) else { return false };
    let header = head.get(EI_NIDENT..).and_then(|rest| Ehdr::decode(rest, class, endianness));
    header.is_some_and(|header| header.e_type == ET_CORE)
}

/// Opens the core in `file`.
pub(crate) fn open(file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
    let mut core = Core::read_headers(&*file)?;
    let notes = core.read_notes(&*file)?;
    let is_qemu = notes.iter().any(|note| note.owner() == b"QEMU");
    let (pieces, mappings) = core.memory(file.byte_len(), is_qemu)?;
    let identity = Identity {
        elf_machine: u16::try_from(core.header.e_machine).unwrap_or_default(),
        class: core.class,
        endianness: core.endianness,
        elf_flags: u32::try_from(core.header.e_flags & !EF_INCOMPLETE).unwrap_or_default(),
    };
    let is_sequential = file.is_sequential();
    let memory = Arc::new(PieceMemory::new(file, pieces));
    let mut machine = Machine::from_notes(identity, memory, notes);
    machine.mappings = mappings;
    machine.is_incomplete = core.header.e_flags & EF_INCOMPLETE != 0;
    if machine.is_incomplete {
        core.note(None, "the dump says of itself that it is not finished");
    }
    if machine.vcpus.is_empty() && machine.arch.is_some() && !is_sequential {
        core.note(None, "there are no registers of any vCPU in it");
    }
    machine.findings.append(&mut core.findings);
    Ok(machine)
}

/// The headers of a core, and what was noticed about them.
struct Core {
    class: Class,
    endianness: Endianness,
    header: Ehdr,
    /// Program headers with their offsets in the file.
    segments: Vec<(u64, Phdr)>,
    findings: Vec<Finding>,
}

impl Core {
    fn note(&mut self, offset: Option<u64>, text: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Note, offset, text: text.into() });
    }

    fn error(&mut self, offset: Option<u64>, text: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Error, offset, text: text.into() });
    }

    fn read_headers(file: &dyn ReadAt) -> Result<Self, Error> {
        let head = read_vec(file, 0, EI_NIDENT as u64, "ELF header")?;
        let (class, endianness) = read_ident(&head).ok_or(Error::Invalid {
            what: "ELF identification",
            offset: 0,
            found: Endianness::Big.decode(head.get(..8).unwrap_or_default()),
            expected: "7f 45 4c 46, class 1 or 2, byte order 1 or 2",
        })?;
        let header: Ehdr = read_record(file, EI_NIDENT as u64, class, endianness, "ELF header")?;
        let mut core = Self { class, endianness, header, segments: Vec::new(), findings: Vec::new() };
        let invalid = |what, offset, found, expected| Err(Error::Invalid { what, offset, found, expected });
        if header.e_type != ET_CORE {
            return invalid("e_type", 16, header.e_type, "4 (a core)");
        }
        let entry_len = Phdr::encoded_len(class) as u64;
        if header.e_phentsize < entry_len && header.e_phnum != 0 {
            return invalid(
                "e_phentsize",
                if class == Class::Elf64 { 54 } else { 42 },
                header.e_phentsize,
                "56 (ELF64) or 32 (ELF32)",
            );
        }
        if header.e_ehsize != header_len(class) as u64 {
            // QEMU 7.2 to 10.0 write the size of a pointer. Nobody reads the field.
            core.note(
                Some(52),
                format!(
                    "e_ehsize is {}, not {} (QEMU 7.2 to 10.0 do that)",
                    header.e_ehsize,
                    header_len(class)
                ),
            );
        }
        if header.e_phoff != header_len(class) as u64 {
            core.note(
                Some(32),
                format!("the program headers stand at {:#x}: makedumpfile does not find them there (QEMU since 7.2 does that)", header.e_phoff),
            );
        }
        let count = core.header_count(file)?;
        let len = count.saturating_mul(header.e_phentsize);
        if len > MAX_PROGRAM_HEADERS_LEN {
            return Err(Error::TooLarge {
                what: "bytes of program headers",
                found: len,
                limit: MAX_PROGRAM_HEADERS_LEN,
            });
        }
        let bytes = read_vec(file, header.e_phoff, len, "program headers")?;
        let entry = usize::try_from(header.e_phentsize).unwrap_or(usize::MAX).max(1);
        let offsets =
            (0..).map(|index: u64| header.e_phoff.saturating_add(index.saturating_mul(header.e_phentsize)));
        let decoded = bytes.chunks_exact(entry).filter_map(|entry| Phdr::decode(entry, class, endianness));
        // Unused entries are all zeros.
        core.segments = offsets.zip(decoded).filter(|(_, phdr)| phdr.p_type != 0).collect();
        Ok(core)
    }

    fn header_count(&self, file: &dyn ReadAt) -> Result<u64, Error> {
        if self.header.e_phnum != PN_XNUM || self.header.e_shoff == 0 {
            return Ok(self.header.e_phnum);
        }
        let section: Shdr =
            read_record(file, self.header.e_shoff, self.class, self.endianness, "section header 0")?;
        // Some writers have exactly 65,535 headers and leave the section header alone.
        Ok(if section.sh_info == 0 { PN_XNUM } else { section.sh_info })
    }

    fn read_notes(&mut self, file: &dyn ReadAt) -> Result<Vec<Note>, Error> {
        let mut notes = Vec::new();
        let mut total = 0_u64;
        let segments: Vec<Phdr> =
            self.segments.iter().map(|(_, phdr)| *phdr).filter(|phdr| phdr.p_type == PT_NOTE).collect();
        // Those who count their notes wrongly write one segment of them. Of many, each would be looked into.
        let may_be_miscounted = !file.is_sequential() && segments.len() == 1;
        for phdr in segments {
            if may_be_miscounted && let Some(uneven) = self.find_uneven(file, &phdr)? {
                notes.extend(uneven);
                continue;
            }
            let have = file.byte_len().saturating_sub(phdr.p_offset);
            total = total.saturating_add(phdr.p_filesz);
            if total > MAX_NOTES_LEN {
                return Err(Error::TooLarge { what: "bytes of notes", found: total, limit: MAX_NOTES_LEN });
            }
            let mut len = phdr.p_filesz;
            if len > have {
                self.error(
                    Some(phdr.p_offset),
                    format!(
                        "the notes end at {:#x}, the file ends before",
                        phdr.p_offset.saturating_add(len)
                    ),
                );
                len = have;
            }
            let bytes = read_vec(file, phdr.p_offset, len, "notes")?;
            for note in NoteIter::new(&bytes, phdr.p_offset, self.endianness, phdr.p_align) {
                match note {
                    Ok(_) if notes.len() == MAX_NOTES => {
                        let limit = MAX_NOTES as u64;
                        return Err(Error::TooLarge { what: "notes", found: limit.saturating_add(1), limit });
                    }
                    Ok(note) => notes.push(note),
                    Err(error) => self.error(Some(phdr.p_offset), format!("damaged notes: {error}")),
                }
            }
            if may_be_miscounted {
                self.find_overrun(file, phdr.p_offset.saturating_add(len), &mut notes)?;
            }
        }
        Ok(notes)
    }

    /// The memory of all `PT_LOAD`s, and their virtual addresses if they have any.
    fn memory(&mut self, file_len: u64, is_qemu: bool) -> Result<(Vec<Piece>, Vec<Mapping>), Error> {
        self.name_other_segments();
        let nowhere = nowhere(self.class);
        let mut loads: Vec<(u64, Phdr)> = self
            .segments
            .iter()
            .filter(|(_, phdr)| phdr.p_type == PT_LOAD && phdr.p_memsz | phdr.p_filesz != 0)
            .copied()
            .collect();
        loads.retain(|(at, phdr)| {
            let is_known = phdr.p_paddr != nowhere;
            if !is_known {
                self.note(
                    Some(*at),
                    format!(
                        "a segment at virtual address {:#x} has no physical address; it is left out",
                        phdr.p_vaddr
                    ),
                );
            }
            is_known
        });
        let is_process = |(_, phdr): &(u64, Phdr)| phdr.p_paddr == 0 && phdr.p_vaddr != 0;
        // The first page of a guest may have several virtual addresses; they all stand at one place of the file.
        let is_apart = |pair: &[(u64, Phdr)]| matches!(pair, [(_, a), (_, b)] if a.p_offset != b.p_offset);
        if loads.iter().all(is_process) && loads.windows(2).any(is_apart) {
            let found = "all its segments have the physical address 0".to_owned();
            return Err(Error::Unsupported { what: "the core of a process, not of a machine,", found });
        }
        let is_virtual = |phdr: &Phdr| phdr.p_vaddr != phdr.p_paddr && phdr.p_vaddr != 0;
        let has_mappings = loads.iter().any(|(_, phdr)| is_virtual(phdr));
        let mut mappings = Vec::new();
        // Bytes behind `p_filesz` are zero; but QEMU's paging dumps cut `p_filesz` where the first RAM block of a large
        // page ends, and what follows may be anything.
        let tail = if has_mappings && is_qemu { Place::Mmio } else { Place::Zero };
        // What is stored counts before what is not.
        let mut stored = Vec::new();
        let mut zero = Vec::new();
        for (index, (at, phdr)) in loads.into_iter().enumerate() {
            let len = phdr.p_memsz.max(phdr.p_filesz);
            if phdr.p_paddr.checked_add(len).is_none() {
                self.error(
                    Some(at),
                    format!("a segment at {:#x} of {len:#x} bytes passes the end of the address space; it is left out", phdr.p_paddr),
                );
                continue;
            }
            let gva = Gva(if phdr.p_vaddr == 0 { phdr.p_paddr } else { phdr.p_vaddr });
            if has_mappings {
                mappings.push(Mapping { gpa: Gpa(phdr.p_paddr), gva, len });
            }
            // In a dump with virtual addresses many segments share memory: they make no regions of their own.
            let segment = if has_mappings { 0 } else { index };
            let piece = |start: u64, end: u64, place| Piece {
                gpa: Gpa(phdr.p_paddr.saturating_add(start)),
                len: end.saturating_sub(start),
                place,
                segment,
            };
            if phdr.p_filesz == 0 && phdr.p_offset == nowhere {
                zero.push(piece(0, len, Place::Mmio));
                continue;
            }
            let in_file = file_len.saturating_sub(phdr.p_offset).min(phdr.p_filesz);
            if in_file < phdr.p_filesz {
                let end = phdr.p_offset.saturating_add(phdr.p_filesz);
                self.error(Some(at), format!("the dump is cut off: memory from {:#x} on, {:#x} bytes, should end at {end:#x}, the file ends at {file_len:#x}", phdr.p_paddr.saturating_add(in_file), phdr.p_filesz.saturating_sub(in_file)));
            }
            stored.push(piece(0, in_file, Place::File(phdr.p_offset)));
            zero.push(piece(in_file, phdr.p_filesz, Place::Missing));
            zero.push(piece(phdr.p_filesz, len, tail));
        }
        let mut map = PieceMap::default();
        for piece in stored.into_iter().chain(zero).filter(|piece| piece.len > 0) {
            map.add(piece);
        }
        Ok((map.into_pieces(), mappings))
    }

    fn name_other_segments(&mut self) {
        let others: Vec<(u64, u64)> = self
            .segments
            .iter()
            .map(|(at, phdr)| (*at, phdr.p_type))
            .filter(|(_, kind)| ![PT_LOAD, PT_NOTE].contains(kind))
            .collect();
        for (at, kind) in others {
            self.note(
                Some(at),
                format!(
                    "a segment of type {kind:#x} is neither memory nor notes; a conversion leaves it out"
                ),
            );
        }
    }
}

/// Reads one structure.
fn read_record<T: Record<Form = Class>>(
    file: &dyn ReadAt,
    offset: u64,
    class: Class,
    endianness: Endianness,
    what: &'static str,
) -> Result<T, Error> {
    let need = T::encoded_len(class) as u64;
    let bytes = read_vec(file, offset, need, what)?;
    T::decode(&bytes, class, endianness).ok_or(Error::Truncated {
        what,
        offset,
        need,
        have: bytes.len() as u64,
    })
}
