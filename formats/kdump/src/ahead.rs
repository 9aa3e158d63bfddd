//! Expanding pages before they are asked for, with all processors, where memory is read in order and in small steps.

use crate::fetch::Entry;
use crate::memory::{KdumpMemory, Share, WINDOW, lock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use vmcore_core::{Error, RunState};

/// Pages that are expanded ahead when reading has just been seen to go in order; twice as many each time, up to [`MOST`].
const FIRST: u64 = 8;
/// Bytes of pages that are expanded ahead at the most: some milliseconds' work, so that starting threads counts for little.
const MOST: u64 = 1 << 20;
/// Pages that a thread expands before it takes the next.
const JOB: usize = 32;

/// Threads that expand.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from).min(8));

/// Where reading in small steps stands. Threads that read at once disturb each other's order, and nothing else.
pub(crate) struct Progress {
    /// The page with data that was read last.
    last: AtomicU64,
    /// How many pages will be expanded ahead next.
    ahead: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { last: AtomicU64::new(u64::MAX), ahead: AtomicU64::new(FIRST) }
    }

    pub(crate) fn read(&self, pfn: u64) {
        self.last.store(pfn, Ordering::Relaxed);
    }
}

impl KdumpMemory {
    /// Expands into the cache the page `pfn` and those behind it, if reading has come to it in order; tells whether it has.
    pub(crate) fn read_ahead(&self, share: &Share, pfn: u64) -> Result<bool, Error> {
        let last = self.progress.last.load(Ordering::Relaxed);
        if !self.is_next(share, last, pfn)? {
            self.progress.ahead.store(FIRST, Ordering::Relaxed);
            return Ok(false);
        }
        let count = self.progress.ahead.load(Ordering::Relaxed).min(MOST / self.page_size);
        self.progress.ahead.store(count * 2, Ordering::Relaxed);
        // Pages that are further apart may take each other's place.
        let end = pfn.saturating_add(self.pages.capacity().min(WINDOW as u64));
        let entries = self.entries(share, pfn).map_while(Result::ok).take_while(|entry| entry.pfn < end);
        let entries = entries.filter(|entry| share.state_of(&entry.descriptor) == RunState::Data);
        let entries: Vec<Entry> = entries.take(usize::try_from(count).unwrap_or(0)).collect();

        let jobs = Mutex::new(entries.chunks(JOB));
        let work = || {
            let next = || lock(&jobs).next();
            while let Some(job) = next() {
                self.expand_into_cache(share, job);
            }
        };
        thread::scope(|scope| {
            for _ in 1..entries.chunks(JOB).len().min(*THREADS) {
                // Where no thread can be started, this one does it all.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        Ok(true)
    }

    /// Whether there is only zero between two pages with data. Going backwards is not in order.
    fn is_next(&self, share: &Share, last: u64, pfn: u64) -> Result<bool, Error> {
        if last >= pfn {
            return Ok(false);
        }
        let start = share.pages.start.max(last + 1);
        for (distance, entry) in self.entries(share, start).enumerate() {
            let Entry { pfn: between, descriptor } = entry?;
            if between >= pfn {
                return Ok(true);
            }
            if distance == WINDOW || share.state_of(&descriptor) != RunState::Zero {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn expand_into_cache(&self, share: &Share, entries: &[Entry]) {
        self.with_workspace(|workspace| {
            for (index, Entry { pfn, .. }) in entries.iter().enumerate() {
                // A page that is damaged is for the read that asks for it to report.
                if let Ok(page) = workspace.expand_new(share, &entries[index..], self.page_len()) {
                    workspace.recycle(self.pages.put(*pfn, page));
                }
            }
        });
    }
}
