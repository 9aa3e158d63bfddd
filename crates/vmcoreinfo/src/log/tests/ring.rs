//! The ring buffer, filled by a writer that does what the comments on top of Linux' `printk_ringbuffer.c` say.

use super::{BASE, Image, ORDERS, read};
use crate::log::{Caller, Log, Record};
use proptest::prelude::*;
use std::collections::VecDeque;
use vmcore_core::{Endianness, Error};

const PRB: u64 = BASE + 0x10;
const RING: u64 = BASE + 0x100;
const DESCS: u64 = BASE + 0x400;
const INFOS: u64 = BASE + 0x1000;
const DATA: u64 = BASE + 0x3800;
const INFO_LEN: u64 = 88;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
const REUSABLE: u64 = 3;

/// What the kernel knows of the block of a record.
#[derive(Clone)]
struct Block {
    id: u64,
    next: u64,
}

/// The kernel's side of a ring.
#[derive(Clone)]
struct Writer {
    image: Image,
    word: usize,
    count_bits: u32,
    size_bits: u32,
    /// Whether a block may end exactly at the end of the ring.
    is_modern: bool,
    head_id: u64,
    tail_id: u64,
    head: u64,
    tail: u64,
    blocks: VecDeque<Block>,
}

impl Writer {
    fn new(order: Endianness, word: usize, count_bits: u32, size_bits: u32) -> Self {
        let w = word as u64;
        let mut image = Image::new(order);
        image.state("SYMBOL", &[("prb", PRB)]);
        #[rustfmt::skip]
        image.state("SIZE", &[
            ("list_head", 2 * w), ("printk_ringbuffer", 10 * w), ("prb_desc_ring", 6 * w), ("prb_data_ring", 4 * w),
            ("prb_desc", 3 * w), ("prb_data_blk_lpos", 2 * w), ("printk_info", INFO_LEN), ("dev_printk_info", 64),
        ]);
        #[rustfmt::skip]
        image.state("OFFSET", &[
            ("printk_ringbuffer.text_data_ring", 0), ("printk_ringbuffer.desc_ring", 4 * w),
            ("prb_data_ring.size_bits", 0), ("prb_data_ring.data", w),
            ("prb_desc_ring.count_bits", w), ("prb_desc_ring.descs", 2 * w), ("prb_desc_ring.infos", 3 * w),
            ("prb_desc_ring.head_id", 4 * w), ("prb_desc_ring.tail_id", 5 * w),
            ("prb_desc.text_blk_lpos", 0), ("prb_desc.state_var", 2 * w),
            ("prb_data_blk_lpos.next", 0), ("prb_data_blk_lpos.begin", w),
            ("printk_info.dev_info", 0), ("printk_info.caller_id", 64), ("printk_info.text_len", 68),
            ("printk_info.seq", 72), ("printk_info.ts_nsec", 80),
            ("dev_printk_info.subsystem", 0), ("dev_printk_info.device", 16),
        ]);
        image.state("LENGTH", &[("printk_info_subsystem", 16), ("printk_info_device", 48)]);
        image.put(PRB, word, RING);
        image.put(RING, 4, size_bits.into());
        image.put(RING + w, word, DATA);
        image.put(RING + 5 * w, 4, count_bits.into());
        image.put(RING + 6 * w, word, DESCS);
        image.put(RING + 7 * w, word, INFOS);
        // Ids and positions begin so that they soon pass zero.
        let mut writer = Self {
            image,
            word,
            count_bits,
            size_bits,
            is_modern: false,
            head_id: 0,
            tail_id: 0,
            head: 0,
            tail: 0,
            blocks: VecDeque::new(),
        };
        let first = 0_u64.wrapping_sub((1 << count_bits) + 1) & writer.id_mask();
        (writer.head_id, writer.tail_id) = (first, first);
        let begin = 0_u64.wrapping_sub(1 << size_bits) & writer.word_mask();
        (writer.head, writer.tail) = (begin, begin);
        writer.set_state(first, REUSABLE);
        writer.store_ids();
        writer
    }

    fn word_mask(&self) -> u64 {
        if self.word == 4 { u64::from(u32::MAX) } else { u64::MAX }
    }

    fn id_mask(&self) -> u64 {
        self.word_mask() >> 2
    }

    fn desc(&self, id: u64) -> u64 {
        DESCS + id % (1 << self.count_bits) * 3 * self.word as u64
    }

    fn info(&self, id: u64) -> u64 {
        INFOS + id % (1 << self.count_bits) * INFO_LEN
    }

