//! Builds small deterministic guests, for tests, for documentation and for the source `demo:`.
//!
//! It shares no layout code with what it tests: page tables, notes' texts and addresses are written here by their own
//! constants. Which architectures it can build depends on what is linked in; their registers come from their tables.
//!
//! ```
//! use vmcore_arch_x86_64 as _; // links the architecture
//! let machine = vmcore_synth::guest("x86_64")?
//!     .ram(0..0x1_0000)
//!     .fill(0x1000, b"hello")
//!     .vcpu(vmcore_synth::spell_names)
//!     .build()?;
//! assert_eq!(machine.vcpus[0].registers().value("rax"), Some(u64::from_le_bytes(*b"rax\0\0\0\0\0")));
//! # Ok::<(), vmcore_core::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod demo;
mod kernel_log;
mod page_tables;
#[cfg(feature = "proptest")]
pub mod strategy;

pub use page_tables::PageTables;

use std::ops::Range;
use std::sync::Arc;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Arch, Error, Gpa, Machine, Note, RegisterFile, RegisterId, arch};

/// A guest under construction.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    arch: &'static dyn Arch,
    blocks: Vec<(Gpa, Vec<u8>)>,
    vcpus: Vec<RegisterFile>,
    vmcoreinfo: Option<String>,
}

/// Begins a guest of the architecture named `arch`.
///
/// # Errors
/// [`Error::Unknown`] if it is not linked in.
pub fn guest(arch: &str) -> Result<GuestBuilder, Error> {
    Ok(GuestBuilder { arch: arch::by_name(arch)?, blocks: Vec::new(), vcpus: Vec::new(), vmcoreinfo: None })
}

impl GuestBuilder {
    /// Adds RAM, all zeros.
    ///
    /// # Panics
    /// If it is larger than this process can hold.
    #[must_use]
    pub fn ram(mut self, range: Range<u64>) -> Self {
        let len = usize::try_from(range.end - range.start).expect("a synthetic guest is small");
        self.blocks.push((Gpa(range.start), vec![0; len]));
        self
    }

    /// Puts bytes into RAM that was added before.
    ///
    /// # Panics
    /// If there is no such RAM.
    #[must_use]
    pub fn fill(mut self, gpa: u64, bytes: &[u8]) -> Self {
        let target = self.blocks.iter_mut().find_map(|(start, block)| {
            let at = usize::try_from(gpa.checked_sub(start.0)?).ok()?;
            block.get_mut(at..at.checked_add(bytes.len())?)
        });
        target.expect("the test names RAM that it added").copy_from_slice(bytes);
        self
    }

    /// Puts page tables into RAM that was added before.
    #[must_use]
    pub fn page_tables(self, tables: &PageTables) -> Self {
        tables.entries().fold(self, |guest, (gpa, entry)| guest.fill(gpa, &entry.to_le_bytes()))
    }

    /// Adds a vCPU, whose registers `set` sets.
    #[must_use]
    pub fn vcpu(mut self, set: impl FnOnce(&mut RegisterFile)) -> Self {
        let mut registers = RegisterFile::new(self.arch.registers());
        set(&mut registers);
        self.vcpus.push(registers);
        self
    }

    /// Gives the guest a VMCOREINFO note with this text.
    #[must_use]
    pub fn vmcoreinfo(mut self, text: &str) -> Self {
        self.vmcoreinfo = Some(text.to_owned());
        self
    }

    /// The finished guest.
    ///
    /// # Errors
    /// [`Error::Range`] if RAM overlaps.
    pub fn build(self) -> Result<Machine, Error> {
        let memory = Arc::new(BlockMemory::new(self.blocks)?);
        let note = self.vmcoreinfo.map(|text| Note::new("VMCOREINFO", 0, text.into_bytes()));
        let mut machine = Machine::new(self.arch, memory, self.vcpus);
        machine.guest_note = note;
        Ok(machine)
    }
}

/// Sets each register of the table to its own name: a failure is then understood without a hex editor.
pub fn spell_names(registers: &mut RegisterFile) {
    for (id, row) in (0..).map(RegisterId).zip(registers.table().rows) {
        registers.set(id, row.name.as_bytes());
    }
}
