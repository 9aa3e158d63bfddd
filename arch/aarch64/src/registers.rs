//! The registers of aarch64, a row each.
//!
//! gdb sees what QEMU's stub shows of a processor without SVE: general registers, the low 128 bits of the vectors, and system
//! registers. A description with SVE has no `v` registers (gdb refuses both), and no dump but one of an SVE processor could
//! fill it.
//!
//! Source: `spec/arch/registers-aarch64.tsv`, `spec/gdb-registers/aarch64.tsv` and `aarch64-cortex-a57.tsv` (QEMU 10.0.2);
//! Arm ARM (DDI 0487), chapters C5 and D19; DWARF numbers are gimli's.

mod gdb_types;

use gimli::{AArch64, Register as DwarfRegister};
use vmcore_core::Group::{Control, Float, General, System, Vector};
use vmcore_core::register::GdbRegister;
use vmcore_core::{Group, Register, RegisterTable};

const CORE: &str = "org.gnu.gdb.aarch64.core";
const FPU: &str = "org.gnu.gdb.aarch64.fpu";
/// gdb 9 to 12 crash on the first version of this feature where there are registers behind it; they pass over this one.
const PAUTH: &str = "org.gnu.gdb.aarch64.pauth_v2";
/// QEMU's own. Which registers there are, and their numbers, depend on the processor and on QEMU; gdb goes by names.
const SYSTEM: &str = "org.qemu.gdb.arm.sys.regs";

/// All registers of aarch64.
pub static TABLE: RegisterTable = RegisterTable {
    gdb_architecture: "aarch64",
    rows: ROWS,
    gdb_types: gdb_types::AARCH64,
    program_counter: "pc",
    stack_pointer: "sp",
};

/// A register that gdb knows by the same name, or by another.
#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
const fn gdb(
    name: &'static str,
    bits: u16,
    group: Group,
    dwarf: Option<DwarfRegister>,
    feature: &'static str,
    gdb_name: &'static str,
    gdb_bits: u16,
    ty: &'static str,
) -> Register {
    let gdb = GdbRegister { feature, name: gdb_name, bits: gdb_bits, ty, group: None };
    Register { name, bits, group, dwarf, gdb: Some(gdb) }
}

/// A system register: its name, DWARF's number, and its name in QEMU's stub.
const fn sys(name: &'static str, dwarf: Option<DwarfRegister>, gdb_name: &'static str) -> Register {
    let gdb = GdbRegister { feature: SYSTEM, name: gdb_name, bits: 64, ty: "int", group: Some("cp_regs") };
    Register { name, bits: 64, group: System, dwarf, gdb: Some(gdb) }
}

/// A register that gdb does not know.
const fn own(name: &'static str, bits: u16, group: Group, dwarf: Option<DwarfRegister>) -> Register {
    Register { name, bits, group, dwarf, gdb: None }
}

