//! Sections of an ELF file, of which nothing is read before it is needed.

use crate::Error;
use object::{CompressedFileRange, CompressionFormat, ObjectSection};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use vmcore_core::{ReadAt, read_at};

/// The longest section that is read as a whole; `.debug_line` of large kernels has 40 MiB.
const MAX_LEN: u64 = 1 << 28;
/// The longest section that is unpacked; `.debug_info` of large kernels has 400 MiB.
const MAX_UNPACKED_LEN: u64 = 1 << 30;
/// What is read.
const WHAT: &str = "a section of the ELF file";

/// Where a section lies in its file.
#[derive(Clone)]
pub(crate) struct Section {
    file: Arc<dyn ReadAt>,
    range: CompressedFileRange,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Section").field(&self.range).finish()
    }
}

impl Section {
    /// A section of this file.
    pub(crate) fn new<'data>(
        file: &Arc<dyn ReadAt>,
        section: &impl ObjectSection<'data>,
    ) -> Result<Self, Error> {
        let range = section.compressed_file_range();
        let range = range.map_err(|source| Error::Elf { what: "a section", source })?;
        Ok(Self { file: Arc::clone(file), range })
    }

    /// How many bytes it has, unpacked.
    pub(crate) fn len(&self) -> u64 {
        self.range.uncompressed_size
    }

    /// All of it, unpacked.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Error> {
        self.limit(MAX_LEN)?;
        self.unpack()
    }

    /// The `len` bytes at `offset` of a section that is not packed ([`Section::unpacked`]).
    pub(crate) fn part(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        if len > self.len().saturating_sub(offset) {
            return Err(Error::Unusable(format!(
                "has a section that ends before {len} bytes at {offset:#x}"
            )));
        }
        Ok(read_at::read_vec(&*self.file, self.range.offset.saturating_add(offset), len, WHAT)?)
    }

    /// The same section, not packed: in memory, if it was.
    pub(crate) fn unpacked(self) -> Result<Self, Error> {
        if self.range.format == CompressionFormat::None {
            return Ok(self);
        }
        self.limit(MAX_UNPACKED_LEN)?;
        let bytes = self.unpack()?;
        let range = CompressedFileRange::none(Some((0, bytes.len() as u64)));
        Ok(Self { file: Arc::new(bytes), range })
    }

    /// Packed it may be as long as unpacked, and hardly longer: what is longer is no honest section.
    fn limit(&self, limit: u64) -> Result<(), Error> {
        let len = self.len().max(self.range.compressed_size);
        if len > limit {
            return Err(Error::Unusable(format!(
                "has a section of {len} bytes, at most {limit} can be looked into"
            )));
        }
        Ok(())
    }

    fn unpack(&self) -> Result<Vec<u8>, Error> {
        let CompressedFileRange { format, offset, compressed_size, uncompressed_size: len } = self.range;
        let stored = read_at::read_vec(&*self.file, offset, compressed_size, WHAT)?;
        let packed = stored.as_slice();
        let unpacked = match format {
            CompressionFormat::None => return Ok(stored),
            CompressionFormat::Zlib => read_all(flate2::read::ZlibDecoder::new(packed), len),
            CompressionFormat::Zstandard => {
                zstd::stream::read::Decoder::with_buffer(packed).and_then(|decoder| read_all(decoder, len))
            }
            other => return Err(Error::Unusable(format!("has a section that is packed as {other:?}"))),
        };
        unpacked.map_err(|why| Error::Unusable(format!("has a packed section that is damaged: {why}")))
    }
}

/// At most `len` bytes.
fn read_all(reader: impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that nobody may read.
    struct Long;

    impl ReadAt for Long {
        fn byte_len(&self) -> u64 {
            MAX_UNPACKED_LEN << 8
        }
        fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<usize> {
            panic!("{} bytes are read", buf.len())
        }
    }

    #[test]
    fn long_sections_are_not_read_whether_packed_or_not() {
        let too_long = |compressed_size, uncompressed_size| {
            let format = CompressionFormat::Zlib;
            let range = CompressedFileRange { format, offset: 0, compressed_size, uncompressed_size };
            let section = Section { file: Arc::new(Long), range };
            let errors = [section.bytes().map(drop), section.unpacked().map(drop)];
            assert!(errors.iter().all(|error| matches!(error, Err(Error::Unusable(_)))), "{errors:?}");
        };
        too_long(MAX_UNPACKED_LEN + 1, 1);
        too_long(1, MAX_UNPACKED_LEN + 1);
    }
}
