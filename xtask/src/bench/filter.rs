//! `cargo xtask bench filter`: dumps of what matters alone, by makedumpfile, by QEMU as far as it can, and by us.

use super::measure::timed_dump;
use super::report::Report;
use super::{Bench, kdump, pause_of};
use crate::guest::Guest;
use crate::oracle::qemu::dump_to_file;
use crate::run::output;
use anyhow::Result;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// All that a dump level can leave out.
const ALL: &str = "31";

pub(super) fn measure(bench: &Bench, guest: &mut Guest, report: &mut Report) -> Result<()> {
    let makedumpfile = kdump::makedumpfile()?;
    let path = |name: &str| bench.tmpfs.path().join(name);
    let (theirs, ours, core) = (path("theirs"), path("ours"), path("guest.vmcore"));

    guest.stop()?;
    bench.capture(guest, &core)?;
    let make = |options: &[&str]| {
        let mut command = Command::new(&makedumpfile);
        command.args(["-f", "-c", "-d", ALL]).args(options).arg(&core).arg(&theirs);
        output(&mut command).map(drop)
    };
    let (one, two): (&[&str], &[&str]) = (&[], &["--num-threads", "2"]);
    // Its best of one and two threads.
    let best =
        if timed_dump(&theirs, || make(two))? < timed_dump(&theirs, || make(one))? { two } else { one };
    let mut convert = kdump::convert(bench, &core, &ours, "zlib", 2);
    convert.args(["-d", ALL]);
    let figure = bench.turns(
        || timed_dump(&theirs, || make(best)),
        || timed_dump(&ours, || output(&mut convert).map(drop)),
    )?;
    let options = [&["-c", "-d", ALL], best].concat().join(" ");
    let name = format!("makedumpfile {options}, convert -d {ALL} --compress zlib, tmpfs");
    report.add(figure.named(&name, "makedumpfile", 4.0));
    let len = |path: &Path| std::fs::metadata(path).map(|data| data.len());
    report.add_size(
        &format!("makedumpfile -c -d {ALL}, convert -d {ALL} --compress zlib"),
        len(&theirs)?,
        len(&ours)?,
    );
    std::fs::remove_file(&core)?;

    let mut capture = capture(bench, guest, &ours, &[]);
    let figure = bench.turns(
        || timed_dump(&theirs, || dump_to_file(guest, &theirs, "kdump-zlib")),
        || timed_dump(&ours, || output(&mut capture).map(drop)),
    )?;
    let name = format!("QEMU kdump-zlib, capture -d {ALL} --compress zstd, 512 MiB guest, tmpfs");
    report.add(figure.named(&name, "QEMU", 15.0));
    guest.cont()?;

    // Both borrow the guest: they take turns by hand.
    let (mut their_pauses, mut our_pauses) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        guest.qmp.forget_events()?;
        let protocol = format!("file:{}", theirs.display());
        let arguments =
            json!({ "paging": false, "protocol": protocol, "format": "kdump-zlib", "detach": true });
        guest.qmp.execute("dump-guest-memory", arguments)?;
        let their_pause = pause_of(guest)?;
        guest.qmp.forget_events()?;
        output(&mut self::capture(bench, guest, &ours, &["--snapshot"]))?;
        let our_pause = pause_of(guest)?;
        if round > 0 {
            their_pauses.push(their_pause);
            our_pauses.push(our_pause);
        }
    }
    let name = format!("pause: QEMU kdump-zlib, capture -d {ALL} --snapshot, 512 MiB guest, tmpfs");
    report.add(super::report::Figure::new(&name, "QEMU", their_pauses, our_pauses, 50.0));
    for dump in [&theirs, &ours] {
        std::fs::remove_file(dump)?;
    }
    Ok(())
}

fn capture(bench: &Bench, guest: &Guest, out: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(&bench.vmcore);
    command.args(["capture", &guest.uri(), "--quiet", "--force", "--format", "kdump", "--compress", "zstd"]);
    command.args(["-d", ALL]).args(options).arg("-o").arg(out);
    command
}
