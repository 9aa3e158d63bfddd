//! The registers of 32-bit Arm, a row each: those of processors with an MMU (A profile).
//!
//! Not among them are those of other modes (`sp_irq`, `spsr_svc`, ...), which neither a note nor QEMU's stub shows, and
//! `q0` to `q15`, which are pairs of `d0` to `d31`.
//!
//! Source: `spec/arch/registers-arm.tsv`, `spec/gdb-registers/arm.tsv` (QEMU 10.0.2), the stub of QEMU 7.2 for ARM1176,
//! Cortex-A9 and Cortex-A15; Arm ARM (DDI 0406), chapter B4; "DWARF for the Arm Architecture".

use gimli::Register as DwarfRegister;
use vmcore_core::Group::{self, Control, Float, General, System};
use vmcore_core::register::{GdbType, gdb, own};
use vmcore_core::{Register, RegisterTable};

/// gdb's features.
const CORE: &str = "org.gnu.gdb.arm.core";
const VFP: &str = "org.gnu.gdb.arm.vfp";
/// QEMU's own. Which registers there are, and their numbers, depend on the processor and on QEMU; gdb goes by names.
const VFP_SYSTEM: &str = "org.qemu.gdb.arm.vfp-sysregs";
const SYSTEM: &str = "org.qemu.gdb.arm.sys.regs";

/// All registers of 32-bit Arm.
pub static TABLE: RegisterTable = RegisterTable {
    gdb_architecture: "arm",
    rows: ROWS,
    gdb_types: &[(VFP, NEON)],
    program_counter: "pc",
    stack_pointer: "sp",
};

/// The views of a double register.
const NEON: &[GdbType] = &[
    GdbType::Vector { id: "neon_uint8x8", element: "uint8", count: 8 },
    GdbType::Vector { id: "neon_uint16x4", element: "uint16", count: 4 },
    GdbType::Vector { id: "neon_uint32x2", element: "uint32", count: 2 },
    GdbType::Vector { id: "neon_float32x2", element: "ieee_single", count: 2 },
    GdbType::Union {
        id: "neon_d",
        fields: &[
            ("u8", "neon_uint8x8"),
            ("u16", "neon_uint16x4"),
            ("u32", "neon_uint32x2"),
            ("u64", "uint64"),
            ("f32", "neon_float32x2"),
            ("f64", "ieee_double"),
        ],
    },
];

const fn dwarf(number: u16) -> Option<DwarfRegister> {
    Some(DwarfRegister(number))
}

const fn core(name: &'static str, group: Group, dwarf: Option<DwarfRegister>, ty: &'static str) -> Register {
    gdb(name, 32, group, dwarf, CORE, name, 32, ty, "")
}

const fn vfp(name: &'static str, bits: u16, dwarf: Option<DwarfRegister>, ty: &'static str) -> Register {
    gdb(name, bits, Float, dwarf, VFP, name, bits, ty, if bits == 32 { "float" } else { "" })
}

/// A system register, and its name in QEMU's stub.
///
/// Processors with long descriptors (LPAE) have a TTBR0 and TTBR1 of 64 bits. QEMU gives the lower half of those, and the
/// registers of other processors, the name that aarch64 has for them. `_s` is what secure code sees, where there is such.
const fn sys(
    name: &'static str,
    bits: u16,
    dwarf: Option<DwarfRegister>,
    gdb_name: &'static str,
) -> Register {
    gdb(name, bits, System, dwarf, SYSTEM, gdb_name, bits, "int", "cp_regs")
}

