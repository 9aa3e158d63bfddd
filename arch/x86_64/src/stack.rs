//! How stacks of x86_64 and i386 are walked.
//!
//! Source: System V psABI of both; Linux `arch/x86/include/asm/ptrace.h` (`struct pt_regs`), `orc_types.h`.

use vmcore_core::{FrameRecord, InterruptFrame, InterruptLink, RegisterFile, StackRules};

/// Bits of a code selector that say its privilege level; 3 is a program's.
const PRIVILEGE: u64 = 3;

/// Of x86_64.
pub(crate) static X86_64: StackRules = StackRules {
    is_in_program,
    link_register: None,
    return_address: |_, address| address,
    cfa_above_stack_pointer: 0,
    record: Some(FrameRecord {
        pointer: "rbp",
        next: 0,
        return_address: 8,
        is_in_caller: false,
        stack_pointer: Some(16),
    }),
    interrupt_frame: Some(InterruptFrame {
        #[rustfmt::skip] // in the order of memory
        registers: &[
            ("r15", 0), ("r14", 8), ("r13", 16), ("r12", 24), ("rbp", 32), ("rbx", 40), ("r11", 48), ("r10", 56),
            ("r9", 64), ("r8", 72), ("rax", 80), ("rcx", 88), ("rdx", 96), ("rsi", 104), ("rdi", 112), ("orig_rax", 120),
            ("rip", 128), ("cs", 136), ("rflags", 144), ("rsp", 152), ("ss", 160),
        ],
        // Kernels that keep frame pointers (CONFIG_UNWINDER_FRAME_POINTER) do so: ENCODE_FRAME_POINTER.
        links: &[InterruptLink::Tagged(1)],
    }),
    orc_registers: &[
        None,
        None,
        Some("rdx"),
        Some("rdi"),
        Some("rbp"),
        Some("rsp"),
        Some("r10"),
        Some("r13"),
        Some("rbp"),
        Some("rsp"),
    ],
};

/// Of i386.
pub(crate) static I386: StackRules = StackRules {
    is_in_program,
    link_register: None,
    return_address: |_, address| address,
    cfa_above_stack_pointer: 0,
    record: Some(FrameRecord {
        pointer: "ebp",
        next: 0,
        return_address: 4,
        is_in_caller: false,
        stack_pointer: Some(8),
    }),
    interrupt_frame: None,
    orc_registers: &[],
};

fn is_in_program(registers: &RegisterFile) -> Option<bool> {
    Some(registers.value("cs")? & PRIVILEGE == PRIVILEGE)
}
