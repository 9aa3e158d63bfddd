//! The notes of ppc64: a row a field, or a row a run of fields where registers follow each other.
//!
//! All words, the 16-byte vector registers too, are in the dump's byte order. QEMU (7.2 to 10.0) gives the vector notes the owner
//! `CORE`, where gdb does not look for them, leaves VRSAVE 0 and writes VSCR to the place that it has in big-endian dumps. Such
//! notes are read and carried along, and the right ones stand beside them.
//!
//! Source: `spec/arch-notes.md` section 3, `spec/arch/notes.tsv`; Linux `arch/powerpc/include/uapi/asm/ptrace.h` and `elf.h`;
//! QEMU 7.2 `target/ppc/arch_dump.c`.

use crate::registers::TABLE;
use vmcore_core::note_table::{join, reg, registers_of, run};
use vmcore_core::{Emit, FieldValue, NoteField, NoteScope, NoteTable};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_PPC_VMX: u32 = 0x100;
const NT_PPC_SPE: u32 = 0x101;
const NT_PPC_VSX: u32 = 0x102;

// QEMU leaves dar and dsisr 0. Slots 44 to 47 of pr_reg have no meaning.
#[rustfmt::skip] // the slots of pr_reg in their order
const PRSTATUS: [NoteField; 46] = join(&[
    &[NoteField::new(32, 4, FieldValue::VcpuNumber)],                     // pr_pid
    &run(&TABLE, 112, 8, 8, [
        "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "r30", "r31",
    ]),
    &run(&TABLE, 368, 8, 8, [
        "nip", "msr", "orig_gpr3", "ctr", "lr", "xer", "cr", "softe", "trap", "dar", "dsisr", "result",
    ]),
    &[NoteField::new(496, 4, FieldValue::HasNote("CORE", NT_PRFPREG))],   // pr_fpvalid
]);

#[rustfmt::skip]
const PRFPREG: [NoteField; 33] = run(&TABLE, 0, 8, 8, [
    "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15",
    "f16", "f17", "f18", "f19", "f20", "f21", "f22", "f23", "f24", "f25", "f26", "f27", "f28", "f29", "f30", "f31",
    "fpscr",
]);

#[rustfmt::skip]
const VECTORS: [NoteField; 32] = run(&TABLE, 0, 16, 16, [
    "vr0", "vr1", "vr2", "vr3", "vr4", "vr5", "vr6", "vr7",
    "vr8", "vr9", "vr10", "vr11", "vr12", "vr13", "vr14", "vr15",
    "vr16", "vr17", "vr18", "vr19", "vr20", "vr21", "vr22", "vr23",
    "vr24", "vr25", "vr26", "vr27", "vr28", "vr29", "vr30", "vr31",
]);

/// VSCR is the low word of a vector: the last one of its 16 bytes in a big-endian dump, the first one in a little-endian.
const VMX: [NoteField; 34] =
    join(&[&VECTORS, &[reg(&TABLE, 512, 16, "vscr"), reg(&TABLE, 528, 4, "vrsave")]]);

const VMX_OF_QEMU: [NoteField; 33] = join(&[&VECTORS, &[reg(&TABLE, 524, 4, "vscr")]]);

/// The low halves of vs0 to vs31; their high halves are f0 to f31.
#[rustfmt::skip]
const VSX: [NoteField; 32] = run(&TABLE, 0, 8, 8, [
    "vs0_low", "vs1_low", "vs2_low", "vs3_low", "vs4_low", "vs5_low", "vs6_low", "vs7_low",
    "vs8_low", "vs9_low", "vs10_low", "vs11_low", "vs12_low", "vs13_low", "vs14_low", "vs15_low",
    "vs16_low", "vs17_low", "vs18_low", "vs19_low", "vs20_low", "vs21_low", "vs22_low", "vs23_low",
    "vs24_low", "vs25_low", "vs26_low", "vs27_low", "vs28_low", "vs29_low", "vs30_low", "vs31_low",
]);

#[rustfmt::skip]
const SPE: [NoteField; 34] = join(&[
    &run(&TABLE, 0, 4, 4, [
        "ev0h", "ev1h", "ev2h", "ev3h", "ev4h", "ev5h", "ev6h", "ev7h",
        "ev8h", "ev9h", "ev10h", "ev11h", "ev12h", "ev13h", "ev14h", "ev15h",
        "ev16h", "ev17h", "ev18h", "ev19h", "ev20h", "ev21h", "ev22h", "ev23h",
        "ev24h", "ev25h", "ev26h", "ev27h", "ev28h", "ev29h", "ev30h", "ev31h",
    ]),
    &[reg(&TABLE, 128, 8, "acc"), reg(&TABLE, 136, 4, "spefscr")],
]);

/// A note of a vCPU.
macro_rules! note {
    ($owner:literal, $note_type:ident, $name:expr, $emit:expr, $desc_len:literal, $fields:expr) => {
        NoteTable {
            owner: $owner,
            note_type: $note_type,
            name: $name,
            scope: NoteScope::Vcpu,
            emit: $emit,
            desc_len: $desc_len,
            size_field: None,
            gates: None,
            fields: &$fields,
        }
    };
}

/// A note that is written if any of its registers is known.
macro_rules! if_any {
    ($owner:literal, $note_type:ident, $desc_len:literal, $fields:ident) => {
        note!(
            $owner,
            $note_type,
            stringify!($note_type),
            Emit::IfAny(&registers_of(&$fields)),
            $desc_len,
            $fields
        )
    };
}

/// The notes of a vCPU, in QEMU's order, and behind them those that are QEMU's alone.
// QEMU writes the SPE note for every CPU; but for the e500, whose high words it leaves out, it says nothing.
#[rustfmt::skip]
pub static NOTES: &[NoteTable] = &[
    note!("CORE", NT_PRSTATUS, "NT_PRSTATUS", Emit::Always, 504, PRSTATUS),
    if_any!("CORE",  NT_PRFPREG, 264, PRFPREG),
    if_any!("LINUX", NT_PPC_VMX, 544, VMX),
    if_any!("LINUX", NT_PPC_VSX, 256, VSX),
    if_any!("LINUX", NT_PPC_SPE, 140, SPE),
    note!("CORE", NT_PPC_VMX, "NT_PPC_VMX/CORE", Emit::Never, 544, VMX_OF_QEMU),
    note!("CORE", NT_PPC_VSX, "NT_PPC_VSX/CORE", Emit::Never, 256, VSX),
    note!("CORE", NT_PPC_SPE, "NT_PPC_SPE/CORE", Emit::Never, 140, []),
];