    fn set_state(&mut self, id: u64, state: u64) {
        let (desc, word) = (self.desc(id), self.word);
        self.image.put(desc + 2 * word as u64, word, state << (word * 8 - 2) | id);
    }

    fn set_lpos(&mut self, id: u64, begin: u64, next: u64) {
        let (desc, word) = (self.desc(id), self.word);
        self.image.put(desc, word, next);
        self.image.put(desc + word as u64, word, begin);
    }

    fn store_ids(&mut self) {
        let (ring, word) = (RING + 4 * self.word as u64, self.word);
        self.image.put(ring + 4 * word as u64, word, self.head_id);
        self.image.put(ring + 5 * word as u64, word, self.tail_id);
    }

    /// Takes the text of the oldest record away.
    fn drop_oldest(&mut self) {
        let oldest = self.blocks.pop_front().expect("a text that fits the ring has room when it is empty");
        self.tail = oldest.next;
        self.set_state(oldest.id, REUSABLE);
    }

    /// Takes the next id; its descriptor is still as it was.
    fn take_id(&mut self) -> u64 {
        let id = (self.head_id + 1) & self.id_mask();
        let before = id.wrapping_sub(1 << self.count_bits) & self.id_mask();
        if before == self.tail_id {
            while self.blocks.front().is_some_and(|block| block.id == before) {
                self.drop_oldest();
            }
            self.tail_id = (self.tail_id + 1) & self.id_mask();
        }
        self.head_id = id;
        self.store_ids();
        id
    }

    /// Takes room for a text, and gives the position of its block, that behind it, and where the text stands.
    fn allocate(&mut self, id: u64, text_len: usize) -> (u64, u64, u64) {
        let (size, mask) = (1_u64 << self.size_bits, self.word_mask());
        let len = (self.word + text_len).next_multiple_of(self.word) as u64;
        let lap = |lpos: u64| (lpos & mask) / size;
        let (begin, mut next) = (self.head, self.head.wrapping_add(len) & mask);
        let mut place = begin % size;
        if lap(begin) != lap(next.wrapping_sub(u64::from(self.is_modern))) {
            next = (next / size * size).wrapping_add(len) & mask;
            place = 0;
        }
        while next.wrapping_sub(self.tail) & mask > size {
            self.drop_oldest();
        }
        self.head = next;
        self.blocks.push_back(Block { id, next });
        self.image.put(DATA + begin % size, self.word, id);
        self.image.put(DATA + place, self.word, id);
        (begin, next, DATA + place + self.word as u64)
    }

    /// What `printk` does.
    fn append(&mut self, record: &Record<'_>) -> u64 {
        let id = self.take_id();
        self.set_state(id, 0);
        if record.text.is_empty() {
            self.set_lpos(id, 3, 3);
        } else {
            let (begin, next, place) = self.allocate(id, record.text.len());
            self.set_lpos(id, begin, next);
            self.image.put_bytes(place, record.text);
        }
        let info = self.info(id);
        let flags_and_level = match self.image.order {
            Endianness::Little => record.level << 5 | 0x12,
            Endianness::Big => 0x12 << 3 | record.level,
        };
        let caller = match record.caller {
            Some(Caller::Thread(number)) => number,
            Some(Caller::Cpu(number)) => number | 1 << 31,
            None => 0,
        };
        for (offset, len, value) in [
            (64, 4, u64::from(caller)),
            (68, 2, record.text.len() as u64),
            (70, 1, record.facility.into()),
            (71, 1, flags_and_level.into()),
            (72, 8, record.sequence.unwrap()),
            (80, 8, record.timestamp_ns.unwrap()),
        ] {
            self.image.put(info + offset, len, value);
        }
        self.image.put_bytes(info, &[0; 64]);
        self.image.put_bytes(info, record.subsystem);
        self.image.put_bytes(info + 16, record.device);
        self.set_state(id, FINALIZED);
        id
    }

    fn append_text(&mut self, text: &str) -> u64 {
        self.append(&Record { text: text.as_bytes(), ..RECORD })
    }
}

const RECORD: Record<'static> = Record {
    sequence: Some(0x1122_3344_5566),
    timestamp_ns: Some(0x99_8877_6655),
    facility: 3,
    level: 5,
    caller: Some(Caller::Cpu(9)),
    text: b"a text",
    subsystem: b"pci",
    device: b"+pci:0000:00:1f.2",
};

