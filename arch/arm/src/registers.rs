//! The registers of 32-bit Arm, a row each: those of processors with an MMU (A profile).
//!
//! Not among them are those of other modes (`sp_irq`, `spsr_svc`, ...), which neither a note nor QEMU's stub shows, and
//! `q0` to `q15`, which are pairs of `d0` to `d31`.
//!
//! Source: `spec/arch/registers-arm.tsv`, `spec/gdb-registers/arm.tsv` (QEMU 10.0.2), the stub of QEMU 7.2 for ARM1176,
//! Cortex-A9 and Cortex-A15; Arm ARM (DDI 0406), chapter B4; "DWARF for the Arm Architecture".

use gimli::Register as DwarfRegister;
use vmcore_core::Group::{self, Control, Float, General, System};
use vmcore_core::register::{GdbFeature, GdbType, gdb, own};
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
    gdb_features: &[GdbFeature::mandatory(CORE), GdbFeature::optional(VFP)],
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
    sys("actlr",         32,   None,       "ACTLR_EL1"),
    sys("actlr2",        32,   None,       "ACTLR2"),
    sys("adfsr",         32,   None,       "AFSR0_EL1"),
    sys("aifsr",         32,   None,       "AFSR1_EL1"),
    sys("amair0",        32,   None,       "AMAIR0"),
    sys("amair1",        32,   None,       "AMAIR1"),
    sys("disr",          32,   None,       "DISR_EL1"),
    sys("erridr",        32,   None,       "ERRIDR_EL1"),
    sys("hactlr",        32,   None,       "ACTLR_EL2"),
    sys("hactlr2",       32,   None,       "HACTLR2"),
    sys("nsacr",         32,   None,       "NSACR"),
    sys("par",           64,   None,       "PAR"),
    sys("rmr",           32,   None,       "RMR_EL1"),
    sys("rvbar",         32,   None,       "RVBAR_EL1"),
    sys("sdcr",          32,   None,       "SDCR"),
    sys("ttbcr2",        32,   None,       "TTBCR2"),
    sys("vdisr",         32,   None,       "VDISR_EL2"),
    sys("vsesr",         32,   None,       "VSESR_EL2"),
    sys("wfar",          32,   None,       "WFAR"),
    // Timers.
    sys("cntfrq",        32,   None,       "CNTFRQ"),
    sys("cntkctl",       32,   None,       "CNTKCTL"),
    sys("cntp_ctl",      32,   None,       "CNTP_CTL"),
    sys("cntp_cval",     64,   None,       "CNTP_CVAL"),
    sys("cntv_ctl",      32,   None,       "CNTV_CTL"),
    sys("cntv_cval",     64,   None,       "CNTV_CVAL"),
    // What the processor can do.
    sys("aidr",          32,   None,       "AIDR"),
    sys("cbar",          32,   None,       "CBAR"),
    sys("clidr",         32,   None,       "CLIDR"),
    sys("csselr",        32,   None,       "CSSELR"),
    sys("ctr",           32,   None,       "CTR"),
    sys("dbgdevid",      32,   None,       "DBGDEVID"),
    sys("dbgdevid1",     32,   None,       "DBGDEVID1"),
    sys("dbgdevid2",     32,   None,       "DBGDEVID2"),
    sys("dbgdidr",       32,   None,       "DBGDIDR"),
    sys("id_afr0",       32,   None,       "ID_AFR0"),
    sys("id_dfr0",       32,   None,       "ID_DFR0"),
    sys("id_dfr1",       32,   None,       "ID_DFR1"),
    sys("id_isar0",      32,   None,       "ID_ISAR0"),
    sys("id_isar1",      32,   None,       "ID_ISAR1"),
    sys("id_isar2",      32,   None,       "ID_ISAR2"),
    sys("id_isar3",      32,   None,       "ID_ISAR3"),
    sys("id_isar4",      32,   None,       "ID_ISAR4"),
    sys("id_isar5",      32,   None,       "ID_ISAR5"),
    sys("id_isar6",      32,   None,       "ID_ISAR6"),
    sys("id_mmfr0",      32,   None,       "ID_MMFR0"),
    sys("id_mmfr1",      32,   None,       "ID_MMFR1"),
    sys("id_mmfr2",      32,   None,       "ID_MMFR2"),
    sys("id_mmfr3",      32,   None,       "ID_MMFR3"),
    sys("id_mmfr4",      32,   None,       "ID_MMFR4"),
    sys("id_mmfr5",      32,   None,       "ID_MMFR5"),
    sys("id_pfr0",       32,   None,       "ID_PFR0"),
    sys("id_pfr2",       32,   None,       "ID_PFR2"),
    sys("revidr",        32,   None,       "REVIDR_EL1"),
    sys("tcmtr",         32,   None,       "TCMTR"),
    sys("tlbtr",         32,   None,       "TLBTR"),
    // Jazelle.
    sys("jidr",          32,   None,       "JIDR"),
    sys("jmcr",          32,   None,       "JMCR"),
    sys("joscr",         32,   None,       "JOSCR"),
    // Breakpoints, watchpoints, and the way of a debugger.
    sys("dbgbcr0",       32,   None,       "DBGBCR0_EL1"),
    sys("dbgbcr1",       32,   None,       "DBGBCR1_EL1"),
    sys("dbgbcr2",       32,   None,       "DBGBCR2_EL1"),
    sys("dbgbcr3",       32,   None,       "DBGBCR3_EL1"),
    sys("dbgbcr4",       32,   None,       "DBGBCR4_EL1"),
    sys("dbgbcr5",       32,   None,       "DBGBCR5_EL1"),
    sys("dbgbvr0",       32,   None,       "DBGBVR0_EL1"),
    sys("dbgbvr1",       32,   None,       "DBGBVR1_EL1"),
    sys("dbgbvr2",       32,   None,       "DBGBVR2_EL1"),
    sys("dbgbvr3",       32,   None,       "DBGBVR3_EL1"),
    sys("dbgbvr4",       32,   None,       "DBGBVR4_EL1"),
    sys("dbgbvr5",       32,   None,       "DBGBVR5_EL1"),
    sys("dbgclaimclr",   32,   None,       "DBGCLAIMCLR_EL1"),
    sys("dbgclaimset",   32,   None,       "DBGCLAIMSET_EL1"),
    sys("dbgdccint",     32,   None,       "MDCCINT_EL1"),
    sys("dbgdscrext",    32,   None,       "MDSCR_EL1"),
    sys("dbgdscrint",    32,   None,       "DBGDSCRint"),
    sys("dbgdtr",        32,   None,       "DBGDTR_EL0"),
    sys("dbgdtrrxext",   32,   None,       "OSDTRRX_EL1"),
    sys("dbgdtrtxext",   32,   None,       "OSDTRTX_EL1"),
    sys("dbgosdlr",      32,   None,       "OSDLR_EL1"),
    sys("dbgoseccr",     32,   None,       "OSECCR_EL1"),
    sys("dbgoslsr",      32,   None,       "OSLSR_EL1"),
    sys("dbgvcr",        32,   None,       "DBGVCR"),
    sys("dbgwcr0",       32,   None,       "DBGWCR0_EL1"),
    sys("dbgwcr1",       32,   None,       "DBGWCR1_EL1"),
    sys("dbgwcr2",       32,   None,       "DBGWCR2_EL1"),
    sys("dbgwcr3",       32,   None,       "DBGWCR3_EL1"),
    sys("dbgwvr0",       32,   None,       "DBGWVR0_EL1"),
    sys("dbgwvr1",       32,   None,       "DBGWVR1_EL1"),
    sys("dbgwvr2",       32,   None,       "DBGWVR2_EL1"),
    sys("dbgwvr3",       32,   None,       "DBGWVR3_EL1"),
    // Performance monitors.
    sys("pmccfiltr",     32,   None,       "PMCCFILTR"),
    sys("pmccntr",       32,   None,       "PMCCNTR"),
    sys("pmceid0",       32,   None,       "PMCEID0"),
    sys("pmceid1",       32,   None,       "PMCEID1"),
    sys("pmceid2",       32,   None,       "PMCEID2"),
    sys("pmceid3",       32,   None,       "PMCEID3"),
    sys("pmcntenclr",    32,   None,       "PMCNTENCLR"),
    sys("pmcntenset",    32,   None,       "PMCNTENSET"),
    sys("pmcr",          32,   None,       "PMCR"),
    sys("pmevcntr0",     32,   None,       "PMEVCNTR0"),
    sys("pmevcntr1",     32,   None,       "PMEVCNTR1"),
    sys("pmevcntr2",     32,   None,       "PMEVCNTR2"),
    sys("pmevcntr3",     32,   None,       "PMEVCNTR3"),
    sys("pmevcntr4",     32,   None,       "PMEVCNTR4"),
    sys("pmevcntr5",     32,   None,       "PMEVCNTR5"),
    sys("pmevtyper0",    32,   None,       "PMEVTYPER0"),
    sys("pmevtyper1",    32,   None,       "PMEVTYPER1"),
    sys("pmevtyper2",    32,   None,       "PMEVTYPER2"),
    sys("pmevtyper3",    32,   None,       "PMEVTYPER3"),
    sys("pmevtyper4",    32,   None,       "PMEVTYPER4"),
    sys("pmevtyper5",    32,   None,       "PMEVTYPER5"),
    sys("pmintenset",    32,   None,       "PMINTENSET"),
    sys("pmmir",         32,   None,       "PMMIR_EL1"),
    sys("pmovsr",        32,   None,       "PMOVSR"),
    sys("pmovsset",      32,   None,       "PMOVSSET"),
    sys("pmselr",        32,   None,       "PMSELR"),
    sys("pmuserenr",     32,   None,       "PMUSERENR"),
    // Of Cortex-A57 and its kin.
    sys("cpuactlr",      64,   None,       "CPUACTLR"),
    sys("cpuectlr",      64,   None,       "CPUECTLR"),
    sys("cpumerrsr",     64,   None,       "CPUMERRSR"),
    sys("l2actlr",       32,   None,       "L2ACTLR"),
    sys("l2ctlr",        32,   None,       "L2CTLR"),
    sys("l2ectlr",       32,   None,       "L2ECTLR"),
    sys("l2merrsr",      64,   None,       "L2MERRSR"),
    // ThumbEE, of older processors.
    own("teecr",       32,   System, None),
    own("teehbr",      32,   System, None),
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
