//! Images of memory alone: what they look like, that they come back, and what of a damaged one is left.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    DumpOptions, DumpState, Error, ExecuteOptions, Format, Gpa, Machine, PhysMemory, StreamSink, arch,
    execute, format,
};
use vmcore_format_raw::{Raw, lime::Lime};
use vmcore_synth::strategy::machines;

fn written(format: &dyn Format, machine: &Machine) -> Vec<u8> {
    let layout = format.plan(machine, &DumpOptions::default()).unwrap();
    let mut bytes = Vec::new();
    let (options, state) = (ExecuteOptions::default(), DumpState::default());
    execute(&layout, &*machine.memory, &StreamSink::new(&mut bytes), options, &state).unwrap();
    bytes
}

fn two_ranges() -> Machine {
    let memory = BlockMemory::new(vec![(Gpa(1), vec![7, 8]), (Gpa(5), vec![9])]).unwrap();
    Machine::new(arch::by_name("x86_64").unwrap(), Arc::new(memory), Vec::new())
}

/// All of memory: each region's address and bytes.
fn contents(memory: &dyn PhysMemory) -> Vec<(Gpa, Vec<u8>)> {
    let read = |gpa, len| {
        let mut bytes = vec![0xff; usize::try_from(len).unwrap()];
        assert!(memory.read_at(gpa, &mut bytes).unwrap().is_empty());
        bytes
    };
    memory.regions().iter().map(|region| (region.gpa, read(region.gpa, region.len))).collect()
}

#[test]
fn each_byte_of_a_padded_image_is_at_its_address() {
    let image = written(&Raw, &two_ranges());
    assert_eq!(image, [0, 7, 8, 0, 0, 9]);
    let machine = format::open_as(vec![Arc::new(image.clone())], "raw").unwrap().machine;
    assert_eq!(contents(&*machine.memory), [(Gpa(0), image.clone())]);
    assert!(matches!(format::open(vec![Arc::new(image)]), Err(Error::UnknownFormat { .. })));
}

#[test]
fn a_lime_image_is_headers_and_ranges() {
    let image = written(&Lime, &two_ranges());
    let header = |first: u8, last: u8| {
        let mut header = [0; 32];
        header[..5].copy_from_slice(b"EMiL\x01");
        (header[8], header[16]) = (first, last);
        header
    };
    assert_eq!(image, [&header(1, 2)[..], &[7, 8], &header(5, 5), &[9]].concat());
}

#[test]
fn of_a_damaged_lime_image_the_ranges_before_the_damage_count() {
    let image = written(&Lime, &two_ranges());
    let open = |image: Vec<u8>| format::open_as(vec![Arc::new(image)], "lime").map(|opened| opened.machine);
    for (len, missing, finding) in [
        (image.len() - 1, 1, "the file ends 0x1 bytes before the end of the range at 0x5"),
        (image.len() - 5, 0, "a header of LiME at offset 0x22: 32 bytes are needed, 28 are left"),
        (33, 1, "the file ends 0x1 bytes before the end of the range at 0x1"),
    ] {
        let machine = open(image[..len].to_vec()).unwrap();
        assert_eq!(machine.findings[0].text, finding, "{len}");
        let mut unreadable = 0;
        for region in machine.memory.regions() {
            let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
            unreadable += machine.memory.read_at(region.gpa, &mut bytes).unwrap().byte_len();
        }
        assert_eq!(unreadable, missing, "{len}");
    }
    for (at, byte, message) in [
        (0, 0, "LiME's magic at offset 0x0 is 0x4c694d00"),
        (4, 2, "LiME's version at offset 0x4 is 0x2, expected 1"),
        (16, 0, "the last address of a range at offset 0x10 is 0x0"),
    ] {
        let mut bad = image.clone();
        bad[at] = byte;
        let error = open(bad).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_comes_back(machine in machines()) {
        let lime = format::open(vec![Arc::new(written(&Lime, &machine))]).unwrap().machine;
        prop_assert_eq!(contents(&*lime.memory), contents(&*machine.memory));
    }

    #[test]
    fn any_bytes_are_opened_or_refused(mut image in prop::collection::vec(any::<u8>(), 0..200), headers in prop::collection::vec(0..160_usize, 0..3)) {
        for at in headers {
            if let Some(part) = image.get_mut(at..at + 8) {
                part.copy_from_slice(b"EMiL\x01\0\0\0");
            }
        }
        if let Ok(opened) = format::open_as(vec![Arc::new(image)], "lime") {
            for region in opened.machine.memory.regions() {
                let _ = opened.machine.memory.read_at(region.gpa, &mut [0; 64][..usize::try_from(region.len.min(64)).unwrap()]);
            }
        }
    }
}
