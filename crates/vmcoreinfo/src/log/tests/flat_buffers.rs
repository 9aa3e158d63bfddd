//! The buffers of records and of characters.

use super::{BASE, Image, ORDERS, read};
use crate::log::{Caller, Record};
use proptest::prelude::*;
use vmcore_core::Endianness;

const BUFFER: u64 = BASE + 0x1000;
const LEN: usize = 0x100;

/// A buffer of records that begin at `first` and end before `next`.
fn records(order: Endianness, word: usize, name: &str, first: u64, next: u64) -> Image {
    let mut image = Image::new(order);
    image.state("SIZE", &[("list_head", 2 * word as u64), (name, 24)]);
    let variables = [
        ("log_buf", BASE),
        ("log_buf_len", BASE + 8),
        ("log_first_idx", BASE + 16),
        ("log_next_idx", BASE + 24),
    ];
    image.state("SYMBOL", &variables);
    let fields = [("len", 0), ("text_len", 2), ("dict_len", 4), ("ts_nsec", 8), ("caller_id", 16)];
    fields.iter().for_each(|(field, at)| image.state("OFFSET", &[(&format!("{name}.{field}"), *at)]));
    image.put(BASE, word, BUFFER);
    image.put(BASE + 8, 4, LEN as u64);
    image.put(BASE + 16, 4, first);
    image.put(BASE + 24, 4, next);
    image
}

/// Puts a record at an index of the buffer, and gives the index behind it.
fn put(image: &mut Image, at: u64, record: &Record<'_>, dictionary: &str) -> u64 {
    let (gva, text) = (BUFFER + at, record.text);
    let len = (24 + text.len() + dictionary.len()).next_multiple_of(4) as u64;
    let flags_and_level = match image.order {
        Endianness::Little => record.level << 5 | 6,
        Endianness::Big => 6 << 3 | record.level,
    };
    let Some(Caller::Thread(caller)) = record.caller else { panic!("the tests have threads") };
    for (offset, bytes, value) in [
        (0, 2, len),
        (2, 2, text.len() as u64),
        (4, 2, dictionary.len() as u64),
        (6, 1, record.facility.into()),
        (7, 1, flags_and_level.into()),
        (8, 8, record.timestamp_ns.unwrap()),
        (16, 4, caller.into()),
    ] {
        image.put(gva + offset, bytes, value);
    }
    image.put_bytes(gva + 24, &[text, dictionary.as_bytes()].concat());
    at + len
}

const RECORD: Record<'static> = Record {
    sequence: None,
    timestamp_ns: Some(0x1122_3344_5566),
    facility: 1,
    level: 3,
    caller: Some(Caller::Thread(7)),
    text: b"",
    subsystem: b"",
    device: b"",
};

#[test]
fn records_go_on_at_the_begin_of_the_buffer() {
    let texts: [&[u8]; 4] = [b"first", b"the second", b"", b"last one"];
    for (order, name) in ORDERS.into_iter().flat_map(|order| [(order, "log"), (order, "printk_log")]) {
        let mut image = records(order, 8, name, 0x90, 0);
        let mut at = 0x90;
        for text in &texts[..2] {
            at = put(&mut image, at, &Record { text, ..RECORD }, "");
        }
        let mut end = put(&mut image, 0, &Record { text: texts[2], ..RECORD }, "");
        end = put(&mut image, end, &Record { text: texts[3], ..RECORD }, "SUBSYSTEM=usb\0DEVICE=c189:3");
        image.put(BASE + 24, 4, end);
        let log = image.open().unwrap();
        let found: Vec<Record<'_>> = log.records().map(Result::unwrap).collect();
        let mut expected = texts.map(|text| Record { text, ..RECORD });
        (expected[3].subsystem, expected[3].device) = (b"usb", b"c189:3");
        assert_eq!(found, expected, "{order:?} {name}");
    }
}

#[test]
fn an_empty_buffer_has_no_records() {
    let image = records(Endianness::Big, 4, "log", 0x40, 0x40);
    assert_eq!(read(&image.open().unwrap()), (vec![], vec![]));
}

#[test]
fn a_kernel_without_callers_has_none() {
    let mut image = records(Endianness::Little, 8, "printk_log", 0, 24);
    put(&mut image, 0, &RECORD, "");
    image.info = image.info.replace("printk_log.caller_id", "x");
    assert_eq!(image.open().unwrap().records().next().unwrap().unwrap().caller, None);
}

