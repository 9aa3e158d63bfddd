//! The notes of both architectures: a row a field, or a row a run of fields where registers follow each other.
//!
//! Not among them is the 108-byte `NT_PRFPREG` of i386 (an FSAVE image, with tag bits that no register table holds):
//! `NT_PRXFPREG` and `NT_X86_XSTATE` hold the same registers.
//!
//! Source: `spec/arch-notes.md` sections 3 to 5; Linux `arch/x86/include/asm/elf.h` and `user_64.h`; QEMU 7.2
//! `target/i386/arch_dump.c`; Intel SDM volume 1, chapter 13 (XSAVE).

use crate::registers::{i386, x86_64};
use vmcore_core::note_table::{gated, ids, join, reg, run};
use vmcore_core::{Emit, FieldValue, NoteField, NoteScope, NoteTable, RegisterTable};

/// Number of the note types, by the names of `elf.h`.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_X86_XSTATE: u32 = 0x202;
const NT_PRXFPREG: u32 = 0x46e6_2b7f;
const NT_QEMU_CPU: u32 = 0;

/// Bits of a descriptor's second word that are attributes. The others are pieces of base and limit: TCG keeps them, KVM
/// does not, and vCPUs with the same segment differ in them.
const ATTRIBUTES: u64 = 0x00f0_ff00;

/// Components of XSAVE: bits of XCR0 and `XSTATE_BV`.
const X87: u8 = 0;
const SSE: u8 = 1;
const AVX: u8 = 2;
const BNDREGS: u8 = 3;
const BNDCSR: u8 = 4;
const OPMASK: u8 = 5;
const ZMM_HI256: u8 = 6;
const HI16_ZMM: u8 = 7;
const PKRU: u8 = 9;

// NT_PRSTATUS: what every reader begins a vCPU with.

#[rustfmt::skip] // the slots of pr_reg in their order
const PRSTATUS_64: [NoteField; 29] = join(&[
    &[NoteField::new(32, 4, FieldValue::VcpuNumber)],                       // pr_pid
    &run(&x86_64::TABLE, 112, 8, 8, [
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    ]),
    // "Not in a system call"; QEMU writes 0, which is the number of one.
    &[NoteField::new(232, 8, FieldValue::RegisterOr(x86_64::TABLE.id("orig_rax"), u64::MAX))],
    &run(&x86_64::TABLE, 240, 8, 8, [
        "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
    ]),
    &[NoteField::new(328, 4, FieldValue::HasNote("CORE", NT_PRFPREG))],     // pr_fpvalid
]);

#[rustfmt::skip]
const PRSTATUS_32: [NoteField; 19] = join(&[
    &[NoteField::new(24, 4, FieldValue::VcpuNumber)],                       // pr_pid
    &run(&i386::TABLE, 72, 4, 4, ["ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs"]),
    &[NoteField::new(116, 4, FieldValue::RegisterOr(i386::TABLE.id("orig_eax"), u64::MAX))],
    &run(&i386::TABLE, 120, 4, 4, ["eip", "cs", "eflags", "esp", "ss"]),
    &[NoteField::new(140, 4, FieldValue::HasNote("LINUX", NT_PRXFPREG))],   // pr_fpvalid
]);

// QEMU's note: the same for both, all slots 8 bytes wide.

/// Where segment `index` of the array begins: selector 4, limit 4, attributes 4, padding 4, base 8.
const fn segment_at(index: usize) -> usize {
    152 + 24 * index
}

const fn segment(table: &RegisterTable, index: usize, names: [&str; 4]) -> [NoteField; 4] {
    let at = segment_at(index);
    let [selector, limit, attributes, base] = names;
    [
        reg(table, at, 4, selector),
        reg(table, at + 4, 4, limit),
        reg(table, at + 8, 4, attributes).masked(ATTRIBUTES),
        reg(table, at + 16, 8, base),
    ]
}

/// Of a descriptor table only limit and base mean something.
const fn descriptor_table(table: &RegisterTable, index: usize, limit: &str, base: &str) -> [NoteField; 2] {
    [reg(table, segment_at(index) + 4, 4, limit), reg(table, segment_at(index) + 16, 8, base)]
}