#[rustfmt::skip] // a table is read by column; gdb's number is the row
const ROWS: &[Register] = &[
    //   name              bits  group     DWARF                          gdb: feature, name, bits, type
    gdb("x0",               64,   General,  Some(AArch64::X0),             CORE,  "x0",               64,   "int"),
    gdb("x1",               64,   General,  Some(AArch64::X1),             CORE,  "x1",               64,   "int"),
    gdb("x2",               64,   General,  Some(AArch64::X2),             CORE,  "x2",               64,   "int"),
    gdb("x3",               64,   General,  Some(AArch64::X3),             CORE,  "x3",               64,   "int"),
    gdb("x4",               64,   General,  Some(AArch64::X4),             CORE,  "x4",               64,   "int"),
    gdb("x5",               64,   General,  Some(AArch64::X5),             CORE,  "x5",               64,   "int"),
    gdb("x6",               64,   General,  Some(AArch64::X6),             CORE,  "x6",               64,   "int"),
    gdb("x7",               64,   General,  Some(AArch64::X7),             CORE,  "x7",               64,   "int"),
    gdb("x8",               64,   General,  Some(AArch64::X8),             CORE,  "x8",               64,   "int"),
    gdb("x9",               64,   General,  Some(AArch64::X9),             CORE,  "x9",               64,   "int"),
    gdb("x10",              64,   General,  Some(AArch64::X10),            CORE,  "x10",              64,   "int"),
    gdb("x11",              64,   General,  Some(AArch64::X11),            CORE,  "x11",              64,   "int"),
    gdb("x12",              64,   General,  Some(AArch64::X12),            CORE,  "x12",              64,   "int"),
    gdb("x13",              64,   General,  Some(AArch64::X13),            CORE,  "x13",              64,   "int"),
    gdb("x14",              64,   General,  Some(AArch64::X14),            CORE,  "x14",              64,   "int"),
    gdb("x15",              64,   General,  Some(AArch64::X15),            CORE,  "x15",              64,   "int"),
    gdb("x16",              64,   General,  Some(AArch64::X16),            CORE,  "x16",              64,   "int"),
    gdb("x17",              64,   General,  Some(AArch64::X17),            CORE,  "x17",              64,   "int"),
    gdb("x18",              64,   General,  Some(AArch64::X18),            CORE,  "x18",              64,   "int"),
    gdb("x19",              64,   General,  Some(AArch64::X19),            CORE,  "x19",              64,   "int"),
    gdb("x20",              64,   General,  Some(AArch64::X20),            CORE,  "x20",              64,   "int"),
    gdb("x21",              64,   General,  Some(AArch64::X21),            CORE,  "x21",              64,   "int"),
    gdb("x22",              64,   General,  Some(AArch64::X22),            CORE,  "x22",              64,   "int"),
    gdb("x23",              64,   General,  Some(AArch64::X23),            CORE,  "x23",              64,   "int"),
    gdb("x24",              64,   General,  Some(AArch64::X24),            CORE,  "x24",              64,   "int"),
    gdb("x25",              64,   General,  Some(AArch64::X25),            CORE,  "x25",              64,   "int"),
    gdb("x26",              64,   General,  Some(AArch64::X26),            CORE,  "x26",              64,   "int"),
    gdb("x27",              64,   General,  Some(AArch64::X27),            CORE,  "x27",              64,   "int"),
    gdb("x28",              64,   General,  Some(AArch64::X28),            CORE,  "x28",              64,   "int"),
    gdb("x29",              64,   General,  Some(AArch64::X29),            CORE,  "x29",              64,   "int"),
    gdb("x30",              64,   General,  Some(AArch64::X30),            CORE,  "x30",              64,   "int"),
    gdb("sp",               64,   General,  Some(AArch64::SP),             CORE,  "sp",               64,   "data_ptr"),
    gdb("pc",               64,   Control,  Some(AArch64::PC),             CORE,  "pc",               64,   "code_ptr"),
    gdb("pstate",           64,   Control,  None,                          CORE,  "cpsr",             32,   "int"),
    gdb("v0",               128,  Vector,   Some(AArch64::V0),             FPU,   "v0",               128,  "aarch64v"),
    gdb("v1",               128,  Vector,   Some(AArch64::V1),             FPU,   "v1",               128,  "aarch64v"),
    gdb("v2",               128,  Vector,   Some(AArch64::V2),             FPU,   "v2",               128,  "aarch64v"),
    gdb("v3",               128,  Vector,   Some(AArch64::V3),             FPU,   "v3",               128,  "aarch64v"),
    gdb("v4",               128,  Vector,   Some(AArch64::V4),             FPU,   "v4",               128,  "aarch64v"),
    gdb("v5",               128,  Vector,   Some(AArch64::V5),             FPU,   "v5",               128,  "aarch64v"),
    gdb("v6",               128,  Vector,   Some(AArch64::V6),             FPU,   "v6",               128,  "aarch64v"),
    gdb("v7",               128,  Vector,   Some(AArch64::V7),             FPU,   "v7",               128,  "aarch64v"),
    gdb("v8",               128,  Vector,   Some(AArch64::V8),             FPU,   "v8",               128,  "aarch64v"),
    gdb("v9",               128,  Vector,   Some(AArch64::V9),             FPU,   "v9",               128,  "aarch64v"),
    gdb("v10",              128,  Vector,   Some(AArch64::V10),            FPU,   "v10",              128,  "aarch64v"),
    gdb("v11",              128,  Vector,   Some(AArch64::V11),            FPU,   "v11",              128,  "aarch64v"),
    gdb("v12",              128,  Vector,   Some(AArch64::V12),            FPU,   "v12",              128,  "aarch64v"),
    gdb("v13",              128,  Vector,   Some(AArch64::V13),            FPU,   "v13",              128,  "aarch64v"),
    gdb("v14",              128,  Vector,   Some(AArch64::V14),            FPU,   "v14",              128,  "aarch64v"),
    gdb("v15",              128,  Vector,   Some(AArch64::V15),            FPU,   "v15",              128,  "aarch64v"),
    gdb("v16",              128,  Vector,   Some(AArch64::V16),            FPU,   "v16",              128,  "aarch64v"),
    gdb("v17",              128,  Vector,   Some(AArch64::V17),            FPU,   "v17",              128,  "aarch64v"),
    gdb("v18",              128,  Vector,   Some(AArch64::V18),            FPU,   "v18",              128,  "aarch64v"),
    gdb("v19",              128,  Vector,   Some(AArch64::V19),            FPU,   "v19",              128,  "aarch64v"),
    gdb("v20",              128,  Vector,   Some(AArch64::V20),            FPU,   "v20",              128,  "aarch64v"),
    gdb("v21",              128,  Vector,   Some(AArch64::V21),            FPU,   "v21",              128,  "aarch64v"),
    gdb("v22",              128,  Vector,   Some(AArch64::V22),            FPU,   "v22",              128,  "aarch64v"),
    gdb("v23",              128,  Vector,   Some(AArch64::V23),            FPU,   "v23",              128,  "aarch64v"),
    gdb("v24",              128,  Vector,   Some(AArch64::V24),            FPU,   "v24",              128,  "aarch64v"),
    gdb("v25",              128,  Vector,   Some(AArch64::V25),            FPU,   "v25",              128,  "aarch64v"),
    gdb("v26",              128,  Vector,   Some(AArch64::V26),            FPU,   "v26",              128,  "aarch64v"),
    gdb("v27",              128,  Vector,   Some(AArch64::V27),            FPU,   "v27",              128,  "aarch64v"),
    gdb("v28",              128,  Vector,   Some(AArch64::V28),            FPU,   "v28",              128,  "aarch64v"),
    gdb("v29",              128,  Vector,   Some(AArch64::V29),            FPU,   "v29",              128,  "aarch64v"),
    gdb("v30",              128,  Vector,   Some(AArch64::V30),            FPU,   "v30",              128,  "aarch64v"),
    gdb("v31",              128,  Vector,   Some(AArch64::V31),            FPU,   "v31",              128,  "aarch64v"),
    gdb("fpsr",             32,   Float,    None,                          FPU,   "fpsr",             32,   "int"),
    gdb("fpcr",             32,   Float,    None,                          FPU,   "fpcr",             32,   "int"),
    // What of a pointer is its signature: of data and of code, in the lower and in the upper half.
    gdb("pauth_dmask",      64,   System,   None,                          PAUTH, "pauth_dmask",      64,   "int"),
    gdb("pauth_cmask",      64,   System,   None,                          PAUTH, "pauth_cmask",      64,   "int"),
    gdb("pauth_dmask_high", 64,   System,   None,                          PAUTH, "pauth_dmask_high", 64,   "int"),
    gdb("pauth_cmask_high", 64,   System,   None,                          PAUTH, "pauth_cmask_high", 64,   "int"),
    // Translation at EL1 and EL0.
    sys("sctlr_el1",        None,                          "SCTLR"),
    sys("ttbr0_el1",        None,                          "TTBR0_EL1"),
    sys("ttbr1_el1",        None,                          "TTBR1_EL1"),
    sys("tcr_el1",          None,                          "TCR_EL1"),
    sys("mair_el1",         None,                          "MAIR_EL1"),
    sys("amair_el1",        None,                          "AMAIR0"),
    sys("contextidr_el1",   None,                          "CONTEXTIDR_EL1"),
    sys("par_el1",          None,                          "PAR_EL1"),
    // Exceptions taken to EL1, stacks and thread pointers.
    sys("vbar_el1",         None,                          "VBAR"),
    sys("elr_el1",          None,                          "ELR_EL1"),
    sys("spsr_el1",         None,                          "SPSR_EL1"),
    sys("esr_el1",          None,                          "ESR_EL1"),
    sys("far_el1",          None,                          "FAR_EL1"),
    sys("afsr0_el1",        None,                          "AFSR0_EL1"),
    sys("afsr1_el1",        None,                          "AFSR1_EL1"),
    sys("sp_el0",           None,                          "SP_EL0"),
    sys("sp_el1",           None,                          "SP_EL1"),
    sys("tpidr_el0",        Some(AArch64::TPIDR_EL0),      "TPIDR_EL0"),
    sys("tpidrro_el0",      Some(AArch64::TPIDRRO_EL0),    "TPIDRRO_EL0"),
    sys("tpidr2_el0",       None,                          "TPIDR2_EL0"),
    sys("tpidr_el1",        Some(AArch64::TPIDR_EL1),      "TPIDR_EL1"),
    // Features that are switched on: traps, vector lengths, pointer authentication, debug.
    sys("actlr_el1",        None,                          "ACTLR_EL1"),
    sys("cpacr_el1",        None,                          "CPACR"),
    sys("zcr_el1",          None,                          "ZCR_EL1"),
    sys("smcr_el1",         None,                          "SMCR_EL1"),
    sys("svcr",             None,                          "SVCR"),
    sys("apiakeylo_el1",    None,                          "APIAKEYLO_EL1"),
    sys("apiakeyhi_el1",    None,                          "APIAKEYHI_EL1"),
    sys("apibkeylo_el1",    None,                          "APIBKEYLO_EL1"),
    sys("apibkeyhi_el1",    None,                          "APIBKEYHI_EL1"),
    sys("apdakeylo_el1",    None,                          "APDAKEYLO_EL1"),
    sys("apdakeyhi_el1",    None,                          "APDAKEYHI_EL1"),
    sys("apdbkeylo_el1",    None,                          "APDBKEYLO_EL1"),
    sys("apdbkeyhi_el1",    None,                          "APDBKEYHI_EL1"),
    sys("apgakeylo_el1",    None,                          "APGAKEYLO_EL1"),
    sys("apgakeyhi_el1",    None,                          "APGAKEYHI_EL1"),
    sys("mdscr_el1",        None,                          "MDSCR_EL1"),
    sys("oslsr_el1",        None,                          "OSLSR_EL1"),
    // Timers.
    sys("cntkctl_el1",      None,                          "CNTKCTL"),
    sys("cntfrq_el0",       None,                          "CNTFRQ_EL0"),
    sys("cntp_ctl_el0",     None,                          "CNTP_CTL_EL0"),
    sys("cntp_cval_el0",    None,                          "CNTP_CVAL_EL0"),
    sys("cntv_ctl_el0",     None,                          "CNTV_CTL_EL0"),
    sys("cntv_cval_el0",    None,                          "CNTV_CVAL_EL0"),
    // What the processor can do.
    sys("id_aa64mmfr0_el1", None,                          "ID_AA64MMFR0_EL1"),
    sys("id_aa64mmfr1_el1", None,                          "ID_AA64MMFR1_EL1"),
    sys("id_aa64mmfr2_el1", None,                          "ID_AA64MMFR2_EL1"),
    // EL2.
    sys("hcr_el2",          None,                          "HCR_EL2"),
    sys("sctlr_el2",        None,                          "SCTLR_EL2"),
    sys("ttbr0_el2",        None,                          "TTBR0_EL2"),
    sys("ttbr1_el2",        None,                          "TTBR1_EL2"),
    sys("tcr_el2",          None,                          "TCR_EL2"),
    sys("mair_el2",         None,                          "MAIR_EL2"),
    sys("vttbr_el2",        None,                          "VTTBR_EL2"),
    sys("vtcr_el2",         None,                          "VTCR_EL2"),
    sys("vbar_el2",         None,                          "VBAR_EL2"),
    sys("elr_el2",          None,                          "ELR_EL2"),
    sys("spsr_el2",         None,                          "SPSR_EL2"),
    sys("esr_el2",          None,                          "ESR_EL2"),
    sys("far_el2",          None,                          "FAR_EL2"),
    sys("hpfar_el2",        None,                          "HPFAR_EL2"),
    sys("sp_el2",           None,                          "SP_EL2"),
    sys("tpidr_el2",        Some(AArch64::TPIDR_EL2),      "TPIDR_EL2"),
    sys("contextidr_el2",   None,                          "CONTEXTIDR_EL2"),
    sys("cptr_el2",         None,                          "CPTR_EL2"),
    sys("zcr_el2",          None,                          "ZCR_EL2"),
    sys("cntvoff_el2",      None,                          "CNTVOFF_EL2"),
    // EL3.
    sys("scr_el3",          None,                          "SCR_EL3"),
    sys("sctlr_el3",        None,                          "SCTLR_EL3"),
    sys("ttbr0_el3",        None,                          "TTBR0_EL3"),
    sys("tcr_el3",          None,                          "TCR_EL3"),
    sys("mair_el3",         None,                          "MAIR_EL3"),
    sys("vbar_el3",         None,                          "VBAR_EL3"),
    sys("elr_el3",          None,                          "ELR_EL3"),
    sys("spsr_el3",         None,                          "SPSR_EL3"),
    sys("esr_el3",          None,                          "ESR_EL3"),
    sys("far_el3",          None,                          "FAR_EL3"),
    sys("tpidr_el3",        Some(AArch64::TPIDR_EL3),      "TPIDR_EL3"),
    sys("cptr_el3",         None,                          "CPTR_EL3"),
    sys("zcr_el3",          None,                          "ZCR_EL3"),
    // gdb does not know the rest: QEMU's stub does not show these,
    own("midr_el1",         64,   System,   None),
    own("mpidr_el1",        64,   System,   None),
    own("id_aa64pfr0_el1",  64,   System,   None),
    own("tcr2_el1",         64,   System,   None),
    own("rgsr_el1",         64,   System,   None),
    own("gcr_el1",          64,   System,   None),
    own("tfsr_el1",         64,   System,   None),
    // and SVE has a description of its own. A vector has 64 * vg bits, a predicate 8 * vg; at most these.
    own("vg",               64,   Vector,   Some(AArch64::VG)),
    own("z0",               2048, Vector,   Some(AArch64::Z0)),
    own("z1",               2048, Vector,   Some(AArch64::Z1)),
    own("z2",               2048, Vector,   Some(AArch64::Z2)),
    own("z3",               2048, Vector,   Some(AArch64::Z3)),
    own("z4",               2048, Vector,   Some(AArch64::Z4)),
    own("z5",               2048, Vector,   Some(AArch64::Z5)),
    own("z6",               2048, Vector,   Some(AArch64::Z6)),
    own("z7",               2048, Vector,   Some(AArch64::Z7)),
    own("z8",               2048, Vector,   Some(AArch64::Z8)),
    own("z9",               2048, Vector,   Some(AArch64::Z9)),
    own("z10",              2048, Vector,   Some(AArch64::Z10)),
    own("z11",              2048, Vector,   Some(AArch64::Z11)),
    own("z12",              2048, Vector,   Some(AArch64::Z12)),
    own("z13",              2048, Vector,   Some(AArch64::Z13)),
    own("z14",              2048, Vector,   Some(AArch64::Z14)),
    own("z15",              2048, Vector,   Some(AArch64::Z15)),
    own("z16",              2048, Vector,   Some(AArch64::Z16)),
    own("z17",              2048, Vector,   Some(AArch64::Z17)),
    own("z18",              2048, Vector,   Some(AArch64::Z18)),
    own("z19",              2048, Vector,   Some(AArch64::Z19)),
    own("z20",              2048, Vector,   Some(AArch64::Z20)),
    own("z21",              2048, Vector,   Some(AArch64::Z21)),
    own("z22",              2048, Vector,   Some(AArch64::Z22)),
    own("z23",              2048, Vector,   Some(AArch64::Z23)),
    own("z24",              2048, Vector,   Some(AArch64::Z24)),
    own("z25",              2048, Vector,   Some(AArch64::Z25)),
    own("z26",              2048, Vector,   Some(AArch64::Z26)),
    own("z27",              2048, Vector,   Some(AArch64::Z27)),
    own("z28",              2048, Vector,   Some(AArch64::Z28)),
    own("z29",              2048, Vector,   Some(AArch64::Z29)),
    own("z30",              2048, Vector,   Some(AArch64::Z30)),
    own("z31",              2048, Vector,   Some(AArch64::Z31)),
    own("p0",               256,  Vector,   Some(AArch64::P0)),
    own("p1",               256,  Vector,   Some(AArch64::P1)),
    own("p2",               256,  Vector,   Some(AArch64::P2)),
    own("p3",               256,  Vector,   Some(AArch64::P3)),
    own("p4",               256,  Vector,   Some(AArch64::P4)),
    own("p5",               256,  Vector,   Some(AArch64::P5)),
    own("p6",               256,  Vector,   Some(AArch64::P6)),
    own("p7",               256,  Vector,   Some(AArch64::P7)),
    own("p8",               256,  Vector,   Some(AArch64::P8)),
    own("p9",               256,  Vector,   Some(AArch64::P9)),
    own("p10",              256,  Vector,   Some(AArch64::P10)),
    own("p11",              256,  Vector,   Some(AArch64::P11)),
    own("p12",              256,  Vector,   Some(AArch64::P12)),
    own("p13",              256,  Vector,   Some(AArch64::P13)),
    own("p14",              256,  Vector,   Some(AArch64::P14)),
    own("p15",              256,  Vector,   Some(AArch64::P15)),
    own("ffr",              256,  Vector,   Some(AArch64::FFR)),
];
