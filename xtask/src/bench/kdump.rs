//! `cargo xtask bench kdump`: QEMU, makedumpfile and we make kdump dumps of the same guest, in turns.

use super::measure::{run_and_watch, timed_dump};
use super::report::{Figure, Report};
use super::{Bench, reading};
use crate::apt::Apt;
use crate::guest::Guest;
use crate::oracle::qemu::dump_to_file;
use crate::run::{find, output};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// makedumpfile's options, our methods, and the bars. No release of Debian has a makedumpfile with snappy.
const METHODS: [(&str, &str, f64); 3] = [("-c", "zlib", 5.0), ("-l", "lzo", 3.0), ("-z", "zstd", 3.0)];
/// The first release of Debian whose makedumpfile has zstd. It runs with the libraries of the release before, too.
const WITH_ZSTD: &str = "trixie";

pub(super) fn measure(bench: &Bench, guest: &mut Guest, report: &mut Report) -> Result<()> {
    let makedumpfile = makedumpfile()?;
    let path = |name: &str| bench.tmpfs.path().join(name);
    let (theirs, ours, core) = (path("theirs"), path("ours"), path("guest.vmcore"));

    guest.stop()?;
    for (method, bar) in [("zlib", 6.0), ("zstd", 10.0)] {
        let mut capture = Command::new(&bench.vmcore);
        capture.args([
            "capture",
            &guest.uri(),
            "--quiet",
            "--force",
            "--format",
            "kdump",
            "--compress",
            method,
            "-o",
        ]);
        capture.arg(&ours);
        let figure = bench.turns(
            || timed_dump(&theirs, || dump_to_file(guest, &theirs, "kdump-zlib")),
            || timed_dump(&ours, || output(&mut capture).map(drop)),
        )?;
        report.add(figure.named(
            &format!("QEMU kdump-zlib, capture --compress {method}, 512 MiB guest, tmpfs"),
            "QEMU",
            bar,
        ));
    }
    bench.capture(guest, &core)?;
    guest.cont()?;

    let make = |options: &[&str]| {
        let mut command = Command::new(&makedumpfile);
        command.arg("-f").args(options).arg(&core).arg(&theirs);
        output(&mut command).map(drop)
    };
    for (option, method, bar) in METHODS {
        let options = [option, "-d", "1"];
        let two_threads = [option, "-d", "1", "--num-threads", "2"];
        // Its best of one and two threads.
        let is_two_faster =
            timed_dump(&theirs, || make(&two_threads))? < timed_dump(&theirs, || make(&options))?;
        let best: &[&str] = if is_two_faster { &two_threads } else { &options };
        let mut convert = convert(bench, &core, &ours, method, 2);
        let figure = bench.turns(
            || timed_dump(&theirs, || make(best)),
            || timed_dump(&ours, || output(&mut convert).map(drop)),
        )?;
        report.add(figure.named(
            &format!("makedumpfile {}, convert --compress {method}, tmpfs", best.join(" ")),
            "makedumpfile",
            bar,
        ));
        let len = |path: &Path| std::fs::metadata(path).map(|data| data.len());
        report.add_size(
            &format!("makedumpfile {}, convert --compress {method}", options.join(" ")),
            len(&theirs)?,
            len(&ours)?,
        );
    }
    for method in ["zlib", "zstd"] {
        let (mut one, mut two) =
            (convert(bench, &core, &ours, method, 1), convert(bench, &core, &ours, method, 2));
        let figure = bench.turns(
            || timed_dump(&ours, || output(&mut one).map(drop)),
            || timed_dump(&ours, || output(&mut two).map(drop)),
        )?;
        report.add(figure.named(
            &format!("convert --compress {method}, one and two threads, tmpfs"),
            "one thread",
            1.8,
        ));
    }
    report
        .add_peak("convert of a 512 MiB guest", run_and_watch(&mut convert(bench, &core, &ours, "zlib", 2))?);
    for dump in [&theirs, &ours] {
        std::fs::remove_file(dump)?;
    }
    reading::measure(bench, &core, &makedumpfile, report)?;
    std::fs::remove_file(&core)?;
    Ok(())
}

/// The makedumpfile of the machine, or one in the cache if that has no zstd.
pub(super) fn makedumpfile() -> Result<PathBuf> {
    let has_zstd = |program: &Path| {
        output(Command::new(program).arg("-v"))
            .is_ok_and(|text| text.lines().any(|line| line == "zstd\tenabled"))
    };
    if let Some(program) = find("makedumpfile").filter(|program| has_zstd(program)) {
        return Ok(program);
    }
    let packages = vec!["makedumpfile".to_owned()];
    let root =
        Apt::new(WITH_ZSTD, "amd64")?.unpacked(&format!("makedumpfile-{WITH_ZSTD}"), |_| Ok(packages))?;
    let program = root.join("usr/bin/makedumpfile");
    ensure!(has_zstd(&program), "{} has no zstd, or does not run here", program.display());
    Ok(program)
}

pub(super) fn convert(bench: &Bench, core: &Path, out: &Path, method: &str, threads: u32) -> Command {
    let mut command = Command::new(&bench.vmcore);
    command.arg("convert").arg(core).args(["--quiet", "--force", "--format", "kdump", "--compress", method]);
    command.args(["--threads", &threads.to_string(), "-o"]).arg(out);
    command
}

impl Bench {
    /// Times both in turns, in milliseconds; the first round warms up and does not count.
    pub(super) fn turns(
        &self,
        mut theirs: impl FnMut() -> Result<f64>,
        mut ours: impl FnMut() -> Result<f64>,
    ) -> Result<Turns> {
        let mut turns = Turns::default();
        for round in 0..=self.rounds {
            let (their_time, our_time) = (theirs()?, ours()?);
            if round > 0 {
                turns.theirs.push(their_time);
                turns.ours.push(our_time);
            }
        }
        Ok(turns)
    }
}

/// Times of both, by round.
#[derive(Default)]
pub(super) struct Turns {
    theirs: Vec<f64>,
    ours: Vec<f64>,
}

impl Turns {
    pub(super) fn named(self, name: &str, peer: &'static str, bar: f64) -> Figure {
        Figure::new(name, peer, self.theirs, self.ours, bar)
    }
}
