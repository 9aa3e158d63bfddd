//! aarch64.
//!
//! Source: Linux `arch/arm64/include/uapi/asm/kvm.h` and `ptrace.h`; `Documentation/virt/kvm/api.rst`, 4.68; Arm ARM DDI 0487, C5.3
//! (encodings of system registers), C5.2.18 (SPSel).

use super::one_reg::{self, OneReg, size};
use std::iter::zip;
use vmcore_core::RegisterFile;

const ARM64: u64 = 0x6000_0000_0000_0000;
const CORE: u64 = 0x0010_0000;
const SYSTEM: u64 = 0x0013_0000;
const SVE: u64 = 0x0015_0000;
/// Behind the Z registers come the predicates, 32 ids apart; the last of them is FFR.
const SVE_P: u64 = SVE | 0x400;
/// The lengths of vectors that the vCPU has: bit n is a length of n + 1 quadwords.
const SVE_LENGTHS: u64 = ARM64 | size(64) | SVE | 0xffff;

/// Where the fields of `struct kvm_regs` lie: an id counts words of 4 bytes.
const SP_AT: u64 = 248;
const SP_EL1_AT: u64 = 272;
const V_AT: u64 = 336;
const FPSR_AT: u64 = V_AT + 32 * 16;

const fn core(name: &'static str, at: u64, len: u64) -> OneReg {
    OneReg { name, id: ARM64 | size(len) | CORE | (at / 4) }
}

const fn system(name: &'static str, op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> OneReg {
    OneReg { name, id: ARM64 | size(8) | SYSTEM | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2 }
}

const X: [&str; 31] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
];
const V: [&str; 32] = [
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
    "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",
    "v31",
];
const Z: [&str; 32] = [
    "z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8", "z9", "z10", "z11", "z12", "z13", "z14", "z15",
    "z16", "z17", "z18", "z19", "z20", "z21", "z22", "z23", "z24", "z25", "z26", "z27", "z28", "z29", "z30",
    "z31",
];
const P: [&str; 17] = [
    "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15",
    "ffr",
];

#[rustfmt::skip] // a table is read by column
const SPECIAL: [OneReg; 7] = [
    core("sp_el0",   SP_AT,         8),
    core("pc",       256,           8),
    core("pstate",   264,           8),
    core("sp_el1",   SP_EL1_AT,     8),
    core("elr_el1",  280,           8),
    core("spsr_el1", 288,           8), // the first of five; the others are of 32-bit modes
    core("fpsr",     FPSR_AT,       4),
];
const FPCR: OneReg = core("fpcr", FPSR_AT + 4, 4);

#[rustfmt::skip] // a table is read by column
const SYSTEM_REGISTERS: [OneReg; 37] = [
    //      name               op0 op1 CRn CRm op2
    system("mdscr_el1",         2,  0,  0,  2,  2),
    system("id_aa64mmfr0_el1",  3,  0,  0,  7,  0),
    system("id_aa64mmfr1_el1",  3,  0,  0,  7,  1),
    system("id_aa64mmfr2_el1",  3,  0,  0,  7,  2),
    system("sctlr_el1",         3,  0,  1,  0,  0),
    system("actlr_el1",         3,  0,  1,  0,  1),
    system("cpacr_el1",         3,  0,  1,  0,  2),
    system("zcr_el1",           3,  0,  1,  2,  0),
    system("ttbr0_el1",         3,  0,  2,  0,  0),
    system("ttbr1_el1",         3,  0,  2,  0,  1),
    system("tcr_el1",           3,  0,  2,  0,  2),
    system("apiakeylo_el1",     3,  0,  2,  1,  0),
    system("apiakeyhi_el1",     3,  0,  2,  1,  1),
    system("apibkeylo_el1",     3,  0,  2,  1,  2),
    system("apibkeyhi_el1",     3,  0,  2,  1,  3),
    system("apdakeylo_el1",     3,  0,  2,  2,  0),
    system("apdakeyhi_el1",     3,  0,  2,  2,  1),
    system("apdbkeylo_el1",     3,  0,  2,  2,  2),
    system("apdbkeyhi_el1",     3,  0,  2,  2,  3),
    system("apgakeylo_el1",     3,  0,  2,  3,  0),
    system("apgakeyhi_el1",     3,  0,  2,  3,  1),
    system("afsr0_el1",         3,  0,  5,  1,  0),
    system("afsr1_el1",         3,  0,  5,  1,  1),
    system("esr_el1",           3,  0,  5,  2,  0),
    system("far_el1",           3,  0,  6,  0,  0),
    system("par_el1",           3,  0,  7,  4,  0),
    system("mair_el1",          3,  0, 10,  2,  0),
    system("amair_el1",         3,  0, 10,  3,  0),
    system("vbar_el1",          3,  0, 12,  0,  0),
    system("contextidr_el1",    3,  0, 13,  0,  1),
    system("tpidr_el1",         3,  0, 13,  0,  4),
    system("cntkctl_el1",       3,  0, 14,  1,  0),
    system("tpidr_el0",         3,  3, 13,  0,  2),
    system("tpidrro_el0",       3,  3, 13,  0,  3),
    system("vttbr_el2",         3,  4,  2,  1,  0),
    system("hcr_el2",           3,  4,  1,  1,  0),
    system("sp_el2",            3,  6,  4,  1,  0),
];

