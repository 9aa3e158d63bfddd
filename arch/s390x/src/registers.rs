//! The registers of s390x, a row each.
//!
//! Source: `spec/arch/registers-s390x.tsv` and `spec/gdb-registers/s390x.tsv` (QEMU 10.0.2); z/Architecture Principles of
//! Operation; DWARF numbers: S/390 ELF ABI supplement, "DWARF Register Number Mapping".

use gimli::Register as DwarfRegister;
use vmcore_core::Group::{Control, Float, General, System, Vector};
use vmcore_core::register::{GdbFeature, GdbType, gdb, own};
use vmcore_core::{Register, RegisterTable};

/// gdb's features, as QEMU names them.
const CORE: &str = "org.gnu.gdb.s390.core";
const ACR: &str = "org.gnu.gdb.s390.acr";
const FPR: &str = "org.gnu.gdb.s390.fpr";
const VX: &str = "org.gnu.gdb.s390.vx";
const GS: &str = "org.gnu.gdb.s390.gs";
const CR: &str = "org.gnu.gdb.s390.cr";
const VIRT: &str = "org.gnu.gdb.s390.virt";

/// All registers of s390x.
pub static TABLE: RegisterTable = RegisterTable {
    gdb_architecture: "s390:64-bit",
    rows: ROWS,
    gdb_types: &[(VX, VECTORS)],
    gdb_features: &[
        GdbFeature::mandatory(CORE),
        GdbFeature::mandatory(ACR),
        GdbFeature::mandatory(FPR),
        GdbFeature::optional(VX),
        GdbFeature::optional(GS),
    ],
    program_counter: "pswa",
    stack_pointer: "r15",
};

/// A number of the ABI; gimli has no table for s390x.
#[expect(clippy::unnecessary_wraps, reason = "what a row has")]
const fn dwarf(number: u16) -> Option<DwarfRegister> {
    Some(DwarfRegister(number))
}

/// The views of a vector register.
const VECTORS: &[GdbType] = &[
    GdbType::Vector { id: "v4f", element: "ieee_single", count: 4 },
    GdbType::Vector { id: "v2d", element: "ieee_double", count: 2 },
    GdbType::Vector { id: "v16i8", element: "int8", count: 16 },
    GdbType::Vector { id: "v8i16", element: "int16", count: 8 },
    GdbType::Vector { id: "v4i32", element: "int32", count: 4 },
    GdbType::Vector { id: "v2i64", element: "int64", count: 2 },
    GdbType::Union {
        id: "vec128",
        fields: &[
            ("v4_float", "v4f"),
            ("v2_double", "v2d"),
            ("v16_int8", "v16i8"),
            ("v8_int16", "v8i16"),
            ("v4_int32", "v4i32"),
            ("v2_int64", "v2i64"),
            ("uint128", "uint128"),
        ],
    },
];

