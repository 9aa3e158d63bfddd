//! How stacks of riscv64 are walked.
//!
//! Source: RISC-V ELF psABI, "Frame Pointer Convention"; Linux `arch/riscv/kernel/stacktrace.c`,
//! `arch/riscv/include/asm/ptrace.h` (`struct pt_regs`).

use vmcore_core::{FrameRecord, InterruptFrame, InterruptLink, RegisterFile, StackRules};

pub(crate) static RULES: StackRules = StackRules {
    is_in_program,
    link_register: Some("ra"),
    return_address: |_, address| address,
    cfa_above_stack_pointer: 0,
    record: Some(FrameRecord {
        pointer: "fp",
        next: -16,
        return_address: -8,
        is_in_caller: false,
        stack_pointer: Some(0),
    }),
    interrupt_frame: Some(InterruptFrame {
        #[rustfmt::skip] // in the order of memory
        registers: &[
            ("pc", 0), ("ra", 8), ("sp", 16), ("gp", 24), ("tp", 32), ("t0", 40), ("t1", 48), ("t2", 56),
            ("fp", 64), ("s1", 72), ("a0", 80), ("a1", 88), ("a2", 96), ("a3", 104), ("a4", 112), ("a5", 120),
            ("a6", 128), ("a7", 136), ("s2", 144), ("s3", 152), ("s4", 160), ("s5", 168), ("s6", 176), ("s7", 184),
            ("s8", 192), ("s9", 200), ("s10", 208), ("s11", 216), ("t3", 224), ("t4", 232), ("t5", 240), ("t6", 248),
        ],
        // Since Linux 6.9, and before: there the handler returns.
        links: &[InterruptLink::InFunctions(&["handle_exception", "ret_from_exception"])],
    }),
    orc_registers: &[],
};

/// By the privilege level; where it is not known, Linux has the upper half of the addresses for itself.
fn is_in_program(registers: &RegisterFile) -> Option<bool> {
    let is_low = || registers.value("pc").map(|pc| pc >> 63 == 0);
    registers.value("priv").map(|level| level == 0).or_else(is_low)
}