/// All registers of a vCPU that a dump has a place for.
///
/// A vCPU with SVE has no ids for V registers: those are the low 128 bits of its Z registers.
pub fn one_regs() -> impl Iterator<Item = OneReg> {
    let x = zip(X, 0..).map(|(name, index)| core(name, index * 8, 8));
    let v = zip(V, 0..).map(|(name, index)| core(name, V_AT + index * 16, 16));
    let z_id = |index: u64| ARM64 | size(256) | SVE | index << 5;
    let z = zip(Z, 0..).map(move |(name, index)| OneReg { name, id: z_id(index) });
    let low = zip(V, 0..).map(move |(name, index)| OneReg { name, id: z_id(index) });
    let p = zip(P, 0..).map(|(name, index)| OneReg { name, id: ARM64 | size(32) | SVE_P | index << 5 });
    x.chain(SPECIAL).chain([FPCR]).chain(v).chain(z).chain(low).chain(p).chain(SYSTEM_REGISTERS)
}

/// Sets each register of [`one_regs`] that `get` knows, and those that follow from them: `sp`, and `vg`, the length of vectors.
///
/// `get` is that of [`copy_one_regs`](super::copy_one_regs).
pub fn copy_registers(registers: &mut RegisterFile, mut get: impl FnMut(u64, &mut [u8]) -> bool) {
    one_reg::copy_one_regs(one_regs(), registers, &mut get);
    settle_sp(registers);
    let mut lengths = [0; 64];
    if get(SVE_LENGTHS, &mut lengths)
        && let Some(byte) = lengths.iter().rposition(|byte| *byte != 0)
    {
        // In words of 8 bytes, of which a quadword has two.
        let quadwords = byte as u64 * 8 + u64::from(lengths[byte].ilog2()) + 1;
        registers.set_value("vg", quadwords * 2);
    }
}

/// KVM has a stack pointer for each exception level; PSTATE says which of them is `sp`.
fn settle_sp(registers: &mut RegisterFile) {
    let Some(pstate) = registers.value("pstate") else { return };
    let level = pstate >> 2 & 3;
    let banked = match (pstate & 1, level) {
        (0, _) => "sp_el0",
        (_, 2) => "sp_el2",
        _ => "sp_el1",
    };
    if let Some(sp) = registers.value(banked) {
        registers.set_value("sp", sp);
    }
}

#[cfg(target_arch = "aarch64")]
mod structs {
    use super::super::KvmState;
    use super::{FPSR_AT, SP_AT, SP_EL1_AT, V, V_AT, X, settle_sp};
    use kvm_bindings::{kvm_regs, user_fpsimd_state, user_pt_regs};
    use std::iter::zip;
    use std::mem::offset_of;
    use vmcore_core::RegisterFile;

    const _: () = assert!(offset_of!(user_pt_regs, sp) as u64 == SP_AT);
    const _: () = assert!(offset_of!(kvm_regs, sp_el1) as u64 == SP_EL1_AT);
    const _: () = assert!(offset_of!(kvm_regs, fp_regs) as u64 == V_AT);
    const _: () = assert!(V_AT + offset_of!(user_fpsimd_state, fpsr) as u64 == FPSR_AT);

