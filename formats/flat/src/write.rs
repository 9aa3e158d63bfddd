//! Writes a dump as a flattened stream.

use crate::record::{
    END_FLAG_FLAT_HEADER, FILE_HEADER_LEN, FileHeader, MAX_FILE_LEN, RecordHeader, SIGNATURE,
    TYPE_FLAT_HEADER, VERSION_FLAT_HEADER,
};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use vmcore_core::{Order, Sink};
use zerocopy::IntoBytes;

/// What is gathered is written when it has this length.
const BUFFER_LEN: usize = 4 << 20;
/// Bytes of this length are a record of their own, and are not copied.
const LARGE: usize = 1 << 20;
/// The most bytes in a record: makedumpfile counts them in an `int`.
const MAX_RECORD_LEN: usize = 1 << 30;

/// A flattened stream: it takes any offsets and never goes back.
///
/// Writes that follow each other in the file share a record. Only [`Sink::finish`] writes the end marker, so that a
/// dump that was given up is seen to be cut off.
///
/// Its errors are the writer's; [`io::ErrorKind::FileTooLarge`] beyond [`MAX_FILE_LEN`]; and
/// [`io::ErrorKind::InvalidInput`] if it is to finish a file that is shorter than what it wrote.
#[derive(Debug)]
pub struct FlatSink<W>(Mutex<Stream<W>>);

impl<W: Write + Send> FlatSink<W> {
    /// A sink that writes its stream to `writer`, from the file header on.
    pub fn new(writer: W) -> Self {
        let header = FileHeader {
            signature: SIGNATURE,
            r#type: TYPE_FLAT_HEADER.into(),
            version: VERSION_FLAT_HEADER.into(),
        };
        let mut buffer = header.as_bytes().to_vec();
        buffer.resize(FILE_HEADER_LEN, 0);
        Self(Mutex::new(Stream { writer, buffer, open: None, has_start: false, end: 0 }))
    }
}

impl<W: Write + Send> Sink for FlatSink<W> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_at(offset, bytes)
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).finish(len)
    }
}

#[derive(Debug)]
struct Stream<W> {
    writer: W,
    /// What is to be written next: the file header, and records.
    buffer: Vec<u8>,
    /// The last record in the buffer, if it can grow.
    open: Option<OpenRecord>,
    /// Whether the first byte of the file is in a record.
    has_start: bool,
    /// Where in the file the furthest record ends.
    end: u64,
}

#[derive(Debug)]
struct OpenRecord {
    /// Where its header stands in the buffer.
    at: usize,
    /// Which bytes of the file it holds.
    file: Range<u64>,
}

impl<W: Write> Stream<W> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= MAX_FILE_LEN);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.has_start |= offset == 0;
        self.end = self.end.max(end);
        if bytes.len() < LARGE { self.gather(offset, bytes) } else { self.pass_on(offset, bytes) }
    }

    /// Puts bytes into the buffer, in the open record if they continue it.
    fn gather(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut record = match self.open.take() {
            Some(record) if record.file.end == offset => record,
            _ => {
                let at = self.buffer.len();
                self.buffer.extend_from_slice(header(&(offset..offset)).as_bytes());
                OpenRecord { at, file: offset..offset }
            }
        };
        self.buffer.extend_from_slice(bytes);
        record.file.end += bytes.len() as u64;
        self.buffer[record.at..][..size_of::<RecordHeader>()]
            .copy_from_slice(header(&record.file).as_bytes());
        self.open = Some(record);
        if self.buffer.len() < BUFFER_LEN { Ok(()) } else { self.flush() }
    }

    /// Writes bytes behind all that is in the buffer.
    fn pass_on(&mut self, mut offset: u64, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(MAX_RECORD_LEN) {
            let end = offset + chunk.len() as u64;
            self.buffer.extend_from_slice(header(&(offset..end)).as_bytes());
            self.flush()?;
            self.writer.write_all(chunk)?;
            offset = end;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open = None;
        self.writer.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self, len: u64) -> io::Result<()> {
        // What is written cannot be taken back.
        if self.end > len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // crash loses the lowest record of a file that begins with a gap (9.0.2, `read_flattened_format`).
        if !self.has_start && len > 0 {
            self.write_at(0, &[0])?;
        }
        // The file ends where its furthest record ends.
        if self.end < len {
            self.write_at(len - 1, &[0])?;
        }
        let end = RecordHeader { offset: END_FLAG_FLAT_HEADER.into(), buf_size: END_FLAG_FLAT_HEADER.into() };
        self.buffer.extend_from_slice(end.as_bytes());
        self.flush()?;
        self.writer.flush()
    }
}

