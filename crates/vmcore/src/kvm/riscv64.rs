//! riscv64.
//!
//! Source: Linux `arch/riscv/include/uapi/asm/kvm.h`; `Documentation/virt/kvm/api.rst`, 4.68.

use super::one_reg::{self, OneReg, size};
use std::iter::zip;
use vmcore_core::RegisterFile;

const RISCV: u64 = 0x8000_0000_0000_0000;
const CORE: u64 = 2 << 24;
const CSR: u64 = 3 << 24;
const FP_D: u64 = 6 << 24;

/// `struct kvm_riscv_core`: words in their order.
const CORE_NAMES: [&str; 33] = [
    "pc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6", "priv",
];
/// `struct kvm_riscv_csr`: words in their order. They are those of the guest's own supervisor mode.
const CSR_NAMES: [&str; 11] = [
    "sstatus",
    "sie",
    "stvec",
    "sscratch",
    "sepc",
    "scause",
    "stval",
    "sip",
    "satp",
    "scounteren",
    "senvcfg",
];
/// `struct __riscv_d_ext_state`: f0 to f31, and a shorter word behind them.
const FLOAT_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

/// All registers of a vCPU that a dump has a place for: general, supervisor and floating point.
pub fn one_regs() -> impl Iterator<Item = OneReg> {
    let words = |names: &'static [&'static str], kind: u64| {
        zip(names, 0..).map(move |(name, index)| OneReg { name, id: RISCV | size(8) | kind | index })
    };
    let fcsr = OneReg { name: "fcsr", id: RISCV | size(4) | FP_D | 32 };
    words(&CORE_NAMES, CORE).chain(words(&CSR_NAMES, CSR)).chain(words(&FLOAT_NAMES, FP_D)).chain([fcsr])
}

/// Sets each register of [`one_regs`] that `get` knows, and `zero`.
///
/// `get` is that of [`copy_one_regs`](super::copy_one_regs).
pub fn copy_registers(registers: &mut RegisterFile, get: impl FnMut(u64, &mut [u8]) -> bool) {
    one_reg::copy_one_regs(one_regs(), registers, get);
    registers.set_value("zero", 0);
}

#[cfg(target_arch = "riscv64")]
mod structs {
    use super::super::KvmState;
    use super::{CORE_NAMES, CSR_NAMES};
    use kvm_bindings::{kvm_riscv_core, kvm_riscv_csr};
    use std::iter::zip;
    use vmcore_core::RegisterFile;

    impl KvmState for kvm_riscv_core {
        fn copy_to(&self, registers: &mut RegisterFile) {
            let kvm_riscv_core { regs, mode } = self;
            let words = [
                regs.pc, regs.ra, regs.sp, regs.gp, regs.tp, regs.t0, regs.t1, regs.t2, regs.s0, regs.s1,
                regs.a0, regs.a1, regs.a2, regs.a3, regs.a4, regs.a5, regs.a6, regs.a7, regs.s2, regs.s3,
                regs.s4, regs.s5, regs.s6, regs.s7, regs.s8, regs.s9, regs.s10, regs.s11, regs.t3, regs.t4,
                regs.t5, regs.t6, *mode,
            ];
            for (name, word) in zip(CORE_NAMES, words) {
                registers.set_value(name, word);
            }
            registers.set_value("zero", 0);
        }
    }

    impl KvmState for kvm_riscv_csr {
        fn copy_to(&self, registers: &mut RegisterFile) {
            let words = [
                self.sstatus,
                self.sie,
                self.stvec,
                self.sscratch,
                self.sepc,
                self.scause,
                self.stval,
                self.sip,
                self.satp,
                self.scounteren,
                self.senvcfg,
            ];
            for (name, word) in zip(CSR_NAMES, words) {
                registers.set_value(name, word);
            }
        }
    }
}

#[cfg(all(test, any(feature = "all", feature = "riscv64")))]
mod tests {
    use crate::{RegisterFile, arch};

    #[test]
    fn every_name_is_in_the_table() {
        let table = arch::by_name("riscv64").unwrap().registers();
        let unknown: Vec<_> = super::one_regs().filter(|row| table.find(row.name).is_none()).collect();
        assert_eq!(unknown, []);
        let mut registers = RegisterFile::new(table);
        super::copy_registers(&mut registers, |id, bytes| {
            bytes.copy_from_slice(&id.to_le_bytes()[..bytes.len()]);
            true
        });
        assert_eq!(registers.value("pc"), Some(0x8030_0000_0200_0000));
        assert_eq!(registers.value("satp"), Some(0x8030_0000_0300_0008));
        assert_eq!(registers.value("ft11"), Some(0x8030_0000_0600_001f));
        assert_eq!(registers.value("fcsr"), Some(0x0600_0020), "its low half: it has 4 bytes");
    }
}
