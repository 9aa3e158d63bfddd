//! The register tables of both architectures, and what their rows are made with.

mod gdb_types;
pub mod i386;
pub mod x86_64;

use gimli::Register as DwarfRegister;
use vmcore_core::register;
use vmcore_core::{Group, Register};

/// gdb's one feature for all of QEMU's x86 registers.
const CORE: &str = "org.gnu.gdb.i386.core";

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
