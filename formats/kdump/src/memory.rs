//! The memory of an opened dump: pages are found by bitmap and descriptor, and expanded when they are read.

use crate::bitmap::Bitmap;
use crate::cache::Cache;
use crate::codec::Expander;
use crate::header::{DESCRIPTOR_LEN, Descriptor, Only};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmcore_core::memory::read_by_region;
use vmcore_core::{
    Endianness, Error, Finding, Gpa, PhysMemory, ReadAt, Record, Region, Run, RunState, Severity, Unreadable,
};

/// Descriptors whose kinds are remembered for [`PhysMemory::run_at`].
const WINDOW: u64 = 4096;
/// Stored pages are read together up to this many bytes.
const SPAN_LEN: u64 = 1 << 20;
/// What may lie between two pages that are read together.
const SPAN_GAP: u64 = 1 << 14;
/// Pages that are expanded ahead of reads in small steps.
const AHEAD: u64 = 32;
/// Reads of this many pages and more go past the cache.
const LARGE: u64 = 16;

/// One of the files of a dump; most have only one.
pub(crate) struct Share {
    pub(crate) file: Arc<dyn ReadAt>,
    /// The pages that it holds.
    pub(crate) pages: Range<u64>,
    /// Where its descriptors begin.
    pub(crate) table: u64,
    /// Stored pages before its first.
    pub(crate) first: u64,
    /// The page that all zero pages share.
    pub(crate) zero_page: Option<u64>,
}

pub(crate) struct KdumpMemory {
    pub(crate) shares: Vec<Share>,
    pub(crate) endianness: Endianness,
    pub(crate) page_size: u64,
    pub(crate) regions: Vec<Region>,
    /// Pages that are there or were left out.
    pub(crate) exists: Bitmap,
    /// Pages that have a descriptor.
    pub(crate) stored: Bitmap,
    pub(crate) cache: Cache,
    /// First descriptor and kinds of those that were looked at last.
    pub(crate) window: Mutex<(u64, Vec<RunState>)>,
    pub(crate) expanders: Mutex<Vec<Expander>>,
}

