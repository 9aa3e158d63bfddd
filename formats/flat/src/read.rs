//! Reads the headers of a flattened stream, once, into an index.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::file::{FlatFile, Piece, resolve_overlaps};
use crate::record::{
    END_FLAG_FLAT_HEADER, FILE_HEADER_LEN, FileHeader, MAX_FILE_LEN, RecordHeader, SIGNATURE,
    TYPE_FLAT_HEADER, VERSION_FLAT_HEADER,
};
use std::mem::offset_of;
use std::sync::Arc;
use vmcore_core::read_at::read_vec;
use vmcore_core::{Endianness, Error, Finding, ReadAt, Severity};
use zerocopy::FromBytes;

/// The most records that are read: a TiB of QEMU's, of 16 KiB each. Their index is 1.5 GiB then.
const MAX_RECORDS: usize = 1 << 26;

/// Whether a file that begins with `head` is a flattened stream.
pub(crate) fn is_flat(head: &[u8]) -> bool {
    FileHeader::read_from_prefix(head)
        .is_ok_and(|(header, _)| header.signature == SIGNATURE && header.r#type == TYPE_FLAT_HEADER)
}

impl FlatFile {
    /// Reads the record headers of `stream`, and tells what is odd about them.
    ///
    /// Of a stream that is cut off the file has what arrived, and a finding says so.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the file header is not complete, [`Error::Invalid`] if it is another's or a record lies
    /// where no file can have bytes, [`Error::TooLarge`] if there are more than 67,108,864 records,
    /// [`Error::Unsupported`] if the stream cannot go back, [`Error::Io`].
    pub fn open(stream: Arc<dyn ReadAt>) -> Result<(Self, Vec<Finding>), Error> {
        if stream.is_sequential() {
            return Err(Error::Unsupported { what: "reading a flattened stream", found: "a pipe".into() });
        }
        let mut findings = Vec::new();
        read_file_header(&*stream, &mut findings)?;
        let mut pieces = read_records(&*stream, &mut findings)?;
        pieces.sort_unstable_by_key(|piece| piece.offset);
        let overlap = pieces.windows(2).find_map(|pair| match pair {
            [piece, next] if next.offset < piece.end() => Some(next.offset),
            _ => None,
        });
        if let Some(offset) = overlap {
            let text = format!(
                "records overlap, first at {offset:#x} of the file inside: the last of them counts, \
                 as makedumpfile has it; crash does not read such a stream"
            );
            findings.push(Finding { severity: Severity::Note, offset: None, text });
            pieces = resolve_overlaps(&pieces);
        }
        Ok((Self::new(stream, pieces), findings))
    }
}

fn read_file_header(stream: &dyn ReadAt, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let head = read_vec(stream, 0, FILE_HEADER_LEN as u64, "file header of a flattened stream")?;
    let header = FileHeader::read_from_prefix(&head).ok().map(|(header, _)| header);
    let header = header.filter(|header| header.signature == SIGNATURE).ok_or(Error::Invalid {
        what: "signature of a flattened stream",
        offset: 0,
        found: Endianness::Big.decode(head.get(..8).unwrap_or_default()),
        expected: "\"makedumpfile\"",
    })?;
    if header.r#type != TYPE_FLAT_HEADER {
        let (what, found) = ("type of a flattened stream", header.r#type.get());
        return Err(Error::Invalid { what, offset: 16, found, expected: "1" });
    }
    if header.version != VERSION_FLAT_HEADER {
        let text = format!("the version is {}, not 1: drgn does not read such a stream", header.version);
        findings.push(note(24, text));
    }
    Ok(())
}

/// Where the bytes of each record are, in the order of the stream.
fn read_records(stream: &dyn ReadAt, findings: &mut Vec<Finding>) -> Result<Vec<Piece>, Error> {
    let mut at = FILE_HEADER_LEN as u64;
    let mut headers = Headers { stream, last: at, window: Vec::new(), start: at };
    let mut pieces = Vec::new();
    let mut has_empty = false;
    for _ in 0..=MAX_RECORDS {
        let Some(header) = headers.read(at)? else {
            findings.push(error(at, "the stream is cut off: there is no end marker".into()));
            return Ok(pieces);
        };
        let (offset, len) = (header.offset.get(), header.buf_size.get());
        let position = at.saturating_add(size_of::<RecordHeader>() as u64);
        let have = stream.byte_len().saturating_sub(position);
        if offset == END_FLAG_FLAT_HEADER {
            if len != END_FLAG_FLAT_HEADER {
                let text = "the size in the end marker is not -1: makedumpfile does not read such a stream";
                findings.push(note(at, text.into()));
            }
            if have > 0 {
                findings.push(note(position, format!("{have} bytes follow the end marker")));
            }
            return Ok(pieces);
        }
        check_range(at, offset, len)?;
        if len == 0 && !has_empty {
            has_empty = true;
            let text = "there are empty records: makedumpfile and drgn do not read such a stream";
            findings.push(note(at, text.into()));
        }
        if len.min(have) > 0 {
            pieces.push(Piece { position, offset, len: len.min(have) });
        }
        if len > have {
            let text = format!("the stream is cut off: of a record of {len} bytes {have} are there");
            findings.push(error(at, text));
            return Ok(pieces);
        }
        at = position.saturating_add(len);
    }
    let found = (MAX_RECORDS as u64).saturating_add(1);
    Err(Error::TooLarge { what: "records of a flattened stream", found, limit: MAX_RECORDS as u64 })
}

/// Whether the record whose header is at `at` of the stream lies where a file can have bytes.
fn check_range(at: u64, offset: u64, len: u64) -> Result<(), Error> {
    let invalid = |what, offset, found, expected| Err(Error::Invalid { what, offset, found, expected });
    match MAX_FILE_LEN.checked_sub(offset) {
        None => invalid("offset of a flattened record", at, offset, "less than 2^63, or -1"),
        Some(room) if room < len => {
            let at = at.saturating_add(offset_of!(RecordHeader, buf_size) as u64);
            invalid("buf_size of a flattened record", at, len, "a size that ends before 2^63")
        }
        Some(_) => Ok(()),
    }
}

/// Reads record headers, ahead where they stand close together.
struct Headers<'a> {
    stream: &'a dyn ReadAt,
    /// Where the header stood that was read last.
    last: u64,
    /// Bytes of the stream, and where they begin.
    window: Vec<u8>,
    start: u64,
}

