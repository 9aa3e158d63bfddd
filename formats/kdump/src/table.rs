//! The table of page descriptors, read in blocks of which those are kept that were used last.

use crate::cache::Cache;
use crate::header::{DESCRIPTOR_LEN, Descriptor, Only};
use std::sync::Arc;
use vmcore_core::{Endianness, Error, ReadAt, Record};

/// Descriptors of a block: 3 KiB of the file, which take hardly longer to read than one.
const BLOCK: usize = 128;
/// Blocks that are kept: 8 MiB, for 1 GiB of memory in pages of 4 KiB.
const BLOCKS: u64 = 2048;

/// The table of one file.
pub(crate) struct Table {
    file: Arc<dyn ReadAt>,
    /// Where it begins.
    pub(crate) offset: u64,
    endianness: Endianness,
    blocks: Cache<Arc<[Descriptor]>>,
}

impl Table {
    pub(crate) fn new(file: Arc<dyn ReadAt>, offset: u64, endianness: Endianness) -> Self {
        Self { file, offset, endianness, blocks: Cache::new(BLOCKS) }
    }

    /// Where the descriptor number `index` stands in the file.
    pub(crate) fn offset_of(&self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(DESCRIPTOR_LEN as u64))
    }

    /// The descriptors from number `index` on, without end: those that the file lacks are those of missing pages.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = Result<Descriptor, Error>> {
        let mut block: Arc<[Descriptor]> = Arc::default();
        (index..).map(move |index| {
            let (number, at) = (index / BLOCK as u64, index % BLOCK as u64);
            if at == 0 || block.is_empty() {
                block = self.block(number)?;
            }
            Ok(block[usize::try_from(at).expect("a block is small")])
        })
    }

    fn block(&self, number: u64) -> Result<Arc<[Descriptor]>, Error> {
        if let Some(block) = self.blocks.get(number, Arc::clone) {
            return Ok(block);
        }
        let offset = self.offset_of(number.saturating_mul(BLOCK as u64));
        let mut bytes = [0; BLOCK * DESCRIPTOR_LEN];
        let io = |source| Error::Io { what: "reading page descriptors", offset, source };
        let read = self.file.read_at(offset, &mut bytes).map_err(io)?;
        bytes[read..].fill(0);
        let decode =
            |entry: &[u8]| Descriptor::decode(entry, Only::Form, self.endianness).unwrap_or_default();
        let block: Arc<[Descriptor]> = bytes.chunks_exact(DESCRIPTOR_LEN).map(decode).collect();
        self.blocks.put(number, block.clone());
        Ok(block)
    }
}
