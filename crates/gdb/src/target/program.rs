//! What is known of the program that a target runs.

use crate::thread::ThreadId;

/// How far sections lie from where they were linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// The address of the first segment at run time: all slides alike. What a kernel with KASLR needs.
    Segment(u64),
    /// How far each kind of section slides.
    Sections {
        /// Code.
        text: u64,
        /// Data.
        data: u64,
        /// Data that begins as zeros; gdb wants it to slide as data does.
        bss: u64,
    },
}

/// A document of a program that is read as it is: `qXfer:...:read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// `libraries`: libraries, or modules of a kernel, as XML: a name, and the addresses of the segments or sections of each.
    Libraries,
    /// `libraries-svr4`: the list of a dynamic linker as XML.
    LibrariesSvr4,
    /// `siginfo`: what the thread's signal came with, in the layout of its `siginfo_t`.
    Siginfo,
    /// `osdata`: tables of the system as XML; the annex is the name of one, or empty for the list of them.
    Osdata,
}

/// The program that a target runs, of a user-mode emulator, or the kernel of a machine.
pub trait Program {
    /// The auxiliary vector, as the kernel put it onto the stack: `qXfer:auxv:read`.
    fn auxv(&self, thread: ThreadId) -> Option<&[u8]> {
        let _ = thread;
        None
    }

    /// Path of the program: `qXfer:exec-file:read`. gdb opens it.
    fn exec_file(&self, process: u32) -> Option<&[u8]> {
        let _ = process;
        None
    }

    /// Which documents there are.
    fn documents(&self) -> &[Document] {
        &[]
    }

    /// A document, or the part of it that `annex` names; one that can be missing at times. Their forms: gdb manual, "Library List Format" and what
    /// follows it. That [`Document::Libraries`] has changed is told by [`StopReason::Libraries`](crate::StopReason::Libraries).
    fn document(&self, thread: ThreadId, document: Document, annex: &str) -> Option<&[u8]> {
        let _ = (thread, document, annex);
        None
    }

    /// Where it was loaded: `qOffsets`.
    fn offsets(&self) -> Option<Offsets> {
        None
    }

    /// Whether the client has found it running; else the target has started it, and a client that leaves ends it.
    /// `qAttached`.
    fn was_running(&self) -> bool {
        true
    }
}
