//! Reading is the inverse of writing, and no input is dangerous.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{memory_of, open, write};
use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmcore_arch_x86_64 as _;
use vmcore_core::{DumpOptions, Format, Gva, Mapping, Note, ReadAt, Severity};
use vmcore_format_elf::Elf;
use vmcore_synth::strategy::machines;

proptest! {
    #[test]
    fn a_core_gives_back_the_machine(machine in machines()) {
        let back = open(&write(&machine, &DumpOptions::default())?)?;
        prop_assert!(memory_of(&back) == memory_of(&machine));
        prop_assert_eq!(back.memory.regions(), machine.memory.regions());
        prop_assert_eq!(back.vcpus.len(), machine.vcpus.len());
        for (back, vcpu) in back.vcpus.iter().zip(&machine.vcpus) {
            // Notes have no room for "unknown": a register that shares a note with a known one becomes 0.
            for (id, row, value) in vcpu.registers().iter() {
                // Attributes of a segment: the other bits of that word are pieces of base and limit.
                let mask: &[u8] = if row.name.ends_with("_attr") { &[0, 0xff, 0xf0] } else { &[0xff; 64] };
                let value: Vec<u8> = value.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
                let masked = back.registers().get(id).map(|back| back.iter().zip(mask).map(|(b, m)| b & m).collect());
                prop_assert_eq!(masked, Some(value), "{}", row.name);
            }
        }
        // A note that follows the last vCPU's may belong to it: it is still there, in the same place.
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
        prop_assert_eq!(&back.guest_note, &machine.guest_note);
    }

    #[test]
    fn convert_to_itself_loses_nothing(machine in machines()) {
        let bytes = write(&machine, &DumpOptions::default())?;
        let back = open(&bytes)?;
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
        prop_assert!(write(&back, &DumpOptions::default())? == bytes);
    }

    /// A byte changed anywhere in the headers or notes, or the end cut off: an error, or a machine that can be used.
    #[test]
    fn a_mutated_core_never_panics(
        machine in machines(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let layout = Elf.plan(&machine, &DumpOptions::default())?;
        let mut bytes = common::bytes_of(&machine, &layout);
        let memory = layout.extents().iter().find(|extent| extent.name == "memory").map_or(bytes.len() as u64, |extent| extent.offset);
        let head = usize::try_from(memory).unwrap();
        for (index, value) in mutations {
            let at = index.index(head);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        use_it(&bytes);
    }

    /// Whole fields of the headers replaced by values that hurt.
    #[test]
    fn hostile_header_fields(
        machine in machines(),
        field in 0..200usize,
        width in prop::sample::select(vec![2usize, 4, 8]),
        value in prop::sample::select(vec![0u64, 1, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX, u64::MAX - 0xfff, 0xffff_ffff, 0xffff]),
    ) {
        let mut bytes = write(&machine, &DumpOptions::default())?;
        let at = (field * 2).min(bytes.len() - 8);
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        use_it(&bytes);
    }
}

/// Does with a core what the command does with it.
fn use_it(bytes: &[u8]) {
    let Ok(machine) = open(bytes) else { return };
    let mut buf = [0; 64];
    for region in machine.memory.regions().iter().take(20) {
        let _ = machine.memory.read_at(region.gpa, &mut buf);
        let _ = machine.memory.run_at(region.gpa, 0x1000);
    }
    for (index, _) in machine.vcpus.iter().enumerate() {
        let _ = machine.read_virtual(index, Gva(0xffff_ffff_8100_0000), &mut buf);
    }
    let _ = (machine.encode_notes(), machine.vmcoreinfo(), machine.dump_info());
    let _ = Elf.plan(&machine, &DumpOptions::default());
}

#[test]
fn a_dump_with_virtual_addresses_keeps_them() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let bytes = write(&machine, &DumpOptions { paging: true, ..DumpOptions::default() }).unwrap();
    let back = open(&bytes).unwrap();
    let kernel = |mapping: &&Mapping| mapping.gva == Gva(0xffff_ffff_8100_0000);
    assert_eq!(back.mappings.iter().find(kernel).map(|mapping| mapping.gpa.0), Some(0x100_0000));
    assert_eq!(memory_of(&back), memory_of(&machine));
    assert_eq!(write(&back, &DumpOptions::default()).unwrap(), bytes);
}

#[test]
fn a_truncated_dump_is_opened_as_far_as_it_goes() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let mut bytes = write(&machine, &DumpOptions::default()).unwrap();
    bytes.truncate(bytes.len() - 0x2345);
    let back = open(&bytes).unwrap();
    let end = machine.memory.regions()[1].end();
    let mut page = [0xff; 0x3000];
    let unreadable = back.memory.read_at(vmcore_core::Gpa(end.0 - 0x3000), &mut page).unwrap();
    assert_eq!(unreadable.ranges(), [end.0 - 0x2345..end.0]);
    let texts: Vec<&str> = back.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert!(
        texts.iter().any(|text| text.starts_with("the dump is cut off: memory from 0x1ffdcbb on")),
        "{texts:?}"
    );
}