const fn qemu_system(table: &RegisterTable) -> [NoteField; 43] {
    join(&[
        &[NoteField::new(0, 4, FieldValue::Constant(1)), NoteField::new(4, 4, FieldValue::DescLen)], // version, size
        &segment(table, 0, ["cs", "cs_limit", "cs_attr", "cs_base"]),
        &segment(table, 1, ["ds", "ds_limit", "ds_attr", "ds_base"]),
        &segment(table, 2, ["es", "es_limit", "es_attr", "es_base"]),
        &segment(table, 3, ["fs", "fs_limit", "fs_attr", "fs_base"]),
        &segment(table, 4, ["gs", "gs_limit", "gs_attr", "gs_base"]),
        &segment(table, 5, ["ss", "ss_limit", "ss_attr", "ss_base"]),
        &segment(table, 6, ["ldt_selector", "ldt_limit", "ldt_attr", "ldt_base"]),
        &segment(table, 7, ["tr_selector", "tr_limit", "tr_attr", "tr_base"]),
        &descriptor_table(table, 8, "gdt_limit", "gdt_base"),
        &descriptor_table(table, 9, "idt_limit", "idt_base"),
        // cr1, at 400, does not exist; cloud-hypervisor writes cr8 there.
        &[reg(table, 392, 8, "cr0")],
        &run(table, 408, 8, 8, ["cr2", "cr3", "cr4"]),
        &[reg(table, 432, 8, "kernel_gs_base")],
    ])
}

#[rustfmt::skip]
const QEMU_64: [NoteField; 61] = join(&[
    &run(&x86_64::TABLE, 8, 8, 8, [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
    ]),
    &qemu_system(&x86_64::TABLE),
]);

#[rustfmt::skip]
const QEMU_32: [NoteField; 53] = join(&[
    &run(&i386::TABLE, 8, 8, 8, ["eax", "ebx", "ecx", "edx", "esi", "edi", "esp", "ebp"]),
    &run(&i386::TABLE, 136, 8, 8, ["eip", "eflags"]),
    &qemu_system(&i386::TABLE),
]);

// Floating point and vectors: the FXSAVE image, alone or as the beginning of an XSAVE area, where its fields have the gates
// of components 0 and 1. gdb takes the registers behind a closed gate for initial, whatever stands there.

/// Space of a component that has no rows: what is behind it keeps its place, and gdb wants each component whole.
const fn space(offset: usize, width: usize, bit: u8) -> NoteField {
    NoteField::new(offset, width, FieldValue::Constant(0)).gated(bit)
}

