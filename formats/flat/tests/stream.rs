//! What is written is read back, whatever arrives is read as makedumpfile would, and no input is dangerous.

#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use vmcore_core::{Error, Finding, Order, ReadAt, Run, RunState, Severity, Sink, Unwrapped, Wrapper};
use vmcore_format_flat::{Flat, FlatSink};

/// A stream written by hand: the file header, records, and whatever comes last.
fn stream(records: &[(u64, Vec<u8>)], end: &[u8]) -> Vec<u8> {
    let mut stream = b"makedumpfile\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01".to_vec();
    stream.resize(4096, 0);
    for (offset, bytes) in records {
        stream.extend(raw(*offset, bytes.len() as u64));
        stream.extend(bytes);
    }
    stream.extend(end);
    stream
}

/// A record header.
fn raw(offset: u64, len: u64) -> Vec<u8> {
    [offset.to_be_bytes(), len.to_be_bytes()].concat()
}

const END: [u8; 16] = [0xff; 16];

fn open(stream: &[u8]) -> Result<Unwrapped, Error> {
    Flat.open(Arc::new(stream.to_vec()))
}

fn contents(file: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(file.byte_len()).unwrap() + 3];
    let read = file.read_at(0, &mut bytes).unwrap();
    assert_eq!(read as u64, file.byte_len());
    bytes.truncate(read);
    bytes
}

fn is_cut_off(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error && finding.text.contains("cut off"))
}

/// What writing `records` in their order makes of an empty file.
fn model(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for (offset, bytes) in records.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let start = usize::try_from(*offset).unwrap();
        let end = start + bytes.len();
        file.resize(end.max(file.len()), 0);
        file[start..end].copy_from_slice(bytes);
    }
    file
}

/// What every opened file keeps to: any part of it can be read alone, and what it calls zero is zero.
fn check_reads(file: &dyn ReadAt) {
    let all = contents(file);
    let mut at = 0;
    while at < all.len() {
        let run = file.run_at(at as u64, (all.len() - at) as u64);
        let len = usize::try_from(run.len).unwrap();
        assert!(len > 0 && at + len <= all.len());
        assert!(run.state == RunState::Data || all[at..at + len].iter().all(|byte| *byte == 0));
        let mut part = vec![0xee; len];
        assert_eq!(file.read_at(at as u64, &mut part).unwrap(), len);
        assert!(part == all[at..at + len]);
        at += len;
    }
}

/// Writes that do not overlap, in any order, and how long the file is to be.
fn writes() -> impl Strategy<Value = (Vec<(u64, Vec<u8>)>, u64)> {
    // Now and then one that is long enough to be passed on as it is.
    let len = prop_oneof![40 => 0..200usize, 1 => (1 << 20) - 2..(1 << 20) + 2usize];
    let piece = (prop_oneof![Just(0), 0..100u64], len, any::<u8>());
    (prop::collection::vec(piece, 0..20), 0..100u64).prop_flat_map(|(pieces, tail)| {
        let mut at = 0;
        let mut writes = Vec::new();
        for (gap, len, seed) in pieces {
            at += gap;
            writes.push((at, (0..=250u8).map(|byte| byte.wrapping_add(seed)).cycle().take(len).collect()));
            at += len as u64;
        }
        (prop_oneof![Just(writes.clone()), Just(writes).prop_shuffle()], Just(at + tail))
    })
}

