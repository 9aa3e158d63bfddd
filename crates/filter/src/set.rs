//! Sets of page frames.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bits of a word.
const WORD: u64 = u64::BITS as u64;

/// A set of page frames: a bitmap in blocks of equal length, of which only those exist that are not empty.
///
/// It takes a bit for each page frame of the memory that its pages lie in, however sparse the map of that memory is.
#[derive(Clone)]
pub struct PageSet {
    /// log2 of the frames of a block, at least 6.
    block_shift: u32,
    blocks: BTreeMap<u64, Box<[u64]>>,
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageSet").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// The bits of one block, to be filled by one thread.
#[derive(Debug)]
pub(crate) struct Bits {
    /// The first page frame.
    first: u64,
    /// Allocated with the first bit.
    words: Box<[u64]>,
    len: u64,
}

impl Bits {
    /// None of the `1 << shift` frames of the block that `pfn` lies in.
    pub(crate) fn new(pfn: u64, shift: u32) -> Self {
        let shift = shift.max(WORD.trailing_zeros());
        Self { first: pfn >> shift << shift, words: Box::default(), len: 1 << shift }
    }

    /// Adds frames, all of which lie in the block.
    pub(crate) fn insert(&mut self, frames: Range<u64>) {
        if frames.is_empty() {
            return;
        }
        if self.words.is_empty() {
            self.words = vec![0; usize::try_from(self.len / WORD).expect("a block is small")].into();
        }
        for (index, mask) in masks(frames.start - self.first..frames.end - self.first) {
            self.words[index] |= mask;
        }
    }
}

/// The words that bits lie in, and which bits of each.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    (bits.start / WORD..bits.end.div_ceil(WORD)).map(move |word| {
        let start = bits.start.saturating_sub(word * WORD);
        let unused = ((word + 1) * WORD).saturating_sub(bits.end);
        (usize::try_from(word).expect("a block is small"), u64::MAX >> unused >> start << start)
    })
}

impl PageSet {
    /// The empty set, in blocks of `1 << block_shift` frames, but of 64 at least.
    pub(crate) fn new(block_shift: u32) -> Self {
        Self { block_shift: block_shift.max(WORD.trailing_zeros()), blocks: BTreeMap::new() }
    }

    /// Adds what was collected for one block.
    pub(crate) fn add(&mut self, bits: Bits) {
        if bits.words.is_empty() {
            return;
        }
        debug_assert_eq!(bits.len, 1 << self.block_shift, "blocks of one length");
        match self.blocks.entry(bits.first >> self.block_shift) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(bits.words);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().iter_mut().zip(&bits.words).for_each(|(word, other)| *word |= other);
            }
        }
    }

    /// Takes frames out of the set, and tells how many of them were in it.
    pub(crate) fn remove(&mut self, frames: Range<u64>) -> u64 {
        let mut count = 0;
        if frames.is_empty() {
            return 0;
        }
        let blocks = frames.start >> self.block_shift..=(frames.end - 1) >> self.block_shift;
        for (number, words) in self.blocks.range_mut(blocks) {
            let first = number << self.block_shift;
            let end = frames.end.saturating_sub(first).min(1 << self.block_shift);
            for (index, mask) in masks(frames.start.saturating_sub(first)..end) {
                count += u64::from((words[index] & mask).count_ones());
                words[index] &= !mask;
            }
        }
        count
    }

    /// How many frames are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.blocks.values().flat_map(|words| words.iter()).map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether no frame is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.values().all(|words| words.iter().all(|word| *word == 0))
    }

    /// Whether a frame is in it.
    #[must_use]
    pub fn contains(&self, pfn: u64) -> bool {
        self.run(pfn, 1).0
    }

    /// Whether frame `pfn` is in it, and for how many frames from there on the same is true: at least 1, at most `max`.
    #[must_use]
    pub fn run(&self, pfn: u64, max: u64) -> (bool, u64) {
        let end = pfn.saturating_add(max.max(1));
        let mut is_in = None;
        let mut at = pfn;
        while at < end {
            let number = at >> self.block_shift;
            let Some(words) = self.blocks.get(&number) else {
                if is_in == Some(true) {
                    break;
                }
                is_in = Some(false);
                let next = self.blocks.range(number..).next();
                at = next.map_or(end, |(number, _)| number << self.block_shift);
                continue;
            };
            let offset = at - (number << self.block_shift);
            let is_set = |bit: u64| words[word_of(bit)] >> (bit % WORD) & 1 != 0;
            let wanted = *is_in.get_or_insert_with(|| is_set(offset));
            let same = same_from(words, offset, wanted);
            at += same;
            if offset + same < 1 << self.block_shift {
                break;
            }
        }
        (is_in.unwrap_or(false), at.min(end) - pfn)
    }
}

fn word_of(bit: u64) -> usize {
    usize::try_from(bit / WORD).expect("a block is small")
}

/// How many bits from `bit` on are `wanted`.
fn same_from(words: &[u64], bit: u64, wanted: bool) -> u64 {
    let other = |word: u64| if wanted { !word } else { word };
    let first = other(words[word_of(bit)]) >> (bit % WORD);
    if first != 0 {
        return u64::from(first.trailing_zeros());
    }
    let mut count = WORD - bit % WORD;
    for word in &words[word_of(bit) + 1..] {
        if other(*word) != 0 {
            return count + u64::from(other(*word).trailing_zeros());
        }
        count += WORD;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const SHIFT: u32 = 7;

    fn set(ranges: &[Range<u64>]) -> PageSet {
        let mut set = PageSet::new(SHIFT);
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(((at >> SHIFT) + 1) << SHIFT);
                let mut bits = Bits::new(at, SHIFT);
                bits.insert(at..end);
                set.add(bits);
                at = end;
            }
        }
        set
    }

    #[test]
    fn runs_cross_blocks_and_holes() {
        const FAR: u64 = 1 << 40;
        let set = set(&[100..300, FAR..FAR + 1]);
        let check = |pfn, max, expected| assert_eq!(set.run(pfn, max), expected, "{pfn} {max}");
        check(0, u64::MAX, (false, 100));
        check(100, u64::MAX, (true, 200));
        check(127, 1, (true, 1));
        check(128, 100, (true, 100));
        check(300, u64::MAX, (false, FAR - 300));
        check(FAR, 7, (true, 1));
        check(FAR + 1, u64::MAX, (false, u64::MAX - FAR - 1));
        check(u64::MAX, 5, (false, 0));
        assert_eq!(set.count(), 201);
    }

    proptest! {
        /// It holds what was added and not taken out again.
        #[test]
        fn it_is_a_set(
            added in prop::collection::vec((0..600_u64, 0..200_u64), 0..6),
            taken in prop::collection::vec((0..600_u64, 0..200_u64), 0..4),
        ) {
            let range = |(start, len): &(u64, u64)| *start..start + len;
            let mut wanted: BTreeSet<u64> = added.iter().flat_map(range).collect();
            let mut set = set(&added.iter().map(range).collect::<Vec<_>>());
            for range in taken.iter().map(range) {
                let count = range.clone().filter(|pfn| wanted.remove(pfn)).count() as u64;
                prop_assert_eq!(set.remove(range), count);
            }
            prop_assert_eq!(set.count(), wanted.len() as u64);
            for pfn in 0..900 {
                let is_in = wanted.contains(&pfn);
                let len = (pfn..1000).take_while(|next| wanted.contains(next) == is_in).count() as u64;
                prop_assert_eq!(set.run(pfn, 1000 - pfn), (is_in, len));
            }
        }
    }
}
