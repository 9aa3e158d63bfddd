//! Fetching what is stored of pages, many with one read, and expanding it.

use crate::codec::Expander;
use crate::header::Descriptor;
use crate::memory::Share;
use vmcore_core::{ReadAt, RunState};

/// Stored pages are read together up to this many bytes.
const SPAN_LEN: u64 = 1 << 20;
/// What may lie between two pages that are read together.
const SPAN_GAP: u64 = 1 << 14;

/// A page that has a descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) pfn: u64,
    pub(crate) descriptor: Descriptor,
}

/// What one thread needs to expand pages of one share.
pub(crate) struct Workspace {
    expander: Expander,
    stored: Stored,
    /// A buffer for a page that nobody uses.
    spare: Option<Box<[u8]>>,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self { expander: Expander::new(), stored: Stored::default(), spare: None }
    }

    /// Forgets the share that was read before.
    pub(crate) fn begin(&mut self) {
        self.stored.span.len = 0;
    }

    /// Expands the first of `entries` into `page`; the others are those that are likely to be needed next.
    ///
    /// # Errors
    /// What is wrong with the page, for people to read.
    pub(crate) fn expand(&mut self, share: &Share, entries: &[Entry], page: &mut [u8]) -> Result<(), String> {
        let Some(Entry { descriptor, .. }) = entries.first() else { return Ok(()) };
        if share.state_of(descriptor) == RunState::Zero {
            page.fill(0);
            return Ok(());
        }
        let stored = self.stored.get(&*share.file, entries, page.len() as u64)?;
        self.expander.expand(descriptor.flags, stored, page)
    }

    /// As [`Workspace::expand`], into a buffer of `page_len` bytes.
    pub(crate) fn expand_new(
        &mut self,
        share: &Share,
        entries: &[Entry],
        page_len: usize,
    ) -> Result<Box<[u8]>, String> {
        let mut page = self.spare.take().unwrap_or_else(|| vec![0; page_len].into());
        match self.expand(share, entries, &mut page) {
            Ok(()) => Ok(page),
            Err(error) => {
                self.spare = Some(page);
                Err(error)
            }
        }
    }

    /// Takes back a buffer of [`Workspace::expand_new`] that is not needed any more.
    pub(crate) fn recycle(&mut self, page: Option<Box<[u8]>>) {
        self.spare = page.or(self.spare.take());
    }
}

/// What was read last of the file.
#[derive(Default)]
struct Stored {
    /// Pages that were read together.
    span: Span,
    /// A page that was read alone.
    lone: Span,
}

impl Stored {
    /// What is stored of the first of `entries`.
    fn get(&mut self, file: &dyn ReadAt, entries: &[Entry], page_size: u64) -> Result<&[u8], String> {
        let [Entry { descriptor: page, .. }, ahead @ ..] = entries else { return Ok(&[]) };
        if page.size > page_size {
            return Err(format!("it takes {} bytes, more than a page", page.size));
        }
        let end = page.offset.saturating_add(page.size);
        if is_missing(page) || end > file.byte_len() {
            return Err(format!("it ends at {end:#x}, behind the end of the file"));
        }
        let is_here = page.offset >= self.span.start && end <= self.span.start + self.span.len as u64;
        let mut span = &mut self.span;
        if !is_here {
            let mut stop = end;
            for Entry { descriptor: next, .. } in ahead {
                let next_end = next.offset.saturating_add(next.size);
                let is_near = next.offset >= page.offset && next.offset <= stop.saturating_add(SPAN_GAP);
                // Zero pages lie elsewhere: they do not end a span.
                if next.size <= page_size && is_near && next_end <= page.offset.saturating_add(SPAN_LEN) {
                    stop = stop.max(next_end);
                }
            }
            if stop == end {
                // A page that repeats an earlier one points back: what follows is in the span all the same.
                span = &mut self.lone;
            }
            span.read(file, page.offset, stop.min(file.byte_len()) - page.offset)?;
        }
        span.get(page.offset, page.size).ok_or_else(|| "it is cut off".to_owned())
    }
}

/// makedumpfile leaves the descriptors empty that it could not write any more.
pub(crate) fn is_missing(descriptor: &Descriptor) -> bool {
    descriptor.offset == 0 || descriptor.size == 0
}

/// A part of the file.
#[derive(Default)]
struct Span {
    start: u64,
    /// How many of the bytes are the file's.
    len: usize,
    /// Never becomes shorter, so that it is cleared only once.
    bytes: Vec<u8>,
}

impl Span {
    fn read(&mut self, file: &dyn ReadAt, offset: u64, len: u64) -> Result<(), String> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.start = offset;
        self.len = 0;
        self.len = file.read_at(offset, &mut self.bytes[..len]).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn get(&self, offset: u64, size: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(..self.len)?.get(start..)?.get(..usize::try_from(size).ok()?)
    }
}
