//! Carrying out a layout: guest memory in, a dump out, in parallel where the sink allows it.

use crate::{DumpState, Error, Extent, Fill, Gpa, Layout, Order, PhysMemory, RunState, Sink, Unreadable};
use std::sync::{Mutex, PoisonError};

/// How a layout is carried out. None of it changes the bytes of the dump.
#[derive(Clone, Copy, Debug)]
pub struct ExecuteOptions {
    /// Threads that read and write.
    pub threads: usize,
    /// Leave zero blocks out, as holes, where the sink has holes.
    pub sparse: bool,
}

impl Default for ExecuteOptions {
    /// A thread for each processor, at most 8: a few threads saturate memory and disk; and sparse output.
    fn default() -> Self {
        Self { threads: std::thread::available_parallelism().map_or(1, usize::from).min(8), sparse: true }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Length of the dump.
    pub file_len: u64,
    /// Bytes handed to the sink.
    pub written: u64,
    /// Guest memory that could not be read: zero in the dump.
    pub unreadable: Unreadable,
}

impl Report {
    fn merge(&mut self, other: &Self) {
        self.written += other.written;
        self.unreadable.merge(&other.unreadable);
    }
}

/// Memory is read in pieces of at most this many bytes: 64 KiB pieces take twice the time (`spec/live-capture.md` 5.3).
const CHUNK: u64 = 1 << 20;
/// Zeros are left out in blocks of this size and alignment in the file: the block size of most file systems.
const BLOCK: usize = 4096;

/// Writes the dump that `layout` plans, of the guest whose memory is `memory`.
///
/// What cannot be read is zero in the dump and listed in the report.
///
/// # Errors
/// [`Error::Io`] if the sink fails, [`Error::Cancelled`], and what [`PhysMemory::read_at`] returns. The sink then
/// holds a part of a dump.
pub fn execute(
    layout: &Layout,
    memory: &dyn PhysMemory,
    sink: &dyn Sink,
    options: ExecuteOptions,
    state: &DumpState,
) -> Result<Report, Error> {
    // Where the order is fixed, one thread makes the pieces in it.
    let is_ordered = sink.order() != Order::Any || memory.is_sequential();
    let threads = if is_ordered { 1 } else { options.threads.max(1) };
    let job = Job { layout, memory, sink, state, sparse: options.sparse && sink.order() > Order::Ascending };
    state.begin(layout.memory_len());
    let result = job.run(threads);
    state.end(&result);
    result
}

/// What all threads of a dump share.
#[derive(Clone, Copy)]
struct Job<'a> {
    layout: &'a Layout,
    memory: &'a dyn PhysMemory,
    sink: &'a dyn Sink,
    state: &'a DumpState,
    /// Whether zeros need not be written.
    sparse: bool,
}

