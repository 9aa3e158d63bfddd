//! Page streams: read, zero-tested and packed in parallel, stored in order.
//!
//! ```text
//! Batches ──► worker: read, zero test, pack ──► Shelf: batches wait for their turn, get their offsets ──► Sink
//! ```
//!
//! A batch gets its offset when all before it have theirs, so that the dump has the same bytes for any number of threads.
//! A thread that is ahead takes further batches, up to a bound, instead of waiting.

use super::repeats::Repeats;
use super::{Job, Report, is_zero, work_in_threads};
use crate::pages::{PagePacker, PageStream, StoredPage, read_frames};
use crate::parallel::lock;
use crate::{Error, Extent, Fill, Gpa, Order, RunState};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes of memory in a batch: so many that the locks cost nothing, so few that all of them fit into the caches.
const BATCH_LEN: usize = 1 << 20;
/// Bytes of memory in a group; see [`group_len`].
const GROUP_LEN: u64 = BATCH_LEN as u64 / 2;
/// Pages of a batch, of which most are then known to be zero.
const BATCH_PAGES: u64 = 1 << 14;
/// Packed batches that wait for their turn, for each thread.
const AHEAD: u64 = 4;
/// The table is written in pieces of this length. Few large ones, because readers of flattened files sort them.
const TABLE_LEN: usize = 4 << 20;

/// Writes the pages of `extent`, the last of the job's layout, and their table.
pub(super) fn run(job: Job<'_>, extent: &Extent, threads: usize) -> Result<Report, Error> {
    let Fill::Pages(stream) = &extent.fill else { return Ok(Report::default()) };
    if job.sink.order() == Order::Ascending {
        return Err(Error::Unsupported {
            what: "writing pages before their table",
            found: "an output that takes ascending offsets only".to_owned(),
        });
    }
    let zero_page =
        StoredPage { offset: extent.offset - u64::from(stream.page_size), len: stream.page_size, kind: 0 };
    let table = job.layout.extents().iter().find(|extent| extent.fill == Fill::PageTable);
    let shelf = Shelf {
        turn: 0,
        waiting: BTreeMap::new(),
        offset: extent.offset,
        table: Vec::new(),
        table_offset: table.map_or(extent.offset, |table| table.offset),
        spare: Vec::new(),
    };
    let pipeline = Pipeline {
        job,
        stream,
        zero_page,
        ahead: AHEAD * threads as u64,
        batches: Mutex::new(Batches { job, stream, range: 0, done: 0, known: (RunState::Data, 0), count: 0 }),
        shelf: Mutex::new(shelf),
        moved: Condvar::new(),
    };
    let mut report = work_in_threads(threads, || pipeline.work());
    job.failure.check()?;
    let shelf = pipeline.shelf.into_inner().unwrap_or_else(PoisonError::into_inner);
    job.write(shelf.table_offset, &shelf.table)?;
    report.written += shelf.table.len() as u64;
    report.file_len = shelf.offset;
    Ok(report)
}

/// The most bytes of memory in a batch of `stream`: whole groups.
fn batch_len(stream: &PageStream) -> usize {
    BATCH_LEN.max(stream.page_size as usize)
}

/// Pages of a group. Where a group begins depends on addresses alone, and a batch has whole groups: so the pages that repeat
/// another of their group are the same ones whatever is known of the memory between them.
fn group_len(stream: &PageStream) -> u64 {
    (GROUP_LEN / u64::from(stream.page_size)).max(1)
}

/// Pages of one batch, and what is known of them.
struct Part {
    pages: Range<u64>,
    state: RunState,
}

/// Hands out the pages in order.
struct Batches<'a> {
    job: Job<'a>,
    stream: &'a PageStream,
    range: usize,
    /// Pages of the current range that are handed out.
    done: u64,
    /// What is known of the next pages, and of how many.
    known: (RunState, u64),
    /// Batches so far.
    count: u64,
}

