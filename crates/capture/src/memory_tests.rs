use super::*;
use crate::backing::{Backing, Classifier};
use crate::locate::{self, Located};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const PAGE: usize = 4096;

fn myself() -> Arc<Process> {
    Arc::new(Process::open(i32::try_from(std::process::id()).unwrap()).unwrap())
}

/// This process as if it were QEMU, and `buf` as if it were guest memory at 1 MiB.
fn memory_of(buf: &[u8], gate: Arc<Gate>) -> ProcessMemory {
    let process = myself();
    let region = Region::ram(Gpa(1 << 20), buf.len() as u64);
    let located = [Located { region, hva: buf.as_ptr() as u64 }];
    let pagemap = Pagemap::open(&process).ok().map(Arc::new);
    let vmas = process.maps().unwrap();
    let pieces = locate::pieces(&located, &vmas, &mut Classifier::new(&process, true).unwrap()).unwrap();
    ProcessMemory::new(vec![region], pieces, process, pagemap, gate)
}

/// The addresses that runs call data, merged.
fn data_runs(memory: &dyn PhysMemory) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for region in memory.regions() {
        let mut at = region.gpa.0;
        while at < region.end().0 {
            let run = memory.run_at(Gpa(at), region.end().0 - at);
            assert!(run.len > 0 && run.len <= region.end().0 - at);
            match (run.state, found.last_mut()) {
                (RunState::Zero | RunState::Missing | RunState::Excluded, _) => {}
                (RunState::Data, Some(last)) if last.end == at => last.end += run.len,
                (RunState::Data, _) => found.push(at..at + run.len),
            }
            at += run.len;
        }
    }
    found
}