// The high halves of v0 to v15 are f0 to f15; their low halves are rows of their own, as in gdb and in the notes.
#[rustfmt::skip] // a table is read by column; gdb's number is the row
const ROWS: &[Register] = &[
    //  name            bits  group    DWARF       gdb: feature, name     bits  type            group
    gdb("pswm",        64,  Control, dwarf(64), CORE, "pswm",        64,  "uint64",      "psw"),
    gdb("pswa",        64,  Control, dwarf(65), CORE, "pswa",        64,  "uint64",      "psw"),
    gdb("r0",          64,  General, dwarf(0),  CORE, "r0",          64,  "uint64",      "general"),
    gdb("r1",          64,  General, dwarf(1),  CORE, "r1",          64,  "uint64",      "general"),
    gdb("r2",          64,  General, dwarf(2),  CORE, "r2",          64,  "uint64",      "general"),
    gdb("r3",          64,  General, dwarf(3),  CORE, "r3",          64,  "uint64",      "general"),
    gdb("r4",          64,  General, dwarf(4),  CORE, "r4",          64,  "uint64",      "general"),
    gdb("r5",          64,  General, dwarf(5),  CORE, "r5",          64,  "uint64",      "general"),
    gdb("r6",          64,  General, dwarf(6),  CORE, "r6",          64,  "uint64",      "general"),
    gdb("r7",          64,  General, dwarf(7),  CORE, "r7",          64,  "uint64",      "general"),
    gdb("r8",          64,  General, dwarf(8),  CORE, "r8",          64,  "uint64",      "general"),
    gdb("r9",          64,  General, dwarf(9),  CORE, "r9",          64,  "uint64",      "general"),
    gdb("r10",         64,  General, dwarf(10), CORE, "r10",         64,  "uint64",      "general"),
    gdb("r11",         64,  General, dwarf(11), CORE, "r11",         64,  "uint64",      "general"),
    gdb("r12",         64,  General, dwarf(12), CORE, "r12",         64,  "uint64",      "general"),
    gdb("r13",         64,  General, dwarf(13), CORE, "r13",         64,  "uint64",      "general"),
    gdb("r14",         64,  General, dwarf(14), CORE, "r14",         64,  "uint64",      "general"),
    gdb("r15",         64,  General, dwarf(15), CORE, "r15",         64,  "uint64",      "general"),
    gdb("a0",          32,  General, dwarf(48), ACR,  "acr0",        32,  "uint32",      "access"),
    gdb("a1",          32,  General, dwarf(49), ACR,  "acr1",        32,  "uint32",      "access"),
    gdb("a2",          32,  General, dwarf(50), ACR,  "acr2",        32,  "uint32",      "access"),
    gdb("a3",          32,  General, dwarf(51), ACR,  "acr3",        32,  "uint32",      "access"),
    gdb("a4",          32,  General, dwarf(52), ACR,  "acr4",        32,  "uint32",      "access"),
    gdb("a5",          32,  General, dwarf(53), ACR,  "acr5",        32,  "uint32",      "access"),
    gdb("a6",          32,  General, dwarf(54), ACR,  "acr6",        32,  "uint32",      "access"),
    gdb("a7",          32,  General, dwarf(55), ACR,  "acr7",        32,  "uint32",      "access"),
    gdb("a8",          32,  General, dwarf(56), ACR,  "acr8",        32,  "uint32",      "access"),
    gdb("a9",          32,  General, dwarf(57), ACR,  "acr9",        32,  "uint32",      "access"),
    gdb("a10",         32,  General, dwarf(58), ACR,  "acr10",       32,  "uint32",      "access"),
    gdb("a11",         32,  General, dwarf(59), ACR,  "acr11",       32,  "uint32",      "access"),
    gdb("a12",         32,  General, dwarf(60), ACR,  "acr12",       32,  "uint32",      "access"),
    gdb("a13",         32,  General, dwarf(61), ACR,  "acr13",       32,  "uint32",      "access"),
    gdb("a14",         32,  General, dwarf(62), ACR,  "acr14",       32,  "uint32",      "access"),
    gdb("a15",         32,  General, dwarf(63), ACR,  "acr15",       32,  "uint32",      "access"),
    gdb("fpc",         32,  Float,   None,      FPR,  "fpc",         32,  "uint32",      "float"),
    gdb("f0",          64,  Float,   dwarf(16), FPR,  "f0",          64,  "ieee_double", "float"),
    gdb("f1",          64,  Float,   dwarf(20), FPR,  "f1",          64,  "ieee_double", "float"),
    gdb("f2",          64,  Float,   dwarf(17), FPR,  "f2",          64,  "ieee_double", "float"),
    gdb("f3",          64,  Float,   dwarf(21), FPR,  "f3",          64,  "ieee_double", "float"),
    gdb("f4",          64,  Float,   dwarf(18), FPR,  "f4",          64,  "ieee_double", "float"),
    gdb("f5",          64,  Float,   dwarf(22), FPR,  "f5",          64,  "ieee_double", "float"),
    gdb("f6",          64,  Float,   dwarf(19), FPR,  "f6",          64,  "ieee_double", "float"),
    gdb("f7",          64,  Float,   dwarf(23), FPR,  "f7",          64,  "ieee_double", "float"),
    gdb("f8",          64,  Float,   dwarf(24), FPR,  "f8",          64,  "ieee_double", "float"),
    gdb("f9",          64,  Float,   dwarf(28), FPR,  "f9",          64,  "ieee_double", "float"),
    gdb("f10",         64,  Float,   dwarf(25), FPR,  "f10",         64,  "ieee_double", "float"),
    gdb("f11",         64,  Float,   dwarf(29), FPR,  "f11",         64,  "ieee_double", "float"),
    gdb("f12",         64,  Float,   dwarf(26), FPR,  "f12",         64,  "ieee_double", "float"),
    gdb("f13",         64,  Float,   dwarf(30), FPR,  "f13",         64,  "ieee_double", "float"),
    gdb("f14",         64,  Float,   dwarf(27), FPR,  "f14",         64,  "ieee_double", "float"),
    gdb("f15",         64,  Float,   dwarf(31), FPR,  "f15",         64,  "ieee_double", "float"),
    gdb("v0_low",      64,  Vector,  None,      VX,   "v0l",         64,  "uint64",      ""),
    gdb("v1_low",      64,  Vector,  None,      VX,   "v1l",         64,  "uint64",      ""),
    gdb("v2_low",      64,  Vector,  None,      VX,   "v2l",         64,  "uint64",      ""),
    gdb("v3_low",      64,  Vector,  None,      VX,   "v3l",         64,  "uint64",      ""),
    gdb("v4_low",      64,  Vector,  None,      VX,   "v4l",         64,  "uint64",      ""),
    gdb("v5_low",      64,  Vector,  None,      VX,   "v5l",         64,  "uint64",      ""),
    gdb("v6_low",      64,  Vector,  None,      VX,   "v6l",         64,  "uint64",      ""),
    gdb("v7_low",      64,  Vector,  None,      VX,   "v7l",         64,  "uint64",      ""),
    gdb("v8_low",      64,  Vector,  None,      VX,   "v8l",         64,  "uint64",      ""),
    gdb("v9_low",      64,  Vector,  None,      VX,   "v9l",         64,  "uint64",      ""),
    gdb("v10_low",     64,  Vector,  None,      VX,   "v10l",        64,  "uint64",      ""),
    gdb("v11_low",     64,  Vector,  None,      VX,   "v11l",        64,  "uint64",      ""),
    gdb("v12_low",     64,  Vector,  None,      VX,   "v12l",        64,  "uint64",      ""),
    gdb("v13_low",     64,  Vector,  None,      VX,   "v13l",        64,  "uint64",      ""),
    gdb("v14_low",     64,  Vector,  None,      VX,   "v14l",        64,  "uint64",      ""),
    gdb("v15_low",     64,  Vector,  None,      VX,   "v15l",        64,  "uint64",      ""),
    gdb("v16",         128, Vector,  dwarf(68), VX,   "v16",         128, "vec128",      ""),
    gdb("v17",         128, Vector,  dwarf(72), VX,   "v17",         128, "vec128",      ""),
    gdb("v18",         128, Vector,  dwarf(69), VX,   "v18",         128, "vec128",      ""),
    gdb("v19",         128, Vector,  dwarf(73), VX,   "v19",         128, "vec128",      ""),
    gdb("v20",         128, Vector,  dwarf(70), VX,   "v20",         128, "vec128",      ""),
    gdb("v21",         128, Vector,  dwarf(74), VX,   "v21",         128, "vec128",      ""),
    gdb("v22",         128, Vector,  dwarf(71), VX,   "v22",         128, "vec128",      ""),
    gdb("v23",         128, Vector,  dwarf(75), VX,   "v23",         128, "vec128",      ""),
    gdb("v24",         128, Vector,  dwarf(76), VX,   "v24",         128, "vec128",      ""),
    gdb("v25",         128, Vector,  dwarf(80), VX,   "v25",         128, "vec128",      ""),
    gdb("v26",         128, Vector,  dwarf(77), VX,   "v26",         128, "vec128",      ""),
    gdb("v27",         128, Vector,  dwarf(81), VX,   "v27",         128, "vec128",      ""),
    gdb("v28",         128, Vector,  dwarf(78), VX,   "v28",         128, "vec128",      ""),
    gdb("v29",         128, Vector,  dwarf(82), VX,   "v29",         128, "vec128",      ""),
    gdb("v30",         128, Vector,  dwarf(79), VX,   "v30",         128, "vec128",      ""),
    gdb("v31",         128, Vector,  dwarf(83), VX,   "v31",         128, "vec128",      ""),
    gdb("gs_reserved", 64,  System,  None,      GS,   "gs_reserved", 64,  "uint64",      "system"),
    gdb("gsd",         64,  System,  None,      GS,   "gsd",         64,  "uint64",      "system"),
    gdb("gssm",        64,  System,  None,      GS,   "gssm",        64,  "uint64",      "system"),
    gdb("gsepla",      64,  System,  None,      GS,   "gsepla",      64,  "data_ptr",    "system"),
    gdb("cr0",         64,  System,  dwarf(32), CR,   "cr0",         64,  "uint64",      "control"),
    gdb("cr1",         64,  System,  dwarf(33), CR,   "cr1",         64,  "uint64",      "control"),
    gdb("cr2",         64,  System,  dwarf(34), CR,   "cr2",         64,  "uint64",      "control"),
    gdb("cr3",         64,  System,  dwarf(35), CR,   "cr3",         64,  "uint64",      "control"),
    gdb("cr4",         64,  System,  dwarf(36), CR,   "cr4",         64,  "uint64",      "control"),
    gdb("cr5",         64,  System,  dwarf(37), CR,   "cr5",         64,  "uint64",      "control"),
    gdb("cr6",         64,  System,  dwarf(38), CR,   "cr6",         64,  "uint64",      "control"),
    gdb("cr7",         64,  System,  dwarf(39), CR,   "cr7",         64,  "uint64",      "control"),
    gdb("cr8",         64,  System,  dwarf(40), CR,   "cr8",         64,  "uint64",      "control"),
    gdb("cr9",         64,  System,  dwarf(41), CR,   "cr9",         64,  "uint64",      "control"),
    gdb("cr10",        64,  System,  dwarf(42), CR,   "cr10",        64,  "uint64",      "control"),
    gdb("cr11",        64,  System,  dwarf(43), CR,   "cr11",        64,  "uint64",      "control"),
    gdb("cr12",        64,  System,  dwarf(44), CR,   "cr12",        64,  "uint64",      "control"),
    gdb("cr13",        64,  System,  dwarf(45), CR,   "cr13",        64,  "uint64",      "control"),
    gdb("cr14",        64,  System,  dwarf(46), CR,   "cr14",        64,  "uint64",      "control"),
    gdb("cr15",        64,  System,  dwarf(47), CR,   "cr15",        64,  "uint64",      "control"),
    gdb("ckc",         64,  System,  None,      VIRT, "ckc",         64,  "uint64",      "system"),
    gdb("cputm",       64,  System,  None,      VIRT, "cputm",       64,  "uint64",      "system"),
    gdb("last_break",  64,  System,  None,      VIRT, "last_break",  64,  "code_ptr",    "system"),
    gdb("prefix",      32,  System,  None,      VIRT, "prefix",      64,  "data_ptr",    "system"),
    own("orig_gpr2",   64,  Control, None),
    own("todpr",       32,  System,  None),
    own("tod",         64,  System,  None),
    own("tod_epoch",   64,  System,  None),
    own("pp",          64,  System,  None),
    own("cpu_address", 16,  System,  None),
    own("ri_cb",       512, System,  None),
];