impl Batches<'_> {
    fn next(&mut self) -> Option<(u64, Vec<Part>)> {
        let most = batch_len(self.stream) as u64 / u64::from(self.stream.page_size);
        let group_len = group_len(self.stream);
        let mut parts: Vec<Part> = Vec::new();
        let (mut data, mut all) = (0, 0);
        let mut group = None;
        while let Some(range) = self.stream.pages.get(self.range) {
            let (first, end) = (range.start + self.done, range.end);
            if first == end {
                self.range += 1;
                self.done = 0;
                continue;
            }
            let this = first / group_len;
            let is_full = data + group_len > most || all + group_len > BATCH_PAGES;
            if is_full && group.is_some_and(|group| group != this) {
                break;
            }
            group = Some(this);
            let (state, known) = self.known(first, end - first);
            let count = known.min((this + 1) * group_len - first);
            self.known.1 -= count;
            self.done += count;
            all += count;
            if state == RunState::Data {
                data += count;
            }
            match parts.last_mut() {
                Some(last) if last.state == state && last.pages.end == first => last.pages.end += count,
                _ => parts.push(Part { pages: first..first + count, state }),
            }
        }
        self.count += 1;
        (!parts.is_empty()).then_some((self.count - 1, parts))
    }

    /// What is known of the next pages, at most `left`, and of how many.
    fn known(&mut self, first: u64, left: u64) -> (RunState, u64) {
        if self.known.1 == 0 {
            let page_size = u64::from(self.stream.page_size);
            let run = self.job.memory.run_at(Gpa(first * page_size), left * page_size);
            self.known = if run.state != RunState::Data && run.len >= page_size {
                (run.state, (run.len / page_size).min(left))
            } else {
                (RunState::Data, run.len.div_ceil(page_size).clamp(1, left))
            };
        }
        self.known
    }
}

/// What a page became.
enum Packed {
    Zero,
    Missing,
    /// The offset counts from the batch's first byte.
    Stored(StoredPage),
}

/// A batch that waits for its turn.
struct Batch {
    pages: Vec<Packed>,
    /// The stored pages, one behind the other; one that repeats another is not among them.
    bytes: Vec<u8>,
}

/// Where packed batches wait, and what their order decides.
struct Shelf {
    /// The batch whose turn it is.
    turn: u64,
    waiting: BTreeMap<u64, Batch>,
    /// Where the next batch is stored.
    offset: u64,
    /// Entries that are not written yet, and where the first of them stands.
    table: Vec<u8>,
    table_offset: u64,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

struct Pipeline<'a> {
    job: Job<'a>,
    stream: &'a PageStream,
    zero_page: StoredPage,
    /// How far a thread may be ahead of the batch whose turn it is.
    ahead: u64,
    batches: Mutex<Batches<'a>>,
    shelf: Mutex<Shelf>,
    /// The turn has moved on, or a thread has failed.
    moved: Condvar,
}

/// Wakes the other threads also when this one panics: they would wait for its batch for ever.
struct Alarm<'p, 'j>(&'p Pipeline<'j>);

impl Drop for Alarm<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.job.failure.set(Error::Cancelled);
        }
        let _shelf = lock(&self.0.shelf);
        self.0.moved.notify_all();
    }
}

impl Pipeline<'_> {
    fn work(&self) -> Report {
        let _alarm = Alarm(self);
        let mut worker = Worker {
            pipeline: self,
            packer: self.stream.codec.packer(),
            memory: vec![0; batch_len(self.stream)],
            report: Report::default(),
        };
        while !self.job.failure.is_set() {
            let next = lock(&self.batches).next();
            let Some((number, parts)) = next else { break };
            if let Err(error) = worker.run(number, &parts) {
                self.job.failure.set(error);
            }
        }
        worker.report
    }

    /// Gives a batch its place on the shelf, and takes all whose turn has come. Returns what is to be written.
    fn shelve(&self, number: u64, batch: Batch) -> Result<u64, Error> {
        let mut shelf = lock(&self.shelf);
        while number >= shelf.turn + self.ahead && !self.job.failure.is_set() {
            shelf = self.moved.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
        shelf.waiting.insert(number, batch);
        let mut writes: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Some(batch) = {
            let turn = shelf.turn;
            shelf.waiting.remove(&turn)
        } {
            let start = shelf.offset;
            self.place(&mut shelf, &batch);
            writes.push((start, batch.bytes));
            shelf.turn += 1;
            if shelf.table.len() >= TABLE_LEN {
                let at = shelf.table_offset;
                let table = std::mem::take(&mut shelf.table);
                shelf.table_offset += table.len() as u64;
                writes.push((at, table));
            }
        }
        if !writes.is_empty() {
            self.moved.notify_all();
        }
        // Where the order of arrival counts, the shelf stays closed until all of it is written.
        let closed = (self.job.sink.order() != Order::Any).then_some(shelf);
        let mut written = 0;
        for (offset, bytes) in &writes {
            self.job.write(*offset, bytes)?;
            written += bytes.len() as u64;
        }
        let mut shelf = closed.unwrap_or_else(|| lock(&self.shelf));
        shelf.spare.extend(writes.into_iter().map(|(_, bytes)| bytes));
        Ok(written)
    }

    /// Appends the entries of the next pages to the table.
    fn place(&self, shelf: &mut Shelf, batch: &Batch) {
        for page in &batch.pages {
            let stored = match *page {
                Packed::Zero => Some(self.zero_page),
                Packed::Missing => None,
                Packed::Stored(page) => Some(StoredPage { offset: shelf.offset + page.offset, ..page }),
            };
            self.stream.codec.entry(stored, &mut shelf.table);
        }
        shelf.offset += batch.bytes.len() as u64;
    }
}

