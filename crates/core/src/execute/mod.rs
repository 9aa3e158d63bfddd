//! Carrying out a layout: guest memory in, a dump out, in parallel where the sink allows it.

mod extents;
mod pages;
mod repeats;

use crate::parallel::{Failure, in_threads};
use crate::{DumpState, Error, Fill, Layout, Order, PhysMemory, Sink, Unreadable};

/// What is said of an output that refuses what is written to it ([`Error::Io`], with the offset in the dump).
pub const WRITING: &str = "writing the dump";

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
    let reports = execute_all(&[(layout, sink)], memory, options, state)?;
    Ok(reports.into_iter().next().unwrap_or_default())
}

/// Writes several files of one guest, each on its sink, at the same time: the [`crate::Share`]s of a split dump.
///
/// The threads are divided among the files; each gets at least one. Where memory is a stream
/// ([`PhysMemory::is_sequential`]) one file is written after the other, so they must come in the order of their memory,
/// as shares do. `state` counts all files together. There is a report for each file, in their order.
///
/// # Errors
/// As [`execute()`]: the first error of any file ends all of them.
pub fn execute_all(
    files: &[(&Layout, &dyn Sink)],
    memory: &dyn PhysMemory,
    options: ExecuteOptions,
    state: &DumpState,
) -> Result<Vec<Report>, Error> {
    state.begin(files.iter().map(|(layout, _)| layout.memory_len()).sum());
    let failure = Failure::default();
    let write = |index: usize, threads: usize| {
        let (layout, sink) = files[index];
        // Where offsets must ascend, the gaps are written in any case.
        let sparse = options.sparse && sink.order() > Order::Ascending;
        let job = Job { layout, memory, sink, state, failure: &failure, sparse };
        job.run(threads).unwrap_or_else(|error| {
            failure.set(error);
            Report::default()
        })
    };
    let count = files.len();
    let reports = if count > 1 && !memory.is_sequential() {
        in_threads(count, |index| write(index, share_of_threads(options.threads, index, count)))
    } else {
        (0..count).map(|index| write(index, options.threads.max(1))).collect()
    };
    let result = failure.into_result().map(|()| reports);
    state.end(&result);
    result
}

/// How many of `threads` work on file `index` of `count`.
fn share_of_threads(threads: usize, index: usize, count: usize) -> usize {
    (threads / count + usize::from(index < threads % count)).max(1)
}

/// What all threads of a file share.
#[derive(Clone, Copy)]
struct Job<'a> {
    layout: &'a Layout,
    memory: &'a dyn PhysMemory,
    sink: &'a dyn Sink,
    state: &'a DumpState,
    /// Of any file that is written at the same time.
    failure: &'a Failure,
    /// Whether zeros need not be written.
    sparse: bool,
}

impl Job<'_> {
    fn run(self, threads: usize) -> Result<Report, Error> {
        // Where the order is fixed, one thread makes the pieces in it.
        let is_ordered = self.sink.order() != Order::Any || self.memory.is_sequential();
        let mut report = extents::run(self, if is_ordered { 1 } else { threads })?;
        report.file_len = self.layout.file_len();
        if let Some(pages) = self.layout.extents().last().filter(|last| matches!(last.fill, Fill::Pages(_))) {
            let threads = if self.memory.is_sequential() { 1 } else { threads };
            let part = pages::run(self, pages, threads)?;
            report.merge(&part);
            report.file_len = part.file_len;
        }
        let offset = report.file_len;
        self.sink.finish(offset).map_err(|source| Error::Io {
            what: "finishing the dump",
            offset,
            source,
        })?;
        Ok(report)
    }

    fn write(self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let result = self.sink.write_at(offset, bytes);
        result.map_err(|source| Error::Io { what: WRITING, offset, source })
    }
}

