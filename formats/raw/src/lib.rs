//! Images of memory alone: padded, and LiME's. They hold no registers, no notes and no word on the architecture.
//!
//! ```text
//! padded    address 0                    end of RAM       LiME      32 bytes           32 bytes
//!           ┌───────┬─────────┬──────────┐                          ┌────────┬─────────┬────────┬─────────┐
//!           │ RAM 1 │ (zeros) │ RAM 2    │                          │ header │ RAM 1   │ header │ RAM 2   │
//!           └───────┴─────────┴──────────┘                          └────────┴─────────┴────────┴─────────┘
//! ```
//!
//! Offset is address in a padded image, so nothing of it tells what it is: it is opened only where its format is named.

#![forbid(unsafe_code)]

pub mod lime;

use std::sync::Arc;
use vmcore_core::memory::without_excluded;
use vmcore_core::{
    Abilities, Class, DumpOptions, Error, Fill, Format, FormatPlugin, Gpa, Identity, Layout, Machine, Piece,
    PieceMemory, Place, ReadAt,
};

/// What the padded image can hold; LiME has gaps besides.
const ABILITIES: Abilities = Abilities {
    classes: &[Class::Elf32, Class::Elf64],
    both_endians: true,
    registers: false,
    paging: false,
    range: true,
    streaming: true,
    segments: false,
    gaps: false,
    shares: false,
    compressions: &[],
};

/// The format plugin of padded images.
#[derive(Debug)]
pub struct Raw;

vmcore_core::inventory::submit! { FormatPlugin(&Raw) }
vmcore_core::inventory::submit! { FormatPlugin(&lime::Lime) }

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn description(&self) -> &'static str {
        "memory alone, each byte at the offset of its address"
    }

    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn probe(&self, _: &[u8]) -> bool {
        false
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
        let piece = Piece { gpa: Gpa(0), len: file.byte_len(), place: Place::File(0), segment: 0 };
        Ok(Machine::from_notes(Identity::UNKNOWN, Arc::new(PieceMemory::new(file, vec![piece])), Vec::new()))
    }

    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
        let mut layout = Layout::default();
        for region in without_excluded(&*machine.memory, options.select(machine)?) {
            layout.pad_to(region.gpa.0)?;
            layout.push("memory", region.len, Fill::Memory(region.gpa))?;
        }
        Ok(layout)
    }
}
