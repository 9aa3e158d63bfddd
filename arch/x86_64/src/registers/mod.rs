//! The register tables of both architectures, and what their rows are made with.

mod gdb_types;
pub mod i386;
pub mod x86_64;

use gimli::Register as DwarfRegister;
use vmcore_core::register::{self, GdbFeature};
use vmcore_core::{Group, Register};

/// gdb's one feature for all of QEMU's x86 registers.
const CORE: &str = "org.gnu.gdb.i386.core";

/// QEMU has put system and vector registers there that gdb does not look for in this feature.
const GDB_FEATURES: &[GdbFeature] = &[GdbFeature {
    extra: &[
        "fs_base",
        "gs_base",
        "k_gs_base",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cr8",
        "efer",
        "xmm0",
        "xmm1",
        "xmm2",
        "xmm3",
        "xmm4",
        "xmm5",
        "xmm6",
        "xmm7",
        "xmm8",
        "xmm9",
        "xmm10",
        "xmm11",
        "xmm12",
        "xmm13",
        "xmm14",
        "xmm15",
        "mxcsr",
    ],
    ..GdbFeature::mandatory(CORE)
}];

/// A register that gdb knows.
#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
const fn gdb(
    name: &'static str,
    bits: u16,
    group: Group,
    dwarf: Option<DwarfRegister>,
    gdb_name: &'static str,
    gdb_bits: u16,
    ty: &'static str,
    gdb_group: &'static str,
) -> Register {
    register::gdb(name, bits, group, dwarf, CORE, gdb_name, gdb_bits, ty, gdb_group)
}
