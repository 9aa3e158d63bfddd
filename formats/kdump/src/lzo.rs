//! LZO1X blocks: what liblzo2's `lzo1x_1_compress` writes and its `lzo1x_decompress_safe` reads.
//!
//! A block is a series of instructions. Each copies bytes of the output from `distance` bytes back, possibly some that it is
//! just writing, and then up to three literals, bytes of the block itself. A longer run of literals is an instruction of its
//! own. Bits are named as in the Linux kernel's `Documentation/staging/lzo.rst`; `H` and `D` together are one number.
//!
//! | instruction | state | copies | from a distance of | literals after it |
//! |---|---|---|---|---|
//! | `0000LLLL` | 0 | `L` + 3 literals | | |
//! | `0000DDSS HHHHHHHH` | 1 to 3 | 2 | `HD` + 1 | `S` |
//! | `0000DDSS HHHHHHHH` | run | 3 | `HD` + 2049 | `S` |
//! | `0001HLLL DDDDDDSS DDDDDDDD` | any | `L` + 2 | `HD` + 16384 | `S` |
//! | `001LLLLL DDDDDDSS DDDDDDDD` | any | `L` + 2 | `D` + 1 | `S` |
//! | `01LDDDSS HHHHHHHH` | any | `L` + 3 | `HD` + 1 | `S` |
//! | `1LLDDDSS HHHHHHHH` | any | `L` + 5 | `HD` + 1 | `S` |
//!
//! The state is the number of literals copied last; four and more are a run. Where an `L` of four, three or five bits is zero,
//! the length goes on behind the first byte: the largest `L`, 255 for each zero byte, and the first other byte. A block whose
//! first byte is above 17 begins with so many literals more than 17. It ends with a copy from a distance of 16384.

use std::{fmt, mem};

/// What a block's first byte has more than it has literals behind it.
const FIRST: usize = 17;
/// The state behind a run of literals.
const RUN: usize = 4;
/// The last instruction of a block.
const END: [u8; 3] = [0x11, 0, 0];
/// The farthest copy of `01LDDDSS` and `1LLDDDSS`. Behind a run, `0000DDSS` copies from beyond.
const NEAR: usize = 0x800;
/// The farthest copy of `001LLLLL`. At this distance `0001HLLL` is the end; it copies from beyond.
const MIDDLE: usize = 0x4000;
/// The farthest copy.
const FAR: usize = 0xbfff;
/// What a zero byte adds to a length.
const MORE: usize = 255;

/// log2 of the number of places that the encoder remembers. One more makes 4 KiB pages 0.4 % smaller and takes 7 % longer.
const SLOT_BITS: u32 = 11;
/// Behind a copy the encoder tries so many positions one by one, then as many in steps of two, of three and so on. Half of it
/// makes pages 2 % larger and takes 7 % less.
const PATIENCE: usize = 16;

/// Packs blocks. It holds 16 KiB, which are not allocated for each block.
#[derive(Debug)]
pub struct Encoder {
    slots: Box<[Slot; 1 << SLOT_BITS]>,
}

/// Four bytes of the input and where they are. Mostly they are not the bytes looked for; with a copy of them here, the CPU need
/// not wait for the input to know.
#[derive(Clone, Copy, Debug)]
struct Slot {
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
    pub fn new() -> Self {
        Self { slots: Box::new([Slot { bytes: 0, at: 0 }; 1 << SLOT_BITS]) }
    }

