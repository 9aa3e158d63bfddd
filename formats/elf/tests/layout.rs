//! What is true of every layout, whatever the machine.

mod common;

use common::{bytes_of, segments, write};
use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Class, DumpOptions, Endianness, Error, Fill, Format, Gpa, Identity, Machine, RangeFilter, Region,
};
use vmcore_core::{PhysMemory, Run, RunState, Unreadable};
use vmcore_format_elf::Elf;
use vmcore_synth::strategy::{machines, range_of};

fn machines_with_ranges() -> impl Strategy<Value = (Machine, Option<RangeFilter>)> {
    machines().prop_flat_map(|machine| {
        let range = prop::option::of(range_of(&machine));
        (Just(machine), range)
    })
}

proptest! {
    #[test]
    fn extents_tile_the_file((machine, range) in machines_with_ranges()) {
        let Ok(layout) = Elf.plan(&machine, &DumpOptions { range, ..DumpOptions::default() }) else { return Ok(()) };
        let end = layout.extents().iter().try_fold(0, |end, extent| (extent.offset == end).then_some(end + extent.len));
        prop_assert_eq!(end, Some(layout.file_len()));
        prop_assert_eq!(bytes_of(&machine, &layout).len() as u64, layout.file_len());
    }

    /// The range filter clips exactly: each selected byte is in one extent, no other is in any.
    #[test]
    fn every_selected_byte_is_in_exactly_one_extent((machine, range) in machines_with_ranges()) {
        let mut expected = Vec::new();
        for region in machine.memory.regions() {
            let (begin, end) = range.map_or((0, u64::MAX), |range| (range.begin.0, range.begin.0 + range.len));
            let (start, stop) = (region.gpa.0.max(begin), region.end().0.min(end));
            if start < stop {
                expected.push((start, stop - start));
            }
        }
        match Elf.plan(&machine, &DumpOptions { range, ..DumpOptions::default() }) {
            Ok(layout) => {
                let memory = layout.extents().iter().filter_map(|extent| match extent.fill {
                    Fill::Memory(gpa) => Some((gpa.0, extent.len)),
                    _ => None,
                });
                prop_assert_eq!(memory.collect::<Vec<_>>(), expected);
            }
            Err(error) => prop_assert!(expected.is_empty() && matches!(error, Error::Range { .. }), "{error}"),
        }
    }

    #[test]
    fn headers_point_at_the_extents_that_they_name((machine, range) in machines_with_ranges()) {
        let Ok(layout) = Elf.plan(&machine, &DumpOptions { range, ..DumpOptions::default() }) else { return Ok(()) };
        let segments = segments(&bytes_of(&machine, &layout));
        let named = |name| layout.extents().iter().filter(move |extent| extent.name == name);
        let notes = named("notes").next().map(|extent| (extent.offset, extent.len));
        prop_assert_eq!(segments[0].kind, 4);
        if let Some(notes) = notes {
            prop_assert_eq!((segments[0].offset, segments[0].filesz), notes);
        }
        prop_assert_eq!(segments.len() - 1, named("memory").count());
        for (segment, extent) in segments[1..].iter().zip(named("memory")) {
            prop_assert_eq!(&extent.fill, &Fill::Memory(Gpa(segment.paddr)));
            prop_assert_eq!((segment.offset, segment.filesz, segment.memsz), (extent.offset, extent.len, extent.len));
            prop_assert_eq!((segment.kind, segment.align, segment.vaddr), (1, 0, segment.paddr));
            prop_assert_eq!(segment.offset % 0x1000, segment.paddr % 0x1000, "makedumpfile maps only aligned pages");
        }
        prop_assert!(segments[1..].is_sorted_by_key(|segment| segment.paddr));
    }
}

/// Memory of many regions or of great length, all zeros, that nobody has to hold.
struct Imaginary(Vec<Region>);

impl PhysMemory for Imaginary {
    fn regions(&self) -> &[Region] {
        &self.0
    }

    fn read_at(&self, _: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        buf.fill(0);
        Ok(Unreadable::default())
    }

    fn run_at(&self, _: Gpa, max: u64) -> Run {
        Run { len: max, state: RunState::Zero }
    }
}

fn imaginary(arch: &str, regions: Vec<Region>) -> Machine {
    Machine::new(
        vmcore_core::arch::by_name(arch).expect("it is linked in"),
        Arc::new(Imaginary(regions)),
        Vec::new(),
    )
}