/// Records that may overlap.
fn records() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    prop::collection::vec((0..300u64, prop::collection::vec(any::<u8>(), 0..100)), 0..20)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((writes, len) in writes()) {
        let mut out = Vec::new();
        let sink = FlatSink::new(&mut out);
        for (offset, bytes) in &writes {
            sink.write_at(*offset, bytes).unwrap();
        }
        sink.finish(len).unwrap();
        drop(sink);
        let Unwrapped { file, findings } = open(&out)?;
        prop_assert_eq!(findings, []);
        let mut expected = model(&writes);
        expected.resize(usize::try_from(len).unwrap(), 0);
        prop_assert!(contents(&*file) == expected);
        check_reads(&*file);
    }

    #[test]
    fn later_records_win(records in records()) {
        let Unwrapped { file, findings } = open(&stream(&records, &END))?;
        prop_assert!(contents(&*file) == model(&records));
        prop_assert!(findings.iter().all(|finding| finding.severity == Severity::Note));
        check_reads(&*file);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_what_arrived(records in records(), cut in any::<prop::sample::Index>()) {
        let whole = stream(&records, &END);
        let cut = cut.index(whole.len());
        let opened = open(&whole[..cut]);
        if cut < 4096 {
            let is_truncated = matches!(opened, Err(Error::Truncated { .. }));
            prop_assert!(is_truncated);
            return Ok(());
        }
        let Unwrapped { file, findings } = opened?;
        prop_assert!(is_cut_off(&findings));
        // The records before the cut, and what is there of the one that it hits.
        let mut left = cut - 4096;
        let mut arrived = Vec::new();
        for (offset, bytes) in records {
            let Some(room) = left.checked_sub(16) else { break };
            let len = room.min(bytes.len());
            arrived.push((offset, bytes[..len].to_vec()));
            left = room - len;
        }
        prop_assert!(contents(&*file) == model(&arrived));
        check_reads(&*file);
    }

    #[test]
    fn a_mutated_stream_never_panics(
        records in records(),
        mutations in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0u8, 1, 2, 0x7f, 0x80, 0xff])),
            1..8,
        ),
    ) {
        let mut bytes = stream(&records, &END);
        for (index, value) in mutations {
            // Most of the file header is not looked at.
            let at = index.index(32 + bytes.len() - 4096);
            let at = if at < 32 { at } else { at - 32 + 4096 };
            bytes[at] = value;
        }
        let Ok(Unwrapped { file, .. }) = open(&bytes) else { return Ok(()) };
        if file.byte_len() < 1 << 20 {
            check_reads(&*file);
        }
        for offset in [0, 1, 299, file.byte_len().saturating_sub(7), i64::MAX as u64, u64::MAX] {
            let read = file.read_at(offset, &mut [0; 16]).unwrap();
            prop_assert_eq!(read as u64, file.byte_len().saturating_sub(offset).min(16));
            prop_assert!(file.run_at(offset, 5).len <= 5);
            prop_assert!(file.run_at(offset, u64::MAX).len > 0);
        }
    }
}

/// The findings of a stream whose records are "abc" at 0 and whatever follows, as severity, offset and text.
fn check_end(end: &[u8], expected: &[(Severity, u64, &str)]) {
    let opened = open(&stream(&[(0, b"abc".to_vec())], end)).unwrap();
    let found: Vec<_> = opened.findings.iter().map(|f| (f.severity, f.offset.unwrap(), &*f.text)).collect();
    assert_eq!(found, expected);
    assert_eq!(contents(&*opened.file), b"abc");
}

#[test]
fn what_is_odd_is_said() {
    use Severity::{Error, Note};
    const AT: u64 = 4096 + 16 + 3;
    check_end(&END, &[]);
    check_end(&[], &[(Error, AT, "the stream is cut off: there is no end marker")]);
    check_end(&END[..15], &[(Error, AT, "the stream is cut off: there is no end marker")]);
    check_end(&raw(3, 9), &[(Error, AT, "the stream is cut off: of a record of 9 bytes 0 are there")]);
    check_end(
        &raw(u64::MAX, 0),
        &[(Note, AT, "the size in the end marker is not -1: makedumpfile does not read such a stream")],
    );
    check_end(&[END, END].concat(), &[(Note, AT + 16, "16 bytes follow the end marker")]);
    check_end(
        &[raw(7, 0), raw(0, 0), END.to_vec()].concat(),
        &[(Note, AT, "there are empty records: makedumpfile and drgn do not read such a stream")],
    );
}

#[test]
fn another_version_is_read_and_another_type_is_not() {
    let mut bytes = stream(&[(0, b"abc".to_vec())], &END);
    assert!(Flat.probe(&bytes) && Flat.probe(&bytes[..32]) && !Flat.probe(&bytes[..31]));
    bytes[31] = 2;
    assert!(Flat.probe(&bytes));
    let opened = open(&bytes).unwrap();
    assert_eq!(opened.findings[0].text, "the version is 2, not 1: drgn does not read such a stream");
    assert_eq!(contents(&*opened.file), b"abc");
    bytes[23] = 2;
    assert!(!Flat.probe(&bytes));
    assert_eq!(
        open(&bytes).unwrap_err().to_string(),
        "type of a flattened stream at offset 0x10 is 0x2, expected 1"
    );
    bytes[12] = b'!';
    assert!(!Flat.probe(&bytes));
    assert!(matches!(open(&bytes), Err(Error::Invalid { offset: 0, .. })));
}