#[test]
fn records_are_what_was_written() {
    let thread = Record { caller: Some(Caller::Thread(101)), level: 0, text: b"", subsystem: b"", ..RECORD };
    let longest = Record { subsystem: &[b's'; 16], device: &[b'd'; 48], level: 7, ..RECORD };
    for (order, word) in ORDERS.into_iter().flat_map(|order| [(order, 4), (order, 8)]) {
        let mut writer = Writer::new(order, word, 3, 8);
        assert_eq!(writer.image.open().unwrap().records().count(), 0, "right after the boot");
        let written = [RECORD, thread, longest];
        for record in &written {
            writer.append(record);
        }
        let log = writer.image.open().unwrap();
        let found: Vec<Record<'_>> = log.records().map(Result::unwrap).collect();
        assert_eq!(found, written, "{order:?}, words of {word} bytes");
    }
}

/// Only what is committed is a record, and what is no record yet, or no more, is no damage.
#[test]
fn each_state_means_what_the_kernel_means() {
    let mut writer = Writer::new(Endianness::Little, 8, 3, 8);
    let ids = ["final", "committed", "reserved", "reusable", "failed"].map(|text| writer.append_text(text));
    writer.set_state(ids[1], COMMITTED);
    writer.set_state(ids[2], 0);
    writer.set_state(ids[3], REUSABLE);
    writer.set_lpos(ids[4], 1, 1);
    let (texts, damages) = read(&writer.image.open().unwrap());
    assert_eq!((texts.join(" ").as_str(), damages.len()), ("final committed", 0));
}

/// A descriptor that is being taken still belongs to the record before it, or has never been used.
#[test]
fn a_writer_may_be_anywhere() {
    let mut writer = Writer::new(Endianness::Big, 4, 2, 8);
    let texts: Vec<String> = (0..7).map(|number| format!("record {number}")).collect();
    for (count, text) in texts.iter().enumerate() {
        let mut ahead = writer.clone();
        ahead.take_id();
        let expected = &texts[count.saturating_sub(3)..count];
        assert_eq!(read(&ahead.image.open().unwrap()), (expected.to_vec(), vec![]), "after {count}");
        writer.append_text(text);
    }
}

#[test]
fn a_damaged_record_is_told_and_the_others_are_read() {
    let check = |damage: &dyn Fn(&mut Writer, u64), what: &str| {
        let mut writer = Writer::new(Endianness::Little, 8, 3, 8);
        let ids = ["one", "two", "three"].map(|text| writer.append_text(text));
        damage(&mut writer, ids[1]);
        let (texts, damages) = read(&writer.image.open().unwrap());
        assert_eq!(texts, ["one", "three"], "{what}");
        assert_eq!(damages.len(), 1);
        assert_eq!((damages[0].place, damages[0].what), (ids[1], what));
    };
    check(
        &|writer, id| {
            let state = writer.desc(id) + 16;
            writer.image.put(state, 8, FINALIZED << 62 | (id - 8));
        },
        "its descriptor is that of another record",
    );
    for (begin, next) in [(0, 0), (16, 8), (8, 9), (9, 16), (1, 3), (1 << 20, 8), (8, 1 << 20), (0, 1 << 20)]
    {
        check(&|writer, id| writer.set_lpos(id, begin, next), "the place of its text is none");
    }
    check(&|writer, id| writer.set_lpos(id, 0, 16), "its text is that of another record");
    check(
        &|writer, id| {
            let info = writer.info(id);
            writer.image.put(info + 68, 2, 9);
        },
        "its text is longer than the place for it",
    );
}

/// Else a log of a few megabytes could have the length of all memory.
#[test]
fn texts_that_overlap_are_told() {
    let mut writer = Writer::new(Endianness::Little, 8, 3, 8);
    let ids: Vec<u64> = (0..4).map(|_| writer.append_text("0123456789abcdef")).collect();
    for (index, id) in (0..).zip(&ids) {
        writer.set_lpos(*id, index * 8, 136 + index * 8);
        writer.image.put(DATA + index * 8, 8, *id);
    }
    let (texts, damages) = read(&writer.image.open().unwrap());
    assert_eq!(texts.len(), 1, "two blocks of 136 bytes do not fit 256");
    assert_eq!(damages[0].what, "its text overlaps that of another record");
}