impl KdumpMemory {
    /// The descriptors of `count` pages that are stored one after the other. What the file lacks is missing.
    fn descriptors(&self, share: &Share, pfn: u64, count: u64) -> Result<Vec<Descriptor>, Error> {
        let index = self.stored.rank(pfn).saturating_sub(share.first);
        let offset = share.table.saturating_add(index.saturating_mul(DESCRIPTOR_LEN as u64));
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * DESCRIPTOR_LEN];
        let io = |source| Error::Io { what: "reading page descriptors", offset, source };
        let read = share.file.read_at(offset, &mut bytes).map_err(io)?;
        bytes[read..].fill(0);
        let decode =
            |entry: &[u8]| Descriptor::decode(entry, Only::Form, self.endianness).unwrap_or_default();
        Ok(bytes.chunks_exact(DESCRIPTOR_LEN).map(decode).collect())
    }

    fn share_of(&self, pfn: u64) -> Option<&Share> {
        self.shares.iter().find(|share| share.pages.contains(&pfn))
    }

    fn state_of(&self, share: &Share, descriptor: &Descriptor) -> RunState {
        if is_missing(descriptor) {
            RunState::Missing
        } else if descriptor.flags == 0 && Some(descriptor.offset) == share.zero_page {
            RunState::Zero
        } else {
            RunState::Data
        }
    }

    /// Expands whole pages, at most those up to the end of a share; tells how many.
    fn read_pages(&self, first: u64, out: &mut [u8], unreadable: &mut Unreadable) -> Result<u64, Error> {
        let page_len = self.page_len();
        let wanted = (out.len() / page_len) as u64;
        let Some(share) = self.share_of(first) else {
            out[..page_len].fill(0);
            unreadable.add(Gpa(first * self.page_size), self.page_size);
            return Ok(1);
        };
        let count = wanted.min(share.pages.end - first).min(WINDOW);
        let descriptors = self.descriptors(share, first, count)?;
        let mut expander = lock(&self.expanders).pop().unwrap_or_else(Expander::new);
        let mut span = Span::default();
        for (index, (page, descriptor)) in out.chunks_exact_mut(page_len).zip(&descriptors).enumerate() {
            let result = if self.state_of(share, descriptor) == RunState::Zero {
                page.fill(0);
                Ok(())
            } else {
                let stored = span.get(share, descriptor, &descriptors[index..], self.page_size);
                stored.and_then(|stored| expander.expand(descriptor.flags, stored, page))
            };
            if result.is_err() {
                page.fill(0);
                unreadable.add(Gpa((first + index as u64) * self.page_size), self.page_size);
            }
        }
        lock(&self.expanders).push(expander);
        Ok(count)
    }

    /// Copies a part of one page, through the cache.
    fn read_part(
        &self,
        pfn: u64,
        start: usize,
        out: &mut [u8],
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        if self.cache.get(pfn, start, out) {
            return Ok(());
        }
        let ahead = if self.cache.is_next(pfn) { self.stored.run(pfn, AHEAD).1 } else { 1 };
        let mut pages = vec![0; self.page_len() * usize::try_from(ahead).unwrap_or(1)];
        let mut bad = Unreadable::default();
        let count = self.read_pages(pfn, &mut pages, &mut bad)?;
        let is_bad = |pfn: u64| bad.ranges().iter().any(|range| range.contains(&(pfn * self.page_size)));
        if is_bad(pfn) {
            out.fill(0);
            unreadable.add(Gpa(pfn * self.page_size + start as u64), out.len() as u64);
            return Ok(());
        }
        out.copy_from_slice(&pages[start..start + out.len()]);
        let good =
            (pfn..pfn + count).zip(pages.chunks_exact(self.page_len())).filter(|(pfn, _)| !is_bad(*pfn));
        good.for_each(|(pfn, page)| self.cache.put(pfn, page));
        Ok(())
    }

    fn page_len(&self) -> usize {
        // Checked when the header was read: at most 1 MiB.
        usize::try_from(self.page_size).unwrap_or(usize::MAX)
    }

    /// Why a page cannot be read, and where in the file.
    fn fault(&self, pfn: u64) -> Option<(Option<u64>, String)> {
        if !self.stored.get(pfn) {
            return None;
        }
        let Some(share) = self.share_of(pfn) else {
            return Some((None, "is in a file that was not named".into()));
        };
        let descriptor = self.descriptors(share, pfn, 1).ok()?.pop()?;
        if is_missing(&descriptor) {
            let index = self.stored.rank(pfn) - share.first;
            return Some((
                Some(share.table + index * DESCRIPTOR_LEN as u64),
                "was not written: its descriptor is empty".into(),
            ));
        }
        let mut page = vec![0; self.page_len()];
        let mut span = Span::default();
        let stored = span.get(share, &descriptor, &[], self.page_size);
        let result = stored.and_then(|stored| Expander::new().expand(descriptor.flags, stored, &mut page));
        result.err().map(|error| (Some(descriptor.offset), format!("is damaged: {error}")))
    }
}

/// makedumpfile leaves the descriptors empty that it could not write any more.
fn is_missing(descriptor: &Descriptor) -> bool {
    descriptor.offset == 0 || descriptor.size == 0
}

/// Stored pages that were read together.
#[derive(Default)]
struct Span {
    start: u64,
    bytes: Vec<u8>,
}

impl Span {
    /// What is stored of a page; `ahead` are the descriptors from it on, which are likely to be needed next.
    fn get(
        &mut self,
        share: &Share,
        page: &Descriptor,
        ahead: &[Descriptor],
        page_size: u64,
    ) -> Result<&[u8], String> {
        if page.size > page_size {
            return Err(format!("it takes {} bytes, more than a page", page.size));
        }
        let end = page.offset.saturating_add(page.size);
        if is_missing(page) || end > share.file.byte_len() {
            return Err(format!("it ends at {end:#x}, behind the end of the file"));
        }
        if page.offset < self.start || end > self.start + self.bytes.len() as u64 {
            let mut stop = end;
            for next in ahead.iter().skip(1) {
                let next_end = next.offset.saturating_add(next.size);
                let is_near = next.offset >= page.offset && next.offset <= stop.saturating_add(SPAN_GAP);
                // Zero pages lie elsewhere: they do not end a span.
                if next.size <= page_size && is_near && next_end <= page.offset.saturating_add(SPAN_LEN) {
                    stop = stop.max(next_end);
                }
            }
            let len = stop.min(share.file.byte_len()) - page.offset;
            self.start = page.offset;
            self.bytes.resize(usize::try_from(len).unwrap_or(0), 0);
            let read = share.file.read_at(page.offset, &mut self.bytes).map_err(|error| error.to_string())?;
            self.bytes.truncate(read);
        }
        let start = usize::try_from(page.offset - self.start).unwrap_or(usize::MAX);
        let len = usize::try_from(page.size).unwrap_or(usize::MAX);
        self.bytes.get(start..).and_then(|rest| rest.get(..len)).ok_or_else(|| "it is cut off".to_owned())
    }
}

