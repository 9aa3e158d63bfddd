//! Which pages there are: bitmaps of page frames, read once and kept without their empty parts.

use std::ops::Range;
use vmcore_core::pages::push_merged;
use vmcore_core::{Error, ReadAt, RunState};

/// Bytes of a bitmap that are read at once.
const READ_LEN: u64 = 1 << 20;
/// Bytes of a chunk: 4096 bits.
const CHUNK_LEN: usize = 512;
/// Bits of a chunk.
const CHUNK_BITS: u64 = CHUNK_LEN as u64 * 8;
/// Bytes of a part of a chunk: its rank is known too.
const PART_LEN: usize = 64;
/// The most chunks that are kept: 16 TiB of 4 KiB pages.
const MAX_CHUNKS: usize = 1 << 20;

/// 4096 bits, not all of them zero.
struct Chunk {
    /// Its first bit, in chunks.
    index: u64,
    /// Set bits in all chunks before it.
    rank: u64,
    /// Set bits of the chunk before each of its parts.
    ranks: [u16; CHUNK_LEN / PART_LEN],
    bits: Box<[u8; CHUNK_LEN]>,
}

/// A bitmap that can tell how many bits are set before one.
#[derive(Default)]
pub(crate) struct Bitmap {
    chunks: Vec<Chunk>,
    count: u64,
}

impl Bitmap {
    /// Reads the bitmap of `len` bytes at `offset`. What the file lacks is clear; the second value is how many bytes it has.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more pages than any machine has, [`Error::Io`].
    pub(crate) fn read(file: &dyn ReadAt, offset: u64, len: u64, bits: u64) -> Result<(Self, u64), Error> {
        let have = len.min(file.byte_len().saturating_sub(offset));
        let mut bitmap = Self::default();
        let mut buf = Vec::new();
        let mut at = 0;
        while at < have {
            let start = offset.saturating_add(at);
            let run = file.run_at(start, have - at);
            if run.state == RunState::Zero && run.len >= CHUNK_LEN as u64 {
                // Holes of a sparse file, in whole chunks.
                at += run.len / CHUNK_LEN as u64 * CHUNK_LEN as u64;
                continue;
            }
            let step = READ_LEN.min(have - at);
            buf.clear();
            buf.resize(usize::try_from(step).unwrap_or(0).next_multiple_of(CHUNK_LEN), 0);
            let part = buf.get_mut(..usize::try_from(step).unwrap_or(0)).unwrap_or_default();
            let io = |source| Error::Io { what: "reading a bitmap", offset: start, source };
            file.read_at(start, part).map_err(io)?;
            let (chunks, _) = buf.as_chunks::<CHUNK_LEN>();
            for (index, chunk) in (at / CHUNK_LEN as u64..).zip(chunks) {
                bitmap.push(index, *chunk, bits)?;
            }
            at += step;
        }
        Ok((bitmap, have))
    }