#[test]
fn more_headers_than_e_phnum_can_count() {
    for (regions, is_extended) in [(0xfffd, false), (0xfffe, true), (70_000, true)] {
        let ram = (0..regions).map(|i| Region::ram(Gpa(i * 0x2000), 0x10)).collect();
        let machine = imaginary("x86_64", ram);
        let layout = Elf.plan(&machine, &DumpOptions::default()).unwrap();
        let names: Vec<&str> = layout.extents().iter().map(|extent| extent.name).take(3).collect();
        assert_eq!(names.contains(&"section header 0"), is_extended);
        let mut head = Vec::new();
        for extent in layout.extents().iter().take(if is_extended { 3 } else { 2 }) {
            if let Fill::Bytes(bytes) = &extent.fill {
                head.extend(bytes);
            }
        }
        let segments = segments(&head);
        assert_eq!(segments.len() as u64, regions + 1);
        assert_eq!(segments.last().unwrap().paddr, (regions - 1) * 0x2000);
        let back = common::open(&bytes_of(&machine, &Elf.plan(&machine, &first_only()).unwrap())).unwrap();
        assert_eq!(back.memory.regions().len(), 1);
    }
}

fn first_only() -> DumpOptions {
    DumpOptions { range: Some(RangeFilter { begin: Gpa(0), len: 0x1000 }), ..DumpOptions::default() }
}

#[test]
fn seventy_thousand_regions_come_back() {
    let ram = (0..70_000).map(|i| Region::ram(Gpa(i * 0x2000), 0x10)).collect();
    let machine = imaginary("i386", ram);
    let bytes = write(&machine, &DumpOptions::default()).unwrap();
    assert_eq!(bytes[4], 2, "crash and makedumpfile do not read PN_XNUM in 32-bit cores");
    assert_eq!(common::open(&bytes).unwrap().memory.regions(), machine.memory.regions());
}

#[test]
fn a_32_bit_guest_gets_32_bit_structures_while_they_fit() {
    let check = |ram: &[(u64, u64)], class: Class| {
        let ram = ram.iter().map(|(gpa, len)| Region::ram(Gpa(*gpa), *len)).collect();
        let machine = imaginary("i386", ram);
        let layout = Elf.plan(&machine, &DumpOptions::default()).unwrap();
        let Fill::Bytes(header) = &layout.extents()[0].fill else { panic!("the first extent is the header") };
        assert_eq!(
            header[4],
            if class == Class::Elf32 { 1 } else { 2 },
            "{ram:?}",
            ram = machine.memory.regions()
        );
        let forced = Elf.plan(&machine, &DumpOptions { class: Some(Class::Elf32), ..DumpOptions::default() });
        assert_eq!(forced.is_ok(), class == Class::Elf32);
        if let Err(error) = forced {
            assert!(error.to_string().contains("32-bit ELF core"), "{error}");
        }
    };
    check(&[(0, 0xa_0000), (0xfffc_0000, 0x4_0000)], Class::Elf32); // QEMU: 64, because the BIOS ends at 4 GiB
    check(&[(0, 0xa_0000), (0x1_0000_0000, 0x1000)], Class::Elf64);
    check(&[(0, 0xfff0_0000)], Class::Elf32);
    check(&[(0, 0xffff_f000)], Class::Elf64); // the file would be longer than 4 GiB
}

#[test]
fn both_byte_orders_and_classes() {
    for (class, endianness) in [Class::Elf32, Class::Elf64]
        .into_iter()
        .flat_map(|class| [Endianness::Little, Endianness::Big].map(|endianness| (class, endianness)))
    {
        let memory = Arc::new(BlockMemory::new(vec![(Gpa(0x1000), vec![7; 0x1000])]).unwrap());
        // An architecture that nobody knows: its notes are carried along.
        let identity = Identity { elf_machine: 0x1234, class, endianness, elf_flags: 0x40 };
        let notes = vec![
            vmcore_core::Note::new("CORE", 1, vec![1, 2, 3]),
            vmcore_core::Note::new("VMCOREINFO", 0, b"OSRELEASE=1\n".to_vec()),
        ];
        let mut machine = Machine::from_notes(identity, memory, notes);
        machine.is_incomplete = true;
        let bytes = write(&machine, &DumpOptions::default()).unwrap();
        let back = common::open(&bytes).unwrap();
        assert_eq!(
            (back.identity, &back.notes, &back.guest_note),
            (machine.identity, &machine.notes, &machine.guest_note)
        );
        assert!(back.is_incomplete);
        assert_eq!(common::memory_of(&back), common::memory_of(&machine));
        assert_eq!(write(&back, &DumpOptions::default()).unwrap(), bytes);
    }
}

#[test]
fn a_snapshot_of_the_demo_guest() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    insta::assert_snapshot!("demo", Elf.plan(&machine, &DumpOptions::default()).unwrap());
    insta::assert_snapshot!(
        "demo_paging",
        render(&write(&machine, &DumpOptions { paging: true, ..DumpOptions::default() }).unwrap())
    );
}

/// Program headers, a line each.
fn render(file: &[u8]) -> String {
    let line = |s: common::Segment| {
        let kind = if s.kind == 4 { "NOTE" } else { "LOAD" };
        format!(
            "{kind} offset {:#x} vaddr {:#x} paddr {:#x} filesz {:#x} memsz {:#x}\n",
            s.offset, s.vaddr, s.paddr, s.filesz, s.memsz
        )
    };
    segments(file).into_iter().map(line).collect()
}
