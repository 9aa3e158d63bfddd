//! Our own notes, owner `VMCORE`: what no note of the architecture or of the field holds.
//!
//! # Registers
//!
//! QEMU's notes lack what a debugger may need later (EFER, CR8, debug registers, MSRs). A vCPU that knows such
//! registers gets one more note behind its others:
//!
//! ```text
//! 0        4      8
//! version  count  count entries: name_len u8, value_len u8, name, value (dump byte order)
//! ```
//!
//! All words are in the dump's byte order.
//!
//! # Header
//!
//! What the header of a kdump dump says and an ELF core has no place for: lines of text, `key=value`, as in
//! `dump_level=31`, `uts.release=6.1.0`. Keys that are not known are passed over.
//!
//! Readers that do not know the owner skip these notes. They are described for other tools in `docs/vmcore-note.md`.

use crate::machine::{Header, Uts};
use crate::{Endianness, Note, NoteTable, RegisterFile, RegisterId};

/// Owner of the note.
pub const OWNER: &str = "VMCORE";
/// Type of the note that holds registers. Above 0x100 and none of the known numbers, so that crash, which
/// looks at the type first, passes over it.
pub const NT_VMCORE_REGISTERS: u32 = 0x564d_0001;
/// Type of the note that holds what the header of a kdump dump says.
pub const NT_VMCORE_HEADER: u32 = 0x564d_0002;
/// The version of the registers that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Writes the registers that are known and that none of `notes` holds; `None` if there are none.
#[must_use]
pub fn encode(registers: &RegisterFile, notes: &[&NoteTable], endianness: Endianness) -> Option<Note> {
    let held = |id: RegisterId| notes.iter().any(|table| table.holds(id));
    let mut entries = Vec::new();
    let mut count = 0_u32;
    for (id, row, value) in registers.iter().filter(|(id, ..)| !held(*id)) {
        debug_assert_eq!(registers.table().row(id).map(|row| row.name), Some(row.name));
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(row.name.len()), u8::try_from(value.len())) else {
            continue;
        };
        entries.extend([name_len, value_len]);
        entries.extend(row.name.as_bytes());
        match endianness {
            Endianness::Little => entries.extend(value),
            Endianness::Big => entries.extend(value.iter().rev()),
        }
        count += 1;
    }
    if count == 0 {
        return None;
    }
    let mut desc = vec![0; 8];
    endianness.encode(u64::from(VERSION), &mut desc[..4]);
    endianness.encode(u64::from(count), &mut desc[4..]);
    desc.extend(entries);
    Some(Note::new(OWNER, NT_VMCORE_REGISTERS, desc))
}

/// Whether this is a note that [`decode`] understands.
#[must_use]
pub fn matches(note: &Note, endianness: Endianness) -> bool {
    note.is(OWNER, NT_VMCORE_REGISTERS) && endianness.u32_at(&note.desc, 0) == Some(VERSION)
}

/// Takes over the registers that the note holds.
///
/// `false` if an entry is cut off or names a register that the table lacks: then the note must be carried as it
/// is, or something would be lost.
pub fn decode(desc: &[u8], endianness: Endianness, registers: &mut RegisterFile) -> bool {
    let count = endianness.u32_at(desc, 4).unwrap_or(0);
    let mut rest = desc.get(8..).unwrap_or(&[]);
    let mut complete = true;
    for _ in 0..count {
        let [name_len, value_len, tail @ ..] = rest else { return false };
        let Some((name, tail)) = tail.split_at_checked(usize::from(*name_len)) else { return false };
        let Some((value, tail)) = tail.split_at_checked(usize::from(*value_len)) else { return false };
        let mut value = value.to_vec();
        if endianness == Endianness::Big {
            value.reverse();
        }
        match std::str::from_utf8(name).ok().and_then(|name| registers.table().find(name)) {
            Some(id) => registers.set(id, &value),
            None => complete = false,
        }
        rest = tail;
    }
    complete
}

/// The note for what an ELF core has no place for; `None` if there is nothing to say.
#[must_use]
pub fn encode_header(header: &Header) -> Option<Note> {
    if *header == Header::default() {
        return None;
    }
    let mut text = format!("dump_level={}\n", header.dump_level);
    for (name, value) in header.uts.iter().flat_map(Uts::fields) {
        // A line break would end the value.
        let value = value.replace('\n', " ");
        text += &format!("uts.{name}={value}\n");
    }
    Some(Note::new(OWNER, NT_VMCORE_HEADER, text.into_bytes()))
}

/// What such a note says; `None` for other notes.
#[must_use]
pub fn decode_header(note: &Note) -> Option<Header> {
    let text = std::str::from_utf8(&note.desc).ok().filter(|_| note.is(OWNER, NT_VMCORE_HEADER))?;
    let mut header = Header::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if key == "dump_level" {
            header.dump_level = value.parse().unwrap_or(0);
        }
        let field = key.strip_prefix("uts.");
        if let Some(field) = field {
            let uts = header.uts.get_or_insert_default();
            if let Some((_, slot)) = uts.fields_mut().into_iter().find(|(name, _)| *name == field) {
                value.clone_into(slot);
            }
        }
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        assert_eq!(encode_header(&Header::default()), None);
        let uts = Uts { sysname: "Linux".into(), version: "#1 a=b".into(), ..Uts::default() };
        for header in [Header { dump_level: 31, uts: None }, Header { dump_level: 0, uts: Some(uts) }] {
            let note = encode_header(&header).unwrap();
            assert_eq!(decode_header(&note), Some(header));
        }
        assert_eq!(decode_header(&Note::new("VMCOREINFO", 0, b"dump_level=3".to_vec())), None);
    }
}
