//! LZO1X blocks, as pages of kdump-compressed dumps are stored: what `lzo1x_1_compress` writes and `lzo1x_decompress_safe` reads.
//!
//! A block is a series of instructions; what they say, and the names of their parts here, follow the Linux kernel's
//! `Documentation/staging/lzo.rst`. Each copies bytes that are already there, `distance` bytes back, and then up to three literals,
//! which are bytes of the block itself; longer runs of literals have an instruction of their own. A copy may overlap what it writes.
//!
//! | first byte | state | copies | from a distance of | literals after it |
//! |---|---|---|---|---|
//! | `0000 LLLL` | 0 | literals: `L` + 3 | | |
//! | `0000 DDSS` `H` | 1 to 3 | 2 | `H:D` + 1 | `S` |
//! | `0000 DDSS` `H` | `RUN` | 3 | `H:D` + 2049 | `S` |
//! | `0001 HLLL` `DDDDDDSS` `D` | any | `L` + 2 | `H:D` + 16384 | `S` |
//! | `001L LLLL` `DDDDDDSS` `D` | any | `L` + 2 | `D` + 1 | `S` |
//! | `01LD DDSS` `H` | any | `L` + 3 | `H:D` + 1 | `S` |
//! | `1LLD DDSS` `H` | any | `L` + 5 | `H:D` + 1 | `S` |
//!
//! The state is how many literals were copied last. An `L` of zero in the first, fourth and fifth row is continued in the next bytes.
//! The block ends with a copy from 16384 bytes back; a block may begin with the number of its first literals plus `FIRST`.

use std::{fmt, mem};

/// A block's first byte is the number of literals that follow plus this; up to this it is an instruction.
const FIRST: usize = 17;
/// The state after four literals or more.
const RUN: usize = 4;
/// The end of a block.
const END: [u8; 3] = [0x11, 0, 0];
/// The farthest copy that takes two bytes, and the longest.
const NEAR: (usize, usize) = (0x800, 8);
/// The farthest copy of the fifth row; the fourth begins there.
const MIDDLE: usize = 0x4000;
/// The farthest copy.
const FAR: usize = 0xbfff;
/// The most that one byte continues a length by.
const MORE: usize = 255;

/// log2 of how many places the encoder remembers: they fit into a CPU's first cache, and are soon cleared.
const SLOT_BITS: u32 = 11;

/// Packs blocks with what it remembers of their bytes: 16 KiB, kept so that it is not allocated for each page.
#[derive(Debug)]
pub struct Encoder {
    seen: Box<[Seen; 1 << SLOT_BITS]>,
}

/// Four bytes of the block and where they are. Kept together, as most lookups find other bytes and then need not look at the block.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    bytes: u32,
    at: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder for any number of blocks.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: Box::new([Seen::default(); 1 << SLOT_BITS]) }
    }

    /// Packs `input` into one block at the start of `out` and gives the block's length; `None` if `out` is too short for it.
    ///
    /// The same input gives the same block, whatever was packed before. Inputs of 4 GiB and more are not for it.
    #[expect(clippy::cast_possible_truncation, reason = "a block is a page: its offsets fit 32 bits")]
    pub fn encode(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        // Each slot is true from the beginning, if not new: the block starts with its first four bytes.
        self.seen.fill(Seen { bytes: load(input, 0).unwrap_or(0), at: 0 });
        let mut block = Block { out, len: 0 };
        let mut packed = 0;
        let mut at = 1;
        let mut misses = 0;
        while let Some(bytes) = load(input, at) {
            let slot = bytes.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SLOT_BITS);
            let seen = mem::replace(&mut self.seen[slot as usize], Seen { bytes, at: at as u32 });
            let distance = at - seen.at as usize;
            if seen.bytes != bytes || distance > FAR {
                misses += 1;
                at += 1 + misses / 16;
                continue;
            }
            let mut start = at;
            while start > packed && start > distance && input[start - 1] == input[start - 1 - distance] {
                start -= 1;
            }
            at += 4;
            at += common_len(&input[at..], &input[at - distance..]);
            block.literals(&input[packed..], start - packed)?;
            block.copy(distance, at - start)?;
            packed = at;
            misses = 0;
        }
        block.literals(&input[packed..], input.len() - packed)?;
        block.push(END)?;
        Some(block.len)
    }
}