    /// Adds the next chunk, without the bits from `end` on.
    fn push(&mut self, index: u64, mut bits: [u8; CHUNK_LEN], end: u64) -> Result<(), Error> {
        let left = end.saturating_sub(index.saturating_mul(CHUNK_BITS));
        if left < CHUNK_BITS {
            let (full, rest) = (usize::try_from(left / 8).unwrap_or(0), left % 8);
            bits[full] &= (1_u8 << rest) - 1;
            bits[full + 1..].fill(0);
        }
        let mut count = 0;
        let ranks = std::array::from_fn(|part| {
            let rank = u16::try_from(count).expect("a chunk has 4096 bits");
            count += count_ones(&bits[part * PART_LEN..][..PART_LEN]);
            rank
        });
        if count == 0 {
            return Ok(());
        }
        if self.chunks.len() == MAX_CHUNKS {
            let (found, limit) = (self.count + count, MAX_CHUNKS as u64 * CHUNK_BITS);
            return Err(Error::TooLarge { what: "page frames", found, limit });
        }
        self.chunks.push(Chunk { index, rank: self.count, ranks, bits: Box::new(bits) });
        self.count += count;
        Ok(())
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn chunk(&self, bit: u64) -> Result<&Chunk, usize> {
        let found = self.chunks.binary_search_by_key(&(bit / CHUNK_BITS), |chunk| chunk.index)?;
        self.chunks.get(found).ok_or(found)
    }

    /// How many bits are set before this one.
    pub(crate) fn rank(&self, bit: u64) -> u64 {
        match self.chunk(bit) {
            Ok(chunk) => chunk.rank + chunk.count_before(bit % CHUNK_BITS),
            Err(next) => self.chunks.get(next).map_or(self.count, |chunk| chunk.rank),
        }
    }

    /// If this bit is set: how many are set before it.
    pub(crate) fn index_of(&self, bit: u64) -> Option<u64> {
        let chunk = self.chunk(bit).ok()?;
        let bit = bit % CHUNK_BITS;
        chunk.get(bit).then(|| chunk.rank + chunk.count_before(bit))
    }

    /// Whether a bit is set, and how many follow it that are the same, itself included; at most `max`.
    pub(crate) fn run(&self, bit: u64, max: u64) -> (bool, u64) {
        let first = self.get(bit);
        let mut at = bit;
        let end = bit.saturating_add(max);
        while at < end {
            match self.chunk(at) {
                Ok(chunk) => {
                    let stop = (chunk.index + 1) * CHUNK_BITS;
                    let same = chunk.same_from(at % CHUNK_BITS, first);
                    at += same;
                    if at < stop {
                        break;
                    }
                }
                Err(_) if first => break,
                Err(next) => at = self.chunks.get(next).map_or(end, |chunk| chunk.index * CHUNK_BITS),
            }
        }
        (first, at.min(end) - bit)
    }

    pub(crate) fn get(&self, bit: u64) -> bool {
        self.chunk(bit).is_ok_and(|chunk| chunk.get(bit % CHUNK_BITS))
    }

    /// The runs of bits that are set in this bitmap or in `other`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than `max` runs.
    pub(crate) fn union(&self, other: &Self, max: usize) -> Result<Vec<Range<u64>>, Error> {
        let mut runs = Vec::new();
        let (mut ours, mut theirs) = (self.runs().peekable(), other.runs().peekable());
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.start <= b.start => ours.next(),
                (_, Some(_)) => theirs.next(),
                (Some(_), None) => ours.next(),
                (None, None) => break,
            };
            runs.extend(next);
            // Neighbors merge one by one, so that the bound counts what is kept.
            if let [.., before, last] = &mut runs[..]
                && last.start <= before.end
            {
                before.end = before.end.max(last.end);
                runs.pop();
            }
            if runs.len() > max {
                return Err(Error::TooLarge {
                    what: "regions of memory",
                    found: runs.len() as u64,
                    limit: max as u64,
                });
            }
        }
        let mut merged = Vec::new();
        runs.into_iter().for_each(|run| push_merged(&mut merged, run));
        Ok(merged)
    }

    /// The runs of set bits, one chunk at a time: those that cross chunks come in pieces.
    fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs_from(0)
    }

    fn runs_from(&self, bit: u64) -> impl Iterator<Item = Range<u64>> {
        let first = self.chunks.partition_point(|chunk| chunk.index < bit / CHUNK_BITS);
        self.chunks[first..].iter().flat_map(move |chunk| {
            let base = chunk.index * CHUNK_BITS;
            let mut at = bit.saturating_sub(base);
            std::iter::from_fn(move || {
                at += chunk.same_from(at, false);
                let len = chunk.same_from(at, true);
                let start = at;
                at += len;
                (len > 0).then_some(base + start..base + start + len)
            })
        })
    }

    /// The set bits from `bit` on.
    pub(crate) fn ones_from(&self, bit: u64) -> impl Iterator<Item = u64> {
        self.runs_from(bit).flatten()
    }
}

