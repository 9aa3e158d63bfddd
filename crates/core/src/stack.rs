//! How the stack of an architecture is walked, where no table of the program says it: what only its ABI knows.
//!
//! Registers are named as in the architecture's [`RegisterTable`](crate::RegisterTable); those that a caller's frame is
//! made of have a DWARF number there.

use crate::RegisterFile;

/// The rules of one architecture. Distances are in bytes.
#[derive(Debug)]
pub struct StackRules {
    /// Whether a vCPU with these registers runs a program, and not the kernel; `None` if they do not tell.
    pub is_in_program: fn(&RegisterFile) -> Option<bool>,
    /// The register that holds the return address of a function that has called nothing yet, if there is one.
    pub link_register: Option<&'static str>,
    /// The address that a return address means which was found in a register or in memory of a vCPU with these registers:
    /// bits that sign it, or that say something else, are taken away.
    pub return_address: fn(&RegisterFile, u64) -> u64,
    /// How far the stack pointer is below the canonical frame address at the call: 0 almost everywhere.
    pub cfa_above_stack_pointer: u64,
    /// Frame records: how kernels and programs that keep frame pointers chain their frames.
    pub record: Option<FrameRecord>,
    /// What Linux saves on its stack when it is interrupted.
    pub interrupt_frame: Option<InterruptFrame>,
    /// Which register each number of Linux's ORC tables means; empty if the kernel has no such tables.
    ///
    /// A name that is missing stands for what is no register.
    pub orc_registers: &'static [Option<&'static str>],
}

/// A frame record: two words that a function leaves in its frame, the caller's frame pointer and the return address.
#[derive(Clone, Copy, Debug)]
pub struct FrameRecord {
    /// The register that points to it: the frame pointer.
    pub pointer: &'static str,
    /// From the frame pointer to the caller's frame pointer.
    pub next: i64,
    /// From the frame pointer, or from the caller's, to the return address.
    pub return_address: i64,
    /// Whether the return address is counted from the caller's frame pointer.
    pub is_in_caller: bool,
    /// From the frame pointer to the caller's stack pointer, where the record tells it.
    pub stack_pointer: Option<i64>,
}

/// An interrupt frame: `struct pt_regs` of Linux, on the kernel's stack.
#[derive(Clone, Copy, Debug)]
pub struct InterruptFrame {
    /// The registers in it, 8 bytes or a word of the architecture each, and where they lie.
    pub registers: &'static [(&'static str, u16)],
    /// How a chain of frame records leads to it, in the kernels that there are.
    pub links: &'static [InterruptLink],
}

/// How a chain of frame records leads to an interrupt frame.
#[derive(Clone, Copy, Debug)]
pub enum InterruptLink {
    /// The frame pointer is the address of the interrupt frame plus this number, which no frame record could have.
    Tagged(u64),
    /// The frame pointer leads to a frame record within the interrupt frame, which repeats its frame pointer and its pc.
    Repeated {
        /// Where in the interrupt frame the record lies.
        at: u64,
    },
    /// The frame pointer leads to a frame record of zeros within the interrupt frame, and a word behind it says what it is.
    Marked {
        /// Where in the interrupt frame the record lies.
        at: u64,
        /// What the word behind it is.
        word: u64,
    },
    /// A word in the frame says that an interrupt frame follows.
    Labelled {
        /// From the frame pointer to the word.
        at: u64,
        /// What it may be.
        words: &'static [u64],
        /// From the frame pointer to the interrupt frame.
        frame: u64,
    },
    /// Behind the last frame of the chain, whose frame pointer of the caller is 0, if what lies there is code of the kernel or of
    /// a program.
    BehindLast {
        /// From the frame pointer to the interrupt frame.
        frame: u64,
    },
    /// The stack pointer leads to it in the functions with these names, which do not touch the frame pointer.
    InFunctions(&'static [&'static str]),
}