/// Does `work` in `threads` threads, this one included, and adds up their reports.
fn work_in_threads(threads: usize, work: impl Fn() -> Report + Sync) -> Report {
    let mut sum = Report::default();
    in_threads(threads, |_| work()).iter().for_each(|report| sum.merge(report));
    sum
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
    use crate::parallel::lock;
    use crate::{FileSink, Gpa, Region, StreamSink, state::Status};
    use proptest::prelude::*;
    use std::io;
    use std::sync::{Barrier, Mutex};

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

    /// Memory that is a stream: reads ascend, and are of one thread at a time.
    struct Stream(BlockMemory, Mutex<Gpa>);

    impl PhysMemory for Stream {
        fn regions(&self) -> &[Region] {
            self.0.regions()
        }

        fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
            let mut position = self.1.try_lock().expect("one read at a time");
            assert!(gpa >= *position, "a step back to {gpa}");
            *position = Gpa(gpa.0 + buf.len() as u64);
            self.0.read_at(gpa, buf)
        }

        fn is_sequential(&self) -> bool {
            true
        }
    }

    #[test]
    fn several_files_are_written_as_each_would_be() {
        let bytes: Vec<u8> = (0..1280_u32).flat_map(|page| [page.to_le_bytes()[0]; 0x1000]).collect();
        let memory = BlockMemory::new(vec![(Gpa(0), bytes.clone())]).unwrap();
        let borders = [0, 1 << 20, 1 << 20, 4 << 20, bytes.len()];
        let layouts: Vec<Layout> = borders
            .windows(2)
            .map(|border| {
                let mut layout = Layout::default();
                layout.push_bytes("header", b"part".to_vec()).unwrap();
                let len = (border[1] - border[0]) as u64;
                layout.push("memory", len, Fill::Memory(Gpa(border[0] as u64))).unwrap();
                layout
            })
            .collect();
        let check = |memory: &dyn PhysMemory, threads: usize| {
            let files: Vec<_> = layouts.iter().map(|_| tempfile()).collect();
            let sinks: Vec<FileSink<'_>> = files.iter().map(FileSink).collect();
            let all: Vec<(&Layout, &dyn Sink)> =
                layouts.iter().zip(&sinks).map(|(layout, sink)| (layout, sink as &dyn Sink)).collect();
            let state = DumpState::default();
            let options = ExecuteOptions { threads, sparse: true };
            let reports = execute_all(&all, memory, options, &state).unwrap();
            assert_eq!((state.status(), state.completed()), (Status::Completed, bytes.len() as u64));
            for ((file, border), report) in files.iter().zip(borders.windows(2)).zip(reports) {
                let mut found = Vec::new();
                io::Read::read_to_end(&mut &*file, &mut found).unwrap();
                assert!(found == [b"part", &bytes[border[0]..border[1]]].concat(), "{border:?}");
                assert_eq!(report.file_len, found.len() as u64);
            }
        };
        for threads in [1, 3, 9] {
            check(&memory, threads);
            check(&Stream(memory.clone(), Mutex::new(Gpa(0))), threads);
        }
        assert_eq!(execute_all(&[], &memory, ExecuteOptions::default(), &DumpState::default()).unwrap(), []);
    }

    #[test]
    fn threads_are_divided_among_files() {
        let check = |threads, expected: &[usize]| {
            let found: Vec<usize> =
                (0..expected.len()).map(|index| share_of_threads(threads, index, expected.len())).collect();
            assert_eq!(found, expected);
        };
        check(8, &[4, 4]);
        check(8, &[3, 3, 2]);
        check(1, &[1, 1, 1]);
    }

    #[test]
    fn an_error_of_one_file_ends_all() {
        /// Its first write meets the first write of the other file.
        struct Meeting<'a>(&'a Barrier, Mutex<u64>, bool);
        impl Sink for Meeting<'_> {
            fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
                let mut count = lock(&self.1);
                *count += 1;
                if *count == 1 {
                    self.0.wait();
                }
                if self.2 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }
            fn order(&self) -> Order {
                Order::Arrival
            }
            fn finish(&self, _: u64) -> io::Result<()> {
                unreachable!("it is not complete")
            }
        }
        /// Memory that no test lives to see the end of.
        struct Endless([Region; 1]);
        impl PhysMemory for Endless {
            fn regions(&self) -> &[Region] {
                &self.0
            }
            fn read_at(&self, _: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
                buf.fill(1);
                Ok(Unreadable::default())
            }
        }
        let mut layout = Layout::default();
        layout.push("memory", 1 << 60, Fill::Memory(Gpa(0))).unwrap();
        let barrier = Barrier::new(2);
        let sinks = [true, false].map(|is_full| Meeting(&barrier, Mutex::new(0), is_full));
        let memory = Endless([Region::ram(Gpa(0), 1 << 60)]);
        let state = DumpState::default();
        let files: [(&Layout, &dyn Sink); 2] = [(&layout, &sinks[0]), (&layout, &sinks[1])];
        let error = execute_all(&files, &memory, ExecuteOptions::default(), &state).unwrap_err();
        assert_eq!(
            (error.to_string(), state.status()),
            ("writing the dump at offset 0x0".into(), Status::Failed)
        );
    }
}
