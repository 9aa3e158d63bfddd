//! `cargo xtask bench`: others and we do the same work in turns, in one run; medians and ratios.

mod embed;
mod filter;
mod gdb;
mod kdump;
mod measure;
mod reading;
mod report;
mod rsp;
mod search;

use crate::guest::{Guest, GuestArch, QemuVersion, Spec};
use crate::oracle::qemu::dump_to_file;
use crate::qmp::event_time;
use crate::run::cache;
use anyhow::{Context, Result, bail, ensure};
use measure::{Peak, run_and_watch, timed};
use report::{Figure, Report};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longer than any dump of the guests below takes.
const DUMP: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    what: What,
    /// Write the result into BENCHMARKS.md
    #[arg(long)]
    write: bool,
    /// Measurements of each, in turns; the median counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The QEMU that runs the guests and dumps them
    #[arg(long, value_enum, default_value_t = QemuVersion::V7)]
    qemu: QemuVersion,
    /// The program to be measured [default: it is built]
    #[arg(long)]
    vmcore: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// ELF cores: QEMU's `dump-guest-memory`, `cp`
    Capture,
    /// kdump dumps: QEMU, makedumpfile, libkdumpfile
    Kdump,
    /// Dumps of what matters alone: makedumpfile, QEMU
    Filter,
    /// gdb's remote protocol: QEMU's stub
    Gdb,
    /// The search for VMCOREINFO: the speed of memory
    Search,
    /// An embedding emulator's dumps: `vmcore capture`; and what the facade costs
    Embed,
}

/// What is measured with.
struct Bench {
    vmcore: PathBuf,
    rounds: usize,
    tmpfs: tempfile::TempDir,
    disk: tempfile::TempDir,
}

pub(crate) fn bench(args: &Args) -> Result<()> {
    let vmcore = match &args.vmcore {
        Some(path) => std::path::absolute(path)?,
        None => crate::e2e::build()?,
    };
    let folder = |parent: &Path| tempfile::Builder::new().prefix("vmcore-bench-").tempdir_in(parent);
    let (tmpfs, disk) = (folder(Path::new("/dev/shm"))?, folder(&cache("tmp")?)?);
    let bench = Bench { vmcore, rounds: args.rounds.max(1), tmpfs, disk };
    let mut report = match args.what {
        What::Capture => Report::new(&report::CAPTURE, args.qemu, bench.rounds)?,
        What::Kdump => Report::new(&report::KDUMP, args.qemu, bench.rounds)?,
        What::Filter => Report::new(&report::FILTER, args.qemu, bench.rounds)?,
        What::Gdb => Report::new(&report::GDB, args.qemu, bench.rounds)?,
        What::Search => Report::new(&report::SEARCH, args.qemu, bench.rounds)?,
        What::Embed => Report::new(&report::EMBED, args.qemu, bench.rounds)?,
    };
    let mut guest = Guest::boot(&spec(512, 30, args.qemu))?;
    match args.what {
        What::Capture => bench.elf(guest, &mut report, args.qemu)?,
        What::Kdump => {
            kdump::measure(&bench, &mut guest, &mut report)?;
            report.used = bench.used(&mut guest)?;
        }
        What::Filter => {
            filter::measure(&bench, &mut guest, &mut report)?;
            report.used = bench.used(&mut guest)?;
        }
        What::Gdb => {
            gdb::measure(&bench, &mut guest, &mut report)?;
            report.used = bench.used(&mut guest)?;
        }
        What::Search => {
            search::measure(&bench, &mut guest, &mut report)?;
            report.used = bench.used(&mut guest)?;
        }
        What::Embed => {
            embed::measure(&bench, &mut guest, &mut report)?;
            report.used = bench.used(&mut guest)?;
        }
    }

    println!("\n{}", report.text());
    if args.write {
        report.write()?;
    }
    let missed = report.missed();
    if !missed.is_empty() {
        bail!("below the bar: {}", missed.join("; "));
    }
    Ok(())
}

fn spec(mem: u64, drivers: u64, qemu: QemuVersion) -> Spec {
    Spec { mem, qemu, vmcoreinfo: true, fill: 1, drivers, ..Spec::new(GuestArch::X86_64) }
}

impl Bench {
    /// ELF cores of a 512 MiB and a 4 GiB guest.
    fn elf(&self, mut guest: Guest, report: &mut Report, qemu: QemuVersion) -> Result<()> {
        report.add(self.dump(&mut guest, "dump time, 512 MiB guest, tmpfs", &self.tmpfs, 5.0)?);
        report.add(self.dump(&mut guest, "dump time, 512 MiB guest, disk", &self.disk, 6.0)?);
        report.add(self.pause(&mut guest)?);
        report.add_peak("512 MiB guest", self.peak(&mut guest)?);
        report.add(self.convert(&mut guest, "convert, tmpfs", &self.tmpfs)?);
        report.add(self.convert(&mut guest, "convert, disk", &self.disk)?);
        report.used = self.used(&mut guest)?;
        drop(guest);
        let mut guest = Guest::boot(&spec(4096, 0, qemu))?;
        report.add(self.dump(
            &mut guest,
            "dump time, 4 GiB guest mostly untouched, tmpfs",
            &self.tmpfs,
            20.0,
        )?);
        report.add_peak("4 GiB guest", self.peak(&mut guest)?);
        drop(guest);
        Ok(())
    }

