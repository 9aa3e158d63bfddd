//! Numbers as people write and read them, and text on standard output.

use serde::Serialize;
use std::io::{self, BufWriter, Write};
use vmcore::{Gpa, RangeFilter};

/// Lets `write` write to standard output. A reader that has had enough ends it, but is no error: the exit status stays
/// what it is.
pub(crate) fn on_stdout(write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = write(&mut out).and_then(|()| Ok(out.flush()?));
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    result.or_else(|error| if error.downcast_ref().is_some_and(is_gone) { Ok(()) } else { Err(error) })
}

/// Writes to standard output what may hold any character.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    on_stdout(|out| Ok(out.write_all(text)?))
}

/// Writes a line for people to standard output.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(format!("{}\n", visible(line)).as_bytes())
}

/// Writes JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    on_stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
        Ok(writeln!(out)?)
    })
}

/// Writes a line for people to standard error; unlike `eprintln!` it does not panic when the reader has gone.
pub(crate) fn say(line: &str) {
    // There is nobody left to tell of an error.
    let _ = io::stderr().write_all(format!("{}\n", visible(line)).as_bytes());
}

/// `text` with its control characters escaped: what a dump holds must not steer the terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if char.is_control() { out.extend(char.escape_default()) } else { out.push(char) }
    }
    out
}

/// As [`visible`], of bytes that need not be UTF-8 and of which a tab is no danger.
pub(crate) fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        let texts: Vec<String> = chunk.valid().split('\t').map(visible).collect();
        out += &texts.join("\t");
        out.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    out
}

/// Parses `4096`, `0x1000`, `4K`, `0x10M`.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let shift = match text.as_bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        _ => 0,
    };
    let digits = if shift > 0 { &text[..text.len() - 1] } else { text };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let number = number.map_err(|_| format!("`{text}` is not a number such as 4096, 0x1000 or 4K"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than 64 bits"))
}

/// Parses `BEGIN:LENGTH`.
pub(crate) fn parse_range(text: &str) -> Result<RangeFilter, String> {
    let (begin, len) = text.split_once(':').ok_or("BEGIN:LENGTH is expected, as in 0x100000:16M")?;
    let (begin, len) = (parse_number(begin)?, parse_number(len)?);
    if len == 0 {
        return Err("a length of 0 holds nothing".to_owned());
    }
    // The last byte must have an address.
    if begin.checked_add(len - 1).is_none() {
        return Err(format!("{begin:#x} + {len:#x} is more than 64 bits"));
    }
    Ok(RangeFilter { begin: Gpa(begin), len })
}

/// A length for people: `640 KiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let unit = usize::try_from((63 - bytes.leading_zeros()) / 10 - 1).unwrap_or(0).min(UNITS.len() - 1);
    let shift = 10 * (unit + 1);
    // One digit behind the point, cut: 1023.99 KiB must not become 1024.0 KiB.
    let tenths = u64::try_from((u128::from(bytes) * 10) >> shift).unwrap_or(u64::MAX);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {}", UNITS[unit]),
        (whole, tenth) => format!("{whole}.{tenth} {}", UNITS[unit]),
    }
}

/// A time, in seconds since 1970, as people write it: `2026-11-21 14:07:12 UTC`.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last one; 400 of them have 146097 days, and the first of March
    // of the year 0 is day -719468.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `1 vCPU`, `2 vCPUs`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_number("4K"), Ok(4096));
        assert_eq!(parse_number("0x10"), Ok(16));
        for bad in ["", "K", "-1", "0xg", "1T", "0x", "18446744073709551615K"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_range("0x1800:0x801").map(|range| (range.begin.0, range.len)), Ok((0x1800, 0x801)));
        for bad in ["1", "1:0", "0xffffffffffffffff:2", ":", "0:-5"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
        assert!(parse_range("0xffffffffffffffff:1").is_ok());
    }

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
        // Whatever a note says.
        utc(u64::MAX);
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(visible("it's 6.1-é\x1b[31m\x07\u{9b}m\n"), r"it's 6.1-é\u{1b}[31m\u{7}\u{9b}m\n");
    }

    #[test]
    fn bytes_of_any_encoding_are_shown() {
        assert_eq!(visible_bytes(b"a\tb\r\xc3\xa9\xff\xc3 \x1b"), "a\tb\\ré\\xff\\xc3 \\u{1b}");
    }

    #[test]
    fn sizes() {
        let sizes = [0, 1023, 1024, 1536, (1 << 20) - 1, 0xa_0000, 1 << 30, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "1023.9 KiB", "640 KiB", "1 GiB", "15.9 EiB"]
        );
        assert_eq!([&["a"][..], &["a", "b"], &["a", "b", "c"]].map(list), ["a", "a and b", "a, b and c"]);
        assert_eq!(count(1, "vCPU") + &count(0, " page"), "1 vCPU0  pages");
    }
}
