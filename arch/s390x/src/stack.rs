//! How stacks of s390x are walked.
//!
//! Source: s390x ELF ABI, section 1.3 ("The Stack Frame"); Linux `arch/s390/include/asm/stacktrace.h` (`struct stack_frame`),
//! `ptrace.h` (`struct pt_regs`), `arch/s390/kernel/unwind_bc.c`.

use vmcore_core::{FrameRecord, InterruptFrame, InterruptLink, StackRules};

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
    interrupt_frame: Some(InterruptFrame {
        #[rustfmt::skip] // in the order of memory
        registers: &[
            ("pswm", 8), ("pswa", 16),
            ("r0", 24), ("r1", 32), ("r2", 40), ("r3", 48), ("r4", 56), ("r5", 64), ("r6", 72), ("r7", 80),
            ("r8", 88), ("r9", 96), ("r10", 104), ("r11", 112), ("r12", 120), ("r13", 128), ("r14", 136), ("r15", 144),
        ],
        // What is interrupted begins a new chain, in a frame of 160 bytes.
        links: &[InterruptLink::BehindLast { frame: 160 }],
    }),
    orc_registers: &[],
};
