//! The kernel's virtual memory, walked for long ranges of it: tables are read once, neighbors are merged.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use vmcore_core::pages::push_merged;
use vmcore_core::{Endianness, Error, Finding, Gpa, Gva, Kernel, PhysMemory, Region, Run, Unreadable};

/// What is kept of page tables at once: a block of it is at least a part of a table.
const BLOCK_LEN: u64 = 0x1000;
/// Blocks that are kept: a walk takes five, and consecutive walks share all but the last.
const BLOCKS: usize = 16;

/// Consecutive virtual bytes, and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Bytes from the start of the range that was asked for.
    pub(crate) offset: u64,
    /// Where they lie; `None` if they are not mapped.
    pub(crate) gpa: Option<Gpa>,
    pub(crate) len: u64,
}

/// A kernel's virtual memory, as one thread reads it.
pub(crate) struct Walker<'a> {
    kernel: &'a Kernel,
    tables: TableCache<'a>,
    page_size: u64,
    /// Memory that [`Walker::read`] has read: guest physical addresses, not sorted.
    data: Vec<Range<u64>>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(kernel: &'a Kernel) -> Self {
        let tables = TableCache { memory: &**kernel.memory(), state: Mutex::default() };
        // The smallest there is, should the kernel not say.
        let page_size = kernel.info().page_size().unwrap_or(BLOCK_LEN);
        Self { kernel, tables, page_size, data: Vec::new() }
    }

    /// Byte order of the kernel's words.
    pub(crate) fn endianness(&self) -> Endianness {
        self.kernel.endianness()
    }

    /// Where `len` bytes from `gva` on lie, in order and without a gap. Addresses wrap at 2^64.
    ///
    /// Not mapped is what no table maps and what a table that cannot be read would map, a page at a time.
    ///
    /// # Errors
    /// Those of a source that is gone.
    pub(crate) fn spans(&self, gva: Gva, len: u64) -> Result<Vec<Span>, Error> {
        let mut spans: Vec<Span> = Vec::new();
        let mut offset = 0;
        while offset < len {
            let at = gva.0.wrapping_add(offset);
            let (gpa, step) = match self.kernel.space().translate(&self.tables, Gva(at)) {
                Ok(found) => (Some(found.gpa), found.len),
                Err(error) if is_of_source(&error) => return Err(error),
                Err(_) => (None, self.page_size - at % self.page_size),
            };
            let span = Span { offset, gpa, len: step.clamp(1, len - offset) };
            match spans.last_mut() {
                Some(last) if last.gpa.and_then(|gpa| gpa.checked_add(last.len)) == gpa => {
                    last.len += span.len
                }
                _ => spans.push(span),
            }
            offset += span.len;
        }
        Ok(spans)
    }

    /// Whether an address is mapped.
    ///
    /// # Errors
    /// Those of a source that is gone.
    pub(crate) fn is_mapped(&self, gva: Gva) -> Result<bool, Error> {
        match self.kernel.space().translate(&self.tables, gva) {
            Ok(_) => Ok(true),
            Err(error) if is_of_source(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Fills `buf` from `gva` on, and tells whether all of it could be read.
    ///
    /// # Errors
    /// Those of a source that is gone.
    pub(crate) fn read(&mut self, gva: Gva, buf: &mut [u8]) -> Result<bool, Error> {
        for span in self.spans(gva, buf.len() as u64)? {
            let (Some(gpa), Ok(start), Ok(len)) =
                (span.gpa, usize::try_from(span.offset), usize::try_from(span.len))
            else {
                return Ok(false);
            };
            if !self.kernel.memory().read_at(gpa, &mut buf[start..][..len])?.is_empty() {
                return Ok(false);
            }
            push_merged_or_new(&mut self.data, gpa.0..gpa.0 + span.len);
        }
        Ok(true)
    }

    /// The kernel's `unsigned long` at `gva`; `None` if it cannot be read.
    ///
    /// # Errors
    /// Those of a source that is gone.
    pub(crate) fn number(&mut self, gva: Gva) -> Result<Option<u64>, Error> {
        let mut bytes = [0; 8];
        Ok(self.read(gva, &mut bytes)?.then(|| self.kernel.endianness().decode(&bytes)))
    }

    /// The tables that were walked, and what [`Walker::read`] has read: guest physical addresses.
    pub(crate) fn touched(self) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let state = self.tables.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut tables = Vec::new();
        for block in state.touched {
            push_merged(&mut tables, block..block.saturating_add(BLOCK_LEN));
        }
        (tables, self.data)
    }
}

/// Adds a range to a list that is not sorted, and makes it one with the last if it continues that.
pub(crate) fn push_merged_or_new(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.start <= range.start && range.start <= last.end => {
            last.end = last.end.max(range.end)
        }
        _ => ranges.push(range),
    }
}

/// Whether the source of the memory is gone, instead of a part of the memory.
fn is_of_source(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Source { .. } | Error::Cancelled)
}

/// Guest memory of which the last blocks that were read are kept, and the addresses of all.
struct TableCache<'a> {
    memory: &'a dyn PhysMemory,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    blocks: Vec<(u64, Box<[u8]>)>,
    /// Which block is replaced next.
    next: usize,
    /// Where all blocks that were ever read lie.
    touched: BTreeSet<u64>,
}

impl CacheState {
    /// The block at `start`, if all of it can be read.
    fn block(&mut self, memory: &dyn PhysMemory, start: u64) -> Result<Option<&[u8]>, Error> {
        let found = self.blocks.iter().position(|(gpa, _)| *gpa == start);
        let index = if let Some(index) = found {
            index
        } else {
            let mut bytes = vec![0; usize::try_from(BLOCK_LEN).unwrap_or(0)].into_boxed_slice();
            self.touched.insert(start);
            if !memory.read_at(Gpa(start), &mut bytes)?.is_empty() {
                return Ok(None);
            }
            let index = self.next % BLOCKS;
            self.next += 1;
            if index < self.blocks.len() {
                self.blocks[index] = (start, bytes);
            } else {
                self.blocks.push((start, bytes));
            }
            index
        };
        Ok(self.blocks.get(index).map(|(_, bytes)| &**bytes))
    }
}

impl PhysMemory for TableCache<'_> {
    fn regions(&self) -> &[Region] {
        self.memory.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        let start = gpa.align_down(BLOCK_LEN).0;
        let offset = usize::try_from(gpa.0 - start).unwrap_or(usize::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = offset.checked_add(buf.len()).filter(|end| *end as u64 <= BLOCK_LEN)
            && let Some(block) = state.block(self.memory, start)?
        {
            buf.copy_from_slice(&block[offset..end]);
            return Ok(Unreadable::default());
        }
        self.memory.read_at(gpa, buf)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        self.memory.run_at(gpa, max)
    }

    fn has_excluded(&self) -> bool {
        self.memory.has_excluded()
    }

    fn fault_at(&self, gpa: Gpa) -> Option<Finding> {
        self.memory.fault_at(gpa)
    }
}
