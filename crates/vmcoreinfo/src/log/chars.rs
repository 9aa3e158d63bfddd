//! The buffer of Linux before 3.5: lines as the console shows them, `<6>[    0.000000] text`, in a ring of characters.
//!
//! `log_end` counts characters for ever; its low bits are an index. `logged_chars` of them are in the buffer. A line without `<N>`
//! belongs to the message before it; times are there if the kernel was told to print them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::fields::{self, WHAT, bytes_at, number_at};
use super::{Damage, Record};
use vmcore_core::{Error, Gva, Kernel};

/// Level of a message that does not state its own: `CONFIG_DEFAULT_MESSAGE_LOGLEVEL`.
const DEFAULT_LEVEL: u8 = 4;

pub(super) struct CharBuffer {
    /// The characters from the oldest on.
    text: Vec<u8>,
}

impl CharBuffer {
    pub(super) fn open(kernel: &Kernel) -> Result<Self, Error> {
        let word = fields::word_len(kernel)?;
        let variable = |name, len| number_at(kernel, kernel.symbol(name, WHAT)?, len);
        let len = variable("log_buf_len", 4)?;
        if !len.is_power_of_two() {
            return Err(Error::Unsupported { what: WHAT, found: format!("a buffer of {len} characters") });
        }
        let (log_end, count) = (variable("log_end", 4)?, variable("logged_chars", 4)?.min(len));
        let mut text = bytes_at(kernel, Gva(variable("log_buf", word)?), len)?;
        let start = log_end.wrapping_sub(count) & len.wrapping_sub(1);
        text.rotate_left(usize::try_from(start).unwrap_or(0));
        text.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(Self { text })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Damage>> + '_ {
        let lines = self.text.strip_suffix(b"\n").unwrap_or(&self.text).split(|byte| *byte == b'\n');
        let mut last = (0, DEFAULT_LEVEL);
        lines.filter(|_| !self.text.is_empty()).map(move |line| {
            let (priority, line) = priority(line).unwrap_or((last, line));
            last = priority;
            let (timestamp_ns, text) =
                timestamp(line).map_or((None, line), |(time, text)| (Some(time), text));
            let (facility, level) = priority;
            Ok(Record {
                sequence: None,
                timestamp_ns,
                facility,
                level,
                caller: None,
                text,
                subsystem: &[],
                device: &[],
            })
        })
    }
}

/// Facility and level of a line that begins `<N>`, and what stands behind them.
fn priority(line: &[u8]) -> Option<((u8, u8), &[u8])> {
    let (number, rest) = split_once(line.strip_prefix(b"<")?, b'>')?;
    let number: u8 = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(((number >> 3, number & 7), rest))
}

/// The time of a line that begins `[    0.000000] `, in nanoseconds, and what stands behind it.
fn timestamp(line: &[u8]) -> Option<(u64, &[u8])> {
    let (time, rest) = split_once(line.strip_prefix(b"[")?, b']')?;
    let (seconds, micros) = std::str::from_utf8(time).ok()?.trim_start().split_once('.')?;
    let nanos = micros.parse::<u64>().ok().filter(|_| micros.len() == 6)?.checked_mul(1000)?;
    let time = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some((time, rest.strip_prefix(b" ")?))
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    let (head, tail) = text.split_at_checked(place)?;
    Some((head, tail.get(1..)?))
}
