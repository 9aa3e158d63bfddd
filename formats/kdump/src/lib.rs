//! kdump-compressed dumps, as makedumpfile and QEMU write them: pages compressed one by one, found by bitmap and table.
//!
//! ```text
//! 0        1 block              1 + sub_hdr_size                                   + bitmap_blocks
//! ┌────────┬────────────┬───────┬──────────────────┬──────────────────────┬────────────────┬───────────┬───────┐
//! │ header │ sub header │ notes │ bitmap: exists   │ bitmap: is stored    │ 24 bytes a page│ zero page │ pages │
//! └────────┴────────────┴───────┴──────────────────┴──────────────────────┴────────────────┴───────────┴───────┘
//! ```
//!
//! Versions 1 to 6 are read, 6 is written; 32 and 64 bit, both byte orders. What it deliberately does not do: write the
//! diskdump format of before 2007, and repeat QEMU's defects (`spec/kdump.md` section 11).

#![forbid(unsafe_code)]

mod ahead;
mod bitmap;
mod cache;
mod codec;
mod fetch;
pub mod header;
mod layout;
pub mod lzo;
mod memory;
mod read;
mod share;
mod table;

use std::sync::Arc;
use vmcore_core::{
    Abilities, Class, Compression, DumpOptions, Error, Format, FormatPlugin, Layout, Machine, ReadAt, Variant,
};

/// The format plugin.
#[derive(Debug)]
pub struct Kdump;

vmcore_core::inventory::submit! { FormatPlugin(&Kdump) }

/// What pages can be compressed with. zlib first: every build of every reader has it.
const COMPRESSIONS: [Compression; 5] = Compression::ALL;

const fn variant(name: &'static str, compression: Compression, wrapper: Option<&'static str>) -> Variant {
    Variant { name, compression: Some(compression), wrapper }
}

impl Format for Kdump {
    fn name(&self) -> &'static str {
        "kdump"
    }

    fn variants(&self) -> &'static [Variant] {
        const {
            &[
                variant("kdump-zlib", Compression::Zlib, Some("flat")),
                variant("kdump-lzo", Compression::Lzo, Some("flat")),
                variant("kdump-snappy", Compression::Snappy, Some("flat")),
                variant("kdump-zstd", Compression::Zstd, Some("flat")),
                variant("kdump-raw-zlib", Compression::Zlib, None),
                variant("kdump-raw-lzo", Compression::Lzo, None),
                variant("kdump-raw-snappy", Compression::Snappy, None),
                variant("kdump-raw-zstd", Compression::Zstd, None),
            ]
        }
    }

    fn description(&self) -> &'static str {
        "kdump-compressed, as makedumpfile writes it"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            classes: &[Class::Elf32, Class::Elf64],
            both_endians: true,
            registers: true,
            paging: false,
            range: true,
            streaming: false,
            segments: false,
            gaps: true,
            shares: true,
            compressions: &COMPRESSIONS,
        }
    }

    fn probe(&self, head: &[u8]) -> bool {
        read::is_kdump(head)
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
        read::open(vec![file])
    }

    fn open_shares(&self, files: Vec<Arc<dyn ReadAt>>) -> Result<Machine, Error> {
        read::open(files)
    }

    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
        layout::plan(machine, options)
    }
}