#[test]
fn notes_that_overrun_the_memory_are_set_right() {
    // cloud-hypervisor after a vCPU hot-plug: the notes of the second vCPU are written, but not counted.
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let good = write(&machine, &DumpOptions::default()).unwrap();
    let segments = common::segments(&good);
    let mut notes = good[usize::try_from(segments[0].offset).unwrap()..]
        [..usize::try_from(segments[0].filesz).unwrap()]
        .to_vec();
    let more = vmcore_synth::demo::machine("x86_64").unwrap();
    let arch = more.arch.unwrap();
    let extra: Note =
        arch.notes()[0].encode(more.vcpus[1].registers(), 2, more.identity.endianness, arch.notes());
    let counted = notes.len();
    extra.encode(more.identity.endianness, &mut notes).unwrap();
    let offset = 64 + 56 * 2;
    let mut bytes = good[..64 + 56 * 2].to_vec();
    bytes[56] = 2; // one PT_LOAD
    let put =
        |bytes: &mut Vec<u8>, at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(&mut bytes, 64 + 8, offset);
    put(&mut bytes, 64 + 32, counted as u64);
    put(&mut bytes, 120 + 8, offset + counted as u64);
    put(&mut bytes, 120 + 32, 0x1000);
    put(&mut bytes, 120 + 40, 0x1000);
    bytes.extend(&notes);
    bytes.extend([0x77; 0x1000]);
    let back = open(&bytes).unwrap();
    assert_eq!(back.vcpus.len(), 3);
    assert_eq!(memory_of(&back), [(0, vec![0x77; 0x1000])]);
    assert!(back.findings.iter().any(|finding| finding.text.contains("overrun")));
}

#[test]
fn a_core_of_a_process_is_refused() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let mut bytes = write(&machine, &DumpOptions::default()).unwrap();
    for index in 1..3 {
        bytes[64 + 56 * index + 16..][..8].copy_from_slice(&0x40_0000_u64.to_le_bytes());
        bytes[64 + 56 * index + 24..][..8].copy_from_slice(&[0; 8]);
    }
    assert!(open(&bytes).unwrap_err().to_string().contains("core of a process"));
}

/// Its segments too have no physical address but 0, but all of them stand at one place of the file.
#[test]
fn virtual_addresses_of_the_first_page_make_no_process() {
    let mut machine = vmcore_synth::guest("x86_64").unwrap().ram(0..0x1000).build().unwrap();
    machine.mappings =
        [0x4000, 0x8000].map(|gva| Mapping { gpa: vmcore_core::Gpa(0), gva: Gva(gva), len: 0x1000 }).to_vec();
    let back = open(&write(&machine, &DumpOptions::default()).unwrap()).unwrap();
    assert_eq!(back.mappings, machine.mappings);
}

/// A file of 2^50 bytes of which only the first are not zero.
struct Sparse(Vec<u8>);

impl ReadAt for Sparse {
    fn byte_len(&self) -> u64 {
        1 << 50
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        assert!(buf.len() <= 64 << 20, "{} bytes at once", buf.len());
        buf.fill(0);
        self.0.as_slice().read_at(offset, buf)?;
        Ok(buf.len())
    }
}

#[test]
fn counts_and_lengths_of_a_huge_file_are_bounded() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let good = write(&machine, &DumpOptions::default()).unwrap()[..0x1000].to_vec();
    let check = |fields: &[(usize, &[u8])], expected: &str| {
        let mut head = good.clone();
        for (at, bytes) in fields {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let error = Elf.open(Arc::new(Sparse(head))).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[(54, &[0xff; 2]), (56, &[0xfe, 0xff])], "bytes of program headers: 4294770690 is more than");
    // PN_XNUM, and the count in section header 0.
    let xnum: &[(usize, &[u8])] = &[(40, &[0, 8]), (56, &[0xff; 2]), (0x800 + 44, &[0xff; 4])];
    check(xnum, "bytes of program headers: 240518168520 is more than");
    check(&[(64 + 32, &[0xff; 6])], "bytes of notes");
}

