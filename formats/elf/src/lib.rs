//! ELF cores of guests: 32 and 64 bit, both byte orders, as QEMU's `dump-guest-memory` defines them and as every
//! reader opens them.
//!
//! ```text
//! 0        64 (52)            64 + 56 n                         page-aligned
//! ┌────────┬──────────────────┬─────────────────────┬───────┬──────────┬──────────┐
//! │ header │ program headers  │ section header 0    │ notes │ memory 1 │ memory 2 │ ...
//! │        │ PT_NOTE, PT_LOAD │ (for PN_XNUM only)  │       │          │          │
//! └────────┴──────────────────┴─────────────────────┴───────┴──────────┴──────────┘
//! ```
//!
//! What it deliberately does not do: copy QEMU's layout (section headers before the program headers, which
//! makedumpfile cannot read), sections other than number 0, or cores of processes.

#![forbid(unsafe_code)]

pub mod header;
mod layout;
mod read;

use std::sync::Arc;
use vmcore_core::{Abilities, Class, DumpOptions, Error, Format, FormatPlugin, Layout, Machine, ReadAt};

/// The format plugin.
#[derive(Debug)]
pub struct Elf;

vmcore_core::inventory::submit! { FormatPlugin(&Elf) }

impl Format for Elf {
    fn name(&self) -> &'static str {
        "elf"
    }

    fn description(&self) -> &'static str {
        "ELF core, as dump-guest-memory writes it"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            classes: &[Class::Elf32, Class::Elf64],
            both_endians: true,
            registers: true,
            paging: true,
            range: true,
            streaming: true,
            segments: true,
            gaps: true,
            shares: false,
            compressions: &[],
        }
    }

    fn probe(&self, head: &[u8]) -> bool {
        read::is_core(head)
    }

    /// Cores of other hypervisors are ELF cores with notes of their own.
    fn is_general(&self) -> bool {
        true
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
        read::open(file)
    }

    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
        layout::plan(machine, options)
    }
}
