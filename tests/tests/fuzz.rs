//! The fuzz targets on what they begin with, and on what they once found.

#![allow(clippy::print_stderr, reason = "what a test that fails was about")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vmcore_tests::hostile;

/// The files of a folder by name; none if there is no such folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.expect("an entry"));
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().expect("a plain name"), fs::read(entry.path()).expect("a file"))
    };
    entries.map(read).collect()
}

/// `cargo xtask golden` writes them, as it does insta's snapshots.
#[test]
fn seeds_are_what_we_write() {
    for target in hostile::TARGETS {
        let folder = hostile::corpus(target);
        let seeds: BTreeMap<String, Vec<u8>> =
            hostile::seeds(target).expect("dumps of our own guests").into_iter().collect();
        if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
            fs::create_dir_all(&folder).expect("a folder");
            for (name, bytes) in &seeds {
                fs::write(folder.join(name), bytes).expect("a file");
            }
        }
        let found = files(&folder);
        for (name, seed) in &seeds {
            assert!(found.get(name) == Some(seed), "{target}/{name}: `cargo xtask golden` makes it anew");
        }
    }
}

#[test]
fn targets_end_well_on_all_seeds_and_on_what_they_once_found() {
    for target in hostile::TARGETS {
        let seeds = hostile::seeds(target).expect("dumps of our own guests");
        let found = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/found").join(target));
        for (name, bytes) in seeds.into_iter().chain(found) {
            // Shown if it panics.
            eprintln!("{target}/{name}");
            hostile::read(target, &bytes);
        }
    }
}