/// An ELF core of 64-bit little-endian x86_64 with these notes and PT_LOADs: offset, address, length in the file.
fn core_of(notes: &[u8], loads: &[(u64, u64, u64)]) -> Vec<u8> {
    let count = loads.len() as u64 + 1;
    let notes_at = 64 + 56 * count + 64;
    let mut bytes = vec![0; usize::try_from(notes_at).unwrap()];
    let mut put = |at: usize, value: u64, len: usize| {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(0, 0x0001_0102_464c_457f, 8);
    for (at, value, len) in [(16, 4, 2), (18, 62, 2), (20, 1, 4), (32, 64, 8), (52, 64, 2), (54, 56, 2)] {
        put(at, value, len);
    }
    // The count stands in section header 0, as it must from 65,535 on.
    for (at, value, len) in [(40, notes_at - 64, 8), (56, 0xffff, 2), (58, 64, 2), (60, 1, 2)] {
        put(at, value, len);
    }
    put(usize::try_from(notes_at).unwrap() - 64 + 44, count, 4);
    let mut put_segment = |index: usize, kind: u64, offset: u64, gpa: u64, len: u64| {
        let at = 64 + 56 * index;
        for (field, value) in [(8, offset), (24, gpa), (32, len), (40, len)] {
            put(at + field, value, 8);
        }
        put(at, kind, 4);
    };
    put_segment(0, 4, notes_at, 0, notes.len() as u64);
    for (index, (offset, gpa, len)) in loads.iter().enumerate() {
        put_segment(index + 1, 1, *offset, *gpa, *len);
    }
    bytes.extend(notes);
    bytes
}

#[test]
fn memory_that_looks_like_notes_is_no_overrun() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let mut note = Vec::new();
    machine.encode_notes()[0].encode(machine.identity.endianness, &mut note).unwrap();
    let notes_end = (64 + 56 * 2 + 64 + note.len()) as u64;
    let mut bytes = core_of(&note, &[(notes_end, 0x1000, 0x1000)]);
    bytes.extend(&note);
    bytes.resize(usize::try_from(notes_end).unwrap() + 0x1000, 0x77);
    let back = open(&bytes).unwrap();
    assert_eq!((back.vcpus.len(), memory_of(&back)[0].1[..note.len()].to_vec()), (1, note));
    assert!(back.findings.is_empty(), "{:?}", back.findings);
}

/// As QEMU writes vCPUs with vectors of different lengths: it states the notes as if all were as long as the first's, then
/// writes them, and memory behind them. `tail` stands at the end of the file.
fn uneven(vectors: &[(&str, usize)], guest_note: &[u8], memory: &[u8], tail: &[u8]) -> Vec<u8> {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let order = machine.identity.endianness;
    let mut notes = Vec::new();
    let mut first = None;
    for (owner, len) in vectors {
        machine.encode_notes()[0].encode(order, &mut notes).unwrap();
        Note::new(owner, 0x405, vec![7; *len]).encode(order, &mut notes).unwrap();
        first.get_or_insert(notes.len());
    }
    let stated = first.unwrap_or_default() * vectors.len() + guest_note.len();
    notes.extend(guest_note);
    let memory_at = (64 + 56 * 2 + 64 + stated) as u64;
    let mut bytes = core_of(&notes, &[(memory_at, 0x1000, memory.len() as u64)]);
    bytes[64 + 32..64 + 40].copy_from_slice(&(stated as u64).to_le_bytes());
    bytes.extend(memory);
    bytes.extend(tail);
    bytes
}

#[test]
fn notes_of_uneven_vcpus_are_set_right() {
    let mut guest_note = Vec::new();
    let note = Note::new("VMCOREINFO", 0, b"OSRELEASE=6.1\n".to_vec());
    note.encode(vmcore_core::Endianness::Little, &mut guest_note).unwrap();
    let noise: Vec<u8> = (0..0x1000_u32).map(|at| ((at * at) >> 3).to_le_bytes()[0] | 1).collect();
    let zero_start = [&[0; 0x800], &noise[..0x800]].concat();
    let cases: [(&[usize], &str); 4] = [
        (&[2224, 592], "shorter"),
        (&[592, 2224], "longer"),
        (&[592, 592, 2224], "longer"),
        (&[592, 4], "shorter"),
    ];
    for (lens, what) in cases {
        for (memory, guest_note) in [(&noise, &[][..]), (&noise, &guest_note), (&zero_start, &guest_note)] {
            for tail in [&b""[..], b"\0.shstrtab\0"] {
                let vectors: Vec<_> = lens.iter().map(|len| ("LINUX", *len)).collect();
                let back = open(&uneven(&vectors, guest_note, memory, tail)).unwrap();
                assert_eq!(memory_of(&back), [(0x1000, memory.clone())], "{lens:?}");
                let notes = back.encode_notes();
                let found: Vec<_> =
                    notes.iter().filter(|note| note.is("LINUX", 0x405)).map(|note| note.desc.len()).collect();
                assert_eq!((back.vcpus.len(), &found[..]), (lens.len(), lens));
                assert_eq!(back.guest_note.is_some(), !guest_note.is_empty());
                let [finding] = &back.findings[..] else { panic!("{lens:?}: {:?}", back.findings) };
                assert!(finding.text.contains(what), "{}", finding.text);
            }
        }
    }
}

