//! LiME images, version 1: a header before each range of memory.
//!
//! Source: the LiME project, `doc/README.md` (fields, both addresses inclusive); Volatility 3,
//! `volatility3/framework/layers/lime.py`.

use crate::ABILITIES;
use std::sync::Arc;
use vmcore_core::memory::without_excluded;
use vmcore_core::read_at::read_vec;
use vmcore_core::{
    Abilities, DumpOptions, Error, Fill, Finding, Format, Gpa, Identity, Layout, Machine, Piece, PieceMap,
    PieceMemory, Place, ReadAt, Severity,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// [`RangeHeader::magic`]: `EMiL`.
pub const MAGIC: u32 = 0x4c69_4d45;
/// [`RangeHeader::version`]: the only one that LiME writes.
pub const VERSION: u32 = 1;
/// The most ranges that are read; guests have a dozen.
const MAX_RANGES: usize = 1 << 16;

/// What stands before a range; its bytes follow. Little-endian, whatever the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RangeHeader {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION`].
    pub version: U32,
    /// Address of the first byte.
    pub s_addr: U64,
    /// Address of the last byte.
    pub e_addr: U64,
    /// Zero.
    pub reserved: [u8; 8],
}
const _: () = assert!(size_of::<RangeHeader>() == 32);

/// The format plugin of LiME images.
#[derive(Debug)]
pub struct Lime;

impl Format for Lime {
    fn name(&self) -> &'static str {
        "lime"
    }

    fn description(&self) -> &'static str {
        "memory alone, in ranges, as LiME writes it (version 1)"
    }

    fn abilities(&self) -> Abilities {
        Abilities { gaps: true, ..ABILITIES }
    }

    fn probe(&self, head: &[u8]) -> bool {
        RangeHeader::read_from_prefix(head).is_ok_and(|(header, _)| header.magic.get() == MAGIC)
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error> {
        let mut ranges = Ranges { map: PieceMap::default(), count: 0, offset: 0 };
        let mut findings = Vec::new();
        while ranges.offset < file.byte_len() {
            match ranges.read(&*file) {
                Ok(finding) => findings.extend(finding),
                // What was read before counts.
                Err(error) if ranges.count > 0 => {
                    let offset = Some(ranges.offset);
                    findings.push(Finding { severity: Severity::Error, offset, text: error.to_string() });
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let memory = PieceMemory::new(file, ranges.map.into_pieces());
        let mut machine = Machine::from_notes(Identity::UNKNOWN, Arc::new(memory), Vec::new());
        machine.findings = findings;
        Ok(machine)
    }

    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
        let mut layout = Layout::default();
        for region in without_excluded(&*machine.memory, options.select(machine)?) {
            let header = RangeHeader {
                magic: U32::new(MAGIC),
                version: U32::new(VERSION),
                s_addr: U64::new(region.gpa.0),
                e_addr: U64::new(region.gpa.0 + (region.len - 1)),
                reserved: [0; 8],
            };
            layout.push_bytes("range header", header.as_bytes().to_vec())?;
            layout.push("memory", region.len, Fill::Memory(region.gpa))?;
        }
        Ok(layout)
    }
}

/// The ranges so far.
struct Ranges {
    map: PieceMap,
    count: usize,
    /// Where the next header is.
    offset: u64,
}

impl Ranges {
    /// Reads the next range. Of a file that ends within it the rest is missing.
    fn read(&mut self, file: &dyn ReadAt) -> Result<Option<Finding>, Error> {
        let at = self.offset;
        let bytes = read_vec(file, at, size_of::<RangeHeader>() as u64, "a header of LiME")?;
        let invalid =
            |what, field, found, expected| Err(Error::Invalid { what, offset: at + field, found, expected });
        let Ok(header) = RangeHeader::read_from_bytes(&bytes) else {
            return invalid("a header of LiME", 0, bytes.len() as u64, "32 bytes");
        };
        let (start, last) = (header.s_addr.get(), header.e_addr.get());
        if header.magic.get() != MAGIC {
            return invalid("LiME's magic", 0, header.magic.get().into(), "0x4c694d45");
        }
        if header.version.get() != VERSION {
            return invalid("LiME's version", 4, header.version.get().into(), "1");
        }
        let Some(len) =
            last.checked_sub(start).and_then(|len| len.checked_add(1)).filter(|_| last < u64::MAX)
        else {
            return invalid("the last address of a range", 16, last, "one behind the first, below 2^64 - 1");
        };
        self.count += 1;
        if self.count > MAX_RANGES {
            return Err(Error::TooLarge {
                what: "ranges of LiME",
                found: self.count as u64,
                limit: MAX_RANGES as u64,
            });
        }
        let data = at + bytes.len() as u64;
        let there = len.min(file.byte_len() - data);
        let mut add = |from: u64, to: u64, place| {
            if from < to {
                let gpa = Gpa(start + from);
                self.map.add(Piece { gpa, len: to - from, place, segment: self.count });
            }
        };
        add(0, there, Place::File(data));
        add(there, len, Place::Missing);
        self.offset = data + there;
        Ok((there < len).then(|| Finding {
            severity: Severity::Error,
            offset: Some(file.byte_len()),
            text: format!(
                "the file ends {:#x} bytes before the end of the range at {}",
                len - there,
                Gpa(start)
            ),
        }))
    }
}
