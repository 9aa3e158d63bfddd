//! Reading is the inverse of writing, and no input is dangerous.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use vmcore_arch_x86_64 as _;
use vmcore_core::machine::{Header, Uts};
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Compression, DumpOptions, DumpState, Error, ExecuteOptions, Format, Gpa, Machine, Note, Order,
    PhysMemory, ReadAt, Region, Run, RunState, Share, Sink, Unreadable, execute,
};
use vmcore_format_kdump::Kdump;
use vmcore_synth::strategy::machines;

/// A file in memory.
#[derive(Default)]
struct Buffer(Mutex<Vec<u8>>);

impl Sink for Buffer {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let len = file.len().max(start + bytes.len());
        file.resize(len, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

fn write_with(machine: &Machine, options: &DumpOptions, threads: usize) -> Result<Vec<u8>, Error> {
    let layout = Kdump.plan(machine, options)?;
    let sink = Buffer::default();
    let execution = ExecuteOptions { threads, sparse: true };
    execute(&layout, &*machine.memory, &sink, execution, &DumpState::default())?;
    Ok(sink.0.into_inner().unwrap())
}

fn write(machine: &Machine, options: &DumpOptions) -> Result<Vec<u8>, Error> {
    write_with(machine, options, 2)
}

fn open(bytes: &[u8]) -> Result<Machine, Error> {
    Kdump.open(Arc::new(bytes.to_vec()))
}

/// Everything, also what lies where a PC has firmware.
fn all(compression: Compression) -> DumpOptions {
    DumpOptions { compression: Some(compression), all_memory: true, ..DumpOptions::default() }
}

fn demo() -> Machine {
    vmcore_synth::demo::machine("x86_64").unwrap()
}

/// Reads a range that is in RAM as a whole.
fn read(machine: &Machine, gpa: Gpa, len: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; usize::try_from(len).unwrap()];
    assert!(machine.memory.read_at(gpa, &mut bytes).unwrap().is_empty());
    bytes
}

fn assert_same_memory(back: &Machine, machine: &Machine) {
    for region in machine.memory.regions() {
        assert!(read(back, region.gpa, region.len) == read(machine, region.gpa, region.len), "{region:?}");
    }
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_dump_gives_back_the_machine(machine in machines(), compression in compressions(), level in 1..9, step in 0x300..0x1_8000_usize) {
        let has_levels = matches!(compression, Compression::Zlib | Compression::Zstd);
        let options = DumpOptions { level: has_levels.then_some(level), ..all(compression) };
        let bytes = write(&machine, &options)?;
        prop_assert!(write_with(&machine, &options, 1)? == bytes, "threads make no difference");
        let back = open(&bytes)?;
        assert_same_memory(&back, &machine);
        prop_assert!(back.findings.is_empty(), "{:?}", back.findings);
        prop_assert!(read_in_steps(&back, &machine, step).is_empty());
        if !machine.vcpus.is_empty() {
            prop_assert_eq!(back.arch.unwrap().name(), machine.arch.unwrap().name());
        }
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
        prop_assert!(write(&back, &options)? == bytes);
    }

    #[test]
    fn shares_together_are_the_dump(machine in machines(), count in 1..5_u32, missing in 0..5_u32) {
        let share = |index| {
            let options = DumpOptions { share: Some(Share { index, count }), ..all(Compression::Zlib) };
            write(&machine, &options).map(|bytes| -> Arc<dyn ReadAt> { Arc::new(bytes) })
        };
        let mut files = match (0..count).map(share).collect::<Result<Vec<_>, _>>() {
            Ok(files) => files,
            // No file is to be empty.
            Err(Error::TooLarge { limit, .. }) if limit < count.into() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        files.reverse();
        let back = Kdump.open_shares(files.clone())?;
        prop_assert!(back.findings.is_empty(), "{:?}", back.findings);
        assert_same_memory(&back, &machine);
        // Writing asks what is known of pages before it reads them.
        let whole = write(&machine, &all(Compression::Zlib))?;
        prop_assert!(write(&back, &all(Compression::Zlib))? == whole);
        if missing < count && count > 1 {
            files.remove(usize::try_from(missing).unwrap());
            // Nobody takes what is not there for zeros; an empty share is not missed.
            let part = Kdump.open_shares(files)?;
            for region in machine.memory.regions() {
                let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
                let unreadable = part.memory.read_at(region.gpa, &mut bytes)?;
                let whole = read(&machine, region.gpa, region.len);
                for (at, (byte, expected)) in (region.gpa.0..).zip(bytes.iter().zip(&whole)) {
                    let is_missing = unreadable.ranges().iter().any(|range| range.contains(&at));
                    prop_assert!(is_missing || byte == expected, "{at:#x}");
                    prop_assert!(!is_missing || !part.findings.is_empty());
                }
            }
        }
    }

    /// A byte changed anywhere, or the end cut off: an error, or a machine that can be used.
    #[test]
    fn a_mutated_dump_never_panics(
        machine in machines(),
        compression in compressions(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_head: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = write(&machine, &all(compression))?;
        let len = if in_head { bytes.len().min(0x1100) } else { bytes.len() };
        for (index, value) in mutations {
            bytes[index.index(len)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        use_it(&bytes);
    }
}

/// Reads all memory `step` bytes at a time: what could not be read, and whether all other bytes are those of `machine`.
fn read_in_steps(back: &Machine, machine: &Machine, step: usize) -> Unreadable {
    let mut unreadable = Unreadable::default();
    for region in machine.memory.regions() {
        let expected = read(machine, region.gpa, region.len);
        for (gpa, expected) in (region.gpa.0..).step_by(step).zip(expected.chunks(step)) {
            let mut bytes = vec![0xff; expected.len()];
            let missing = back.memory.read_at(Gpa(gpa), &mut bytes).unwrap();
            assert!(!missing.is_empty() || bytes == expected, "{step:#x} bytes at {gpa:#x}");
            unreadable.merge(&missing);
        }
    }
    unreadable
}

/// A file that counts how often it is read.
#[derive(Clone)]
struct Counted(Arc<(Vec<u8>, AtomicUsize)>);

impl ReadAt for Counted {
    fn byte_len(&self) -> u64 {
        self.0.0.byte_len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        self.0.0.read_at(offset, buf)
    }
}

#[test]
fn pages_that_are_read_in_order_are_fetched_together() {
    // Each page has data, and none repeats another.
    let bytes: Vec<u8> = (0..0x200_u32)
        .flat_map(|page| (0..0x400).map(move |word| page << 16 | word))
        .flat_map(u32::to_le_bytes)
        .collect();
    let mut machine = demo();
    machine.memory = Arc::new(BlockMemory::new(vec![(Gpa(0x10_0000), bytes)]).unwrap());
    let file = Counted(Arc::new((write(&machine, &all(Compression::Zlib)).unwrap(), AtomicUsize::new(0))));
    let reads = |pages: &mut dyn Iterator<Item = u64>| {
        let back = Kdump.open(Arc::new(file.clone())).unwrap();
        let before = file.0.1.load(Ordering::Relaxed);
        for gpa in pages.map(|page| Gpa(0x10_0000 + page * 0x1000)) {
            assert!(read(&back, gpa, 0x1000) == read(&machine, gpa, 0x1000));
        }
        file.0.1.load(Ordering::Relaxed) - before
    };
    assert!(reads(&mut (0..0x200)) < 0x40);
    // Nothing is fetched in vain where there is no order: the page, and now and then a part of the table.
    assert!((0x200..0x210).contains(&reads(&mut (0..0x200).map(|page| 0x1ff - page))));
}

/// Does with a dump what the command does.
fn use_it(bytes: &[u8]) {
    let Ok(machine) = open(bytes) else { return };
    let _ = (machine.encode_notes(), machine.vmcoreinfo(), machine.dump_info());
    let mut buf = vec![0; 0x2_1000];
    for region in machine.memory.regions().iter().take(8) {
        let len = usize::try_from(region.len).unwrap_or(buf.len()).min(buf.len());
        machine.memory.read_at(region.gpa, &mut buf[..len]).unwrap();
        machine.memory.read_at(Gpa(region.end().0 - 1), &mut buf[..1]).unwrap();
        machine.memory.fault_at(region.gpa);
        assert!(machine.memory.run_at(region.gpa, region.len).len > 0);
    }
    if machine.ram_len() < 1 << 28 {
        let _ = write(&machine, &all(Compression::Zstd));
    }
}

#[test]
fn every_field_of_the_headers_may_be_anything() {
    let good = write(&demo(), &all(Compression::None)).unwrap();
    for at in (8..12).chain(404..464).chain(0x1000..0x1068) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            use_it(&bytes);
            let end = bytes.len().min(at + 8);
            bytes[at..end].fill(value);
            use_it(&bytes);
        }
    }
}

#[test]
fn a_damaged_page_is_named() {
    let machine = demo();
    let mut bytes = write(&machine, &all(Compression::Zlib)).unwrap();
    let end = bytes.len();
    bytes[end - 3] ^= 0x55;
    let back = open(&bytes).unwrap();
    let mut unreadable = Unreadable::default();
    for region in back.memory.regions() {
        unreadable.merge(
            &back.memory.read_at(region.gpa, &mut vec![0; usize::try_from(region.len).unwrap()]).unwrap(),
        );
    }
    assert_eq!(unreadable.byte_len(), 0x1000);
    assert_eq!(read_in_steps(&back, &machine, 0x1000), unreadable);
    let finding = back.memory.fault_at(Gpa(unreadable.ranges()[0].start)).unwrap();
    assert!(finding.text.contains("is damaged: zlib"), "{finding:?}");
    assert!(finding.offset.unwrap() > end as u64 - 0x1000);
    assert_eq!(back.memory.fault_at(Gpa(0)), None);
}

#[test]
fn descriptors_are_never_trusted() {
    let machine = demo();
    let good = write(&machine, &all(Compression::Zstd)).unwrap();
    let layout = Kdump.plan(&machine, &all(Compression::Zstd)).unwrap();
    let table = layout.extents().iter().find(|extent| extent.name == "page table").unwrap();
    let at = usize::try_from(table.offset).unwrap();
    // offset, size and flags of the first page.
    let cases: [(u64, u32, u32); 6] = [
        (u64::MAX, 16, 0x20),
        (1 << 62, u32::MAX, 0),
        (table.offset, u32::MAX, 0x1),
        (table.offset, 24, 0x2),
        (table.offset, 24, 0x4),
        (0, 0, 0),
    ];
    for (offset, size, flags) in cases {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&size.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&flags.to_le_bytes());
        let back = open(&bytes).unwrap();
        let mut page = [0xff; 0x1000];
        assert_eq!(back.memory.read_at(Gpa(0), &mut page).unwrap().byte_len(), 0x1000, "{offset:#x}");
        assert_eq!(page, [0; 0x1000]);
        assert!(back.memory.fault_at(Gpa(0)).is_some());
    }
}

/// Memory of which a part was left out, or is missing.
struct Lacking(Arc<dyn PhysMemory>, std::ops::Range<u64>, RunState);

impl PhysMemory for Lacking {
    fn regions(&self) -> &[Region] {
        self.0.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
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

    fn has_excluded(&self) -> bool {
        self.2 == RunState::Excluded
    }
}

#[test]
fn pages_that_were_left_out_are_not_those_that_are_missing() {
    for state in [RunState::Excluded, RunState::Missing] {
        let mut machine = demo();
        machine.memory = Arc::new(Lacking(machine.memory, 0x100_0000..0x100_4000, state));
        machine.header = Header { dump_level: 31, uts: Some(Uts { version: "#2".into(), ..Uts::default() }) };
        machine.notes.push(Note::new("ERASEINFO", 0, b"erase key size 4\n".to_vec()));
        let bytes = write(&machine, &all(Compression::Lzo)).unwrap();
        let back = open(&bytes).unwrap();
        assert_eq!(back.memory.run_at(Gpa(0x100_0000), 0x10_0000), Run { len: 0x4000, state });
        assert_eq!(back.memory.has_excluded(), state == RunState::Excluded);
        assert_eq!(back.memory.fault_at(Gpa(0x100_0000)).is_some(), state == RunState::Missing);
        let unreadable = back.memory.read_at(Gpa(0x100_0000), &mut vec![0; 0x10_0000]).unwrap();
        assert_eq!(unreadable.ranges(), [0x100_0000..0x100_4000]);
        assert_eq!((back.header.dump_level, back.header.uts.as_ref().unwrap().version.as_str()), (31, "#2"));
        assert_eq!(back.notes, machine.notes);
        assert!(write(&back, &all(Compression::Lzo)).unwrap() == bytes);
    }
}

/// Bitmaps that were damaged: one page is stored without being there, another is there without being stored.
#[test]
fn pages_that_were_left_out_are_not_made_up_for_by_others() {
    let machine = vmcore_synth::guest("x86_64").unwrap().ram(0x1000..0x3000).build().unwrap();
    let layout = Kdump.plan(&machine, &all(Compression::None)).unwrap();
    let exists = layout.extents().iter().find(|extent| extent.name == "bitmap of what exists").unwrap();
    let mut bytes = write(&machine, &all(Compression::None)).unwrap();
    bytes[usize::try_from(exists.offset).unwrap()] = 0b101;
    let back = open(&bytes).unwrap();
    let run = |gpa| back.memory.run_at(Gpa(gpa), 0x1000).state;
    assert_eq!([0, 0x1000, 0x2000].map(run), [RunState::Excluded, RunState::Zero, RunState::Zero]);
    assert!(back.memory.has_excluded());
    // Whatever is left out by the one is by the other, and pages that are stored are one run, with no look at them.
    let excluded =
        [(0, (true, 0x1000)), (0x800, (true, 0x800)), (0x1000, (false, 0x2000)), (0x2fff, (false, 1))];
    for (gpa, expected) in excluded {
        assert_eq!(back.memory.excluded_at(Gpa(gpa), 0x3000 - gpa), expected, "{gpa:#x}");
    }
    let again = open(&write(&back, &all(Compression::None)).unwrap()).unwrap();
    assert_eq!(again.memory.read_at(Gpa(0), &mut [0; 0x3000]).unwrap().ranges(), [0..0x1000]);
}

/// The last has a place of its own in the format; it may not be empty there.
#[test]
fn all_notes_of_erased_data_are_kept() {
    let mut machine = demo();
    machine.notes =
        ["", "erase a\n", "", "erase b\n"].map(|text| Note::new("ERASEINFO", 0, text.into())).to_vec();
    let back = open(&write(&machine, &all(Compression::Zlib)).unwrap()).unwrap();
    assert_eq!(back.encode_notes(), machine.encode_notes());
}

/// No reader could tell which form such a dump has.
#[test]
fn a_guest_without_memory_is_refused() {
    let machine = vmcore_synth::guest("x86_64").unwrap().build().unwrap();
    let error = Kdump.plan(&machine, &DumpOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "a kdump dump without memory is not supported: the guest has none");
}

#[test]
fn a_snapshot_of_the_demo_guest() {
    let layout = Kdump.plan(&demo(), &DumpOptions::default()).unwrap();
    insta::assert_snapshot!(layout.to_string());
    let share = DumpOptions { share: Some(Share { index: 1, count: 2 }), ..DumpOptions::default() };
    insta::assert_snapshot!(Kdump.plan(&demo(), &share).unwrap().to_string());
}
