//! Cores of VirtualBox guests, as `VBoxManage debugvm dumpvmcore` writes them: ELF cores of their own kind, with a record of
//! each vCPU that no other reader of ELF knows.
//!
//! ```text
//! 0        64                  64 + 56 n
//! ┌────────┬───────────────────┬───────────────────────────────────────────┬──────────┬──────────┐
//! │ header │ program headers   │ notes                                     │ memory 1 │ memory 2 │ ...
//! │        │ PT_NOTE, PT_LOAD  │ VBCORE │ VBCPU each vCPU │ CORE, QEMU ... │          │          │
//! └────────┴───────────────────┴───────────────────────────────────────────┴──────────┴──────────┘
//! ```
//!
//! All forms since September 2010 are read; those of releases are written, each by a name of its own. A core that was read
//! is written in its own form, unless another one is named. Guests are x86_64 or i386.
//!
//! What it deliberately does not do: repeat VirtualBox's defects, and leave away the notes of other cores: what VirtualBox has
//! no place for, as CR8 and VMCOREINFO, would be lost.

#![forbid(unsafe_code)]

mod cpu;
pub mod header;
mod layout;
mod notes;
mod read;
pub mod record;
pub mod release;
mod xsave;

use std::sync::Arc;
use vmcore_core::{
    Abilities, Class, DumpOptions, Error, Format, FormatPlugin, Layout, Machine, ReadAt, Variant,
};

/// The format plugin.
#[derive(Debug)]
pub struct Vbox;

vmcore_core::inventory::submit! { FormatPlugin(&Vbox) }

impl Format for Vbox {
    fn name(&self) -> &'static str {
        "vbox"
    }

    fn variants(&self) -> &'static [Variant] {
        &release::VARIANTS
    }

    fn description(&self) -> &'static str {
        "core of a VirtualBox guest, as dumpvmcore writes it; vbox-6.1, vbox-4.3 ... as older releases do"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            classes: &[Class::Elf64],
            both_endians: false,
            registers: true,
            paging: false,
            range: true,
            streaming: true,
            segments: true,
            gaps: true,
            shares: false,
            compressions: &[],
        }
    }

    fn probe(&self, head: &[u8]) -> bool {
        read::is_vbox(head)
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
        read::open(file)
    }

    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
        layout::plan(machine, options)
    }
}