#[rustfmt::skip] // a table is read by column; gdb's number is the row, so what gdb knows comes first
const ROWS: &[Register] = &[
    //   name           group    DWARF      gdb: type
    core("r0",          General, dwarf(0),  "int"),
    core("r1",          General, dwarf(1),  "int"),
    core("r2",          General, dwarf(2),  "int"),
    core("r3",          General, dwarf(3),  "int"),
    core("r4",          General, dwarf(4),  "int"),
    core("r5",          General, dwarf(5),  "int"),
    core("r6",          General, dwarf(6),  "int"),
    core("r7",          General, dwarf(7),  "int"),
    core("r8",          General, dwarf(8),  "int"),
    core("r9",          General, dwarf(9),  "int"),
    core("r10",         General, dwarf(10), "int"),
    core("r11",         General, dwarf(11), "int"),
    core("r12",         General, dwarf(12), "int"),
    core("sp",          General, dwarf(13), "data_ptr"),
    core("lr",          General, dwarf(14), "int"),
    core("pc",          Control, dwarf(15), "code_ptr"),
    core("cpsr",        Control, None,      "int"),
    vfp("d0",           64,   dwarf(256), "neon_d"),
    vfp("d1",           64,   dwarf(257), "neon_d"),
    vfp("d2",           64,   dwarf(258), "neon_d"),
    vfp("d3",           64,   dwarf(259), "neon_d"),
    vfp("d4",           64,   dwarf(260), "neon_d"),
    vfp("d5",           64,   dwarf(261), "neon_d"),
    vfp("d6",           64,   dwarf(262), "neon_d"),
    vfp("d7",           64,   dwarf(263), "neon_d"),
    vfp("d8",           64,   dwarf(264), "neon_d"),
    vfp("d9",           64,   dwarf(265), "neon_d"),
    vfp("d10",          64,   dwarf(266), "neon_d"),
    vfp("d11",          64,   dwarf(267), "neon_d"),
    vfp("d12",          64,   dwarf(268), "neon_d"),
    vfp("d13",          64,   dwarf(269), "neon_d"),
    vfp("d14",          64,   dwarf(270), "neon_d"),
    vfp("d15",          64,   dwarf(271), "neon_d"),
    vfp("d16",          64,   dwarf(272), "neon_d"),
    vfp("d17",          64,   dwarf(273), "neon_d"),
    vfp("d18",          64,   dwarf(274), "neon_d"),
    vfp("d19",          64,   dwarf(275), "neon_d"),
    vfp("d20",          64,   dwarf(276), "neon_d"),
    vfp("d21",          64,   dwarf(277), "neon_d"),
    vfp("d22",          64,   dwarf(278), "neon_d"),
    vfp("d23",          64,   dwarf(279), "neon_d"),
    vfp("d24",          64,   dwarf(280), "neon_d"),
    vfp("d25",          64,   dwarf(281), "neon_d"),
    vfp("d26",          64,   dwarf(282), "neon_d"),
    vfp("d27",          64,   dwarf(283), "neon_d"),
    vfp("d28",          64,   dwarf(284), "neon_d"),
    vfp("d29",          64,   dwarf(285), "neon_d"),
    vfp("d30",          64,   dwarf(286), "neon_d"),
    vfp("d31",          64,   dwarf(287), "neon_d"),
    vfp("fpscr",        32,   None,       "int"),
    gdb("fpsid",        32,   Float,  None, VFP_SYSTEM, "fpsid", 32, "int", "float"),
    gdb("fpexc",        32,   Float,  None, VFP_SYSTEM, "fpexc", 32, "int", "float"),
    //  name            bits  DWARF       gdb: name
    sys("midr",         32,   None,       "MIDR"),
    sys("sctlr",        32,   None,       "SCTLR"),
    sys("cpacr",        32,   None,       "CPACR"),
    sys("ttbr0",        64,   None,       "TTBR0"),
    sys("ttbr1",        64,   None,       "TTBR1"),
    sys("ttbr0_el1",    32,   None,       "TTBR0_EL1"),
    sys("ttbr1_el1",    32,   None,       "TTBR1_EL1"),
    sys("ttbcr",        32,   None,       "TTBCR"),
    sys("dacr",         32,   None,       "DACR"),
    sys("dfsr",         32,   None,       "DFSR"),
    sys("ifsr",         32,   None,       "IFSR"),
    sys("dfar",         32,   None,       "DFAR"),
    sys("ifar",         32,   None,       "IFAR"),
    sys("mair0",        32,   None,       "MAIR0"),
    sys("mair1",        32,   None,       "MAIR1"),
    sys("vbar",         32,   None,       "VBAR"),
    sys("fcseidr",      32,   None,       "FCSEIDR"),
    sys("contextidr",   32,   None,       "CONTEXTIDR_EL1"),
    sys("tpidrurw",     32,   dwarf(321), "TPIDRURW"),
    sys("tpidruro",     32,   dwarf(320), "TPIDRURO"),
    sys("tpidrprw",     32,   dwarf(322), "TPIDRPRW"),
    // Of processors with a secure world only; QEMU's stub has them by these names.
    own("scr",         32,   System, None),
    own("hcr",         32,   System, None),
    own("sctlr_s",     32,   System, None),
    own("ttbr0_s",     64,   System, None),
    own("ttbr1_s",     64,   System, None),
    own("ttbr0_el1_s", 32,   System, None),
    own("ttbr1_el1_s", 32,   System, None),
    own("ttbcr_s",     32,   System, None),
    own("orig_r0",      32,   Control, None),
];