#[test]
fn a_record_that_no_file_can_have_is_an_error() {
    let check = |offset, len, expected: &str| {
        let error = open(&stream(&[], &raw(offset, len))).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        u64::MAX - 1,
        1,
        "offset of a flattened record at offset 0x1000 is 0xfffffffffffffffe, expected less than 2^63, or -1",
    );
    check(
        0x100,
        u64::MAX,
        "buf_size of a flattened record at offset 0x1008 is 0xffffffffffffffff, expected a size that ends before 2^63",
    );
    check(
        i64::MAX as u64,
        1,
        "buf_size of a flattened record at offset 0x1008 is 0x1, expected a size that ends before 2^63",
    );
}

#[test]
fn a_file_of_eight_exbibytes_costs_nothing() {
    let end = i64::MAX as u64;
    let opened = open(&stream(&[(end - 3, b"end".to_vec()), (0, b"begin".to_vec())], &END)).unwrap();
    assert_eq!((opened.file.byte_len(), opened.findings.len()), (end, 0));
    assert_eq!(opened.file.run_at(5, u64::MAX), Run { len: end - 8, state: RunState::Zero });
    let mut bytes = [0xee; 5];
    assert_eq!(opened.file.read_at(end - 5, &mut bytes).unwrap(), 5);
    assert_eq!(&bytes, b"\0\0end");
}

#[test]
fn headers_are_found_however_far_apart() {
    let lens = [1, 4080, 3, 4081, 70_000, 65_520, 2].into_iter().cycle().take(700);
    let records: Vec<_> = (0u8..=255).cycle().zip(lens).map(|(seed, len)| vec![seed; len]).collect();
    // Each in front of the one before.
    let mut offset = records.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
    let place = |bytes: Vec<u8>| {
        offset -= bytes.len() as u64;
        (offset, bytes)
    };
    let records: Vec<_> = records.into_iter().map(place).collect();
    let Unwrapped { file, findings } = open(&stream(&records, &END)).unwrap();
    assert_eq!(findings, []);
    assert!(contents(&*file) == model(&records));
}

/// A stream whose bytes from the given offset on cannot be read, or one that cannot go back.
struct Faulty(Vec<u8>, Option<u64>);

impl ReadAt for Faulty {
    fn byte_len(&self) -> u64 {
        self.0.byte_len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.1.is_some_and(|bad| offset + buf.len() as u64 > bad) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.0.read_at(offset, buf)
    }

    fn is_sequential(&self) -> bool {
        self.1.is_none()
    }
}

#[test]
fn faults_of_the_stream_are_errors() {
    let bytes = stream(&[(0, vec![7; 1 << 20])], &END);
    let open = |bad| Flat.open(Arc::new(Faulty(bytes.clone(), bad)));
    assert!(matches!(open(None), Err(Error::Unsupported { .. })));
    assert!(matches!(open(Some(4000)), Err(Error::Io { offset: 0, .. })));
    assert!(matches!(open(Some(5000)), Err(Error::Io { offset: 0x1000, .. })));
    assert!(matches!(open(Some(1 << 20)), Err(Error::Io { offset: 0x10_1010, .. })));
    assert_eq!(open(Some(1 << 30)).unwrap().findings, []);
}

/// A stream that goes on as zeros, without end.
struct Endless(Vec<u8>);

impl ReadAt for Endless {
    fn byte_len(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(offset, buf)?;
        buf[read..].fill(0);
        Ok(buf.len())
    }
}

#[test]
fn records_without_end_are_given_up() {
    let error = Flat.open(Arc::new(Endless(stream(&[], &[])))).unwrap_err();
    assert_eq!(error.to_string(), "records of a flattened stream: 67108865 is more than 67108864");
}

#[test]
fn a_sink_says_that_order_counts() {
    assert_eq!(FlatSink::new(io::sink()).order(), Order::Arrival);
    let mut out = Vec::new();
    let sink = Flat.sink(Box::new(&mut out));
    sink.write_at(0, b"abc").unwrap();
    sink.finish(3).unwrap();
    drop(sink);
    assert_eq!(out, stream(&[(0, b"abc".to_vec())], &END));
    assert!(vmcore_core::wrapper::all().iter().any(|wrapper| wrapper.name() == "flat"));
}
