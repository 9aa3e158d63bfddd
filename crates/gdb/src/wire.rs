//! Digits, numbers and escapes of the protocol. All of it is strict: what is not exactly right is `None`.
//!
//! Source: `spec/gdb-rsp.md` sections 1.1 and 2; gdb manual, "Overview" of the remote protocol.

use arrayvec::ArrayVec;

/// Stands before a byte that is XORed with [`ESCAPED`].
pub(crate) const ESCAPE: u8 = b'}';
/// What an escaped byte is XORed with.
pub(crate) const ESCAPED: u8 = 0x20;
/// Stands between a byte and how often it is repeated.
pub(crate) const RUN: u8 = b'*';

/// Two lower-case digits for each value of a byte.
static DIGITS: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut value = 0;
    while value < table.len() {
        table[value] = [b"0123456789abcdef"[value >> 4], b"0123456789abcdef"[value & 15]];
        value += 1;
    }
    table
};

/// The two digits of `byte`.
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    DIGITS[usize::from(byte)]
}

/// Turns the bytes in the second half of `buf` into digits that fill all of it.
pub(crate) fn spread_hex(buf: &mut [u8]) {
    const AT_ONCE: usize = 32;
    let half = buf.len() / 2;
    // The digits of a block never reach a byte behind it: 2i + 2n <= half + i + n for i + n <= half.
    let mut i = 0;
    while i + AT_ONCE <= half {
        let mut bytes = [0; AT_ONCE];
        bytes.copy_from_slice(&buf[half + i..half + i + AT_ONCE]);
        // Arithmetic, not the table: this becomes vector code.
        let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        let (digits, _) = buf[2 * i..2 * (i + AT_ONCE)].as_chunks_mut();
        for (digits, byte) in digits.iter_mut().zip(bytes) {
            *digits = [digit(byte >> 4), digit(byte & 15)];
        }
        i += AT_ONCE;
    }
    for i in i..half {
        let digits = hex(buf[half + i]);
        buf[2 * i..2 * i + 2].copy_from_slice(&digits);
    }
}

/// The value of one digit, of either case.
pub(crate) fn digit(char: u8) -> Option<u8> {
    match char {
        b'0'..=b'9' => Some(char - b'0'),
        b'a'..=b'f' => Some(char - b'a' + 10),
        b'A'..=b'F' => Some(char - b'A' + 10),
        _ => None,
    }
}

/// The byte that two digits say.
pub(crate) fn byte(high: u8, low: u8) -> Option<u8> {
    Some(digit(high)? << 4 | digit(low)?)
}

/// A number of 1 to 16 digits, without prefix or sign.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |number, char| Some(number << 4 | u64::from(digit(*char)?)))
}

/// Decodes pairs of digits into the front of `bytes`, and gives that front.
pub(crate) fn unhex<'b>(digits: &[u8], bytes: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let (pairs, odd) = digits.as_chunks();
    let bytes = bytes.get_mut(..pairs.len()).filter(|_| odd.is_empty())?;
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = self::byte(high, low)?;
    }
    Some(bytes)
}

/// Whether a byte cannot stand for itself in a reply.
pub(crate) fn is_special(byte: u8) -> bool {
    // Without branches, so that loops over bytes become vector code.
    (byte == b'#') | (byte == b'$') | (byte == ESCAPE) | (byte == RUN)
}

/// So few bytes that a byte counts them.
const BLOCK: usize = 64;

fn count_special_in(block: &[u8]) -> usize {
    usize::from(block.iter().map(|byte| u8::from(is_special(*byte))).sum::<u8>())
}

/// How many of the first bytes can stand for themselves.
pub(crate) fn count_plain(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    let plain = 32 * blocks.iter().take_while(|block| count_special_in(*block) == 0).count();
    plain + bytes[plain..].iter().take_while(|byte| !is_special(**byte)).count()
}

