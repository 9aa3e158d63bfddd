//! Opens a core: VirtualBox's of any release, and ours.
//!
//! What a known release does wrong is a [`Finding`], and is set right where it can be.
//!
//! Source: `spec/vbox-core.md` sections 1, 2 and 4.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::cpu::Cpu;
use crate::header::{
    CORE_MAGIC, EF_INCOMPLETE, EM_386, EM_X86_64, ET_CORE, Ehdr, FORMAT_MAJOR, MAGIC, PF_R, PT_LOAD, PT_NOTE,
    Phdr,
};
use crate::notes::{self, Descriptor, Kind, is_of_kind};
use std::sync::Arc;
use vmcore_core::note::HEADER_LEN;
use vmcore_core::read_at::read_vec;
use vmcore_core::{
    Class, Endianness, Error, Finding, Gpa, Identity, Machine, Note, NoteIter, Piece, PieceMap, PieceMemory,
    Place, ReadAt, Severity,
};
use zerocopy::FromBytes;

const EHDR_LEN: u64 = size_of::<Ehdr>() as u64;
const PHDR_LEN: u64 = size_of::<Phdr>() as u64;
/// The most bytes of notes that are read: those of 7,000 vCPUs. VirtualBox's guests have 64 at the most.
const MAX_NOTES_LEN: u64 = 64 << 20;
/// The most notes that are read.
const MAX_NOTES: usize = 1 << 17;
/// The most CPU records that are read; more are carried along.
const MAX_VCPUS: usize = 8192;
/// VirtualBox knows no other pages.
const PAGE_SIZE: u64 = 0x1000;

/// Whether a file that begins with `head` is a VirtualBox core: an ELF core whose first note is VirtualBox's.
///
/// Where program headers fill the head, so that the notes are out of sight, these must all be as VirtualBox has them.
pub(crate) fn is_vbox(head: &[u8]) -> bool {
    let Some(ehdr) = ehdr_of(head) else { return false };
    let Some(notes) = phdrs_of(head, &ehdr).next().filter(|phdr| phdr.p_type.get() == PT_NOTE) else {
        return false;
    };
    let first = usize::try_from(notes.p_offset.get()).ok().and_then(|offset| head.get(offset..));
    match first.filter(|first| first.len() >= HEADER_LEN + LONGEST_NAME) {
        Some(first) => first_note_is_ours(first),
        None => {
            let is_ours = |phdr: &Phdr| {
                phdr.p_flags.get() == PF_R && phdr.p_vaddr.get() == 0 && phdr.p_align.get() == 0
            };
            let end = EHDR_LEN.saturating_add(PHDR_LEN.saturating_mul(ehdr.e_phnum.get().into()));
            notes.p_offset.get() == end
                && ehdr.e_phnum.get() > 1
                && phdrs_of(head, &ehdr).all(|phdr| is_ours(&phdr))
        }
    }
}

/// `VBOXCORE` and its NUL, padded.
const LONGEST_NAME: usize = 12;

fn first_note_is_ours(bytes: &[u8]) -> bool {
    let word = |at| Endianness::Little.u32_at(bytes, at);
    let owner = || {
        let len = usize::try_from(word(0)?).ok()?;
        bytes.get(HEADER_LEN..HEADER_LEN.checked_add(len)?)
    };
    owner().zip(word(8)).is_some_and(|(owner, note_type)| notes::kind_of(owner, note_type).is_some())
}

/// The header of a 64-bit little-endian core, if `head` begins with one.
fn ehdr_of(head: &[u8]) -> Option<Ehdr> {
    let (ehdr, _) = Ehdr::read_from_prefix(head).ok()?;
    let is_core = ehdr.magic == MAGIC && ehdr.e_type.get() == ET_CORE;
    let is_plain = ehdr.e_phoff.get() == EHDR_LEN && u64::from(ehdr.e_phentsize.get()) == PHDR_LEN;
    Some(ehdr).filter(|_| is_core && is_plain)
}

