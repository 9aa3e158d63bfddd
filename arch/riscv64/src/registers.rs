//! The registers of riscv64, a row each, by the names of the ABI.
//!
//! gdb sees what QEMU's stub shows of a processor without vectors: how long those are differs between processors, and a
//! description says it once for all of them.
//!
//! Source: `spec/arch/registers-riscv64.tsv`, `spec/gdb-registers/riscv64.tsv` (QEMU 10.0.2); RISC-V privileged architecture,
//! "CSR Listing"; RISC-V psABI, "DWARF Register Numbers".

use gimli::Register as DwarfRegister;
use vmcore_core::Group::{Control, Float, General, System, Vector};
use vmcore_core::register::{GdbType, gdb, own};
use vmcore_core::{Register, RegisterTable};

/// gdb's features.
const CPU: &str = "org.gnu.gdb.riscv.cpu";
const FPU: &str = "org.gnu.gdb.riscv.fpu";
const CSRS: &str = "org.gnu.gdb.riscv.csr";
const VIRTUAL: &str = "org.gnu.gdb.riscv.virtual";

/// DWARF's number of CSR 0.
const CSR: u16 = 4096;

/// Bits of the longest vector that QEMU has; the architecture allows 65536. Notes of longer ones are carried along.
pub(crate) const MAX_VLEN: u16 = 1024;

/// All registers of riscv64.
pub static TABLE: RegisterTable = RegisterTable {
    gdb_architecture: "riscv:rv64",
    rows: ROWS,
    gdb_types: &[(FPU, &[DOUBLE])],
    program_counter: "pc",
    stack_pointer: "sp",
};

/// The views of a floating-point register.
const DOUBLE: GdbType =
    GdbType::Union { id: "riscv_double", fields: &[("float", "ieee_single"), ("double", "ieee_double")] };

const fn dwarf(number: u16) -> Option<DwarfRegister> {
    Some(DwarfRegister(number))
}

const fn cpu(name: &'static str, dwarf: Option<DwarfRegister>, ty: &'static str) -> Register {
    gdb(name, 64, General, dwarf, CPU, name, 64, ty, "")
}

const fn fpu(name: &'static str, number: u16) -> Register {
    gdb(name, 64, Float, dwarf(number), FPU, name, 64, "riscv_double", "")
}

/// A control and status register, and its number.
const fn csr(name: &'static str, number: u16) -> Register {
    gdb(name, 64, System, dwarf(CSR + number), CSRS, name, 64, "int", "")
}

const fn vector(name: &'static str, number: u16) -> Register {
    own(name, MAX_VLEN, Vector, dwarf(number))
}

