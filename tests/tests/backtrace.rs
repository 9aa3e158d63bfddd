//! Backtraces of a guest whose functions call each other (`tests/guests/calls.S`), in a dump that QEMU made: as in
//! `tests/golden/backtrace-*.snap`.

use std::fmt::Write as _;
use std::sync::Arc;
use vmcore::backtrace::{Identification, Image, Unwinder};
use vmcore::{Machine, ReadAt};
use vmcore_tests::{dump, open, unpacked};

fn backtrace(machine: &Machine, image: Option<&Image>) -> String {
    let unwinder = Unwinder::new(machine, image).expect("x86_64 can do it");
    let backtrace = unwinder.backtrace(0).expect("there is a vCPU");
    let mut text = String::new();
    for frame in &backtrace.frames {
        let name = frame.location.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let source = frame.source.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let stack = frame.stack_pointer.map_or_else(|| "?".to_owned(), |gva| gva.to_string());
        writeln!(text, "{} {name} at {source}, sp {stack}, by {}", frame.pc, frame.way.name())
            .expect("a string");
    }
    assert!(backtrace.source_error.is_none(), "{:?}", backtrace.source_error);
    text + &backtrace.end.to_string()
}

fn check(name: &str, image: Option<&Image>) {
    let machine = open(dump("calls-qemu7")).expect("the dump is sound");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(format!("backtrace-{name}"), backtrace(&machine, image)));
}

#[test]
fn by_the_programs_own_tables() {
    let file: Arc<dyn ReadAt> = Arc::new(unpacked("calls.vmlinux.gz"));
    let image = Image::open(&file).expect("the file is sound");
    let machine = open(dump("calls-qemu7")).expect("the dump is sound");
    assert_eq!(image.identify(&machine), Identification::Unknown, "neither has a build id");
    check("vmlinux", Some(&image));
}

#[test]
fn by_frame_pointers() {
    check("frame-pointers", None);
}
