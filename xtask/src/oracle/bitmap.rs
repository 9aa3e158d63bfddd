//! The bitmaps of kdump dumps: which pages exist, and which of them are in the dump.
//!
//! Source: makedumpfile 1.7.8 `diskdump_mod.h`; `spec/kdump.md` sections 0 to 2. Of 64-bit dumps alone.

use super::core_file::Order;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A bit for each page below `max_mapnr`, the lowest bit of a byte first.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    pub(crate) max_mapnr: u64,
    /// Bits behind `max_mapnr` are clear.
    pub(crate) bytes: Vec<u8>,
}

/// Both bitmaps of a dump.
pub(crate) struct Bitmaps {
    /// The first: pages that exist.
    pub(crate) present: Bitmap,
    /// The second: pages that the dump holds.
    pub(crate) dumped: Bitmap,
}

impl Bitmaps {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let file = File::open(path)?;
            let mut header = [0; 464];
            file.read_exact_at(&mut header, 0)?;
            ensure!(header.starts_with(b"KDUMP   "), "no dump in the kdump format");
            let order = if Order::Little.u32(&header, 8) < 100 { Order::Little } else { Order::Big };
            let [block, sub, bitmap] = [428, 432, 436].map(|at| u64::from(order.u32(&header, at)));
            let mut max_mapnr = [0; 8];
            file.read_exact_at(&mut max_mapnr, block + 96)?;
            let max_mapnr = order.u64(&max_mapnr, 0);
            let start = (1 + sub) * block;
            let bitmap_at = |offset: u64| -> Result<Bitmap> {
                let mut bytes = vec![0; usize::try_from(max_mapnr.div_ceil(8))?];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(Bitmap { max_mapnr, bytes }.first(max_mapnr))
            };
            Ok(Self { present: bitmap_at(start)?, dumped: bitmap_at(start + bitmap / 2 * block)? })
        };
        read().with_context(|| format!("the bitmaps of {}", path.display()))
    }
}

impl Bitmap {
    pub(crate) fn has(&self, pfn: u64) -> bool {
        let byte = usize::try_from(pfn / 8).ok().and_then(|index| self.bytes.get(index));
        byte.is_some_and(|byte| byte >> (pfn % 8) & 1 == 1)
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// The bits of the pages below `max_mapnr`.
    pub(crate) fn first(&self, max_mapnr: u64) -> Self {
        let mut bytes = self.bytes.clone();
        bytes.resize(usize::try_from(max_mapnr.div_ceil(8)).expect("a bitmap fits into memory"), 0);
        if let Some(last) = bytes.last_mut().filter(|_| !max_mapnr.is_multiple_of(8)) {
            *last &= (1 << (max_mapnr % 8)) - 1;
        }
        Self { max_mapnr, bytes }
    }

    /// The pages that only one of both has, as ranges in each of which it is the same one: `true` is this.
    pub(crate) fn differences(&self, other: &Self) -> Vec<(bool, Range<u64>)> {
        let mut ranges: Vec<(bool, Range<u64>)> = Vec::new();
        for pfn in 0..self.max_mapnr.max(other.max_mapnr) {
            let (ours, theirs) = (self.has(pfn), other.has(pfn));
            if ours == theirs {
                continue;
            }
            match ranges.last_mut() {
                Some((is_ours, range)) if *is_ours == ours && range.end == pfn => range.end = pfn + 1,
                _ => ranges.push((ours, pfn..pfn + 1)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_ranges() {
        let bitmap = |bytes: &[u8]| Bitmap { max_mapnr: 16, bytes: bytes.to_vec() };
        let (a, b) = (bitmap(&[0b0111_0001, 0xff]), bitmap(&[0b0000_0011, 0xff]));
        assert_eq!(a.differences(&b), [(false, 1..2), (true, 4..7)]);
        assert_eq!(a.differences(&a), []);
        assert_eq!(a.first(5).bytes, [0b0001_0001]);
        assert_eq!(a.count(), 12);
    }
}