#[rustfmt::skip] // a table is read by column; gdb's number is the row, so what gdb knows comes first
const ROWS: &[Register] = &[
    //  name        DWARF      gdb: type
    cpu("zero",     dwarf(0),  "int"),
    cpu("ra",       dwarf(1),  "code_ptr"),
    cpu("sp",       dwarf(2),  "data_ptr"),
    cpu("gp",       dwarf(3),  "data_ptr"),
    cpu("tp",       dwarf(4),  "data_ptr"),
    cpu("t0",       dwarf(5),  "int"),
    cpu("t1",       dwarf(6),  "int"),
    cpu("t2",       dwarf(7),  "int"),
    cpu("fp",       dwarf(8),  "data_ptr"),
    cpu("s1",       dwarf(9),  "int"),
    cpu("a0",       dwarf(10), "int"),
    cpu("a1",       dwarf(11), "int"),
    cpu("a2",       dwarf(12), "int"),
    cpu("a3",       dwarf(13), "int"),
    cpu("a4",       dwarf(14), "int"),
    cpu("a5",       dwarf(15), "int"),
    cpu("a6",       dwarf(16), "int"),
    cpu("a7",       dwarf(17), "int"),
    cpu("s2",       dwarf(18), "int"),
    cpu("s3",       dwarf(19), "int"),
    cpu("s4",       dwarf(20), "int"),
    cpu("s5",       dwarf(21), "int"),
    cpu("s6",       dwarf(22), "int"),
    cpu("s7",       dwarf(23), "int"),
    cpu("s8",       dwarf(24), "int"),
    cpu("s9",       dwarf(25), "int"),
    cpu("s10",      dwarf(26), "int"),
    cpu("s11",      dwarf(27), "int"),
    cpu("t3",       dwarf(28), "int"),
    cpu("t4",       dwarf(29), "int"),
    cpu("t5",       dwarf(30), "int"),
    cpu("t6",       dwarf(31), "int"),
    gdb("pc", 64, Control, None, CPU, "pc", 64, "code_ptr", ""),
    fpu("ft0",      32),
    fpu("ft1",      33),
    fpu("ft2",      34),
    fpu("ft3",      35),
    fpu("ft4",      36),
    fpu("ft5",      37),
    fpu("ft6",      38),
    fpu("ft7",      39),
    fpu("fs0",      40),
    fpu("fs1",      41),
    fpu("fa0",      42),
    fpu("fa1",      43),
    fpu("fa2",      44),
    fpu("fa3",      45),
    fpu("fa4",      46),
    fpu("fa5",      47),
    fpu("fa6",      48),
    fpu("fa7",      49),
    fpu("fs2",      50),
    fpu("fs3",      51),
    fpu("fs4",      52),
    fpu("fs5",      53),
    fpu("fs6",      54),
    fpu("fs7",      55),
    fpu("fs8",      56),
    fpu("fs9",      57),
    fpu("fs10",     58),
    fpu("fs11",     59),
    fpu("ft8",      60),
    fpu("ft9",      61),
    fpu("ft10",     62),
    fpu("ft11",     63),
    //  name         number
    csr("fflags",    0x001),
    csr("frm",       0x002),
    gdb("fcsr", 32, Float, dwarf(CSR + 0x003), CSRS, "fcsr", 64, "int", ""),
    csr("vstart",    0x008),
    csr("vxsat",     0x009),
    csr("vxrm",      0x00a),
    csr("vcsr",      0x00f),
    csr("vl",        0xc20),
    csr("vtype",     0xc21),
    csr("vlenb",     0xc22),
    csr("cycle",     0xc00),
    csr("time",      0xc01),
    csr("instret",   0xc02),
    csr("sstatus",   0x100),
    csr("sie",       0x104),
    csr("stvec",     0x105),
    csr("scounteren",0x106),
    csr("senvcfg",   0x10a),
    csr("sscratch",  0x140),
    csr("sepc",      0x141),
    csr("scause",    0x142),
    csr("stval",     0x143),
    csr("sip",       0x144),
    csr("satp",      0x180),
    csr("vsstatus",  0x200),
    csr("vsie",      0x204),
    csr("vstvec",    0x205),
    csr("vsscratch", 0x240),
    csr("vsepc",     0x241),
    csr("vscause",   0x242),
    csr("vstval",    0x243),
    csr("vsip",      0x244),
    csr("vsatp",     0x280),
    csr("hstatus",   0x600),
    csr("hedeleg",   0x602),
    csr("hideleg",   0x603),
    csr("hie",       0x604),
    csr("hcounteren",0x606),
    csr("hgeie",     0x607),
    csr("htval",     0x643),
    csr("hip",       0x644),
    csr("hvip",      0x645),
    csr("htinst",    0x64a),
    csr("hgatp",     0x680),
    csr("mstatus",   0x300),
    csr("misa",      0x301),
    csr("medeleg",   0x302),
    csr("mideleg",   0x303),
    csr("mie",       0x304),
    csr("mtvec",     0x305),
    csr("mcounteren",0x306),
    csr("menvcfg",   0x30a),
    csr("mscratch",  0x340),
    csr("mepc",      0x341),
    csr("mcause",    0x342),
    csr("mtval",     0x343),
    csr("mip",       0x344),
    csr("pmpcfg0",   0x3a0),
    csr("pmpaddr0",  0x3b0),
    csr("mvendorid", 0xf11),
    csr("marchid",   0xf12),
    csr("mimpid",    0xf13),
    csr("mhartid",   0xf14),
    gdb("priv", 8, System, None, VIRTUAL, "priv", 64, "int", ""),
    // QEMU's stub does not show it.
    own("stimecmp", 64, System, dwarf(CSR + 0x14d)),
    vector("v0",  96),
    vector("v1",  97),
    vector("v2",  98),
    vector("v3",  99),
    vector("v4",  100),
    vector("v5",  101),
    vector("v6",  102),
    vector("v7",  103),
    vector("v8",  104),
    vector("v9",  105),
    vector("v10", 106),
    vector("v11", 107),
    vector("v12", 108),
    vector("v13", 109),
    vector("v14", 110),
    vector("v15", 111),
    vector("v16", 112),
    vector("v17", 113),
    vector("v18", 114),
    vector("v19", 115),
    vector("v20", 116),
    vector("v21", 117),
    vector("v22", 118),
    vector("v23", 119),
    vector("v24", 120),
    vector("v25", 121),
    vector("v26", 122),
    vector("v27", 123),
    vector("v28", 124),
    vector("v29", 125),
    vector("v30", 126),
    vector("v31", 127),
];