/// Where something does not fit together the headers count, and the notes are as damaged as they look.
#[test]
fn uneven_notes_that_do_not_fit_the_file_are_left_alone() {
    let check = |bytes: &[u8]| {
        let back = open(bytes).unwrap();
        assert!(
            back.findings.iter().any(|finding| finding.severity == Severity::Error),
            "{:?}",
            back.findings
        );
        assert!(!back.findings.iter().any(|finding| finding.text.contains("than their header says")));
    };
    let memory = [0x77; 0x1000];
    let bytes = uneven(&[("LINUX", 2224), ("LINUX", 592)], &[], &memory, b"\0.shstrtab\0");
    // Cut off: nothing says where memory stands.
    check(&bytes[..bytes.len() - 100]);
    // Too long by as much as QEMU never writes.
    check(&[&bytes[..], &[0; 4]].concat());
    check(&uneven(&[("LINUX", 2224), ("OTHER", 592)], &[], &memory, b""));
    // A sound dump that is cut off by a note's length.
    let bytes = uneven(&[("LINUX", 592), ("LINUX", 592)], &[], &memory, b"");
    check(&bytes[..bytes.len() - (12 + 8 + 592)]);
}

/// A file that counts what is read of it.
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl ReadAt for Counted {
    fn byte_len(&self) -> u64 {
        self.bytes.byte_len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.read_at(offset, buf)
    }
}

/// Each of many segments of notes may look miscounted, and the notes that are too many be long: they are not read for each.
#[test]
fn many_segments_of_miscounted_notes_are_not_looked_into() {
    const COUNT: usize = 1000;
    let mut bytes = core_of(&[], &[(0, 0, 0); COUNT]);
    let first = bytes.len() as u64;
    let excess = 1 << 20;
    // Zeros are empty notes, so all of the excess may be some.
    bytes.resize(bytes.len() + 0x1000 + excess, 0);
    for index in 0..=COUNT {
        let (kind, len) = if index == COUNT { (1_u8, 0x1000_u64) } else { (4, 0) };
        let at = 64 + 56 * index;
        bytes[at] = kind;
        for (field, value) in [(8, first), (32, len), (40, len)] {
            bytes[at + field..at + field + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
    }
    let file = Arc::new(Counted { bytes, read: AtomicU64::new(0) });
    // Whether it is a dump does not matter here.
    drop(Elf.open(Arc::clone(&file) as Arc<dyn ReadAt>));
    let read = file.read.load(Ordering::Relaxed);
    assert!(read < 4 * excess as u64, "{read} bytes were read");
}

#[test]
fn a_flood_of_vcpus_is_carried_along_unread() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let mut notes = Vec::new();
    for _ in 0..9000 {
        machine.encode_notes()[0].encode(machine.identity.endianness, &mut notes).unwrap();
    }
    let back = open(&core_of(&notes, &[])).unwrap();
    assert_eq!((back.vcpus.len(), back.encode_notes().len()), (8192, 9000));
}

#[test]
fn memory_behind_the_end_of_the_file_is_known_to_be_missing() {
    let back = open(&core_of(&[], &[(0x1000, 0x1000, 1 << 62)])).unwrap();
    let run = back.memory.run_at(vmcore_core::Gpa(0x1000), 1 << 62);
    assert_eq!((run.len, run.state), (1 << 62, vmcore_core::RunState::Missing));
}

#[test]
fn segments_that_all_overlap_are_opened_in_bounded_time() {
    // Each reaches over all before it: looking at every pair would take minutes.
    let count = 200_000;
    let loads: Vec<_> = (0..count).map(|index| (0, (count - index) << 12, (index + 1) << 13)).collect();
    let back = open(&core_of(&[], &loads)).unwrap();
    assert!(back.memory.regions().len() > 100_000);
}
