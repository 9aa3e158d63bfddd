//! What QEMU 7.2 and 10.0 say on their monitors of the guests of `tests/guests`, against their own dumps of the same stop.
//!
//! The files are made by `cargo xtask golden`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmcore_capture::{mtree, registers};
use vmcore_core::{Machine, format};
use {vmcore_arch_x86_64 as _, vmcore_format_elf as _};

/// The fixtures with a text of this kind and a dump of all memory: name, text and guest.
fn fixtures(kind: &str) -> Vec<(String, String, Machine)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(&format!(".{kind}.txt")) else { continue };
        let dump = path.with_file_name(format!("{name}.elf.gz"));
        // Of the split guests only a range of memory was dumped.
        if name.contains("split") || !dump.exists() {
            continue;
        }
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(dump).unwrap()).read_to_end(&mut bytes).unwrap();
        let machine = format::by_name("elf").unwrap().open(Arc::new(bytes)).unwrap();
        found.push((name.to_owned(), fs::read_to_string(&path).unwrap(), machine));
    }
    assert!(found.len() > 10, "{}", found.len());
    found
}

#[test]
fn the_predicted_regions_are_the_segments_of_the_dump() {
    for (name, text, machine) in fixtures("mtree") {
        assert_eq!(mtree::parse(&text).regions, machine.memory.regions(), "{name}");
    }
}

#[test]
fn registers_of_the_monitor_agree_with_the_notes_and_complete_them() {
    for (name, text, mut machine) in fixtures("registers") {
        let noted: Vec<_> = machine.vcpus.iter().map(|vcpu| vcpu.registers().clone()).collect();
        assert!(!noted.is_empty(), "{name}");
        assert_eq!(registers::add_text(&mut machine, &text), None, "{name}");
        for (vcpu, noted) in machine.vcpus.iter().zip(noted) {
            let registers = vcpu.registers();
            for (id, row, value) in noted.iter() {
                assert_eq!(registers.get(id), Some(value), "{name}: {} of the notes stays", row.name);
            }
            for known in ["efer", "dr7", "fcw", "mxcsr", "st7", "xmm0"] {
                let is_in_table = registers.table().find(known).is_some();
                assert!(registers.value(known).is_some() || !is_in_table, "{name}: {known}");
            }
        }
    }
}