/// How many of the first bytes fit into `room` with their escapes.
pub(crate) fn count_fitting(bytes: &[u8], room: usize) -> usize {
    let (mut count, mut left) = (0, room);
    for block in bytes.chunks(BLOCK) {
        let need = block.len() + count_special_in(block);
        if need > left {
            let ends = block.iter().scan(0, |end, byte| {
                *end += 1 + usize::from(is_special(*byte));
                Some(*end)
            });
            return count + ends.take_while(|end| *end <= left).count();
        }
        (count, left) = (count + block.len(), left - need);
    }
    count
}

/// The byte as it stands in a reply.
pub(crate) fn escape(byte: u8) -> ArrayVec<u8, 2> {
    if is_special(byte) {
        ArrayVec::from([ESCAPE, byte ^ ESCAPED])
    } else {
        let mut plain = ArrayVec::new();
        plain.push(byte);
        plain
    }
}

/// Undoes escapes in place; `None` if the last byte is an escape.
pub(crate) fn unescape(bytes: &mut [u8]) -> Option<usize> {
    let Some(first) = bytes.iter().position(|byte| *byte == ESCAPE) else { return Some(bytes.len()) };
    let (mut from, mut to) = (first, first);
    while from < bytes.len() {
        if bytes[from] == ESCAPE {
            from += 1;
            bytes[to] = bytes.get(from)? ^ ESCAPED;
        } else {
            bytes[to] = bytes[from];
        }
        from += 1;
        to += 1;
    }
    Some(to)
}

/// How many bytes a run stands for behind its first: the byte behind `*` less 29, from 3 on.
fn run_len(count: u8) -> Option<usize> {
    match count {
        b'#' | b'$' => None,
        b' '..=b'~' => Some(usize::from(count) - 29),
        _ => None,
    }
}

/// Expands the runs of the first `len` bytes in place, the escapes stay; `None` if a run is wrong or the
/// result is longer than `buf`.
///
/// The protocol defines runs for replies only. QEMU's stub reads them in commands as well, and so do we, but
/// for the run of an escaped byte: clients do not agree on what that repeats.
pub(crate) fn expand_runs(buf: &mut [u8], len: usize) -> Option<usize> {
    let raw = &buf[..len];
    if !raw.contains(&RUN) {
        return Some(len);
    }
    let mut expanded = 0;
    let mut at = 0;
    let mut may_repeat = false;
    while at < len {
        match raw[at] {
            RUN if may_repeat => {
                expanded += run_len(*raw.get(at + 1)?)?;
                (at, may_repeat) = (at + 2, false);
            }
            RUN => return None,
            ESCAPE => {
                expanded += 2;
                (at, may_repeat) = (at + 2, false);
            }
            _ => {
                expanded += 1;
                (at, may_repeat) = (at + 1, true);
            }
        }
    }
    if at > len || expanded > buf.len() {
        return None;
    }
    // From the end of the buffer to its front: what is still to be read never is longer than what it becomes.
    let mut from = buf.len() - len;
    buf.copy_within(..len, from);
    let mut to = 0;
    while from < buf.len() {
        match buf[from] {
            RUN => {
                let count = run_len(buf[from + 1])?;
                let repeated = buf[to - 1];
                buf[to..to + count].fill(repeated);
                (from, to) = (from + 2, to + count);
            }
            ESCAPE => {
                buf.copy_within(from..from + 2, to);
                (from, to) = (from + 2, to + 2);
            }
            byte => {
                buf[to] = byte;
                (from, to) = (from + 1, to + 1);
            }
        }
    }
    Some(to)
}

/// Whether runs are worth their while: an eighth of the bytes or more lie in aligned words of one value.
pub(crate) fn has_runs(bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks();
    // A word of one value does not change when it is turned by a byte.
    let is_even = |word: &[u8; 4]| {
        let word = u32::from_le_bytes(*word);
        word == word.rotate_left(8)
    };
    // So few at a time that 32 bits count them, which is what vector code counts best.
    let blocks =
        words.chunks(1 << 16).map(|block| block.iter().map(|word| u32::from(is_even(word))).sum::<u32>());
    let even: usize = blocks.map(|count| count as usize).sum();
    even > 0 && even * 8 >= words.len()
}