impl<'a> Job<'a> {
    fn run(self, threads: usize) -> Result<Report, Error> {
        let cursor =
            Mutex::new(Cursor { job: self, extent: 0, done: 0, data: 0, missing: Unreadable::default() });
        let failure = Mutex::new(None);
        let work = || self.work(&cursor, &failure);
        let mut report = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut report = work();
            for thread in others {
                match thread.join() {
                    Ok(part) => report.merge(&part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            report
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        report.unreadable.merge(&cursor.into_inner().unwrap_or_else(PoisonError::into_inner).missing);
        report.file_len = self.layout.file_len();
        let offset = report.file_len;
        self.sink.finish(offset).map_err(|source| Error::Io {
            what: "finishing the dump",
            offset,
            source,
        })?;
        Ok(report)
    }

    /// Makes one piece after the other until there is none left or one has failed, in whatever thread.
    fn work(self, cursor: &Mutex<Cursor<'a>>, failure: &Mutex<Option<Error>>) -> Report {
        let mut worker = Worker { job: self, buffer: Vec::new(), report: Report::default() };
        while failure.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            let task = cursor.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(task) = task else { break };
            if let Err(error) = task.and_then(|task| worker.run(&task)) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
        worker.report
    }
}

/// A piece of the output that one thread makes.
struct Task<'a> {
    offset: u64,
    len: u64,
    fill: Piece<'a>,
}

enum Piece<'a> {
    Bytes(&'a [u8]),
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
            Fill::Zeros => (left, None),
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
                        RunState::Zero => return (len, None),
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
        self.job.sink.write_at(offset, bytes).map_err(|source| Error::Io {
            what: "writing the dump",
            offset,
            source,
        })?;
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

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Groups without an early exit are what the compiler turns into vector code.
    let (groups, rest) = bytes.as_chunks::<64>();
    groups.iter().all(|group| group.iter().fold(0, |any, byte| any | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BlockMemory;
    use crate::{FileSink, StreamSink, state::Status};
    use proptest::prelude::*;
    use std::io;

    fn parts() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 1..9000),
            (1..20_000usize).prop_map(|len| vec![0; len]),
            (1..3usize, 4000..9000usize).prop_map(|(at, len)| {
                let mut v = vec![0; len];
                v[at * 1000] = 7;
                v
            }),
        ];
        prop::collection::vec((0..10_000u64, bytes), 0..6)
    }

    fn written(layout: &Layout, memory: &BlockMemory, options: ExecuteOptions) -> (Vec<u8>, Vec<u8>) {
        let state = DumpState::default();
        let mut stream = Vec::new();
        execute(layout, memory, &StreamSink::new(&mut stream), options, &state).unwrap();
        assert_eq!((state.status(), state.completed()), (Status::Completed, layout.memory_len()));
        let file = tempfile();
        execute(layout, memory, &FileSink(&file), options, &state).unwrap();
        let mut seekable = Vec::new();
        io::Read::read_to_end(&mut &file, &mut seekable).unwrap();
        (stream, seekable)
    }

    /// An unnamed file, without a crate for it.
    fn tempfile() -> std::fs::File {
        use rustix::fs::{MemfdFlags, memfd_create};
        memfd_create("test", MemfdFlags::CLOEXEC).unwrap().into()
    }

    proptest! {
        #[test]
        fn same_bytes_for_any_sink_and_thread_count(parts in parts(), threads in 1..4usize, sparse: bool) {
            let mut layout = Layout::default();
            let mut blocks = Vec::new();
            let mut expected = Vec::new();
            let mut gpa = 0;
            for (gap, bytes) in parts {
                gpa += gap;
                layout.push_bytes("header", vec![1, 2, 3]).unwrap();
                layout.push("memory", bytes.len() as u64, Fill::Memory(Gpa(gpa))).unwrap();
                layout.push("padding", gap, Fill::Zeros).unwrap();
                expected.extend([1, 2, 3]);
                expected.extend(&bytes);
                expected.resize(expected.len() + usize::try_from(gap).unwrap(), 0);
                blocks.push((Gpa(gpa), bytes.clone()));
                gpa += bytes.len() as u64;
            }
            let memory = BlockMemory::new(blocks).unwrap();
            let (stream, file) = written(&layout, &memory, ExecuteOptions { threads, sparse });
            prop_assert_eq!(&stream, &expected);
            prop_assert_eq!(&file, &expected);
        }
    }

    #[test]
    fn a_full_sink_and_a_cancelled_job_are_errors() {
        struct Full;
        impl Sink for Full {
            fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn order(&self) -> Order {
                Order::Any
            }
            fn finish(&self, _: u64) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = BlockMemory::new(vec![(Gpa(0), vec![1; 0x1000])]).unwrap();
        let mut layout = Layout::default();
        layout.push("memory", 0x1000, Fill::Memory(Gpa(0))).unwrap();
        let state = DumpState::default();
        let error = execute(&layout, &memory, &Full, ExecuteOptions::default(), &state).unwrap_err();
        assert_eq!(
            (error.to_string(), state.status()),
            ("writing the dump at offset 0x0".into(), Status::Failed)
        );
        state.cancel();
        let error =
            execute(&layout, &memory, &StreamSink::new(Vec::new()), ExecuteOptions::default(), &state);
        assert!(matches!(error, Err(Error::Cancelled)));
        assert_eq!(state.status(), Status::Cancelled);
    }

    #[test]
    fn memory_that_is_not_there_is_zero_and_reported() {
        let memory = BlockMemory::new(vec![(Gpa(0), vec![1; 0x1000])]).unwrap();
        let mut layout = Layout::default();
        layout.push("memory", 0x2000, Fill::Memory(Gpa(0))).unwrap();
        let report = execute(
            &layout,
            &memory,
            &FileSink(&tempfile()),
            ExecuteOptions::default(),
            &DumpState::default(),
        )
        .unwrap();
        assert_eq!(report.unreadable.ranges(), [0x1000..0x2000]);
        assert_eq!((report.file_len, report.written), (0x2000, 0x1000));
    }
}