#[test]
fn what_no_kernel_has_is_an_error() {
    let error = |damage: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new(Endianness::Little, 8, 3, 8);
        writer.append_text("one");
        damage(&mut writer);
        writer.image.open().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let info = |from: &'static str, to: &'static str| {
        move |writer: &mut Writer| {
            assert!(writer.image.info.contains(from));
            writer.image.info = writer.image.info.replace(from, to);
        }
    };
    let check = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
    check(
        error(&|writer| writer.image.put(RING + 40, 4, 32)),
        "a descriptor's index in the kernel's log: 32 is more",
    );
    check(error(&|writer| writer.image.put(RING + 40, 4, 31)), "a table of the kernel's log: ");
    check(error(&|writer| writer.image.put(RING, 4, 30)), "a table of the kernel's log: 1073741824 is more");
    check(error(&|writer| writer.image.put(RING + 64, 8, 99)), "records in the kernel's log: ");
    check(error(&|writer| writer.image.put(PRB, 8, 0)), "not available");
    check(
        error(&info("SIZE(prb_desc)=24", "SIZE(prb_desc)=0")),
        "end of a field of the log in its structure: 16 is more than 0",
    );
    check(error(&info("SIZE(printk_info)=88", "SIZE(printk_info)=-1")), "SIZE of a structure of the log: ");
    check(
        error(&info("OFFSET(printk_info.seq)=72", "OFFSET(printk_info.seq)=81")),
        "in its structure: 89 is more",
    );
    check(
        error(&info("LENGTH(printk_info_device)=48", "LENGTH(printk_info_device)=49")),
        "in its structure: 65",
    );
    check(error(&info("OFFSET(printk_info.ts_nsec)", "OFFSET(x)")), "no usable OFFSET(printk_info.ts_nsec)");
}

#[test]
fn a_table_that_is_not_in_the_dump_is_an_error() {
    let mut writer = Writer::new(Endianness::Little, 8, 3, 8);
    writer.image.put(RING + 8, 8, 0x10_0000);
    assert!(matches!(writer.image.open(), Err(Error::NoMemory { .. })));
}

/// No more records than descriptors, and no more text than the ring has room for.
fn is_bounded(log: &Log, count_bits: u32, size_bits: u32) -> bool {
    let len: usize = log.records().filter_map(Result::ok).map(|record| record.text.len()).sum();
    log.records().count() <= 1 << count_bits && len <= 1 << size_bits
}

proptest! {
    #[test]
    fn the_log_is_the_end_of_what_was_written(
        texts in prop::collection::vec("[a-z\n]{0,40}", 0..60),
        is_big in any::<bool>(),
        word in prop::sample::select(vec![4, 8]),
        count_bits in 1..5_u32,
        is_modern in any::<bool>(),
    ) {
        let order = if is_big { Endianness::Big } else { Endianness::Little };
        let mut writer = Writer { is_modern, ..Writer::new(order, word, count_bits, 7) };
        for (index, text) in texts.iter().enumerate() {
            writer.append_text(text);
            let (found, damages) = read(&writer.image.open().unwrap());
            prop_assert_eq!(damages, vec![]);
            // An empty line takes no room, so that it may outlive the texts around it.
            let written: Vec<&String> = texts[..=index].iter().filter(|text| !text.is_empty()).collect();
            let found: Vec<&String> = found.iter().filter(|text| !text.is_empty()).collect();
            prop_assert!(written.ends_with(&found), "{:?}", found);
            prop_assert_eq!(found.len(), writer.blocks.len());
        }
    }

    #[test]
    fn a_ring_of_random_bytes_is_read_in_bounds(
        noise in prop::collection::vec(any::<u8>(), 0x3c00),
        texts in prop::collection::vec("[a-z]{0,40}", 0..20),
        hits in prop::collection::vec((0x400..0x3a00_usize, any::<u8>()), 0..200),
        is_noise in any::<bool>(),
    ) {
        let mut writer = Writer::new(Endianness::Little, 8, 4, 8);
        for text in &texts {
            writer.append_text(text);
        }
        if is_noise {
            writer.image.bytes[0x400..0x4000].copy_from_slice(&noise);
        }
        hits.iter().for_each(|(place, byte)| writer.image.bytes[*place] = *byte);
        prop_assert!(is_bounded(&writer.image.open().unwrap(), 4, 8));
    }

    /// The ring's own structure too: then it may also be an error.
    #[test]
    fn a_random_ring_never_panics(noise in prop::collection::vec(any::<u8>(), 0x50), word in prop::sample::select(vec![4, 8])) {
        let mut writer = Writer::new(Endianness::Big, word, 4, 8);
        writer.image.put_bytes(RING, &noise);
        if let Ok(log) = writer.image.open() {
            prop_assert!(is_bounded(&log, 31, 31));
        }
    }
}