/// The header of the record that holds these bytes of the file.
fn header(file: &Range<u64>) -> RecordHeader {
    RecordHeader { offset: file.start.into(), buf_size: (file.end - file.start).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of these records, written by hand.
    fn stream(records: &[(u64, &[u8])], end: bool) -> Vec<u8> {
        let mut stream = b"makedumpfile\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01".to_vec();
        stream.resize(4096, 0);
        for (offset, bytes) in records {
            stream.extend(offset.to_be_bytes());
            stream.extend((bytes.len() as u64).to_be_bytes());
            stream.extend(*bytes);
        }
        stream.extend(vec![0xff; if end { 16 } else { 0 }]);
        stream
    }

    fn check(writes: &[(u64, &[u8])], len: u64, records: &[(u64, &[u8])]) {
        let mut out = Vec::new();
        let sink = FlatSink::new(&mut out);
        for (offset, bytes) in writes {
            sink.write_at(*offset, bytes).unwrap();
        }
        sink.finish(len).unwrap();
        drop(sink);
        let shape: Vec<_> = writes.iter().map(|(offset, bytes)| (offset, bytes.len())).collect();
        assert!(out == stream(records, true), "{shape:x?}");
    }

    #[test]
    fn writes_that_follow_each_other_share_a_record() {
        check(&[(0, b"ab"), (2, b"cd"), (9, b"x"), (4, b"e")], 10, &[(0, b"abcd"), (9, b"x"), (4, b"e")]);
        check(&[(0, b"a"), (1, b""), (1, b"b")], 2, &[(0, b"ab")]);
    }

    #[test]
    fn large_writes_are_records_of_their_own() {
        let large = vec![7; LARGE];
        let at = LARGE as u64;
        check(
            &[(0, b"a"), (1, &large), (1 + at, b"b"), (2 + at, &large)],
            2 + 2 * at,
            &[(0, b"a"), (1, &large), (1 + at, b"b"), (2 + at, &large)],
        );
    }

    #[test]
    fn a_full_buffer_ends_a_record() {
        let part = vec![7; LARGE - 1];
        let at = |count| (count * part.len()) as u64;
        let writes: Vec<(u64, &[u8])> = (0..6).map(|index| (at(index), &*part)).collect();
        check(&writes, at(6), &[(0, &part.repeat(4)), (at(4), &part.repeat(2))]);
    }

    #[test]
    fn a_record_holds_the_first_and_the_last_byte() {
        check(&[], 0, &[]);
        check(&[], 1, &[(0, b"\0")]);
        check(&[], 5, &[(0, b"\0"), (4, b"\0")]);
        check(&[(0, b"a")], 5, &[(0, b"a"), (4, b"\0")]);
        check(&[(2, b"a"), (4, b"b")], 5, &[(2, b"a"), (4, b"b"), (0, b"\0")]);
    }

    #[test]
    fn a_dump_that_is_given_up_has_no_end_marker() {
        let large = vec![7; LARGE];
        let mut out = Vec::new();
        let sink = FlatSink::new(&mut out);
        sink.write_at(0, &large).unwrap();
        sink.write_at(LARGE as u64, b"never seen").unwrap();
        drop(sink);
        assert!(out == stream(&[(0, &large)], false));
    }

    #[test]
    fn errors_are_the_writers() {
        let mut room = [0; 4096 + 20];
        let sink = FlatSink::new(&mut room[..]);
        sink.write_at(0, b"a record of twenty bytes").unwrap();
        assert_eq!(sink.finish(24).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn what_a_stream_cannot_say_is_an_error() {
        let sink = FlatSink::new(io::sink());
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(sink.write_at(u64::MAX, b"a")), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(sink.write_at(MAX_FILE_LEN, b"a")), io::ErrorKind::FileTooLarge);
        sink.write_at(MAX_FILE_LEN - 1, b"a").unwrap();
        assert_eq!(kind(sink.finish(7)), io::ErrorKind::InvalidInput);
        sink.finish(MAX_FILE_LEN).unwrap();
    }
}