impl PhysMemory for KdumpMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        read_by_region(&self.regions, gpa, buf, |_, at, piece, unreadable| {
            let page_len = self.page_len();
            let (mut at, mut rest) = (at.0, piece);
            while !rest.is_empty() {
                let pfn = at / self.page_size;
                let start = usize::try_from(at % self.page_size).unwrap_or(0);
                let (is_stored, run) = self.stored.run(pfn, (rest.len() / page_len) as u64 + 1);
                let whole = rest.len() / page_len * page_len;
                let step = if !is_stored {
                    let run_len = usize::try_from(run).unwrap_or(usize::MAX).saturating_mul(page_len) - start;
                    let step = run_len.min(rest.len());
                    rest[..step].fill(0);
                    unreadable.add(Gpa(at), step as u64);
                    step
                } else if start == 0 && whole > 0 && run.min((whole / page_len) as u64) >= LARGE {
                    let len = whole.min(usize::try_from(run).unwrap_or(usize::MAX).saturating_mul(page_len));
                    let count = self.read_pages(pfn, &mut rest[..len], unreadable)?;
                    usize::try_from(count).unwrap_or(0) * page_len
                } else {
                    let step = (page_len - start).min(rest.len());
                    self.read_part(pfn, start, &mut rest[..step], unreadable)?;
                    step
                };
                at += step as u64;
                rest = &mut rest[step..];
            }
            Ok(())
        })
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let (pfn, start) = (gpa.0 / self.page_size, gpa.0 % self.page_size);
        let pages = (start.saturating_add(max)).div_ceil(self.page_size);
        let (is_stored, run) = self.stored.run(pfn, pages);
        let (state, count) = if is_stored {
            self.state_from(pfn, run).unwrap_or((RunState::Data, 1))
        } else {
            let (exists, len) = self.exists.run(pfn, run);
            (if exists { RunState::Excluded } else { RunState::Data }, len)
        };
        let len = count.saturating_mul(self.page_size).saturating_sub(start).clamp(1, max.max(1));
        Run { len, state }
    }

    fn has_excluded(&self) -> bool {
        // Every page that is stored exists; bitmaps that say otherwise are read as if they did not.
        self.exists.count() > self.stored.count()
    }

    fn fault_at(&self, gpa: Gpa) -> Option<Finding> {
        let pfn = gpa.0 / self.page_size;
        let (offset, text) = self.fault(pfn)?;
        Some(Finding {
            severity: Severity::Error,
            offset,
            text: format!("page {pfn:#x} (at {:#x}) {text}", pfn * self.page_size),
        })
    }
}

impl KdumpMemory {
    /// What is known of a stored page, and of how many from it on; at most `run`.
    fn state_from(&self, pfn: u64, run: u64) -> Result<(RunState, u64), Error> {
        let Some(share) = self.share_of(pfn) else {
            let next = self.shares.iter().map(|share| share.pages.start).filter(|start| *start > pfn).min();
            return Ok((RunState::Missing, next.map_or(run, |next| run.min(next - pfn))));
        };
        let index = self.stored.rank(pfn);
        let mut window = lock(&self.window);
        let is_inside = index.checked_sub(window.0).is_some_and(|at| at < window.1.len() as u64);
        if !is_inside {
            // Behind the last page of the share its table ends; the next share has one of its own.
            let count = WINDOW.min(self.stored.rank(share.pages.end).saturating_sub(index)).max(1);
            let descriptors = self.descriptors(share, pfn, count)?;
            *window =
                (index, descriptors.iter().map(|descriptor| self.state_of(share, descriptor)).collect());
        }
        let states =
            usize::try_from(index - window.0).ok().and_then(|at| window.1.get(at..)).unwrap_or_default();
        let state = states.first().copied().unwrap_or(RunState::Data);
        let same = states.iter().take_while(|next| **next == state).count() as u64;
        Ok((state, same.clamp(1, run).min(share.pages.end - pfn)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