/// Where a length is wrong, nothing behind it can be found.
#[test]
fn a_damaged_record_is_the_last() {
    let check = |offset: u64, value: u64, what: &str| {
        let mut image = records(Endianness::Little, 8, "printk_log", 0, 0);
        let mut at = 0;
        for text in ["one", "two", "three"] {
            at = put(&mut image, at, &Record { text: text.as_bytes(), ..RECORD }, "");
        }
        image.put(BASE + 24, 4, at);
        image.put(BUFFER + 28 + offset, 2, value);
        let (texts, damages) = read(&image.open().unwrap());
        assert_eq!(texts, ["one"]);
        assert_eq!(damages.len(), 1);
        assert_eq!((damages[0].place, damages[0].what), (28, what));
    };
    for len in [0, 23, 64, 0xffff] {
        check(0, len, "its length is wrong; it and those behind it are left out");
    }
    check(2, 5, "its texts are longer than it is; it and those behind it are left out");
    check(4, 2, "its texts are longer than it is; it and those behind it are left out");
}

#[test]
fn an_index_outside_the_buffer_is_an_error() {
    let error = records(Endianness::Little, 8, "printk_log", 0x101, 0).open().err().unwrap();
    assert_eq!(error.to_string(), "index into the kernel's log: 257 is more than 256");
}

/// A buffer of characters, of which the newest stands before index `end`.
fn chars(text: &[u8], end: u64) -> Image {
    let mut image = Image::new(Endianness::Little);
    image.state("SIZE", &[("list_head", 8)]);
    let variables =
        [("log_buf", BASE), ("log_buf_len", BASE + 8), ("log_end", BASE + 16), ("logged_chars", BASE + 24)];
    image.state("SYMBOL", &variables);
    for ((_, gva), value) in variables.iter().zip([BUFFER, LEN as u64, end, text.len() as u64]) {
        image.put(*gva, 4, value);
    }
    for (index, byte) in text.iter().enumerate() {
        let at = end.wrapping_sub(text.len() as u64).wrapping_add(index as u64) % LEN as u64;
        image.put_bytes(BUFFER + at, &[*byte]);
    }
    image
}

#[test]
fn lines_of_characters_are_records() {
    const TEXT: &str =
        "cut off\n<6>[    1.234567] Linux\n<28>[12345.000001] udev\n second line\n<3>no time\n<x>[1] odd\n\n";
    let expected: [(Option<u64>, u8, u8, &[u8]); 7] = [
        (None, 0, 4, b"cut off"),
        (Some(1_234_567_000), 0, 6, b"Linux"),
        (Some(12_345_000_001_000), 3, 4, b"udev"),
        (None, 3, 4, b" second line"),
        (None, 0, 3, b"no time"),
        (None, 0, 3, b"<x>[1] odd"),
        (None, 0, 3, b""),
    ];
    for end in [TEXT.len() as u64, 0x120, 0xffff_ff10, 7] {
        let log = chars(TEXT.as_bytes(), end).open().unwrap();
        let found = log.records().map(Result::unwrap);
        let found: Vec<_> = found.map(|it| (it.timestamp_ns, it.facility, it.level, it.text)).collect();
        assert_eq!(found, expected, "up to {end:#x}");
    }
    assert_eq!(chars(b"", 0).open().unwrap().records().count(), 0);
}

proptest! {
    #[test]
    fn buffers_of_random_bytes_are_read_in_bounds(
        noise in prop::collection::vec(any::<u8>(), LEN),
        small in prop::collection::vec(0..60_u8, LEN),
        (first, next) in (0..=LEN as u64, 0..=LEN as u64),
    ) {
        for bytes in [noise, small] {
            let mut image = records(Endianness::Little, 8, "log", first, next);
            image.put_bytes(BUFFER, &bytes);
            for image in [image, chars(&bytes, next)] {
                let log = image.open().unwrap();
                let len: usize = log.records().filter_map(Result::ok).map(|record| record.text.len()).sum();
                prop_assert!(len <= LEN);
                prop_assert!(log.records().count() <= LEN + 1);
            }
        }
    }
}