/// How much is read ahead.
const WINDOW_LEN: usize = 64 << 10;
/// Headers are close together if there is at most this much from one to the next: a page costs as much to read as a header.
const CLOSE: u64 = 4 << 10;

impl Headers<'_> {
    /// The header at `at`, unless the stream ends before it does.
    fn read(&mut self, at: u64) -> Result<Option<RecordHeader>, Error> {
        let is_close = at.saturating_sub(self.last) <= CLOSE;
        self.last = at;
        if let Some(header) = self.in_window(at) {
            return Ok(Some(header));
        }
        self.window.resize(if is_close { WINDOW_LEN } else { size_of::<RecordHeader>() }, 0);
        let what = "reading the header of a flattened record";
        let read = self.stream.read_at(at, &mut self.window);
        let read = read.map_err(|source| Error::Io { what, offset: at, source })?;
        self.window.truncate(read);
        self.start = at;
        Ok(self.in_window(at))
    }

    fn in_window(&self, at: u64) -> Option<RecordHeader> {
        let skip = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let (header, _) = RecordHeader::read_from_prefix(self.window.get(skip..)?).ok()?;
        Some(header)
    }
}

fn note(offset: u64, text: String) -> Finding {
    Finding { severity: Severity::Note, offset: Some(offset), text }
}

fn error(offset: u64, text: String) -> Finding {
    Finding { severity: Severity::Error, offset: Some(offset), text }
}
