//! How stacks of riscv64 are walked.
//!
//! Source: RISC-V ELF psABI, "Frame Pointer Convention"; Linux `arch/riscv/kernel/stacktrace.c`.

use vmcore_core::{FrameRecord, RegisterFile, StackRules};

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
    interrupt_frame: None,
    orc_registers: &[],
};

/// By the privilege level; where it is not known, Linux has the upper half of the addresses for itself.
fn is_in_program(registers: &RegisterFile) -> Option<bool> {
    let is_low = || registers.value("pc").map(|pc| pc >> 63 == 0);
    registers.value("priv").map(|level| level == 0).or_else(is_low)
}