    /// Packs `input` into a block at the start of `out` and gives the block's length. `None` if `out` has no room for it (where
    /// only a smaller page is of use, `out` is shorter than `input`) or if `input` has 4 GiB or more.
    ///
    /// A block depends on its input only, not on what was packed before.
    pub fn encode(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        u32::try_from(input.len()).ok()?;
        // What a slot says is taken for true, so each starts with what is true: the first four bytes are at 0.
        self.slots.fill(Slot { bytes: load(input, 0).unwrap_or(0), at: 0 });
        let mut block = Writer { out, len: 0 };
        let mut packed = 0;
        let mut at = 1;
        let mut pace = PATIENCE;
        while let Some(bytes) = load(input, at) {
            let index = bytes.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SLOT_BITS);
            #[expect(clippy::cast_possible_truncation, reason = "the input is shorter than 4 GiB")]
            let slot = mem::replace(&mut self.slots[index as usize], Slot { bytes, at: at as u32 });
            let distance = at - slot.at as usize;
            if slot.bytes != bytes || distance > FAR {
                at += pace / PATIENCE;
                pace += 1;
                continue;
            }
            let mut start = at;
            while start > packed && start > distance && input[start - 1] == input[start - 1 - distance] {
                start -= 1;
            }
            at += size_of_val(&bytes);
            at += common_len(&input[at..], &input[at - distance..]);
            block.literals(&input[packed..], start - packed)?;
            block.copy(distance, at - start)?;
            packed = at;
            pace = PATIENCE;
        }
        block.literals(&input[packed..], input.len() - packed)?;
        block.push(END)?;
        Some(block.len)
    }
}

/// The four bytes at `at`.
#[inline]
fn load(input: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*input.get(at..)?.first_chunk()?))
}

/// The number of bytes that both begin with.
#[inline]
fn common_len(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return len + (differ.trailing_zeros() / u8::BITS) as usize;
        }
        len += size_of_val(a);
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

/// Copies the first `len` bytes, and some behind them where that is faster; `None` if there are not so many.
#[inline]
fn copy_start(from: &[u8], to: &mut [u8], len: usize) -> Option<()> {
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

/// A block that is being written. Its methods give `None` where there is no room.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    #[inline]
    fn push<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(self.len..)?.first_chunk_mut()? = bytes;
        self.len += N;
        Some(())
    }

    /// The first byte of an instruction, whose `L` can be up to `max`, and the bytes by which the length goes on.
    #[inline]
    fn push_len(&mut self, op: usize, len: usize, max: usize) -> Option<()> {
        if len <= max {
            return self.push([low(op | len)]);
        }
        self.push([low(op)])?;
        let mut more = len - max;
        while more > MORE {
            self.push([0])?;
            more -= MORE;
        }
        self.push([low(more)])
    }

    /// The first `len` bytes of `from`, behind a copy or at the start of the block.
    #[inline]
    fn literals(&mut self, from: &[u8], len: usize) -> Option<()> {
        match len {
            0 => return Some(()),
            _ if self.len == 0 && FIRST + len <= 0xff => self.push([low(FIRST + len)])?,
            // Whatever the copy before them: its `S` is in the last byte but one.
            1..=3 => self.out[self.len - 2] |= low(len),
            _ => self.push_len(0, len - 3, 0xf)?,
        }
        copy_start(from, self.out.get_mut(self.len..)?, len)?;
        self.len += len;
        Some(())
    }

    /// A copy of four bytes or more.
    #[inline]
    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        let mut d = distance - 1;
        if distance <= NEAR && len <= 8 {
            return self.push([low((len - 1) << 5 | (d & 7) << 2), low(d >> 3)]);
        }
        if distance <= MIDDLE {
            self.push_len(0x20, len - 2, 0x1f)?;
        } else {
            d = distance - MIDDLE;
            self.push_len(0x10 | d >> 14 << 3, len - 2, 7)?;
        }
        self.push([low(d << 2), low(d >> 6)])
    }
}