/// The four bytes at an offset.
#[inline]
fn load(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// How many bytes `a` and `b` begin with in common.
#[inline]
fn common_len(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return len + (differ.trailing_zeros() / u8::BITS) as usize;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

/// Copies the first `len` bytes of `from` to `to`, and what follows them if that is faster.
#[inline]
fn copy_literals(from: &[u8], to: &mut [u8], len: usize) -> Option<()> {
    const FEW: usize = 16;
    if len <= FEW
        && let (Some(from), Some(to)) = (from.first_chunk::<FEW>(), to.first_chunk_mut())
    {
        *to = *from;
    } else {
        to.get_mut(..len)?.copy_from_slice(from.get(..len)?);
    }
    Some(())
}

/// A block that is written. What it lacks room for is `None`.
struct Block<'a> {
    out: &'a mut [u8],
    len: usize,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each value is masked or bounded to the bits of its field"
)]
impl Block<'_> {
    #[inline]
    fn push<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(self.len..)?.first_chunk_mut()? = bytes;
        self.len += N;
        Some(())
    }

    /// The first byte of an instruction with `inline` bits for a length, and the bytes that continue it.
    #[inline]
    fn push_len(&mut self, op: u8, len: usize, max: usize) -> Option<()> {
        if len <= max {
            return self.push([op | len as u8]);
        }
        self.push([op])?;
        let mut more = len - max;
        while more > MORE {
            self.push([0])?;
            more -= MORE;
        }
        self.push([more as u8])
    }

    #[inline]
    fn literals(&mut self, input: &[u8], len: usize) -> Option<()> {
        match len {
            1.. if self.len == 0 && len + FIRST <= 255 => self.push([(len + FIRST) as u8])?,
            0 => return Some(()),
            1..=3 => self.out[self.len - 2] |= len as u8,
            _ => self.push_len(0, len - 3, 15)?,
        }
        copy_literals(input, self.out.get_mut(self.len..)?, len)?;
        self.len += len;
        Some(())
    }

    #[inline]
    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        if distance <= NEAR.0 && len <= NEAR.1 {
            let d = distance - 1;
            return self.push([((len - 1) << 5 | (d & 7) << 2) as u8, (d >> 3) as u8]);
        }
        let d = if distance <= MIDDLE {
            self.push_len(0x20, len - 2, 31)?;
            distance - 1
        } else {
            let d = distance - MIDDLE;
            self.push_len(0x10 | (d >> 14 << 3) as u8, len - 2, 7)?;
            d
        };
        self.push(((d << 2) as u16).to_le_bytes())
    }
}

/// What is wrong with a block, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// In bytes from the start of the block.
    pub offset: usize,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {:#x}", self.reason, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// Expands one block, which must fill `out` and end with `input`. After an error `out` holds anything.
///
/// # Errors
/// What is wrong with the block.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    let mut expander = Expander { input, at: 0, out, len: 0 };
    expander.block().map_err(|reason| DecodeError { offset: expander.at, reason })
}

/// A block that is expanded.
struct Expander<'a> {
    input: &'a [u8],
    at: usize,
    out: &'a mut [u8],
    len: usize,
}
const CUT: &str = "block ends early";
const LONG: &str = "too long";

