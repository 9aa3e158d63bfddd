//! The memory of an opened dump: pages are found by bitmap and descriptor, and expanded when they are read.

use crate::ahead::Progress;
use crate::bitmap::Bitmap;
use crate::cache::Cache;
use crate::fetch::{Entry, Workspace, is_missing};
use crate::header::Descriptor;
use crate::table::Table;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmcore_core::memory::read_by_region;
use vmcore_core::{Error, Finding, Gpa, PhysMemory, ReadAt, Region, Run, RunState, Severity, Unreadable};

/// Descriptors that are looked at in one go.
pub(crate) const WINDOW: usize = 4096;
/// Bytes of expanded pages that are kept.
const CACHE_LEN: u64 = 16 << 20;
/// Reads of this many pages and more go past the cache.
const LARGE: usize = 16;

/// One of the files of a dump; most have only one.
pub(crate) struct Share {
    pub(crate) file: Arc<dyn ReadAt>,
    /// The pages that it holds.
    pub(crate) pages: Range<u64>,
    /// Their descriptors.
    pub(crate) table: Table,
    /// Stored pages before its first.
    pub(crate) first: u64,
    /// The page that all zero pages share.
    pub(crate) zero_page: Option<u64>,
}

impl Share {
    /// What a descriptor tells of its page.
    pub(crate) fn state_of(&self, descriptor: &Descriptor) -> RunState {
        if is_missing(descriptor) {
            RunState::Missing
        } else if descriptor.flags == 0 && Some(descriptor.offset) == self.zero_page {
            RunState::Zero
        } else {
            RunState::Data
        }
    }
}

pub(crate) struct KdumpMemory {
    shares: Vec<Share>,
    pub(crate) page_size: u64,
    regions: Vec<Region>,
    /// Pages that are there or were left out.
    exists: Bitmap,
    /// Pages that have a descriptor.
    stored: Bitmap,
    /// Expanded pages, by page frame number.
    pub(crate) pages: Cache<Box<[u8]>>,
    pub(crate) progress: Progress,
    /// Those that no thread uses.
    workspaces: Mutex<Vec<Workspace>>,
}

impl KdumpMemory {
    pub(crate) fn new(
        shares: Vec<Share>,
        page_size: u64,
        regions: Vec<Region>,
        exists: Bitmap,
        stored: Bitmap,
    ) -> Self {
        Self {
            shares,
            page_size,
            regions,
            exists,
            stored,
            pages: Cache::new(CACHE_LEN / page_size),
            progress: Progress::new(),
            workspaces: Mutex::default(),
        }
    }

    fn share_of(&self, pfn: u64) -> Option<&Share> {
        self.shares.iter().find(|share| share.pages.contains(&pfn))
    }

    /// The share that has a page, and the page's descriptor; `None` if it is not stored, or in a file that was not named.
    fn find(&self, pfn: u64) -> Result<Option<(&Share, Descriptor)>, Error> {
        let Some((index, share)) = self.stored.index_of(pfn).zip(self.share_of(pfn)) else { return Ok(None) };
        let descriptor = share.table.from(index.saturating_sub(share.first)).next().transpose()?;
        Ok(descriptor.map(|descriptor| (share, descriptor)))
    }

    /// The pages from `pfn` on that are stored in `share`.
    pub(crate) fn entries(&self, share: &Share, pfn: u64) -> impl Iterator<Item = Result<Entry, Error>> {
        let pfns = self.stored.ones_from(pfn).take_while(|pfn| *pfn < share.pages.end);
        let index = self.stored.rank(pfn).saturating_sub(share.first);
        pfns.zip(share.table.from(index)).map(|(pfn, descriptor)| Ok(Entry { pfn, descriptor: descriptor? }))
    }

    /// Expands whole pages past the cache, at most those up to the end of a share; tells how many.
    fn read_pages(&self, first: u64, out: &mut [u8], unreadable: &mut Unreadable) -> Result<usize, Error> {
        let page_len = self.page_len();
        let Some(share) = self.share_of(first) else {
            out[..page_len].fill(0);
            unreadable.add(Gpa(first * self.page_size), self.page_size);
            return Ok(1);
        };
        let count = (out.len() / page_len).min(WINDOW);
        let end = share.pages.end.min(first + count as u64);
        let entries = self.entries(share, first).take_while(|entry| !matches!(entry, Ok(e) if e.pfn >= end));
        let entries = entries.collect::<Result<Vec<_>, Error>>()?;
        let mut next = &entries[..];
        self.with_workspace(|workspace| {
            for (pfn, page) in (first..end).zip(out.chunks_exact_mut(page_len)) {
                let is_stored = next.first().is_some_and(|entry| entry.pfn == pfn);
                if !is_stored || workspace.expand(share, next, page).is_err() {
                    page.fill(0);
                    unreadable.add(Gpa(pfn * self.page_size), self.page_size);
                }
                next = &next[usize::from(is_stored)..];
            }
        });
        Ok(usize::try_from(end - first).unwrap_or(count))
    }