/// The lowest byte.
#[inline]
fn low(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

/// What is wrong with a block, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// How far the block was read, in bytes.
    pub offset: usize,
    /// What is wrong, in words that follow "the block".
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the block {} at offset {:#x}", self.reason, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// Expands the block that `input` is, which must fill `out`. What `out` holds after an error means nothing.
///
/// # Errors
/// The first thing that is wrong with the block.
pub fn decode(input: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    let mut block = Reader { input, at: 0, out, len: 0 };
    block.expand().map_err(|reason| DecodeError { offset: block.at, reason })
}

const CUT: &str = "is cut off";
const TOO_LONG: &str = "expands to too much";

/// A block that is being expanded: `at` bytes of it have become `len` bytes.
struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    out: &'a mut [u8],
    len: usize,
}

impl Reader<'_> {
    #[inline]
    fn expand(&mut self) -> Result<(), &'static str> {
        let mut state = 0;
        let first = self.input.first().map_or(0, |first| usize::from(*first));
        if first > FIRST {
            self.at = 1;
            self.literals(first - FIRST)?;
            state = RUN.min(first - FIRST);
        }
        loop {
            let op = self.byte()?;
            let (len, distance, literals);
            match op {
                0x40.. => {
                    len = (op >> 5) + 1;
                    distance = (self.byte()? << 3 | op >> 2 & 7) + 1;
                    literals = op & 3;
                }
                0x10.. => {
                    let far = op < 0x20;
                    len = self.rest_of_len(op, if far { 7 } else { 0x1f })? + 2;
                    let d = self.byte()? | self.byte()? << 8;
                    distance = if far { MIDDLE + ((op & 8) << 11 | d >> 2) } else { (d >> 2) + 1 };
                    literals = d & 3;
                    if far && distance == MIDDLE {
                        return self.end();
                    }
                }
                _ if state == 0 => {
                    let run = self.rest_of_len(op, 0xf)? + 3;
                    self.literals(run)?;
                    state = RUN;
                    continue;
                }
                _ => {
                    let d = self.byte()? << 2 | op >> 2;
                    (len, distance) = if state == RUN { (3, d + 1 + NEAR) } else { (2, d + 1) };
                    literals = op & 3;
                }
            }
            self.copy(distance, len)?;
            self.literals(literals)?;
            state = literals;
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<usize, &'static str> {
        let byte = self.input.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok((*byte).into())
    }

    /// The `L` of `op`, whose bits `max` has, or what it goes on to.
    #[inline]
    fn rest_of_len(&mut self, op: usize, max: usize) -> Result<usize, &'static str> {
        if op & max != 0 {
            return Ok(op & max);
        }
        let mut len = max;
        while len <= self.out.len() {
            match self.byte()? {
                0 => len += MORE,
                last => return Ok(len + last),
            }
        }
        Err(TOO_LONG)
    }

    #[inline]
    fn literals(&mut self, len: usize) -> Result<(), &'static str> {
        let from = self.input.get(self.at..).unwrap_or_default();
        let to = self.out.get_mut(self.len..).unwrap_or_default();
        copy_start(from, to, len).ok_or(if from.len() < len { CUT } else { TOO_LONG })?;
        self.at += len;
        self.len += len;
        Ok(())
    }

    #[inline]
    fn copy(&mut self, distance: usize, len: usize) -> Result<(), &'static str> {
        /// Bytes that are copied at once, and some of them too many.
        const STEP: usize = 8;
        let from = self.len.checked_sub(distance).ok_or("copies what is before its start")?;
        let end = self.len + len;
        if distance >= STEP && end + STEP <= self.out.len() {
            let mut at = self.len;
            while at < end {
                let bytes: [u8; STEP] = *self.out[at - distance..].first_chunk().ok_or(TOO_LONG)?;
                *self.out[at..].first_chunk_mut().ok_or(TOO_LONG)? = bytes;
                at += STEP;
            }
            self.len = end;
        } else if end <= self.out.len() {
            // All from there on repeats what is there, so each turn can copy twice as much as the one before.
            while self.len < end {
                let part = (end - self.len).min(self.len - from);
                self.out.copy_within(from..from + part, self.len);
                self.len += part;
            }
        } else {
            return Err(TOO_LONG);
        }
        Ok(())
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.at < self.input.len() {
            Err("ends early")
        } else if self.len < self.out.len() {
            Err("expands to too little")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