const fn x87(table: &RegisterTable) -> [NoteField; 12] {
    let control = [
        NoteField::new(0, 2, FieldValue::RegisterOr(table.id("fcw"), 0x37f)), // as FNINIT sets it
        reg(table, 2, 2, "fsw"),
        reg(table, 4, 1, "ftw"),
        reg(table, 6, 2, "fop"),
    ];
    let data = run(table, 32, 10, 16, ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"]);
    gated(join::<12>(&[&control, &data]), X87)
}

// The last instruction and its operand: 64-bit offsets, or 32-bit offsets with their segments.
const POINTERS_64: [NoteField; 2] =
    gated([reg(&x86_64::TABLE, 8, 8, "fip"), reg(&x86_64::TABLE, 16, 8, "fdp")], X87);
const POINTERS_32: [NoteField; 4] = gated(
    [
        reg(&i386::TABLE, 8, 4, "fip"),
        reg(&i386::TABLE, 12, 2, "fiseg"),
        reg(&i386::TABLE, 16, 4, "fdp"),
        reg(&i386::TABLE, 20, 2, "foseg"),
    ],
    X87,
);

/// MXCSR has no gate: XRSTOR loads it whenever it loads SSE or AVX, whatever `XSTATE_BV` says.
const fn sse(table: &RegisterTable) -> [NoteField; 10] {
    let control = [
        NoteField::new(24, 4, FieldValue::RegisterOr(table.id("mxcsr"), 0x1f80)),
        reg(table, 28, 4, "mxcsr_mask"),
    ];
    let data = run(table, 160, 16, 16, ["xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"]);
    join(&[&control, &gated(data, SSE)])
}

#[rustfmt::skip]
const FXSAVE_64: [NoteField; 32] = join(&[
    &x87(&x86_64::TABLE),
    &POINTERS_64,
    &sse(&x86_64::TABLE),
    &gated(run(&x86_64::TABLE, 288, 16, 16, [
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
    ]), SSE),
]);

const FXSAVE_32: [NoteField; 26] = join(&[&x87(&i386::TABLE), &POINTERS_32, &sse(&i386::TABLE)]);

/// Where XSAVE says which components it holds.
const XSTATE_BV: usize = 512;

/// What every XSAVE area has behind the FXSAVE image, and the components of which both architectures see the beginning.
// Offsets from 960 on are those of Intel's processors; a guest whose CPUID says otherwise brings its own note along.
#[rustfmt::skip]
const fn xsave(table: &RegisterTable) -> [NoteField; 30] {
    join(&[
        // gdb picks the register set from this copy of XCR0, in the part that is free for software.
        &[NoteField::new(464, 8, FieldValue::RegisterOrGates(table.id("xcr0"), 1 << X87 | 1 << SSE))],
        &[NoteField::new(XSTATE_BV, 8, FieldValue::Gates)],
        &gated(run(table, 576, 16, 16, [
            "ymmh0", "ymmh1", "ymmh2", "ymmh3", "ymmh4", "ymmh5", "ymmh6", "ymmh7",
        ]), AVX),
        &[space(960, 64, BNDREGS), space(1024, 64, BNDCSR)],
        &gated(run(table, 1088, 8, 8, ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"]), OPMASK),
        &gated(run(table, 1152, 32, 32, [
            "zmmh0", "zmmh1", "zmmh2", "zmmh3", "zmmh4", "zmmh5", "zmmh6", "zmmh7",
        ]), ZMM_HI256),
        &gated([reg(table, 2688, 4, "pkru")], PKRU),
        &[space(2692, 4, PKRU)],
    ])
}

#[rustfmt::skip]
const XSTATE_64: [NoteField; 94] = join(&[
    &FXSAVE_64,
    &xsave(&x86_64::TABLE),
    &gated(run(&x86_64::TABLE, 704, 16, 16, [
        "ymmh8", "ymmh9", "ymmh10", "ymmh11", "ymmh12", "ymmh13", "ymmh14", "ymmh15",
    ]), AVX),
    &gated(run(&x86_64::TABLE, 1408, 32, 32, [
        "zmmh8", "zmmh9", "zmmh10", "zmmh11", "zmmh12", "zmmh13", "zmmh14", "zmmh15",
    ]), ZMM_HI256),
    &gated(run(&x86_64::TABLE, 1664, 64, 64, [
        "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23",
        "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31",
    ]), HI16_ZMM),
]);

/// 32-bit code sees 8 of the vectors; the area has room for all.
#[rustfmt::skip]
const XSTATE_32: [NoteField; 59] = join(&[
    &FXSAVE_32,
    &xsave(&i386::TABLE),
    &[space(704, 128, AVX), space(1408, 256, ZMM_HI256), space(1664, 1024, HI16_ZMM)],
]);

/// Registers that only FXSAVE and XSAVE hold: any of them calls for the note.
const FXSAVE_REGISTERS: [&str; 4] = ["fcw", "mxcsr", "st0", "xmm0"];
/// Registers that only XSAVE holds, one of each component. XCR0 alone does not call for the note: it would say that all
/// components are in their initial state.
const XSAVE_REGISTERS_64: [&str; 5] = ["ymmh0", "k0", "zmmh0", "zmm16", "pkru"];
const XSAVE_REGISTERS_32: [&str; 4] = ["ymmh0", "k0", "zmmh0", "pkru"];

/// The notes of an x86_64 vCPU, in order.
#[rustfmt::skip]
pub static X86_64: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 336, size_field: None, gates: None, fields: &PRSTATUS_64,
    },
    NoteTable {
        owner: "CORE", note_type: NT_PRFPREG, name: "NT_PRFPREG", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids(&x86_64::TABLE, FXSAVE_REGISTERS)),
        desc_len: 512, size_field: None, gates: None, fields: &FXSAVE_64,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_X86_XSTATE, name: "NT_X86_XSTATE", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids(&x86_64::TABLE, XSAVE_REGISTERS_64)),
        desc_len: 576, size_field: None, gates: Some(XSTATE_BV), fields: &XSTATE_64,
    },
    NoteTable {
        owner: "QEMU", note_type: NT_QEMU_CPU, name: "QEMUCPUState", scope: NoteScope::Machine,
        emit: Emit::IfAny(&ids(&x86_64::TABLE, ["cr3"])),
        desc_len: 440, size_field: Some(4), gates: None, fields: &QEMU_64,
    },
];

/// The notes of an i386 vCPU, in order.
#[rustfmt::skip]
pub static I386: &[NoteTable] = &[
    NoteTable {
        owner: "CORE", note_type: NT_PRSTATUS, name: "NT_PRSTATUS", scope: NoteScope::Vcpu, emit: Emit::Always,
        desc_len: 144, size_field: None, gates: None, fields: &PRSTATUS_32,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_PRXFPREG, name: "NT_PRXFPREG", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids(&i386::TABLE, FXSAVE_REGISTERS)),
        desc_len: 512, size_field: None, gates: None, fields: &FXSAVE_32,
    },
    NoteTable {
        owner: "LINUX", note_type: NT_X86_XSTATE, name: "NT_X86_XSTATE", scope: NoteScope::Vcpu,
        emit: Emit::IfAny(&ids(&i386::TABLE, XSAVE_REGISTERS_32)),
        desc_len: 576, size_field: None, gates: Some(XSTATE_BV), fields: &XSTATE_32,
    },
    NoteTable {
        owner: "QEMU", note_type: NT_QEMU_CPU, name: "QEMUCPUState", scope: NoteScope::Machine,
        emit: Emit::IfAny(&ids(&i386::TABLE, ["cr3"])),
        desc_len: 440, size_field: Some(4), gates: None, fields: &QEMU_32,
    },
];
