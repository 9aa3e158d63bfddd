//! Why there is no backtrace, or no step to the next frame.

use vmcore_core::Gva;

/// Why a file or the guest's memory gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest could not be read.
    #[error(transparent)]
    Guest(#[from] vmcore_core::Error),
    /// The ELF file is damaged, or not one.
    #[error("{what} of the ELF file")]
    Elf {
        /// Its part.
        what: &'static str,
        /// What is wrong with it.
        source: object::read::Error,
    },
    /// The ELF file is not what can be used here.
    #[error("the ELF file {0}")]
    Unusable(String),
    /// Call-frame information or debug information of the ELF file is damaged.
    #[error("DWARF of the ELF file")]
    Dwarf(#[from] gimli::Error),
    /// A table in the guest's memory holds what it must not hold.
    #[error("{what} at {gva} is {found:#x}, expected {expected}")]
    Table {
        /// The table and its part.
        what: &'static str,
        /// Where it lies.
        gva: Gva,
        /// What it is.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The kernel's list of symbols lacks one.
    #[error("the kernel's symbols have no {0}")]
    NoSymbol(&'static str),
    /// The kernel's BTF lacks a struct, or a struct a member.
    #[error("the kernel's BTF has no {0}")]
    NoMember(&'static str),
    /// A rule needs a register whose value is not known in this frame.
    #[error("register {0} is not known in this frame")]
    NoRegister(String),
}

impl Error {
    /// What is wrong, and why, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let first: &dyn std::error::Error = self;
        let chain = std::iter::successors(Some(first), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
