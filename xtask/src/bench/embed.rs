//! `cargo xtask bench embed`: an embedding emulator's dumps, and what the facade costs it.

use super::measure::timed;
use super::report::Figure;
use super::{Bench, Report};
use crate::guest::Guest;
use crate::run::{built, output, repository, run};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// The formats by the names that QMP knows, and how `capture` is asked for the same.
const FORMATS: [(&str, &str, &[&str]); 2] = [
    ("elf", "ELF, vm-memory, 512 MiB guest, tmpfs", &["--format", "elf"]),
    (
        "kdump-raw-zlib",
        "kdump, zlib, vm-memory, 512 MiB guest, tmpfs",
        &["--format", "kdump", "--compress", "zlib"],
    ),
];
/// As fast as `capture`, within 10 %.
const BAR: f64 = 0.9;
/// Milliseconds that a clean build of the facade may take, and the most crates that it may have.
const BUILD_BAR: f64 = 10_000.0;
const MOST_CRATES: usize = 24;

/// The guest's memory, dumped from QEMU's process and from the memory of a program that has it itself.
pub(super) fn measure(bench: &Bench, guest: &mut Guest, report: &mut Report) -> Result<()> {
    let program =
        built(&["--package", "vmcore-examples", "--example", "dump_memory"], "examples/dump_memory")?;
    let (dump, ours) = (bench.tmpfs.path().join("guest.vmcore"), bench.tmpfs.path().join("captured"));
    guest.stop()?;
    bench.capture(guest, &dump)?;
    let mut times: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    // The first round warms up and does not count.
    for round in 0..=bench.rounds {
        let out = output(Command::new(&program).arg(&dump).arg(bench.tmpfs.path()))?;
        for (format, _, options) in FORMATS {
            let nanos = out.lines().find_map(|line| line.strip_prefix(format)?.trim().parse::<f64>().ok());
            let nanos = nanos.with_context(|| format!("no measurement of {format}"))?;
            let captured = timed(|| output(bench.command(guest, &ours).args(options)).map(drop))?;
            fs::remove_file(&ours)?;
            if round > 0 {
                let (theirs, ours) = times.entry(format).or_default();
                theirs.push(captured);
                ours.push(nanos / 1e6);
            }
        }
    }
    guest.cont()?;
    fs::remove_file(&dump)?;
    for (format, text, _) in FORMATS {
        let (theirs, ours) = times.remove(format).with_context(|| format!("no round of {format}"))?;
        report.add(Figure::new(text, "capture", theirs, ours, BAR));
    }
    facade(bench, report)
}

/// What a program takes that depends on the facade for one architecture and one format: crates, time, bytes.
fn facade(bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = bench.disk.path().join("user");
    fs::create_dir_all(folder.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         vmcore = {{ path = {:?}, default-features = false, features = [\"x86_64\", \"elf\"] }}\n",
        repository().join("crates/vmcore")
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let main = "fn main() { println!(\"{}\", vmcore::format::all().len()); }\n";
    fs::write(folder.join("src/main.rs"), main)?;
    let cargo = |args: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(args).current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        cargo
    };
    let tree = output(&mut cargo(&["tree", "--edges", "normal,build", "--prefix", "none", "--no-dedupe"]))?;
    let mut crates: Vec<&str> = tree.lines().skip(1).map(|line| line.trim_end_matches(" (*)")).collect();
    crates.sort_unstable();
    crates.dedup();
    ensure!(crates.len() <= MOST_CRATES, "the facade needs {} crates: {crates:?}", crates.len());

    let (mut bar, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let target = folder.join("target");
        if target.exists() {
            fs::remove_dir_all(target)?;
        }
        bar.push(BUILD_BAR);
        ours.push(timed(|| run(&mut cargo(&["build", "--quiet"])))?);
    }
    report.add(Figure::new("clean build of the facade, x86_64 and ELF", "10 s", bar, ours, 1.0));
    run(cargo(&["build", "--quiet", "--release"]).env("CARGO_PROFILE_RELEASE_STRIP", "true"))?;
    let len = fs::metadata(folder.join("target/release/user"))?.len();
    report.note = Some(format!(
        "The facade with `default-features = false, features = [\"x86_64\", \"elf\"]` is {} crates, itself and those of the compiler's plugins \
         included; a program with it, built for release and stripped, has {} KiB.",
        crates.len(),
        len >> 10
    ));
    Ok(())
}