/// The program headers that are in `head` as a whole.
fn phdrs_of<'a>(head: &'a [u8], ehdr: &Ehdr) -> impl Iterator<Item = Phdr> + use<'a> {
    let rest = head.get(size_of::<Ehdr>()..).unwrap_or_default();
    let whole = rest.chunks_exact(size_of::<Phdr>()).take(ehdr.e_phnum.get().into());
    whole.filter_map(|bytes| Phdr::read_from_bytes(bytes).ok())
}

/// Opens the core in `file`.
pub(crate) fn open(file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
    let mut core = Core::read_headers(&*file)?;
    let notes = core.read_notes(&*file)?;
    let (ours, others) = notes::split(notes);
    core.check_descriptor(&ours)?;
    core.set_offsets_right(&*file)?;
    let pieces = core.memory(file.byte_len());
    let identity = Identity {
        elf_machine: core.machine_of(&ours, &others),
        class: Class::Elf64,
        endianness: Endianness::Little,
        elf_flags: 0,
    };
    let mut machine = Machine::from_notes(identity, Arc::new(PieceMemory::new(file, pieces)), others);
    for text in notes::take(&mut machine, ours, MAX_VCPUS) {
        core.error(None, text);
    }
    machine.is_incomplete = core.ehdr.e_flags.get() & EF_INCOMPLETE != 0;
    if machine.is_incomplete {
        core.note(None, "the dump says of itself that it is not finished");
    }
    machine.findings.append(&mut core.findings);
    Ok(machine)
}

