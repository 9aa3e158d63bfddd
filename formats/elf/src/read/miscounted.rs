//! Notes that are longer or shorter than their header says, so that all memory stands elsewhere than its headers say.
//!
//! ```text
//! says the header   | notes ...............| memory ...                       |
//! is in the file    | notes ......| memory ...                       |
//! or                | notes ..............................| memory ...                       |
//! ```
//!
//! What looks like notes may be guest memory, and what does not may be damage. So the length of the file decides: it must be
//! what the headers say but for exactly that many bytes.

use super::{Core, MAX_NOTES, MAX_NOTES_LEN};
use crate::header::{PT_LOAD, Phdr};
use vmcore_core::read_at::read_vec;
use vmcore_core::{Error, Note, NoteIter, ReadAt};

/// The most bytes of notes too many that are looked for: those of 2,500 vCPUs of cloud-hypervisor.
const MAX_OVERRUN: u64 = 2 << 20;
/// What QEMU writes behind memory: nothing, and since 7.2 the names of sections, `\0.shstrtab\0`.
const QEMU_TAILS: [u64; 2] = [0, 11];

impl Core {
    /// Where memory begins and ends in the file by its headers.
    fn memory_in_file(&self) -> Option<(u64, u64)> {
        let stored = || self.segments.iter().filter(|(_, phdr)| phdr.p_type == PT_LOAD && phdr.p_filesz > 0);
        let first = stored().map(|(_, phdr)| phdr.p_offset).min()?;
        let end = stored().map(|(_, phdr)| phdr.p_offset.saturating_add(phdr.p_filesz)).max()?;
        Some((first, end))
    }

    /// Moves the memory of all segments.
    fn move_memory(&mut self, by: i64) {
        for (_, phdr) in self.segments.iter_mut().filter(|(_, phdr)| phdr.p_type == PT_LOAD) {
            phdr.p_offset = phdr.p_offset.saturating_add_signed(by);
        }
    }

    /// The notes of a QEMU that took the first vCPU's for as long as those of all: of an aarch64 guest whose vCPUs have
    /// vectors (SVE) of different lengths they are longer or shorter (`spec/arch-notes.md` D13). Memory is moved to where they
    /// end.
    ///
    /// `None` if this is no such dump. In one, the file, the notes that it has and the length that is stated agree: each vCPU
    /// has notes of the same kinds, and as many times those of the first are as long as it is stated.
    pub(super) fn find_uneven(&mut self, file: &dyn ReadAt, phdr: &Phdr) -> Result<Option<Vec<Note>>, Error> {
        let Some((first, end)) = self.memory_in_file() else { return Ok(None) };
        if phdr.p_offset.checked_add(phdr.p_filesz) != Some(first) {
            return Ok(None);
        }
        for tail in QEMU_TAILS {
            let by = i128::from(file.byte_len()).saturating_sub(i128::from(end)).saturating_sub(tail.into());
            let Ok(len) = u64::try_from(i128::from(phdr.p_filesz).saturating_add(by)) else { continue };
            if by == 0 || len > MAX_NOTES_LEN {
                continue;
            }
            let bytes = read_vec(file, phdr.p_offset, len, "notes")?;
            let mut iter = NoteIter::new(&bytes, phdr.p_offset, self.endianness, phdr.p_align);
            let notes: Vec<Note> = iter.by_ref().take(MAX_NOTES).map_while(Result::ok).collect();
            if iter.position() as u64 != len || stated_by_qemu(&notes) != Some(phdr.p_filesz) {
                continue;
            }
            let Ok(by) = i64::try_from(by) else { continue };
            let (what, place) = if by < 0 { ("shorter", "earlier") } else { ("longer", "later") };
            self.note(
                Some(phdr.p_offset),
                format!("the notes are {:#x} bytes {what} than their header says (QEMU, of vCPUs with vectors of different lengths); all memory is read that much {place} in the file", by.unsigned_abs()),
            );
            self.move_memory(by);
            return Ok(Some(notes));
        }
        Ok(None)
    }

    /// cloud-hypervisor writes notes of all vCPUs but counts those of the boot: after a hot-plug, the notes overrun the
    /// place of the first memory, and all memory stands that much further back (`spec/live-capture.md` section 10).
    ///
    /// The bytes there are guest memory in every other dump, so that they prove nothing alone: the file must also be longer
    /// than its headers say, by exactly the notes that are too many.
    pub(super) fn find_overrun(
        &mut self,
        file: &dyn ReadAt,
        notes_end: u64,
        notes: &mut Vec<Note>,
    ) -> Result<(), Error> {
        let Some((first, end)) = self.memory_in_file() else { return Ok(()) };
        let excess = file.byte_len().saturating_sub(end);
        if first != notes_end || excess == 0 || excess > MAX_OVERRUN {
            return Ok(());
        }
        let bytes = read_vec(file, notes_end, excess, "notes")?;
        let mut iter = NoteIter::new(&bytes, notes_end, self.endianness, 4);
        let more: Vec<Note> = iter.by_ref().map_while(|note| note.ok().filter(is_of_a_vcpu)).collect();
        if iter.position() as u64 != excess {
            return Ok(());
        }
        notes.extend(more);
        self.note(
            Some(notes_end),
            format!("the notes overrun the first memory by {excess:#x} bytes (cloud-hypervisor after a vCPU hot-plug); all memory is read that much further back"),
        );
        self.move_memory(excess.cast_signed());
        Ok(())
    }
}

/// The length that QEMU states for these notes: as many times those of the first vCPU as there are vCPUs, and the guest's own
/// note. `None` if they are not the same kinds of notes for each vCPU.
fn stated_by_qemu(notes: &[Note]) -> Option<u64> {
    let len =
        |notes: &[Note]| notes.iter().map(|note| note.encoded_len() as u64).fold(0, u64::saturating_add);
    let (guest, of_vcpus) = match notes.split_last()? {
        (last, rest) if last.is_vmcoreinfo() => (last.encoded_len() as u64, rest),
        _ => (0, notes),
    };
    let begins_vcpu = |note: &Note| note.is("CORE", 1);
    let per_vcpu = of_vcpus.iter().skip(1).position(begins_vcpu)?.saturating_add(1);
    let (first, _) = of_vcpus.split_at_checked(per_vcpu)?;
    let is_alike = |notes: &[Note]| {
        notes.len() == per_vcpu
            && notes.iter().zip(first).all(|(a, b)| a.name == b.name && a.note_type == b.note_type)
    };
    if !first.first().is_some_and(begins_vcpu) || !of_vcpus.chunks(per_vcpu).all(is_alike) {
        return None;
    }
    let vcpus = of_vcpus.chunks(per_vcpu).count() as u64;
    vcpus.checked_mul(len(first))?.checked_add(guest)
}

/// Whether this is a note that cloud-hypervisor writes for each vCPU.
fn is_of_a_vcpu(note: &Note) -> bool {
    note.is("CORE", 1) && note.desc.len() >= 100 || note.is("QEMU", 0) && note.desc.len() >= 400
}
