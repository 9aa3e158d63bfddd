//! How stacks of ppc64 are walked.
//!
//! Source: 64-Bit ELF V2 ABI, section 2.2.2 ("The Stack Frame"); both ABIs have the back chain and the saved LR there. Linux
//! `arch/powerpc/include/asm/ptrace.h` (`struct pt_regs`, `STACK_FRAME_REGS_MARKER`), `arch/powerpc/kernel/process.c` (`show_stack`).

use vmcore_core::{FrameRecord, InterruptFrame, InterruptLink, StackRules};

/// What Linux writes 16 bytes before an interrupt frame: "regshere" up to 6.0; then "REGS" in a word of 32 bits, as read in either
/// byte order.
const MARKERS: &[u64] = &[0x7265_6773_6865_7265, 0x5347_4552, 0x5245_4753];

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
    interrupt_frame: Some(InterruptFrame {
        #[rustfmt::skip] // in the order of memory
        registers: &[
            ("r0", 0), ("r1", 8), ("r2", 16), ("r3", 24), ("r4", 32), ("r5", 40), ("r6", 48), ("r7", 56),
            ("r8", 64), ("r9", 72), ("r10", 80), ("r11", 88), ("r12", 96), ("r13", 104), ("r14", 112), ("r15", 120),
            ("r16", 128), ("r17", 136), ("r18", 144), ("r19", 152), ("r20", 160), ("r21", 168), ("r22", 176), ("r23", 184),
            ("r24", 192), ("r25", 200), ("r26", 208), ("r27", 216), ("r28", 224), ("r29", 232), ("r30", 240), ("r31", 248),
            ("nip", 256), ("msr", 264), ("ctr", 280), ("lr", 288),
        ],
        // In frames of 112 bytes: up to Linux 6.1, and with the first ABI. Of 48 bytes since.
        links: &[
            InterruptLink::Labelled { at: 96, words: MARKERS, frame: 112 },
            InterruptLink::Labelled { at: 32, words: MARKERS, frame: 48 },
        ],
    }),
    orc_registers: &[],
};
