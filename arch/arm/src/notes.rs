//! The notes of a vCPU: a row a field, or a row a run of fields where registers follow each other.
//!
//! They have 32-bit layout in 64-bit dumps too.
//!
//! Source: `spec/arch-notes.md` sections 3.1 to 3.4; Linux `arch/arm/include/asm/ptrace.h` and `user.h` (`user_vfp`); dumps of
//! QEMU 7.2.

use crate::registers::TABLE;
use vmcore_core::note_table::{ids_from, join, reg, run_from};
use vmcore_core::{Emit, FieldValue, NoteField, NoteScope, NoteTable};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_ARM_VFP: u32 = 0x400;

/// `orig_r0` of a task that is in no system call: -1.
const NO_SYSTEM_CALL: u64 = 0xffff_ffff;

#[rustfmt::skip]
const PRSTATUS: [NoteField; 20] = join(&[
    &[NoteField::new(24, 4, FieldValue::VcpuNumber)],                       // pr_pid
    &run_from::<17>(&TABLE, 72, 4, "r0"),                                   // r0 to r12, sp, lr, pc, cpsr
    &[NoteField::new(140, 4, FieldValue::RegisterOr(TABLE.id("orig_r0"), NO_SYSTEM_CALL))],
    &[NoteField::new(144, 4, FieldValue::HasNote("LINUX", NT_ARM_VFP))],    // pr_fpvalid
]);

/// Processors with 16 registers have zeros in the upper ones.
const VFP: [NoteField; 33] = join(&[&run_from::<32>(&TABLE, 0, 8, "d0"), &[reg(&TABLE, 256, 4, "fpscr")]]);

/// The notes of a vCPU, in order. The first begins a vCPU.
#[rustfmt::skip]
pub static NOTES: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 148, size_field: None, gates: None, fields: &PRSTATUS,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_ARM_VFP, name: "NT_ARM_VFP", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<32>(&TABLE, "d0")),
        desc_len: 260, size_field: None, gates: None, fields: &VFP,
    },
];