    /// Time of the whole dump of a stopped guest, from the command to the last byte.
    fn dump(&self, guest: &mut Guest, name: &str, folder: &tempfile::TempDir, bar: f64) -> Result<Figure> {
        let (theirs, ours) = (folder.path().join("qemu.dump"), folder.path().join("guest.vmcore"));
        guest.stop()?;
        let (mut qemu_times, mut our_times) = (Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=self.rounds {
            let qemu_time = timed(|| dump_to_file(guest, &theirs, "elf"))?;
            std::fs::remove_file(&theirs)?;
            // What one wrote shall not slow the other.
            rustix::fs::sync();
            let our_time = timed(|| self.capture(guest, &ours).map(drop))?;
            std::fs::remove_file(&ours)?;
            rustix::fs::sync();
            if round > 0 {
                qemu_times.push(qemu_time);
                our_times.push(our_time);
            }
        }
        guest.cont()?;
        Ok(Figure::new(name, "QEMU", qemu_times, our_times, bar))
    }

    /// How long a running guest stands still, by QEMU's own events.
    fn pause(&self, guest: &mut Guest) -> Result<Figure> {
        let (theirs, ours) = (self.tmpfs.path().join("qemu.dump"), self.tmpfs.path().join("guest.vmcore"));
        let (mut qemu_times, mut our_times) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            guest.qmp.forget_events()?;
            let arguments = json!({
                "paging": false, "protocol": format!("file:{}", theirs.display()), "format": "elf", "detach": true,
            });
            guest.qmp.execute("dump-guest-memory", arguments)?;
            let qemu_time = pause_of(guest)?;
            std::fs::remove_file(&theirs)?;
            guest.qmp.forget_events()?;
            self.capture(guest, &ours)?;
            let our_time = pause_of(guest)?;
            std::fs::remove_file(&ours)?;
            if round > 0 {
                qemu_times.push(qemu_time);
                our_times.push(our_time);
            }
        }
        Ok(Figure::new("pause, 512 MiB guest, tmpfs", "QEMU", qemu_times, our_times, 5.0))
    }

    /// The most memory that a capture takes: no guest RAM is mapped, all of it counts.
    fn peak(&self, guest: &mut Guest) -> Result<Peak> {
        let ours = self.tmpfs.path().join("guest.vmcore");
        let mut peaks = Vec::new();
        for _ in 0..3 {
            peaks.push(run_and_watch(&mut self.command(guest, &ours))?);
            std::fs::remove_file(&ours)?;
        }
        peaks.into_iter().max_by_key(|peak| peak.all).context("no measurement")
    }

    /// Copies of QEMU's dump: by `cp --sparse=always`, and by `convert`.
    fn convert(&self, guest: &mut Guest, name: &str, folder: &tempfile::TempDir) -> Result<Figure> {
        let path = |name: &str| folder.path().join(name);
        let (source, copy, converted) = (path("qemu.dump"), path("copy"), path("converted.vmcore"));
        dump_to_file(guest, &source, "elf")?;
        rustix::fs::sync();
        let (mut cp_times, mut our_times) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let mut cp = Command::new("cp");
            cp.arg("--sparse=always").arg(&source).arg(&copy);
            let cp_time = timed(|| crate::run::output(&mut cp).map(drop))?;
            std::fs::remove_file(&copy)?;
            rustix::fs::sync();
            let mut convert = Command::new(&self.vmcore);
            convert.args(["convert", "--quiet"]).arg(&source).arg("-o").arg(&converted);
            let our_time = timed(|| crate::run::output(&mut convert).map(drop))?;
            std::fs::remove_file(&converted)?;
            rustix::fs::sync();
            if round > 0 {
                cp_times.push(cp_time);
                our_times.push(our_time);
            }
        }
        std::fs::remove_file(&source)?;
        Ok(Figure::new(name, "cp --sparse=always", cp_times, our_times, 1.0))
    }

    /// Bytes of the guest's memory that are not zero, as the capture stores them.
    fn used(&self, guest: &mut Guest) -> Result<u64> {
        let ours = self.tmpfs.path().join("guest.vmcore");
        let report = self.capture(guest, &ours)?;
        std::fs::remove_file(&ours)?;
        report["bytes_written"].as_u64().context("no bytes_written in the report")
    }

    fn command(&self, guest: &Guest, out: &Path) -> Command {
        let mut command = Command::new(&self.vmcore);
        command.args(["capture", &guest.uri(), "--json", "--quiet", "-o"]).arg(out);
        command
    }

    fn capture(&self, guest: &Guest, out: &Path) -> Result<Value> {
        let text = crate::run::output(&mut self.command(guest, out))?;
        let report: Value = serde_json::from_str(&text).context("the report of a capture")?;
        ensure!(report["unreadable"] == json!([]), "memory was not readable: {}", report["unreadable"]);
        Ok(report)
    }
}

/// Milliseconds between the next STOP and the next RESUME.
fn pause_of(guest: &mut Guest) -> Result<f64> {
    let stop = event_time(&guest.qmp.wait_event("STOP", DUMP)?).context("no time in STOP")?;
    let resume = event_time(&guest.qmp.wait_event("RESUME", DUMP)?).context("no time in RESUME")?;
    Ok(measure::milliseconds(Duration::from_micros(resume.saturating_sub(stop))))
}