#[test]
fn private_memory_is_read_where_it_was_written() {
    // So large that the allocator maps it; it may begin in the middle of a page.
    let mut buf = vec![0_u8; 300 << 20];
    for at in [0, 5 << 20, (270 << 20) + 1, (300 << 20) - 1] {
        buf[at] = 7;
    }
    let memory = memory_of(&buf, Arc::default());
    let runs = data_runs(&memory);
    let data: u64 = runs.iter().map(|run| run.end - run.start).sum();
    assert!(data < 32 << 20, "{runs:x?}");
    assert!(memory.used_len() <= data);
    for at in [0, 5 << 20, (270 << 20) + 1, (300 << 20) - 1] {
        assert!(runs.iter().any(|run| run.contains(&((1 << 20) + at))), "{at:#x} in {runs:x?}");
    }
    // Across the border of a window and of a region.
    let mut out = vec![0xff; 80 << 20];
    let unreadable = memory.read_at(Gpa(230 << 20), &mut out).unwrap();
    assert_eq!(unreadable.ranges(), [301 << 20..310 << 20]);
    assert!(out[..71 << 20] == buf[229 << 20..]);
    assert!(out[71 << 20..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_let_go_in_time_is_read_and_what_was_not_is_refused() {
    let buf = vec![7_u8; 3 * PAGE];
    let gate = Arc::new(Gate::new(Some(Duration::from_millis(1500))));
    let memory = memory_of(&buf, Arc::clone(&gate));
    let mut out = vec![0; PAGE];
    assert!(memory.read_at(Gpa(1 << 20), &mut out).unwrap().is_empty());
    gate.expire();
    let error = memory.read_at(Gpa(1 << 20), &mut out).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("after 1.5 s (--max-pause)"), "{source}");
    assert_eq!(memory.run_at(Gpa(1 << 20), 5).state, RunState::Data, "nobody may take it for zero");
}

/// A piece of 16 pages that lies in a file of which only pages 2, 3 and 9 have data.
fn piece_of_file(has_holes: bool) -> (ProcessMemory, Arc<File>) {
    let file: File = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into();
    file.set_len(16 * PAGE as u64).unwrap();
    for page in [2, 3, 9_u8] {
        file.write_all_at(&[page; PAGE], u64::from(page) * PAGE as u64).unwrap();
    }
    let file = Arc::new(file);
    let backing = Backing::Shared { file: Arc::clone(&file), has_holes, through_process: false };
    let piece = Piece { gpa: 0x1000, hva: 0x10_0000..0x10_f000, offset: PAGE as u64, backing };
    let regions = vec![Region::ram(Gpa(0x1000), 0xf000)];
    (ProcessMemory::new(regions, vec![piece], myself(), None, Arc::default()), file)
}

#[test]
fn holes_of_a_file_stay_holes() {
    let (memory, file) = piece_of_file(true);
    assert_eq!(memory.used_len(), 3 * PAGE as u64);
    // Zeros between data that are too few for a run are in it.
    assert_eq!(data_runs(&memory), [0x2000..0xa000]);
    let mut out = vec![0xff; 0xf000];
    assert!(memory.read_at(Gpa(0x1000), &mut out).unwrap().is_empty());
    for (page, bytes) in (1..).zip(out.chunks(PAGE)) {
        let expected = if [2, 3, 9].contains(&page) { page } else { 0 };
        assert!(bytes.iter().all(|byte| *byte == expected), "page {page}");
    }
    assert_eq!(file.metadata().map(|data| std::os::unix::fs::MetadataExt::blocks(&data)).unwrap(), 24);
    let (memory, _) = piece_of_file(false);
    assert_eq!(data_runs(&memory), [0x1000..0x1_0000], "holes of hugetlbfs are not believed");
}

#[test]
fn the_end_of_a_file_is_unreadable_memory() {
    let (memory, file) = piece_of_file(false);
    file.set_len(5 * PAGE as u64).unwrap();
    let mut out = vec![0xff; 0xf000];
    let unreadable = memory.read_at(Gpa(0x1000), &mut out).unwrap();
    assert_eq!(unreadable.ranges(), [0x5000..0x1_0000]);
    assert_eq!((out[0x1000], out[0x4000]), (2, 0));
}

#[test]
fn pages_that_fault_are_skipped_and_the_rest_is_read() {
    let buf = vec![7_u8; 8 * PAGE];
    let start = (buf.as_ptr() as u64).next_multiple_of(PAGE as u64);
    // The first pages of the address space are never mapped: the second range faults.
    let mut lost = Vec::new();
    let (mut a, mut b, mut c) = ([0; 100], [1; 2 * PAGE], [0; 100]);
    let mut batch = Batch::default();
    batch.push(start, &mut a);
    batch.push(PAGE as u64 / 2, &mut b);
    batch.push(start + PAGE as u64, &mut c);
    batch.read(&myself(), &mut |at, len| lost.push((at, len))).unwrap();
    assert_eq!((a, c), ([7; 100], [7; 100]));
    assert!(b.iter().all(|byte| *byte == 0));
    assert_eq!(lost, [(0x800, 0x800), (0x1000, 0x1000), (0x2000, 0x800)]);
}

#[test]
fn memory_that_may_not_be_read_is_reported() {
    let piece = Piece { gpa: 0, hva: 0x1000..0x3000, offset: 0, backing: Backing::Denied };
    let regions = vec![Region::ram(Gpa(0), 0x2000)];
    let memory = ProcessMemory::new(regions, vec![piece], myself(), None, Arc::default());
    let unreadable = memory.read_at(Gpa(0x800), &mut [1; 0x1000]).unwrap();
    assert_eq!(unreadable.ranges(), [0x800..0x1800]);
}

/// The spans of `parts` of a piece must not depend on how it is asked for.
#[test]
fn spans_tile_for_any_cut() {
    let (memory, _file) = piece_of_file(true);
    let piece = &memory.pieces[0];
    let whole = piece.spans(piece.hva.clone(), None).unwrap();
    assert_eq!(whole.len(), 2);
    for cut in (0x10_0000..=0x10_f000).step_by(0x800) {
        let mut parts = piece.spans(piece.hva.start..cut, None).unwrap();
        parts.extend(piece.spans(cut..piece.hva.end, None).unwrap());
        let len = |spans: &[Span]| spans.iter().map(|span| span.range.end - span.range.start).sum::<u64>();
        assert_eq!(len(&parts), len(&whole));
        assert!(whole.iter().all(|span| span.place == Place::File));
    }
}
