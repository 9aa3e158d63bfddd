//! How the pages of a split dump are shared out among its files.
//!
//! Source: `spec/kdump.md` section 7.

use std::ops::Range;
use vmcore_core::pages::push_merged;
use vmcore_core::{Error, Share};

/// Files begin at multiples of this many pages: crash counts bits in words, and so do we, in larger ones (`bitmap.rs`).
const ALIGNMENT: u64 = 4096;

/// The pages of one file: all files together have all pages below `max_mapnr`, each about as many stored ones as the others.
///
/// # Errors
/// [`Error::TooLarge`] if there are so many files that one would be empty: makedumpfile does not put such a dump together.
/// [`Error::Unsupported`] for a file that is not one of them.
pub(crate) fn pages_of(stored: &[Range<u64>], max_mapnr: u64, share: Share) -> Result<Range<u64>, Error> {
    let Share { index, count } = share;
    let (pages, files) = (count_of(stored), u64::from(count));
    if index >= count {
        let found = format!("share {index} of {count}, counted from 0");
        return Err(Error::Unsupported { what: "a dump in several files", found });
    }
    // In units of the alignment: those in which anything is stored.
    let mut units = Vec::new();
    for range in stored {
        push_merged(&mut units, range.start / ALIGNMENT..range.end.div_ceil(ALIGNMENT));
    }
    let limit = count_of(&units);
    if files > limit {
        return Err(Error::TooLarge { what: "number of files of a split dump", found: files, limit });
    }
    // Each border is where it divides the pages best, but leaves a unit at least to each file before and behind it.
    let mut start = 0;
    let mut border = 0;
    for file in 1..=u64::from(index) + 1 {
        start = border;
        let best = u128::from(pages) * u128::from(file) / u128::from(files);
        let best = nth(stored, u64::try_from(best).unwrap_or(pages));
        let unit = best.map_or(limit, |page| rank(&units, page / ALIGNMENT));
        border = unit.clamp(border + 1, limit - files + file);
    }
    let page = |unit| nth(&units, unit).map_or(max_mapnr, |unit| unit * ALIGNMENT);
    Ok(if start == 0 { 0 } else { page(start) }..page(border))
}

fn count_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The number of this index, from 0, among all that are in `ranges`.
fn nth(ranges: &[Range<u64>], mut index: u64) -> Option<u64> {
    for range in ranges {
        let count = range.end - range.start;
        if index < count {
            return Some(range.start + index);
        }
        index -= count;
    }
    None
}

/// How many numbers in `ranges` are below `number`.
fn rank(ranges: &[Range<u64>], number: u64) -> u64 {
    ranges.iter().map(|range| range.end.min(number).saturating_sub(range.start)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(stored: &[Range<u64>], max_mapnr: u64, expected: &[Range<u64>]) {
        let count = u32::try_from(expected.len()).unwrap();
        let found: Vec<Range<u64>> =
            (0..count).map(|index| pages_of(stored, max_mapnr, Share { index, count }).unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn pages_are_divided_evenly() {
        check(&[0..0x8000], 0x8000, &[0..0x4000, 0x4000..0x8000]);
        check(&[0..0x8000], 0x8000, &[0..0x2000, 0x2000..0x5000, 0x5000..0x8000]);
        check(&[0x2000..0x3000, 0x10_0000..0x10_1000], 0x10_2000, &[0..0x10_0000, 0x10_0000..0x10_2000]);
        // Almost all of them in one place: no file is empty for that.
        check(&[5..6, 0x1_0000..0x1_0fff], 0x1_1000, &[0..0x1_0000, 0x1_0000..0x1_1000]);
        check(&[0..0xfff, 0x1_0000..0x1_0001], 0x1_0001, &[0..0x1_0000, 0x1_0000..0x1_0001]);
        let error = pages_of(&[0..0x1fff], 0x1fff, Share { index: 0, count: 3 }).unwrap_err();
        assert_eq!(error.to_string(), "number of files of a split dump: 3 is more than 2");
        assert!(pages_of(&[0..0x1fff], 0x1fff, Share { index: 0, count: 0 }).is_err());
    }

    proptest! {
        #[test]
        fn files_tile_the_dump_and_none_is_empty(
            parts in prop::collection::vec((0..0x8000_u64, 1..0x8000_u64), 1..8),
            behind in 0..0x1000_u64,
            count in 1..12_u32,
        ) {
            let mut stored = Vec::new();
            let mut at = 0;
            for (gap, len) in parts {
                push_merged(&mut stored, at + gap..at + gap + len);
                at += gap + len;
            }
            let max_mapnr = at + behind;
            let mut end = 0;
            for index in 0..count {
                let Ok(pages) = pages_of(&stored, max_mapnr, Share { index, count }) else { continue };
                prop_assert_eq!(pages.start, end);
                prop_assert!(pages.start % ALIGNMENT == 0);
                prop_assert!(rank(&stored, pages.end) > rank(&stored, pages.start));
                end = pages.end;
            }
            prop_assert!(end == 0 || end == max_mapnr);
        }
    }
}