/// How many of the first bytes are `byte`.
fn count_same(bytes: &[u8], byte: u8) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.iter().take_while(|word| **word == [byte; 8]).count();
    8 * words + bytes[8 * words..].iter().take_while(|next| **next == byte).count()
}

/// Packs runs of equal bytes in place and gives the new length.
///
/// A run never begins with an escape or with the byte behind one: gdb repeats bytes before it undoes escapes,
/// LLDB after.
pub(crate) fn pack_runs(bytes: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Some(&byte) = bytes.get(from) {
        bytes[to] = byte;
        (from, to) = (from + 1, to + 1);
        if byte == ESCAPE {
            if let Some(&escaped) = bytes.get(from) {
                bytes[to] = escaped;
                (from, to) = (from + 1, to + 1);
            }
            continue;
        }
        if bytes.get(from) != Some(&byte) {
            continue;
        }
        let rest = &bytes[from..];
        let same = count_same(&rest[..rest.len().min(LONGEST_RUN)], byte);
        // `#` and `$` would stand for 6 and 7 more.
        let run = if same == 6 || same == 7 { 5 } else { same };
        if run >= 3 {
            bytes[to] = RUN;
            bytes[to + 1] = u8::try_from(run + 29).expect("a run is at most 97 long");
            (from, to) = (from + run, to + 2);
        }
    }
    to
}

/// Repetitions that `~`, the last printable byte, stands for.
const LONGEST_RUN: usize = 97;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn numbers_are_strict() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"ffffFFFFffffFFFF"), Some(u64::MAX));
        for wrong in [&b""[..], b"-1", b"+1", b" 1", b"0x1", b"1z", b"10000000000000000"] {
            assert_eq!(number(wrong), None);
        }
    }

    #[test]
    fn runs_as_the_manual_has_them() {
        let mut body = *b"0* \0\0";
        assert_eq!(expand_runs(&mut body, 3), Some(4));
        assert_eq!(&body[..4], b"0000");
        for wrong in [&b"*!"[..], b"0*", b"0*#", b"0*\x1f", b"}a*!", b"0*!*!"] {
            let mut buf = [0; 32];
            buf[..wrong.len()].copy_from_slice(wrong);
            assert_eq!(expand_runs(&mut buf, wrong.len()), None, "{wrong:?}");
        }
        let mut full = *b"0*~";
        assert_eq!(expand_runs(&mut full, 3), None, "longer than the buffer");
    }

    fn decode(bytes: &[u8], room: usize) -> Vec<u8> {
        let mut buf = Vec::from(bytes);
        buf.resize(room, 0);
        let len = expand_runs(&mut buf, bytes.len()).unwrap();
        buf.truncate(len);
        let len = unescape(&mut buf).unwrap();
        buf.truncate(len);
        buf
    }

    proptest! {
        #[test]
        fn escaped_and_packed_is_read_back(
            runs in proptest::collection::vec((prop_oneof![any::<u8>(), Just(b'}'), Just(4), Just(b'*')], 1..120usize), 0..40)
        ) {
            let plain: Vec<u8> = runs.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect();
            let mut sent: Vec<u8> = plain.iter().flat_map(|byte| escape(*byte)).collect();
            let room = sent.len().max(1);
            let packed = pack_runs(&mut sent);
            sent.truncate(packed);
            prop_assert!(!sent.contains(&b'#') && !sent.contains(&b'$'));
            prop_assert_eq!(decode(&sent, room), plain);
        }

        #[test]
        fn any_bytes_expand_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), more in 0..100usize) {
            let mut buf = bytes.clone();
            buf.resize(bytes.len() + more, 0);
            if let Some(len) = expand_runs(&mut buf, bytes.len()) {
                unescape(&mut buf[..len]);
            }
        }
    }
}
