//! Registers as KVM gives them (feature `kvm`): the structures of `kvm-bindings`, and the ids of `KVM_GET_ONE_REG`.
//!
//! | architecture | structures | ids |
//! |---|---|---|
//! | x86_64 | `kvm_regs`, `kvm_sregs`, `kvm_sregs2`, `kvm_fpu`, `kvm_xcrs`, `kvm_debugregs`, `kvm_msr_entry`; [`Xsave`](x86_64::Xsave) | [`x86_64::MSRS`] |
//! | aarch64 | `kvm_regs` | [`aarch64::copy_registers`] |
//! | riscv64 | `kvm_riscv_core`, `kvm_riscv_csr` | [`riscv64::copy_registers`] |
//!
//! `kvm-bindings` has the structures of the architecture that it is compiled for alone, and none of ppc64 and s390x. Ids are numbers: they are
//! there on every host. Values go into a [`RegisterFile`] by the names of its table; what the table has no row for is left out. Structures
//! of x86_64 that a debugger's user may change take them back: [`KvmStateMut`].
//!
//! ```
//! # #[cfg(all(feature = "x86_64", target_arch = "x86_64"))] {
//! use kvm_bindings::{kvm_regs, kvm_sregs};
//! use vmcore::RegisterFile;
//! use vmcore::kvm::KvmState;
//!
//! let mut registers = RegisterFile::new(vmcore::arch::by_name("x86_64").unwrap().registers());
//! kvm_regs { rip: 0x1000, ..Default::default() }.copy_to(&mut registers); // of `VcpuFd::get_regs`
//! kvm_sregs { cr3: 0x2000, ..Default::default() }.copy_to(&mut registers); // of `VcpuFd::get_sregs`
//! assert_eq!((registers.value("rip"), registers.value("cr3")), (Some(0x1000), Some(0x2000)));
//! # }
//! ```

pub mod aarch64;
mod one_reg;
pub mod riscv64;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use one_reg::{OneReg, copy_one_regs};

use vmcore_core::RegisterFile;

/// Some of a vCPU's state, as an ioctl of KVM returns it.
pub trait KvmState {
    /// Sets the registers that it holds.
    fn copy_to(&self, registers: &mut RegisterFile);
}

/// Some of a vCPU's state that an ioctl of KVM also sets.
pub trait KvmStateMut: KvmState {
    /// Takes over the registers that it holds; those that are not known stay as they are.
    fn copy_from(&mut self, registers: &RegisterFile);
}