    /// Copies a part of one page, through the cache.
    fn read_part(
        &self,
        pfn: u64,
        start: usize,
        out: &mut [u8],
        unreadable: &mut Unreadable,
    ) -> Result<(), Error> {
        if self.read_cached(pfn, start, out) {
            return Ok(());
        }
        let Some((share, descriptor)) = self.find(pfn)? else {
            out.fill(0);
            unreadable.add(Gpa(pfn * self.page_size + start as u64), out.len() as u64);
            return Ok(());
        };
        if share.state_of(&descriptor) == RunState::Zero {
            out.fill(0);
            return Ok(());
        }
        if self.read_ahead(share, pfn)? && self.read_cached(pfn, start, out) {
            return Ok(());
        }
        self.progress.read(pfn);
        self.with_workspace(|workspace| {
            match workspace.expand_new(share, &[Entry { pfn, descriptor }], self.page_len()) {
                Ok(page) => {
                    out.copy_from_slice(&page[start..start + out.len()]);
                    workspace.recycle(self.pages.put(pfn, page));
                }
                Err(_) => {
                    out.fill(0);
                    unreadable.add(Gpa(pfn * self.page_size + start as u64), out.len() as u64);
                }
            }
        });
        Ok(())
    }

    /// Copies a part of one page if it is in the cache.
    fn read_cached(&self, pfn: u64, start: usize, out: &mut [u8]) -> bool {
        let is_cached =
            self.pages.get(pfn, |page| out.copy_from_slice(&page[start..start + out.len()])).is_some();
        if is_cached {
            self.progress.read(pfn);
        }
        is_cached
    }

    /// Lends a workspace.
    pub(crate) fn with_workspace<R>(&self, work: impl FnOnce(&mut Workspace) -> R) -> R {
        let mut workspace = lock(&self.workspaces).pop().unwrap_or_else(Workspace::new);
        workspace.begin();
        let result = work(&mut workspace);
        lock(&self.workspaces).push(workspace);
        result
    }

    pub(crate) fn page_len(&self) -> usize {
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
        let entry = self.entries(share, pfn).next()?.ok()?;
        if is_missing(&entry.descriptor) {
            let index = self.stored.rank(pfn) - share.first;
            return Some((
                Some(share.table.offset_of(index)),
                "was not written: its descriptor is empty".into(),
            ));
        }
        let result =
            self.with_workspace(|workspace| workspace.expand(share, &[entry], &mut vec![0; self.page_len()]));
        result.err().map(|error| (Some(entry.descriptor.offset), format!("is damaged: {error}")))
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
                let step = if start == 0 && rest.len() / page_len >= LARGE {
                    page_len * self.read_pages(pfn, rest, unreadable)?
                } else {
                    let part = (page_len - start).min(rest.len());
                    self.read_part(pfn, start, &mut rest[..part], unreadable)?;
                    part
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
        Run { len: self.len_from(start, count, max), state }
    }

    fn excluded_at(&self, gpa: Gpa, max: u64) -> (bool, u64) {
        // The bitmaps tell; of a page that is stored nobody wants its descriptor.
        let (pfn, start) = (gpa.0 / self.page_size, gpa.0 % self.page_size);
        let (is_stored, run) = self.stored.run(pfn, start.saturating_add(max).div_ceil(self.page_size));
        let (is_excluded, count) = if is_stored { (false, run) } else { self.exists.run(pfn, run) };
        (is_excluded, self.len_from(start, count, max))
    }

    fn has_excluded(&self) -> bool {
        // Regions have what exists and what is stored, which damaged bitmaps do not call existing.
        let len: u64 = self.regions.iter().map(|region| region.len).sum();
        len / self.page_size > self.stored.count()
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
    /// Length of `count` pages without the first `start` bytes; at least 1, at most `max`.
    fn len_from(&self, start: u64, count: u64, max: u64) -> u64 {
        count.saturating_mul(self.page_size).saturating_sub(start).clamp(1, max.max(1))
    }

    /// What is known of a stored page, and of how many from it on; at most `run`.
    fn state_from(&self, pfn: u64, run: u64) -> Result<(RunState, u64), Error> {
        let Some(share) = self.share_of(pfn) else {
            let next = self.shares.iter().map(|share| share.pages.start).filter(|start| *start > pfn).min();
            return Ok((RunState::Missing, next.map_or(run, |next| run.min(next - pfn))));
        };
        // Behind the last page of the share its table ends; the next share has one of its own.
        let run = run.min(share.pages.end - pfn);
        let most = usize::try_from(run).unwrap_or(WINDOW).min(WINDOW);
        let mut states =
            self.entries(share, pfn).take(most).map(|entry| Ok(share.state_of(&entry?.descriptor)));
        let state = states.next().transpose()?.unwrap_or(RunState::Data);
        let same =
            states.take_while(|next: &Result<_, Error>| next.as_ref().is_ok_and(|next| *next == state));
        Ok((state, 1 + same.count() as u64))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
