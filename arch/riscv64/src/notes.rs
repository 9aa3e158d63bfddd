//! The notes of a vCPU: a row a field, or a row a run of fields where registers follow each other.
//!
//! QEMU writes the first only. It has no slot for `zero`.
//!
//! Source: `spec/arch-notes.md` sections 3 and 5.2; Linux `arch/riscv/include/uapi/asm/ptrace.h` (`user_regs_struct`,
//! `__riscv_d_ext_state`, `__riscv_v_regset_state`) and `elf.h`; dumps of QEMU 7.2.

use crate::registers::{MAX_VLEN, TABLE};
use vmcore_core::note_table::{ids_from, join, reg, run_from};
use vmcore_core::{Emit, Endianness, FieldValue, NoteField, NoteScope, NoteTable, PerUnit, Units};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_RISCV_VECTOR: u32 = 0x901;

#[rustfmt::skip]
const PRSTATUS: [NoteField; 34] = join(&[
    &[NoteField::new(32, 4, FieldValue::VcpuNumber)],                       // pr_pid
    &[reg(&TABLE, 112, 8, "pc")],
    &run_from::<31>(&TABLE, 120, 8, "ra"),                                  // x1 to x31
    &[NoteField::new(368, 4, FieldValue::HasNote("CORE", NT_PRFPREG))],     // pr_fpvalid
]);

const PRFPREG: [NoteField; 33] =
    join(&[&run_from::<32>(&TABLE, 0, 8, "ft0"), &[reg(&TABLE, 256, 4, "fcsr")]]);

/// A unit is a byte of each vector.
const VECTOR_BYTES: Units =
    Units { register: TABLE.id("vlenb"), factor: 1, step: 4, max: MAX_VLEN as u64 / 8 };

/// Vectors behind each other: strings of bytes, the least significant first in both byte orders.
const fn vectors() -> [NoteField; 32] {
    let mut fields = run_from::<32>(&TABLE, 40, 0, "v0");
    let mut index = 0;
    while index < 32 {
        let per_unit = PerUnit { offset: index, width: 1, align: 1 };
        fields[index] = fields[index].per_unit(per_unit).in_order(Endianness::Little);
        index += 1;
    }
    fields
}

#[rustfmt::skip]
const VECTOR: [NoteField; 37] = join(&[
    &[
        reg(&TABLE, 0, 8, "vstart"),
        reg(&TABLE, 8, 8, "vl"),
        reg(&TABLE, 16, 8, "vtype"),
        reg(&TABLE, 24, 8, "vcsr"),
        NoteField::new(32, 8, FieldValue::Units(VECTOR_BYTES)),
    ],
    &vectors(),
]);

/// The notes of a vCPU, in order. The first begins a vCPU.
#[rustfmt::skip]
pub static NOTES: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 376, size_field: None, gates: None, fields: &PRSTATUS,
    },
    NoteTable {
        owner: "CORE", note_type: NT_PRFPREG, name: "NT_PRFPREG", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<32>(&TABLE, "ft0")),
        desc_len: 264, size_field: None, gates: None, fields: &PRFPREG,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_RISCV_VECTOR, name: "NT_RISCV_VECTOR", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<32>(&TABLE, "v0")),
        desc_len: 40 + 32 * 4, size_field: None, gates: None, fields: &VECTOR,
    },
];
