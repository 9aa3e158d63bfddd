//! VMCOREINFO of dumps that have none, as a user meets it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use vmcore::memory::BlockMemory;
use vmcore::{
    DumpOptions, DumpState, Endianness, ExecuteOptions, Gpa, Machine, Note, Region, StreamSink, execute,
    format,
};

/// Where the guest's kernel has its note.
const NOTE: u64 = 0x180_0000;

fn vmcore(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmcore")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn info(args: &[&str]) -> Value {
    let output = vmcore(&[&["info", "--json"], args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The note of the demo guest's kernel.
fn note() -> Note {
    vmcore::synth::demo::machine("x86_64").unwrap().guest_note.unwrap()
}

fn encoded(note: &Note) -> Vec<u8> {
    let mut bytes = Vec::new();
    note.encode(Endianness::Little, &mut bytes).unwrap();
    bytes
}

/// A dump of the demo guest without the note, with these bytes in memory.
fn dump(folder: &Path, in_memory: &[u8]) -> String {
    let mut machine: Machine = vmcore::synth::demo::machine("x86_64").unwrap();
    machine.guest_note = None;
    let block = |region: &Region| {
        let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
        machine.memory.read_at(region.gpa, &mut bytes).unwrap();
        if region.contains(Gpa(NOTE)) {
            let at = usize::try_from(NOTE - region.gpa.0).unwrap();
            bytes[at..at + in_memory.len()].copy_from_slice(in_memory);
        }
        (region.gpa, bytes)
    };
    let blocks = machine.memory.regions().iter().map(block).collect();
    machine.memory = Arc::new(BlockMemory::new(blocks).unwrap());
    let layout = format::by_name("elf").unwrap().plan(&machine, &DumpOptions::default()).unwrap();
    let mut file = Vec::new();
    let sink = StreamSink::new(&mut file);
    execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default()).unwrap();
    path(folder, "bare.vmcore", &file)
}

fn path(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_dump_without_the_note_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let bare = dump(folder.path(), &encoded(&note()));
    let shown = info(&[&bare]);
    assert_eq!(
        (&shown["note"]["origin"], &shown["note"]["gpa"], &shown["note"]["evidence"]["vcpu"]),
        (&json!("search"), &json!(NOTE), &json!(true))
    );
    let text = String::from_utf8(vmcore(&["info", &bare]).stdout).unwrap();
    assert!(text.contains("found in memory at 0x1800000, confirmed by a vCPU"), "{text}");

    let out = path(folder.path(), "out", b"");
    let converted = vmcore(&["convert", &bare, "-f", "-o", &out]);
    let said = stderr(&converted);
    assert!(said.contains("VMCOREINFO was found in the guest's memory: 6.1.0-demo at 0x1800000"), "{said}");
    assert_eq!(info(&[&out])["note"]["origin"], "dump");
    // The header of a kdump dump names the kernel, too.
    assert!(vmcore(&["convert", &bare, "-f", "-q", "--format", "kdump", "-o", &out]).status.success());
    assert_eq!(info(&[&out])["uts"]["version"], "#1 SMP vmcore demo guest");

    assert_eq!(info(&[&bare, "--no-vmcoreinfo-search"])["note"]["origin"], json!(null));
    let output = vmcore(&["convert", &bare, "-f", "--no-vmcoreinfo-search", "-o", &out]);
    assert!(output.status.success() && !stderr(&output).contains("VMCOREINFO"), "{}", stderr(&output));
    assert!(fs::read(&out).unwrap() == fs::read(&bare).unwrap(), "nothing is added");
}

#[test]
fn virtual_addresses_are_read_by_the_kernel_where_registers_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = fs::read(dump(folder.path(), &encoded(&note()))).unwrap();
    // Notes of names that nobody knows: with them CR3 is gone.
    for (name, other) in [(b"QEMU\0", b"QEMX\0"), (b"MCORE", b"MCORX")] {
        for at in 0..0x2000 {
            if file[at..].starts_with(name) {
                file[at..at + name.len()].copy_from_slice(other);
            }
        }
    }
    let bare = path(folder.path(), "registers", &file);
    let read = ["read", &bare, "0xffffffff81000000", "5", "--virt"];
    let found = vmcore(&read);
    assert_eq!((&found.stdout[..], stderr(&found).lines().count()), (&b"Hello"[..], 1), "{}", stderr(&found));
    let output = vmcore(&[&read[..], &["--no-vmcoreinfo-search"]].concat());
    assert!(stderr(&output).contains("is not known for this vCPU"), "{}", stderr(&output));
}

#[test]
fn a_user_may_supply_the_note() {
    let folder = tempfile::tempdir().unwrap();
    let (bare, out) = (dump(folder.path(), &[]), path(folder.path(), "out", b""));
    assert_eq!(info(&[&bare])["kernel"], json!(null));
    let text = path(folder.path(), "text", &note().desc);
    let bytes = path(folder.path(), "note", &encoded(&note()));
    for file in [&text, &bytes] {
        let shown = info(&[&bare, "--vmcoreinfo", file]);
        assert_eq!(
            (&shown["note"]["origin"], &shown["kernel"]["release"]),
            (&json!("user"), &json!("6.1.0-demo"))
        );
        assert!(vmcore(&["convert", &bare, "-f", "--vmcoreinfo", file, "-o", &out]).status.success());
        assert_eq!(info(&[&out])["kernel"]["release"], "6.1.0-demo");
    }
    // Of another boot: it is taken, with a warning.
    let text =
        String::from_utf8(note().desc).unwrap().replace("NUMBER(phys_base)=0", "NUMBER(phys_base)=-4096");
    let other = path(folder.path(), "other", text.as_bytes());
    let said = stderr(&vmcore(&["info", &bare, "--vmcoreinfo", &other]));
    assert!(said.contains("no vCPU runs the kernel 6.1.0-demo"), "{said}");

    // Of another machine: nothing can be said of it.
    let strange = path(folder.path(), "strange", b"OSRELEASE=1\nPAGESIZE=4096\n");
    for subject in [&["info", &bare][..], &["capture", "demo:x86_64", "-f", "-o", &out]] {
        let said = stderr(&vmcore(&[subject, &["--vmcoreinfo", &strange]].concat()));
        assert!(said.contains("nothing in the guest's memory confirms the VMCOREINFO of"), "{said}");
    }
    // A file without an end.
    let said = stderr(&vmcore(&["info", &bare, "--vmcoreinfo", "/dev/zero"]));
    assert!(said.contains("it has more than 1 MiB, and no kernel tells that much"), "{said}");

    let garbage = path(folder.path(), "garbage", b"hello");
    let output = vmcore(&["info", &bare, "--vmcoreinfo", &garbage]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it begins neither with OSRELEASE="), "{}", stderr(&output));
}
