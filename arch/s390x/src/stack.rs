//! How stacks of s390x are walked.
//!
//! Source: s390x ELF ABI, section 1.3 ("The Stack Frame"); Linux `arch/s390/include/asm/stacktrace.h` (`struct stack_frame`).

use vmcore_core::{FrameRecord, StackRules};

/// The bit of the PSW's mask for problem state, where programs run.
const PROBLEM_STATE: u64 = 1 << 48;

pub(crate) static RULES: StackRules = StackRules {
    is_in_program: |registers| Some(registers.value("pswm")? & PROBLEM_STATE != 0),
    link_register: Some("r14"),
    return_address: |_, address| address,
    // Each function has 160 bytes for registers that those save which it calls.
    cfa_above_stack_pointer: 160,
    // The kernel keeps a back chain, on packed stacks (-mpacked-stack, -mbackchain): the chain is the last of the 160 bytes,
    // and before it r6 to r15 are saved. r14 has the return address.
    record: Some(FrameRecord {
        pointer: "r15",
        next: 152,
        return_address: 136,
        is_in_caller: true,
        stack_pointer: None,
    }),
    interrupt_frame: None,
    orc_registers: &[],
};
