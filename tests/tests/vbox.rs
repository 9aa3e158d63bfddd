//! VirtualBox cores among other ELF cores.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore::{DumpOptions, DumpState, ExecuteOptions, Format, Machine, StreamSink, execute, format, synth};

fn write(machine: &Machine, name: &str) -> Vec<u8> {
    let format = format::by_name(name).unwrap();
    let variant = format.variants().iter().map(|variant| variant.name).find(|variant| *variant == name);
    let layout = format.plan(machine, &DumpOptions { variant, ..DumpOptions::default() }).unwrap();
    let mut bytes = Vec::new();
    let sink = StreamSink::new(&mut bytes);
    execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default()).unwrap();
    bytes
}

fn open(bytes: Vec<u8>) -> (&'static str, Machine) {
    let opened = format::open(vec![Arc::new(bytes)]).unwrap();
    (opened.format, opened.machine)
}

/// Both formats recognize it; the one that knows more of it opens it.
#[test]
fn a_core_is_opened_by_the_format_that_knows_it() {
    let machine = synth::demo::machine("x86_64").unwrap();
    let probes = |bytes: &[u8]| -> Vec<&str> {
        let fitting = format::all().iter().filter(|format| format.probe(&bytes[..bytes.len().min(4096)]));
        fitting.map(|format| format.name()).collect()
    };
    for variant in vmcore::vbox::Vbox.variants() {
        let bytes = write(&machine, variant.name);
        assert_eq!(probes(&bytes), ["elf", "vbox"]);
        assert_eq!(open(bytes).0, "vbox", "{}", variant.name);
    }
    let elf = write(&machine, "elf");
    assert_eq!((probes(&elf), open(elf.clone()).0), (vec!["elf"], "elf"));
    for name in vmcore_tests::names(".elf.gz") {
        assert_eq!(probes(&vmcore_tests::dump(&name)), ["elf"], "{name}");
    }
}

/// What VirtualBox wrote goes through an ELF core and comes out as it was.
#[test]
fn its_own_notes_go_through_elf() {
    let machine = synth::demo::machine("x86_64").unwrap();
    for variant in vmcore::vbox::Vbox.variants() {
        let mut bytes = write(&machine, variant.name);
        // The revision, in the second word from the end of the descriptor, is VirtualBox's own; a byte of DR4 is set.
        let notes = 64 + 56 * 3;
        let descriptor = notes + if variant.name == "vbox-2010" { 24 } else { 20 };
        bytes[descriptor + 16] = 7;
        let dr4 = match variant.name {
            "vbox-7.0" | "vbox-6.1" => 352,
            "vbox-5.0" | "vbox-5.0.0" => 344,
            "vbox-4.3" | "vbox-4.2" => 864,
            _ => 848,
        };
        bytes[descriptor + 24 + 20 + dr4] = 4;
        // VirtualBox's notes, up to some bytes behind the one that was changed in the first record.
        let own = notes..descriptor + 24 + 20 + dr4 + 100;
        let (_, first) = open(bytes.clone());
        let direct = write(&first, "vbox");
        assert!(direct[own.clone()] == bytes[own.clone()], "{}", variant.name);
        let (format, through) = open(write(&first, "elf"));
        assert_eq!(format, "elf");
        let again = write(&through, "vbox");
        assert!(again == direct, "{}", variant.name);
        assert_eq!(open(again).1.encode_notes(), through.encode_notes(), "{}", variant.name);
    }
}