/// The headers of a core, and what was noticed about them.
struct Core {
    ehdr: Ehdr,
    phdrs: Vec<Phdr>,
    /// Where the descriptor of the first note stands.
    descriptor_offset: u64,
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
        let head = read_vec(file, 0, EHDR_LEN, "ELF header")?;
        let ehdr = ehdr_of(&head).ok_or(Error::Invalid {
            what: "ELF identification",
            offset: 0,
            found: Endianness::Big.decode(head.get(..8).unwrap_or_default()),
            expected: "that of a 64-bit little-endian core, with program headers of 56 bytes at offset 64",
        })?;
        // 65,535 is a number like others: there are no sections that could hold a larger one.
        let len = PHDR_LEN.saturating_mul(ehdr.e_phnum.get().into());
        let bytes = read_vec(file, EHDR_LEN, len, "program headers")?;
        let all = [head, bytes].concat();
        let phdrs = phdrs_of(&all, &ehdr).collect();
        Ok(Self { ehdr, phdrs, descriptor_offset: 0, findings: Vec::new() })
    }

    /// The program headers of this type, each with its offset.
    fn segments(&self, p_type: u32) -> impl Iterator<Item = (u64, Phdr)> {
        let offset = |index: u64| EHDR_LEN.saturating_add(PHDR_LEN.saturating_mul(index));
        let all = (0..).map(offset).zip(self.phdrs.iter().copied());
        all.filter(move |(_, phdr)| phdr.p_type.get() == p_type)
    }

    fn read_notes(&mut self, file: &dyn ReadAt) -> Result<Vec<Note>, Error> {
        let mut notes = Vec::new();
        let mut total = 0_u64;
        let segments: Vec<Phdr> = self.segments(PT_NOTE).map(|(_, phdr)| phdr).collect();
        for phdr in segments {
            let (offset, mut len) = (phdr.p_offset.get(), phdr.p_filesz.get());
            total = total.saturating_add(len);
            if total > MAX_NOTES_LEN {
                return Err(Error::TooLarge { what: "bytes of notes", found: total, limit: MAX_NOTES_LEN });
            }
            let have = file.byte_len().saturating_sub(offset);
            if len > have {
                let end = offset.saturating_add(len);
                self.error(Some(offset), format!("the notes end at {end:#x}, the file ends before"));
                len = have;
            }
            let bytes = read_vec(file, offset, len, "notes")?;
            // Both forms of padding agree for all lengths that there are.
            let mut iter = NoteIter::new(&bytes, offset, Endianness::Little, 4);
            while let Some(note) = iter.next() {
                match note {
                    Ok(_) if notes.len() == MAX_NOTES => {
                        let limit = MAX_NOTES as u64;
                        return Err(Error::TooLarge { what: "notes", found: limit.saturating_add(1), limit });
                    }
                    Ok(note) => {
                        if notes.is_empty() {
                            let place = iter.position().saturating_sub(note.desc.len().next_multiple_of(4));
                            self.descriptor_offset = offset.saturating_add(place as u64);
                        }
                        notes.push(note);
                    }
                    Err(error) => self.error(Some(offset), format!("damaged notes: {error}")),
                }
            }
        }
        Ok(notes)
    }

    /// Looks at what the core says of itself.
    fn check_descriptor(&mut self, ours: &[Note]) -> Result<(), Error> {
        let offset = self.descriptor_offset;
        if ours.is_empty() {
            let found = format!("an ELF core with no such note at offset {offset:#x} or behind");
            return Err(Error::Unsupported { what: "a VirtualBox core without VirtualBox's notes", found });
        }
        let count = ours.iter().filter(|note| is_of_kind(note, Kind::Cpu)).count();
        let Some(descriptor) = ours.iter().find_map(Descriptor::of_note) else {
            self.note(
                Some(offset),
                "there is no core descriptor (VirtualBox of early September 2010 wrote none)",
            );
            return Ok(());
        };
        if descriptor.magic != CORE_MAGIC {
            return Err(Error::Invalid {
                what: "the magic of VirtualBox's core descriptor",
                offset,
                found: descriptor.magic.into(),
                expected: "0xc01ac0de",
            });
        }
        if let Some(version) = descriptor.format_version.filter(|version| version & !0xffff != FORMAT_MAJOR) {
            self.note(
                Some(offset),
                format!("the version of the format is {version:#x}, not {FORMAT_MAJOR:#x} or a little more"),
            );
        }
        let stated = descriptor.cpu_count;
        if u32::try_from(count).is_ok_and(|count| count < stated) {
            self.error(
                Some(offset),
                format!("the core is to have {stated} vCPUs, it has the registers of {count}"),
            );
        } else if u32::try_from(count) != Ok(stated) {
            self.note(
                Some(offset),
                format!("the core is to have {stated} vCPUs, it has the registers of {count}"),
            );
        }
        Ok(())
    }

    /// Sets the offsets of memory right in cores of September 2010, which forgot to count the headers of memory themselves.
    fn set_offsets_right(&mut self, file: &dyn ReadAt) -> Result<(), Error> {
        let ends =
            self.segments(PT_NOTE).map(|(_, phdr)| phdr.p_offset.get().saturating_add(phdr.p_filesz.get()));
        let Some(notes_end) = ends.max() else { return Ok(()) };
        let loads: Vec<Phdr> = self.segments(PT_LOAD).map(|(_, phdr)| phdr).collect();
        let Some(first) = loads.first().map(|phdr| phdr.p_offset.get()) else { return Ok(()) };
        let missing = PHDR_LEN.saturating_mul(loads.len() as u64);
        if notes_end.checked_sub(first) != Some(missing) {
            return Ok(());
        }
        self.note(
            Some(notes_end),
            format!("all memory is read {missing:#x} bytes further back than the headers say (VirtualBox of September 2010 did not count them)"),
        );
        for phdr in self.phdrs.iter_mut().filter(|phdr| phdr.p_type.get() == PT_LOAD) {
            phdr.p_offset.set(phdr.p_offset.get().saturating_add(missing));
        }
        self.find_copies(file)
    }

    /// The same cores repeat the first page of a range over all of it: what was there is lost.
    fn find_copies(&mut self, file: &dyn ReadAt) -> Result<(), Error> {
        let mut copied = 0_u64;
        let ranges: Vec<Phdr> = self.segments(PT_LOAD).map(|(_, phdr)| phdr).collect();
        for phdr in &ranges {
            let pages = phdr.p_filesz.get() / PAGE_SIZE;
            if pages < 2 {
                continue;
            }
            let page = |index: u64| -> Result<Vec<u8>, Error> {
                let offset = phdr.p_offset.get().saturating_add(index.saturating_mul(PAGE_SIZE));
                let have = file.byte_len().saturating_sub(offset).min(PAGE_SIZE);
                read_vec(file, offset, have, "a page of memory")
            };
            let first = page(0)?;
            if first.iter().all(|byte| *byte == 0) {
                continue;
            }
            let samples = [1, pages / 2, pages.saturating_sub(1)];
            let mut others = samples.into_iter().map(page);
            if others.all(|other| other.is_ok_and(|other| other == first)) {
                copied = copied.saturating_add(1);
            }
        }
        if copied > 0 {
            self.error(
                None,
                format!("in {copied} of {} ranges every page is a copy of the first: the memory is lost (VirtualBox of September 2010 did that)", ranges.len()),
            );
        }
        Ok(())
    }

    /// The machine of the guest. VirtualBox's header says only what VirtualBox itself was built for, so the registers count; ours
    /// says it, for the notes behind VirtualBox's.
    fn machine_of(&self, ours: &[Note], others: &[Note]) -> u16 {
        let is_ours = others.iter().any(|note| note.owner() == b"CORE");
        let records = ours.iter().filter(|note| is_of_kind(note, Kind::Cpu)).take(MAX_VCPUS);
        let is_long = |note: &Note| Cpu::of_bytes(&note.desc, 0).map(|cpu| cpu.is_long());
        let known: Vec<bool> = records.filter_map(is_long).filter(|_| !is_ours).collect();
        match &known[..] {
            [] => self.ehdr.e_machine.get(),
            known if known.contains(&true) => EM_X86_64,
            _ => EM_386,
        }
    }

    /// The memory of all ranges.
    fn memory(&mut self, file_len: u64) -> Vec<Piece> {
        let mut map = PieceMap::default();
        let loads: Vec<(u64, Phdr)> = self.segments(PT_LOAD).collect();
        for (segment, (at, phdr)) in loads.into_iter().enumerate() {
            let (gpa, offset, stored) = (phdr.p_paddr.get(), phdr.p_offset.get(), phdr.p_filesz.get());
            let len = phdr.p_memsz.get().max(stored);
            if gpa.checked_add(len).is_none() {
                self.error(Some(at), format!("a range at {gpa:#x} of {len:#x} bytes passes the end of the address space; it is left out"));
                continue;
            }
            let there = file_len.saturating_sub(offset).min(stored);
            if there < stored {
                let (start, missing) = (gpa.saturating_add(there), stored.saturating_sub(there));
                self.error(Some(at), format!("the dump is cut off: memory from {start:#x} on, {missing:#x} bytes, should end at {:#x}, the file ends at {file_len:#x}", offset.saturating_add(stored)));
            }
            let parts = [
                (0, there, Place::File(offset)),
                (there, stored, Place::Missing),
                (stored, len, Place::Mmio),
            ];
            for (start, end, place) in parts.into_iter().filter(|(start, end, _)| start < end) {
                let gpa = Gpa(gpa.saturating_add(start));
                map.add(Piece { gpa, len: end.saturating_sub(start), place, segment });
            }
        }
        let others =
            self.phdrs.iter().filter(|phdr| ![PT_LOAD, PT_NOTE].contains(&phdr.p_type.get())).count();
        if others > 0 {
            self.note(
                None,
                format!("segments that are neither memory nor notes: {others}; a conversion leaves them out"),
            );
        }
        map.into_pieces()
    }
}
