//! Extents whose place is known: bytes, zeros, bits and guest memory.

use super::{Job, Report, is_zero, work_in_threads};
use crate::parallel::lock;
use crate::{Error, Extent, Fill, Gpa, RunState, Unreadable};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Memory is read in pieces of at most this many bytes: 64 KiB pieces take twice the time (`spec/live-capture.md` 5.3).
const CHUNK: u64 = 1 << 20;
/// Zeros are left out in blocks of this size and alignment in the file: the block size of most file systems.
const BLOCK: usize = 4096;

/// Writes all extents of the job's layout but the pages and their table.
pub(super) fn run(job: Job<'_>, threads: usize) -> Result<Report, Error> {
    let cursor = Mutex::new(Cursor { job, extent: 0, done: 0, data: 0, missing: Unreadable::default() });
    let mut report = work_in_threads(threads, || work(job, &cursor));
    job.failure.check()?;
    report.unreadable.merge(&cursor.into_inner().unwrap_or_else(PoisonError::into_inner).missing);
    Ok(report)
}

/// Makes one piece after the other until there is none left or one has failed, in whatever thread.
fn work<'a>(job: Job<'a>, cursor: &Mutex<Cursor<'a>>) -> Report {
    let mut worker = Worker { job, buffer: Vec::new(), report: Report::default() };
    while !job.failure.is_set() {
        let task = lock(cursor).next();
        let Some(task) = task else { break };
        if let Err(error) = task.and_then(|task| worker.run(&task)) {
            job.failure.set(error);
        }
    }
    worker.report
}

/// A piece of the output that one thread makes.
struct Task<'a> {
    offset: u64,
    len: u64,
    fill: Piece<'a>,
}

enum Piece<'a> {
    Bytes(&'a [u8]),
    Bits(&'a [Range<u64>], u64),
    Memory(Gpa),
}

/// Hands out the pieces in the order of the file.
struct Cursor<'a> {
    job: Job<'a>,
    extent: usize,
    /// Bytes of the current extent that are handed out or known to be zero.
    done: u64,
    /// Bytes behind them that are known to be data: asking again may cost a walk through all pages of the file.
    data: u64,
    /// What is known to be missing: it need not be read to be reported.
    missing: Unreadable,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<Result<Task<'a>, Error>> {
        let Job { layout, state, .. } = self.job;
        loop {
            if let Err(error) = state.check() {
                return Some(Err(error));
            }
            let extent = layout.extents().get(self.extent)?;
            let left = extent.len - self.done;
            if left == 0 {
                self.extent += 1;
                self.done = 0;
                continue;
            }
            let offset = extent.offset + self.done;
            match self.piece(extent, offset, left) {
                (len, Some(fill)) => {
                    self.done += len;
                    self.data = self.data.saturating_sub(len);
                    return Some(Ok(Task { offset, len, fill }));
                }
                (len, None) => {
                    self.done += len;
                    if matches!(extent.fill, Fill::Memory(_))
                        && let Err(error) = state.advance(len)
                    {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The next bytes of an extent: how many, and what is to be written there unless they stay zero.
    fn piece(&mut self, extent: &'a Extent, offset: u64, left: u64) -> (u64, Option<Piece<'a>>) {
        // Pieces end where the file has a multiple of the chunk, so that blocks are not cut.
        let chunk = left.min(CHUNK - offset % CHUNK);
        match &extent.fill {
            Fill::Bytes(bytes) => (left, Some(Piece::Bytes(bytes))),
            Fill::Zeros | Fill::PageTable | Fill::Pages(_) => (left, None),
            Fill::Bits(ranges) => {
                let first = self.done * 8;
                let from = ranges.partition_point(|range| range.end <= first);
                // Bytes before the next range are zero.
                let zeros =
                    ranges.get(from).map_or(left, |range| (range.start.saturating_sub(first) / 8).min(left));
                if zeros > 0 { (zeros, None) } else { (chunk, Some(Piece::Bits(&ranges[from..], first))) }
            }
            Fill::Memory(gpa) => {
                let at = Gpa(gpa.0 + self.done);
                if !self.job.sparse {
                    return (chunk, Some(Piece::Memory(at)));
                }
                if self.data == 0 {
                    let run = self.job.memory.run_at(at, left);
                    let len = run.len.clamp(1, left);
                    match run.state {
                        RunState::Data => self.data = len,
                        RunState::Zero | RunState::Excluded => return (len, None),
                        RunState::Missing => {
                            self.missing.add(at, len);
                            return (len, None);
                        }
                    }
                }
                (self.data.min(chunk), Some(Piece::Memory(at)))
            }
        }
    }
}

struct Worker<'a> {
    job: Job<'a>,
    buffer: Vec<u8>,
    report: Report,
}

impl Worker<'_> {
    fn run(&mut self, task: &Task<'_>) -> Result<(), Error> {
        let gpa = match task.fill {
            Piece::Bytes(bytes) => return self.write(task.offset, bytes),
            Piece::Bits(ranges, first) => return self.write(task.offset, &bits(ranges, first, task.len)),
            Piece::Memory(gpa) => gpa,
        };
        let len = usize::try_from(task.len).map_err(|_| Error::Range {
            what: "guest memory",
            start: gpa.0,
            len: task.len,
        })?;
        // The buffer leaves `self` while it is borrowed, and comes back with its allocation.
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = if let Some(bytes) = self.job.memory.slice(gpa, len) {
            bytes
        } else {
            buffer.resize(len, 0);
            let unreadable = self.job.memory.read_at(gpa, &mut buffer)?;
            self.report.unreadable.merge(&unreadable);
            &buffer
        };
        if self.job.sparse {
            self.write_sparse(task.offset, bytes)?;
        } else {
            self.write(task.offset, bytes)?;
        }
        self.buffer = buffer;
        self.job.state.advance(task.len)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.job.write(offset, bytes)?;
        self.report.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes the blocks that are not zero, neighbors together.
    fn write_sparse(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let first = BLOCK - usize::try_from(offset % BLOCK as u64).unwrap_or(0);
        let mut pending = 0;
        let mut at = 0;
        let mut next = first.min(bytes.len());
        while at < bytes.len() {
            if is_zero(&bytes[at..next]) {
                if pending < at {
                    self.write(offset + pending as u64, &bytes[pending..at])?;
                }
                pending = next;
            }
            at = next;
            next = bytes.len().min(next + BLOCK);
        }
        if pending < bytes.len() {
            self.write(offset + pending as u64, &bytes[pending..])?;
        }
        Ok(())
    }
}

/// `len` bytes of a bitmap from bit `first` on.
fn bits(ranges: &[Range<u64>], first: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0_u8; usize::try_from(len).unwrap_or(0)];
    let end = first + len * 8;
    for range in ranges.iter().take_while(|range| range.start < end) {
        let (start, stop) = (range.start.max(first) - first, range.end.min(end) - first);
        for bit in start..stop.min(start.next_multiple_of(8)) {
            set(&mut bytes, bit);
        }
        let (full, rest) = (start.div_ceil(8), stop / 8 * 8);
        if let Some(full) = usize::try_from(full)
            .ok()
            .zip(usize::try_from(rest / 8).ok())
            .and_then(|(from, to)| bytes.get_mut(from..to))
        {
            full.fill(0xff);
        }
        for bit in rest.max(start.next_multiple_of(8))..stop {
            set(&mut bytes, bit);
        }
    }
    bytes
}

fn set(bytes: &mut [u8], bit: u64) {
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
        *byte |= 1 << (bit % 8);
    }
}
