//! The notes of a vCPU: a row a field, or a row a run of fields where registers follow each other.
//!
//! Not among them are the notes of SME (`NT_ARM_SSVE`, `NT_ARM_ZA`), which QEMU does not write: they are carried along.
//!
//! Source: `spec/arch-notes.md` sections 3 and 5.2; Linux `arch/arm64/include/uapi/asm/ptrace.h` and `sve_context.h`; QEMU 7.2
//! `target/arm/arch_dump.c`.

use crate::registers::TABLE;
use vmcore_core::note_table::{ids_from, join, reg, run_from};
use vmcore_core::{Emit, Endianness, FieldValue, NoteField, NoteScope, NoteTable, PerUnit, Units};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_ARM_TLS: u32 = 0x401;
const NT_ARM_SVE: u32 = 0x405;
const NT_ARM_PAC_MASK: u32 = 0x406;

#[rustfmt::skip]
const PRSTATUS: [NoteField; 36] = join(&[
    &[NoteField::new(32, 4, FieldValue::VcpuNumber)],                       // pr_pid
    &run_from::<34>(&TABLE, 112, 8, "x0"),                                               // x0 to x30, sp, pc, pstate
    &[NoteField::new(384, 4, FieldValue::HasNote("CORE", NT_PRFPREG))],     // pr_fpvalid
]);

/// `struct user_fpsimd_state`: a vector is one number of 128 bits.
const PRFPREG: [NoteField; 34] = join(&[
    &run_from::<32>(&TABLE, 0, 16, "v0"),
    &[reg(&TABLE, 512, 4, "fpsr"), reg(&TABLE, 516, 4, "fpcr")],
]);

// NT_ARM_SVE: 16 bytes of header, then registers that are as long as the processor's vectors (VL bytes).
//
//   0     4         8   10      12     14  16       16 + 32 VL   + 2 VL  + VL / 8   (to 16)
//   size  max_size  vl  max_vl  flags  0   z0..z31  p0..p15      ffr     padding    fpsr  fpcr  0
//
// A unit is 8 bytes of a vector and 1 byte of a predicate: vg of them make the registers. What stands at most, max_size and
// max_vl, is no register of the vCPU; we write what is in use.

/// Vectors have 128 to 2048 bits, in steps of 128.
const VECTOR_GRANULES: Units = Units { register: TABLE.id("vg"), factor: 8, step: 2, max: 32 };
/// `SVE_PT_REGS_SVE`; without it the note holds what NT_PRFPREG holds.
const SVE_FLAGS: NoteField = NoteField::new(12, 2, FieldValue::Tag(1)).masked(1);

/// Registers behind each other, each of which is `width` bytes long a unit: a string of bytes, the least significant first
/// in both byte orders. `before` is what stands before them, in bytes a unit.
const fn scaled<const N: usize>(before: usize, width: usize, first: &str) -> [NoteField; N] {
    let mut fields = run_from::<N>(&TABLE, 16, 0, first);
    let mut index = 0;
    while index < N {
        let per_unit = PerUnit { offset: before + width * index, width, align: 1 };
        fields[index] = fields[index].per_unit(per_unit).in_order(Endianness::Little);
        index += 1;
    }
    fields
}

/// Behind all vectors, at a multiple of 16.
const fn behind(field: NoteField) -> NoteField {
    field.per_unit(PerUnit { offset: 32 * 8 + 17, width: 0, align: 16 })
}

#[rustfmt::skip]
const SVE: [NoteField; 57] = join(&[
    &[
        NoteField::new(0, 4, FieldValue::DescLen),
        NoteField::new(4, 4, FieldValue::DescLen),                          // max_size
        NoteField::new(8, 2, FieldValue::Units(VECTOR_GRANULES)),
        NoteField::new(10, 2, FieldValue::Units(VECTOR_GRANULES)),          // max_vl
        SVE_FLAGS,
    ],
    &scaled::<32>(0, 8, "z0"),
    &scaled::<17>(32 * 8, 1, "p0"),                                         // p0 to p15, ffr
    &[
        behind(reg(&TABLE, 16, 4, "fpsr")),
        behind(reg(&TABLE, 20, 4, "fpcr")),
        behind(NoteField::new(24, 8, FieldValue::Constant(0))),
    ],
]);

const TLS: [NoteField; 1] = [reg(&TABLE, 0, 8, "tpidr_el0")];

const PAC_MASK: [NoteField; 2] = run_from(&TABLE, 0, 8, "pauth_dmask");

/// The notes of a vCPU, in order.
#[rustfmt::skip]
pub static NOTES: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 392, size_field: None, gates: None, fields: &PRSTATUS,
    },
    NoteTable {
        owner: "CORE", note_type: NT_PRFPREG, name: "NT_PRFPREG", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<32>(&TABLE, "v0")),
        desc_len: 528, size_field: None, gates: None, fields: &PRFPREG,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_ARM_SVE, name: "NT_ARM_SVE", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<49>(&TABLE, "z0")),
        desc_len: 592, size_field: Some(0), gates: None, fields: &SVE,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_ARM_TLS, name: "NT_ARM_TLS", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<1>(&TABLE, "tpidr_el0")),
        desc_len: 8, size_field: None, gates: None, fields: &TLS,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_ARM_PAC_MASK, name: "NT_ARM_PAC_MASK", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids_from::<2>(&TABLE, "pauth_dmask")),
        desc_len: 16, size_field: None, gates: None, fields: &PAC_MASK,
    },
];
