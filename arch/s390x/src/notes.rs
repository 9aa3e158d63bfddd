//! The notes of s390x: a row a field, or a row a run of fields where registers follow each other.
//!
//! All words are big-endian. QEMU writes the notes up to `NT_S390_GS_CB` for every vCPU, with zeros for what the CPU lacks;
//! Linux writes the two behind it too. The registers of a protected guest (`NT_S390_PV_CPU_DATA`) are encrypted: that note is
//! carried along as it is.
//!
//! Source: `spec/arch-notes.md` section 3, `spec/arch/notes.tsv`; Linux `arch/s390/include/uapi/asm/ptrace.h` (`s390_regs`,
//! `s390_fp_regs`) and `arch/s390/kernel/ptrace.c`; QEMU 7.2 `target/s390x/arch_dump.c`.

use crate::registers::TABLE;
use vmcore_core::note_table::{join, reg, registers_of, run};
use vmcore_core::{Emit, FieldValue, NoteField, NoteScope, NoteTable};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_S390_TIMER: u32 = 0x301;
const NT_S390_TODCMP: u32 = 0x302;
const NT_S390_TODPREG: u32 = 0x303;
const NT_S390_CTRS: u32 = 0x304;
const NT_S390_PREFIX: u32 = 0x305;
const NT_S390_LAST_BREAK: u32 = 0x306;
const NT_S390_VXRS_LOW: u32 = 0x309;
const NT_S390_VXRS_HIGH: u32 = 0x30a;
const NT_S390_GS_CB: u32 = 0x30b;
const NT_S390_RI_CB: u32 = 0x30d;

// The PSW's mask may hold a stale condition code in notes that QEMU's TCG wrote.
#[rustfmt::skip] // the fields of pr_reg in their order
const PRSTATUS: [NoteField; 37] = join(&[
    &[NoteField::new(32, 4, FieldValue::VcpuNumber)],                     // pr_pid
    &run(&TABLE, 112, 8, 8, [
        "pswm", "pswa",
        "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    ]),
    &run(&TABLE, 256, 4, 4, [
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11", "a12", "a13", "a14", "a15",
    ]),
    &[reg(&TABLE, 320, 8, "orig_gpr2")],
    &[NoteField::new(328, 4, FieldValue::HasNote("CORE", NT_PRFPREG))],   // pr_fpvalid
]);

#[rustfmt::skip]
const PRFPREG: [NoteField; 17] = join(&[
    &[reg(&TABLE, 0, 4, "fpc")],
    &run(&TABLE, 8, 8, 8, [
        "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15",
    ]),
]);

#[rustfmt::skip]
const CTRS: [NoteField; 16] = run(&TABLE, 0, 8, 8, [
    "cr0", "cr1", "cr2", "cr3", "cr4", "cr5", "cr6", "cr7",
    "cr8", "cr9", "cr10", "cr11", "cr12", "cr13", "cr14", "cr15",
]);

/// The low halves of v0 to v15; their high halves are f0 to f15.
#[rustfmt::skip]
const VXRS_LOW: [NoteField; 16] = run(&TABLE, 0, 8, 8, [
    "v0_low", "v1_low", "v2_low", "v3_low", "v4_low", "v5_low", "v6_low", "v7_low",
    "v8_low", "v9_low", "v10_low", "v11_low", "v12_low", "v13_low", "v14_low", "v15_low",
]);

#[rustfmt::skip]
const VXRS_HIGH: [NoteField; 16] = run(&TABLE, 0, 16, 16, [
    "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",
    "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",
]);

/// A note that is written if any of its registers is known.
macro_rules! note {
    ($owner:literal, $note_type:ident, $desc_len:literal, $fields:expr) => {
        NoteTable {
            owner: $owner,
            note_type: $note_type,
            name: stringify!($note_type),
            scope: NoteScope::Vcpu,
            emit: Emit::IfAny(&registers_of(&$fields)),
            desc_len: $desc_len,
            size_field: None,
            gates: None,
            fields: &$fields,
        }
    };
}

/// The notes of a vCPU, in QEMU's order.
#[rustfmt::skip]
pub static NOTES: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 336, size_field: None, gates: None, fields: &PRSTATUS,
    },
    note!("CORE",  NT_PRFPREG,         136, PRFPREG),
    note!("LINUX", NT_S390_PREFIX,     4,   [reg(&TABLE, 0, 4, "prefix")]),
    note!("LINUX", NT_S390_CTRS,       128, CTRS),
    note!("LINUX", NT_S390_TIMER,      8,   [reg(&TABLE, 0, 8, "cputm")]),
    note!("LINUX", NT_S390_TODCMP,     8,   [reg(&TABLE, 0, 8, "ckc")]),
    note!("LINUX", NT_S390_TODPREG,    4,   [reg(&TABLE, 0, 4, "todpr")]),
    note!("LINUX", NT_S390_VXRS_LOW,   128, VXRS_LOW),
    note!("LINUX", NT_S390_VXRS_HIGH,  256, VXRS_HIGH),
    note!("LINUX", NT_S390_GS_CB,      32,  run(&TABLE, 0, 8, 8, ["gs_reserved", "gsd", "gssm", "gsepla"])),
    note!("LINUX", NT_S390_LAST_BREAK, 8,   [reg(&TABLE, 0, 8, "last_break")]),
    note!("LINUX", NT_S390_RI_CB,      64,  [reg(&TABLE, 0, 64, "ri_cb")]),
];