    impl KvmState for kvm_regs {
        fn copy_to(&self, registers: &mut RegisterFile) {
            let user_pt_regs { regs, sp, pc, pstate } = self.regs;
            for (name, value) in zip(X, regs) {
                registers.set_value(name, value);
            }
            for (name, value) in zip(V, self.fp_regs.vregs) {
                if let Some(id) = registers.table().find(name) {
                    registers.set(id, &value.to_le_bytes());
                }
            }
            let others = [
                ("sp_el0", sp),
                ("pc", pc),
                ("pstate", pstate),
                ("sp_el1", self.sp_el1),
                ("elr_el1", self.elr_el1),
                ("spsr_el1", self.spsr[0]),
                ("fpsr", u64::from(self.fp_regs.fpsr)),
                ("fpcr", u64::from(self.fp_regs.fpcr)),
            ];
            for (name, value) in others {
                registers.set_value(name, value);
            }
            settle_sp(registers);
        }
    }
}

#[cfg(all(test, any(feature = "all", feature = "aarch64")))]
mod tests {
    use super::*;
    use crate::arch;
    use std::collections::HashMap;

    fn copied(vcpu: &HashMap<u64, Vec<u8>>) -> RegisterFile {
        let mut registers = RegisterFile::new(arch::by_name("aarch64").expect("it is linked in").registers());
        copy_registers(&mut registers, |id, bytes| {
            vcpu.get(&id).map(|value| bytes[..value.len()].copy_from_slice(value)).is_some()
        });
        registers
    }

    fn word(value: u64) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    #[test]
    fn ids_are_those_of_the_documentation() {
        let id = |name| one_regs().find(|row| row.name == name).unwrap().id;
        // `Documentation/virt/kvm/api.rst`, 4.68, "arm64 registers".
        let rows = [
            ("x0", 0x6030_0000_0010_0000),
            ("x30", 0x6030_0000_0010_003c),
            ("sp_el0", 0x6030_0000_0010_003e),
            ("pc", 0x6030_0000_0010_0040),
            ("pstate", 0x6030_0000_0010_0042),
            ("sp_el1", 0x6030_0000_0010_0044),
            ("elr_el1", 0x6030_0000_0010_0046),
            ("spsr_el1", 0x6030_0000_0010_0048),
            ("v0", 0x6040_0000_0010_0054),
            ("v31", 0x6040_0000_0010_00d0),
            ("fpsr", 0x6020_0000_0010_00d4),
            ("fpcr", 0x6020_0000_0010_00d5),
            ("ttbr1_el1", 0x6030_0000_0013_c101),
        ];
        for (name, expected) in rows {
            assert_eq!(id(name), expected, "{name}");
        }
    }

    #[test]
    fn every_name_is_in_the_table() {
        let table = arch::by_name("aarch64").unwrap().registers();
        let unknown: Vec<_> = one_regs().filter(|row| table.find(row.name).is_none()).collect();
        assert_eq!(unknown, []);
    }

    #[test]
    fn the_exception_level_chooses_the_stack_pointer() {
        let (sp_el0, pstate, sp_el1) = (0x6030_0000_0010_003e, 0x6030_0000_0010_0042, 0x6030_0000_0010_0044);
        let mut vcpu = HashMap::from([(sp_el0, word(0x1000)), (sp_el1, word(0x2000))]);
        assert_eq!(copied(&vcpu).value("sp"), None);
        for (mode, expected) in [(0b0000, 0x1000), (0b0100, 0x1000), (0b0101, 0x2000)] {
            vcpu.insert(pstate, word(mode));
            assert_eq!(copied(&vcpu).value("sp"), Some(expected), "{mode:#b}");
        }
    }

    #[test]
    fn vectors_of_sve_have_the_length_that_the_vcpu_has() {
        let mut lengths = vec![0; 64];
        lengths[0] = 0b1011; // up to 4 quadwords
        let z1 = ARM64 | size(256) | SVE | 1 << 5;
        let registers = copied(&HashMap::from([(SVE_LENGTHS, lengths), (z1, vec![7; 64])]));
        let get = |name| registers.get(registers.table().find(name).unwrap());
        assert_eq!((registers.value("vg"), get("v1")), (Some(8), Some(&[7; 16][..])));
        assert_eq!(&get("z1").unwrap()[..65], [[7; 64].as_slice(), &[0]].concat());
        assert_eq!(get("v0"), None);
    }
}