impl Expander<'_> {
    #[inline]
    fn block(&mut self) -> Result<(), &'static str> {
        let mut state = 0;
        if let Some(n @ 18..) = self.input.first() {
            self.at = 1;
            let n = usize::from(*n) - FIRST;
            self.literals(n)?;
            state = n.min(RUN);
        }
        loop {
            let op = usize::from(self.byte()?);
            let (distance, len, literals);
            if op >= 0x40 {
                distance = (usize::from(self.byte()?) << 3) + ((op >> 2) & 7) + 1;
                len = (op >> 5) + 1;
                literals = op & 3;
            } else if op >= 0x10 {
                let far = op < 0x20;
                len = self.length(op, if far { 7 } else { 31 })? + 2;
                let d = usize::from(u16::from_le_bytes([self.byte()?, self.byte()?]));
                literals = d & 3;
                if far {
                    distance = MIDDLE + ((op & 8) << 11) + (d >> 2);
                    if distance == MIDDLE {
                        return if self.at != self.input.len() {
                            Err("trailing")
                        } else if self.len != self.out.len() {
                            Err("short")
                        } else {
                            Ok(())
                        };
                    }
                } else {
                    distance = (d >> 2) + 1;
                }
            } else if state == 0 {
                let n = self.length(op, 15)? + 3;
                self.literals(n)?;
                state = RUN;
                continue;
            } else {
                let d = (usize::from(self.byte()?) << 2) + (op >> 2) + 1;
                (distance, len) = if state == RUN { (d + 2048, 3) } else { (d, 2) };
                literals = op & 3;
            }
            self.copy(distance, len)?;
            self.literals(literals)?;
            state = literals;
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = *self.input.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn length(&mut self, op: usize, mask: usize) -> Result<usize, &'static str> {
        if op & mask != 0 {
            return Ok(op & mask);
        }
        let mut len = mask;
        loop {
            match self.byte()? {
                0 => len += MORE,
                last => return Ok(len + usize::from(last)),
            }
        }
    }

    #[inline]
    fn literals(&mut self, len: usize) -> Result<(), &'static str> {
        let input = self.input.get(self.at..).ok_or(CUT)?;
        let out = self.out.get_mut(self.len..).ok_or(LONG)?;
        copy_literals(input, out, len).ok_or("literals")?;
        self.at += len;
        self.len += len;
        Ok(())
    }

    #[inline]
    fn copy(&mut self, distance: usize, len: usize) -> Result<(), &'static str> {
        let from = self.len.checked_sub(distance).ok_or("before start")?;
        let end = self.len + len;
        if end > self.out.len() {
            return Err(LONG);
        }
        if distance >= 8 && end + 8 <= self.out.len() {
            let mut at = self.len;
            while at < end {
                let chunk: [u8; 8] = *self.out[at - distance..].first_chunk().ok_or(LONG)?;
                *self.out[at..].first_chunk_mut().ok_or(LONG)? = chunk;
                at += 8;
            }
            self.len = end;
        } else {
            while self.len < end {
                let n = (end - self.len).min(self.len - from);
                self.out.copy_within(from..from + n, self.len);
                self.len += n;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(input: &[u8]) -> Vec<u8> {
        let mut out = vec![0; input.len() + input.len() / 16 + 64];
        let len = Encoder::new().encode(input, &mut out).expect("there is room for the worst case");
        out.truncate(len);
        out
    }

    fn unpack(block: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0xee; len];
        decode(block, &mut out).map(|()| out)
    }

    /// Literals and copies from all classes of distances.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let literals = prop::collection::vec(any::<u8>(), 0..300).prop_map(Part::Literals);
        let distance = prop_oneof![1..9_usize, 1..2100_usize, 2000..17_000_usize, 16_000..50_000_usize];
        let copy = (distance, prop_oneof![1..40_usize, 200..3000_usize])
            .prop_map(|(distance, len)| Part::Copy(distance, len));
        let fill = (any::<u8>(), 1..20_000_usize).prop_map(|(byte, len)| Part::Fill(byte, len));
        prop::collection::vec(prop_oneof![literals, copy, fill], 0..20).prop_map(|parts| {
            let mut bytes: Vec<u8> = Vec::new();
            for part in parts {
                match part {
                    Part::Literals(literals) => bytes.extend(literals),
                    Part::Fill(byte, len) => bytes.resize(bytes.len() + len, byte),
                    Part::Copy(distance, len) => {
                        for _ in 0..len {
                            bytes.push(bytes.len().checked_sub(distance).map_or(0, |from| bytes[from]));
                        }
                    }
                }
            }
            bytes
        })
    }

    #[derive(Clone, Debug)]
    enum Part {
        Literals(Vec<u8>),
        Fill(u8, usize),
        Copy(usize, usize),
    }

    proptest! {
        #[test]
        fn blocks_come_back(first in input(), second in input()) {
            prop_assert!(unpack(&pack(&first), first.len())? == first);
            // What was packed before makes no difference.
            let mut encoder = Encoder::new();
            let mut out = vec![0; second.len() + second.len() / 16 + 64];
            encoder.encode(&first, &mut vec![0; first.len() * 2 + 64]);
            let len = encoder.encode(&second, &mut out).unwrap();
            prop_assert!(out[..len] == pack(&second));
        }

        #[test]
        fn any_bytes_are_a_block_or_an_error(block in prop::collection::vec(any::<u8>(), 0..400), len in 0..9000_usize) {
            let _ = unpack(&block, len);
        }

        #[test]
        fn damaged_blocks_are_errors_or_fill_the_page(
            input in input(),
            at: prop::sample::Index,
            value: u8,
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut block = pack(&input);
            let index = at.index(block.len());
            block[index] = value;
            if let Some(cut) = cut {
                block.truncate(cut.index(block.len()));
                prop_assert!(unpack(&block, input.len()).is_err());
            } else {
                let _ = unpack(&block, input.len());
            }
            prop_assert!(unpack(&pack(&input), input.len() + 1).is_err());
        }

        #[test]
        fn a_block_never_passes_its_room(input in input(), room in 0..9000_usize) {
            let mut out = vec![0; room];
            let whole = pack(&input);
            match Encoder::new().encode(&input, &mut out) {
                Some(len) => prop_assert!(out[..len] == whole),
                // The encoder may ask for a little more than it needs.
                None => prop_assert!(room < whole.len() + 16),
            }
        }
    }

    #[test]
    fn every_length_comes_back() {
        for len in (0..600).chain([4095, 4096, 65_535, 65_536, 1 << 20]) {
            for step in [0_usize, 1, 7, 191] {
                let input: Vec<u8> =
                    (0..len).map(|at| u8::try_from(at * step * step / 5 % 251).unwrap()).collect();
                assert!(unpack(&pack(&input), len) == Ok(input), "{len} bytes, step {step}");
            }
        }
    }

    /// What Debian's liblzo2 2.10 (`lzo1x_1_compress`) makes of known bytes.
    #[test]
    fn blocks_of_liblzo2_are_read() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> =
                text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let cases: [(&str, Vec<u8>); 4] = [
            (
                "2b68656c6c6f2c2068656c6c6f2c2068656c6c6f2c2068656c6c6f110000",
                b"hello, hello, hello, hello".to_vec(),
            ),
            (
                "02000000000020000000000000000000000000000000da10000c000000000000000000000000000000110000",
                vec![0; 4096],
            ),
            (
                "06666172206177617901200000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000008800000f66617220617761792c20616e64206261636b110000",
                [&b"far away"[..], &[1; 17_000], b"far away, and back"].concat(),
            ),
            (
                "046d6964646c65022000000000000000000000009e00000e0202022b6d6964646c652d6d6964646c65110000",
                [&b"middle"[..], &[2; 3000], b"+middle-middle"].concat(),
            ),
        ];
        for (block, page) in cases {
            assert!(unpack(&hex(block), page.len()) == Ok(page), "{block}");
        }
        assert_eq!(unpack(&hex("110000"), 0), Ok(vec![]));
        assert_eq!(pack(&[]), hex("110000"));
    }
}