struct Worker<'p, 'j> {
    pipeline: &'p Pipeline<'j>,
    packer: Box<dyn PagePacker + 'p>,
    /// Memory that is being packed.
    memory: Vec<u8>,
    report: Report,
}

impl<'j> Worker<'_, 'j> {
    fn run(&mut self, number: u64, parts: &[Part]) -> Result<(), Error> {
        let mut bytes = lock(&self.pipeline.shelf).spare.pop().unwrap_or_default();
        bytes.clear();
        let mut batch = Batch { pages: Vec::new(), bytes };
        let page_size = u64::from(self.pipeline.stream.page_size);
        let mut room = std::mem::take(&mut self.memory);
        let mut rest = &mut room[..];
        let mut repeats = Repeats::new();
        for part in parts {
            let count = part.pages.end - part.pages.start;
            let repeated = std::iter::repeat_with(|| match part.state {
                RunState::Missing => Packed::Missing,
                RunState::Data | RunState::Zero | RunState::Excluded => Packed::Zero,
            });
            match part.state {
                RunState::Data => {
                    let memory = self.read(&part.pages, &mut rest)?;
                    self.pack(part.pages.start, memory, &mut repeats, &mut batch)?;
                }
                RunState::Missing => {
                    self.report.unreadable.add(Gpa(part.pages.start * page_size), count * page_size);
                    batch.pages.extend(repeated.take(usize::try_from(count).unwrap_or(0)));
                }
                RunState::Zero | RunState::Excluded => {
                    batch.pages.extend(repeated.take(usize::try_from(count).unwrap_or(0)))
                }
            }
            self.pipeline.job.state.advance(count * page_size)?;
        }
        self.memory = room;
        self.report.written += self.pipeline.shelve(number, batch)?;
        Ok(())
    }

    /// The memory of these pages: the guest's own, or a copy of it at the start of `room`, which then begins behind it.
    fn read<'m>(&mut self, pages: &Range<u64>, room: &mut &'m mut [u8]) -> Result<&'m [u8], Error>
    where
        'j: 'm,
    {
        let page_size = u64::from(self.pipeline.stream.page_size);
        let gpa = Gpa(pages.start * page_size);
        let range = Error::Range { what: "guest memory", start: gpa.0, len: pages.end - pages.start };
        let len = (pages.end - pages.start).checked_mul(page_size).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(range)?;
        let memory = self.pipeline.job.memory;
        if let Some(bytes) = memory.slice(gpa, len) {
            return Ok(bytes);
        }
        let (part, rest) = std::mem::take(room).split_at_mut(len);
        *room = rest;
        self.report.unreadable.merge(&read_frames(memory, gpa, part)?);
        Ok(part)
    }

    fn pack<'m>(
        &mut self,
        first: u64,
        memory: &'m [u8],
        repeats: &mut Repeats<'m>,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let group_len = group_len(self.pipeline.stream);
        for (pfn, page) in (first..).zip(memory.chunks_exact(self.pipeline.stream.page_size as usize)) {
            if is_zero(page) {
                batch.pages.push(Packed::Zero);
                continue;
            }
            let stored = match repeats.find(pfn / group_len, page) {
                Ok(stored) => stored,
                Err(slot) => {
                    let start = batch.bytes.len();
                    let kind = self.packer.pack(page, &mut batch.bytes)?;
                    let len = u32::try_from(batch.bytes.len() - start).unwrap_or(u32::MAX);
                    slot.insert((page, StoredPage { offset: start as u64, len, kind })).1
                }
            };
            batch.pages.push(Packed::Stored(stored));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BlockMemory;
    use crate::pages::PageCodec;
    use crate::{DumpState, ExecuteOptions, Layout, PhysMemory, Region, Run, Sink, Unreadable, execute};
    use proptest::prelude::*;
    use std::io;
    use std::sync::Arc;

    const PAGE: usize = 64;

    /// Packs a page by leaving out the zeros at its end.
    struct Trim;

    impl PageCodec for Trim {
        fn entry_len(&self) -> usize {
            16
        }

        fn entry(&self, page: Option<StoredPage>, table: &mut Vec<u8>) {
            let page = page.unwrap_or(StoredPage { offset: 0, len: 0, kind: 0 });
            table.extend(page.offset.to_le_bytes());
            table.extend(page.len.to_le_bytes());
            table.extend(page.kind.to_le_bytes());
        }

        fn packer(&self) -> Box<dyn PagePacker + '_> {
            struct Packer;
            impl PagePacker for Packer {
                fn pack(&mut self, page: &[u8], out: &mut Vec<u8>) -> Result<u32, Error> {
                    let len = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                    out.extend(&page[..len]);
                    Ok(u32::from(len < page.len()))
                }
            }
            Box::new(Packer)
        }
    }

    /// Keeps what arrives, in its order.
    #[derive(Default)]
    struct Arrivals(Mutex<Vec<(u64, Vec<u8>)>>);

    impl Sink for Arrivals {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            lock(&self.0).push((offset, bytes.to_vec()));
            Ok(())
        }

        fn order(&self) -> Order {
            Order::Arrival
        }

        fn finish(&self, len: u64) -> io::Result<()> {
            self.write_at(len, &[])
        }
    }

    /// Blocks of memory of which a part is known to be zero or missing.
    struct Known(BlockMemory, Range<u64>, RunState);

    impl PhysMemory for Known {
        fn regions(&self) -> &[Region] {
            self.0.regions()
        }

        fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
            assert!(
                self.1.is_empty() || gpa.0 >= self.1.end || gpa.0 + buf.len() as u64 <= self.1.start,
                "what is known is not read"
            );
            self.0.read_at(gpa, buf)
        }

        fn run_at(&self, gpa: Gpa, max: u64) -> Run {
            let (len, state) = match gpa.0 {
                at if at < self.1.start => (self.1.start - at, RunState::Data),
                at if at < self.1.end => (self.1.end - at, self.2),
                _ => (max, RunState::Data),
            };
            Run { len: len.min(max), state }
        }
    }

    fn page() -> impl Strategy<Value = Vec<u8>> {
        (0..=PAGE, 0..3_u8).prop_map(|(len, byte)| {
            let mut page = vec![byte; len];
            page.resize(PAGE, 0);
            page
        })
    }

    proptest! {
        #[test]
        fn pages_are_where_the_table_says_for_any_number_of_threads(
            pages in prop::collection::vec(page(), 1..200),
            gaps in prop::collection::vec(any::<bool>(), 200),
            known in (0..200_u64, 0..50_u64),
            is_missing: bool,
        ) {
            let known = known.0.min(pages.len() as u64)..(known.0 + known.1).min(pages.len() as u64);
            let wanted = |index: &u64| gaps[usize::try_from(*index).unwrap_or(0)];
            let ranges: Vec<Range<u64>> = (0..pages.len() as u64).filter(wanted).map(|index| index..index + 1).collect();
            prop_assume!(!ranges.is_empty());
            let mut layout = Layout::default();
            layout.push_bytes("header", vec![7; 10]).unwrap();
            layout.push_pages(PageStream { page_size: 64, pages: ranges.clone(), codec: Arc::new(Trim) }, 0).unwrap();
            let state = if is_missing { RunState::Missing } else { RunState::Zero };
            let blocks = BlockMemory::new(vec![(Gpa(0), pages.concat())]).unwrap();
            let memory = Known(blocks, known.start * 64..known.end * 64, state);
            let dump = |threads| {
                let sink = Arrivals::default();
                let report = execute(&layout, &memory, &sink, ExecuteOptions { threads, sparse: true }, &DumpState::default()).unwrap();
                let arrived = sink.0.into_inner().unwrap();
                let end = usize::try_from(report.file_len).unwrap();
                let mut file = vec![0; end];
                for (offset, bytes) in &arrived {
                    file[usize::try_from(*offset).unwrap()..][..bytes.len()].copy_from_slice(bytes);
                }
                (arrived, file, report)
            };
            let (arrived, file, report) = dump(1);
            let word = |at: usize| usize::try_from(u64::from_le_bytes(file[at..at + 8].try_into().unwrap())).unwrap();
            for (entry, range) in ranges.iter().enumerate() {
                let (offset, len) = (word(10 + entry * 16), word(10 + entry * 16 + 8) & 0xffff_ffff);
                let mut stored = file[offset..offset + len].to_vec();
                stored.resize(PAGE, 0);
                let page = &pages[usize::try_from(range.start).unwrap()];
                match (known.contains(&range.start), is_missing) {
                    (true, true) => prop_assert_eq!((offset, len), (0, 0)),
                    (true, false) => prop_assert_eq!(stored, vec![0; PAGE]),
                    _ => prop_assert_eq!(&stored, page),
                }
            }
            let missing: u64 = ranges.iter().filter(|range| is_missing && known.contains(&range.start)).count() as u64 * 64;
            prop_assert_eq!(report.unreadable.byte_len(), missing);
            for threads in 2..4 {
                prop_assert_eq!(&dump(threads), &(arrived.clone(), file.clone(), report.clone()));
            }
        }
    }

    #[test]
    fn pages_that_repeat_others_are_stored_once() {
        let pages: Vec<Vec<u8>> =
            (0..300_usize).map(|index| vec![u8::try_from(index % 3 + 1).unwrap(); PAGE]).collect();
        let file_len = |pages: &[Vec<u8>]| {
            let memory = BlockMemory::new(vec![(Gpa(0), pages.concat())]).unwrap();
            let mut layout = Layout::default();
            let stream =
                PageStream { page_size: 64, pages: vec![0..pages.len() as u64], codec: Arc::new(Trim) };
            layout.push_pages(stream, 0).unwrap();
            let (sink, state) = (Arrivals::default(), DumpState::default());
            execute(&layout, &memory, &sink, ExecuteOptions::default(), &state).unwrap().file_len
        };
        let table_len = |pages: u64| pages * Trim.entry_len() as u64;
        assert_eq!(file_len(&pages) - table_len(300), file_len(&pages[..3]) - table_len(3));
    }

    #[test]
    fn what_is_known_of_zeros_changes_no_byte() {
        // Large pages: a group has few of them.
        let page_size = u32::try_from(GROUP_LEN / 4).unwrap();
        let page = |byte: u8| vec![byte; page_size as usize];
        let pages: Vec<Vec<u8>> =
            [1, 0, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 2, 2, 0, 1].into_iter().map(page).collect();
        let file = |known: Range<u64>| {
            let blocks = BlockMemory::new(vec![(Gpa(0), pages.concat())]).unwrap();
            let page_size = u64::from(page_size);
            let memory = Known(blocks, known.start * page_size..known.end * page_size, RunState::Zero);
            let mut layout = Layout::default();
            let stream = PageStream {
                page_size: u32::try_from(page_size).unwrap(),
                pages: vec![0..pages.len() as u64],
                codec: Arc::new(Trim),
            };
            layout.push_pages(stream, 0).unwrap();
            let sink = Arrivals::default();
            execute(&layout, &memory, &sink, ExecuteOptions::default(), &DumpState::default()).unwrap();
            let mut file = Vec::new();
            for (offset, bytes) in sink.0.into_inner().unwrap() {
                let start = usize::try_from(offset).unwrap();
                file.resize(file.len().max(start + bytes.len()), 0);
                file[start..start + bytes.len()].copy_from_slice(&bytes);
            }
            file
        };
        let nothing_known = file(0..0);
        for known in [1..3, 5..6, 8..12, 9..11] {
            assert!(file(known.clone()) == nothing_known, "{known:?}");
        }
    }

    #[test]
    fn a_full_disk_ends_all_threads() {
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
        let memory = BlockMemory::new(vec![(Gpa(0), vec![1; 64 << 20])]).unwrap();
        let mut layout = Layout::default();
        layout
            .push_pages(PageStream { page_size: 4096, pages: vec![0..16384], codec: Arc::new(Trim) }, 0)
            .unwrap();
        let options = ExecuteOptions { threads: 4, sparse: true };
        let error = execute(&layout, &memory, &Full, options, &DumpState::default()).unwrap_err();
        assert!(error.to_string().starts_with("writing the dump at offset"), "{error}");
    }
}