impl Chunk {
    fn get(&self, bit: u64) -> bool {
        let byte = usize::try_from(bit / 8).ok().and_then(|at| self.bits.get(at));
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    fn count_before(&self, bit: u64) -> u64 {
        let byte = usize::try_from(bit / 8).unwrap_or(0);
        let part = byte / PART_LEN;
        let below = self.bits[byte] & ((1 << (bit % 8)) - 1);
        let in_part = count_ones(&self.bits[part * PART_LEN..byte]) + count_ones(&[below]);
        u64::from(self.ranks[part]) + in_part
    }

    /// How many bits from `bit` on are `value`, to the end of the chunk at the most.
    fn same_from(&self, bit: u64, value: bool) -> u64 {
        let (words, _) = self.bits.as_chunks::<8>();
        let mut at = bit;
        while let Some(word) = words.get(usize::try_from(at / 64).unwrap_or(usize::MAX)) {
            let word = u64::from_le_bytes(*word);
            let word = if value { word } else { !word };
            let room = 64 - at % 64;
            let same = u64::from((word >> (at % 64)).trailing_ones()).min(room);
            at += same;
            if same < room {
                break;
            }
        }
        at - bit
    }
}

fn count_ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word).count_ones());
    words.chain(rest.iter().map(|byte| byte.count_ones())).map(u64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bits in which runs are long, so that they cross words and chunks.
    fn bits() -> impl Strategy<Value = Vec<bool>> {
        prop::collection::vec((any::<bool>(), prop_oneof![1..5_usize, 60..70_usize, 4000..4200_usize]), 1..12)
            .prop_map(|runs| runs.into_iter().flat_map(|(bit, len)| vec![bit; len]).collect())
    }

    fn pack(bits: &[bool]) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter().enumerate().fold(0, |byte, (index, bit)| byte | u8::from(*bit) << index)
        };
        bits.chunks(8).map(byte).collect()
    }

    proptest! {
        #[test]
        fn ranks_and_runs_are_those_of_the_bits(ours in bits(), theirs in bits(), at: prop::sample::Index, max in 1..10_000_u64) {
            let bitmap = |bits: &[bool]| {
                let bytes = pack(bits);
                Bitmap::read(&bytes, 0, bytes.len() as u64, bits.len() as u64).unwrap().0
            };
            let (a, b) = (bitmap(&ours), bitmap(&theirs));
            let bit = at.index(ours.len());
            let count = |bits: &[bool]| bits.iter().filter(|bit| **bit).count() as u64;
            prop_assert_eq!(a.count(), count(&ours));
            prop_assert_eq!(a.rank(bit as u64), count(&ours[..bit]));
            let padded = || ours[bit..].iter().copied().chain(std::iter::repeat(false));
            let same = padded().take(usize::try_from(max).unwrap()).take_while(|next| *next == ours[bit]).count() as u64;
            prop_assert_eq!(a.index_of(bit as u64), ours[bit].then(|| count(&ours[..bit])));
            prop_assert_eq!(a.run(bit as u64, max), (ours[bit], same));
            let ones = (bit..ours.len()).filter(|bit| ours[*bit]).map(|bit| bit as u64);
            prop_assert!(a.ones_from(bit as u64).eq(ones));
            let mut model = Vec::new();
            for index in 0..ours.len().max(theirs.len()) {
                if ours.get(index) == Some(&true) || theirs.get(index) == Some(&true) {
                    push_merged(&mut model, index as u64..index as u64 + 1);
                }
            }
            prop_assert_eq!(a.union(&b, 100).unwrap(), model);
        }
    }

    #[test]
    fn bits_behind_the_end_do_not_count() {
        let (bitmap, have) = Bitmap::read(&vec![0xff; 3], 1, 100, 11).unwrap();
        assert_eq!((bitmap.count(), have, bitmap.run(0, 99)), (11, 2, (true, 11)));
    }
}
