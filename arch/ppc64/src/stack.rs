//! How stacks of ppc64 are walked.
//!
//! Source: 64-Bit ELF V2 ABI, section 2.2.2 ("The Stack Frame"); both ABIs have the back chain and the saved LR there.

use vmcore_core::{FrameRecord, StackRules};

/// MSR[PR]: problem state, where programs run.
const PROBLEM_STATE: u64 = 1 << 14;

pub(crate) static RULES: StackRules = StackRules {
    is_in_program: |registers| Some(registers.value("msr")? & PROBLEM_STATE != 0),
    link_register: Some("lr"),
    return_address: |_, address| address,
    cfa_above_stack_pointer: 0,
    // The stack pointer itself points to the chain; a function saves its return address in its caller's frame.
    record: Some(FrameRecord {
        pointer: "r1",
        next: 0,
        return_address: 16,
        is_in_caller: true,
        stack_pointer: None,
    }),
    interrupt_frame: None,
    orc_registers: &[],
};
