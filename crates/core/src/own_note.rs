//! Our own note, owner `VMCORE`: registers that no note of the architecture holds.
//!
//! QEMU's notes lack what a debugger may need later (EFER, CR8, debug registers, MSRs). A vCPU that knows such
//! registers gets one more note behind its others:
//!
//! ```text
//! 0        4      8
//! version  count  count entries: name_len u8, value_len u8, name, value (dump byte order)
//! ```
//!
//! All words are in the dump's byte order. Readers that do not know the owner skip it. The format is described
//! for other tools in `docs/vmcore-note.md`.

use crate::{Endianness, Note, NoteTable, RegisterFile, RegisterId};

/// Owner of the note.
pub const OWNER: &str = "VMCORE";
/// Type of the note that holds registers. Above 0x100 and none of the known numbers, so that crash, which
/// looks at the type first, passes over it.
pub const NT_VMCORE_REGISTERS: u32 = 0x564d_0001;
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Writes the registers that are known and that none of `notes` holds; `None` if there are none.
#[must_use]
pub fn encode(registers: &RegisterFile, notes: &[&NoteTable], endianness: Endianness) -> Option<Note> {
    let held = |id: RegisterId| {
        notes.iter().any(|table| table.fields.iter().any(|field| field.register() == Some(id)))
    };
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
