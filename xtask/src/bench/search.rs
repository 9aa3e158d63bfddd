//! `cargo xtask bench search`: how fast guest memory is searched for VMCOREINFO.

use super::report::Figure;
use super::{Bench, Report};
use crate::guest::Guest;
use crate::run::{built, output};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::process::Command;

/// Memory that is searched: what the guest has in use, repeated.
const LEN: u64 = 2 << 30;
/// Bytes a second on one core that are to be reached.
const BAR: f64 = 4e9;
/// The measurements of the example `search_memory`, and what they are.
const MEASURES: [(&str, &str); 4] = [
    ("pages-mapped", "search of pages, 2 GiB mapped"),
    ("pages-read", "search of pages, 2 GiB read in blocks"),
    ("words-mapped", "search of pages, then of words, 2 GiB mapped"),
    ("words-read", "search of pages, then of words, 2 GiB read in blocks"),
];

/// Of memory as this guest has it, that is resident.
pub(super) fn measure(bench: &Bench, guest: &mut Guest, report: &mut Report) -> Result<()> {
    let program = built(&["--package", "vmcore", "--example", "search_memory"], "examples/search_memory")?;
    let dump = bench.tmpfs.path().join("guest.vmcore");
    bench.capture(guest, &dump)?;
    // The guest shall not take our core.
    guest.stop()?;
    let mut times: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..bench.rounds {
        let out = output(Command::new(&program).arg(&dump).arg(LEN.to_string()))?;
        for line in out.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, bytes, nanos] = words[..] else { continue };
            let (bar, ours) = times.entry(name.to_owned()).or_default();
            bar.push(bytes.parse::<f64>()? / BAR * 1e3);
            ours.push(nanos.parse::<f64>()? / 1e6);
        }
    }
    guest.cont()?;
    std::fs::remove_file(&dump)?;
    for (name, text) in MEASURES {
        let (bar, ours) = times.remove(name).with_context(|| format!("no measurement of {name}"))?;
        report.add(Figure::new(text, "4 GB/s", bar, ours, 1.0));
    }
    Ok(())
}
