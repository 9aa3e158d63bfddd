//! The log of the guest's kernel.

use super::vmcore::fails_with;
use super::{Context, Verdict};
use crate::guest::GuestArch;
use crate::run::{any_output, find, output};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// A kernel that has booted has said more than this many lines.
const BOOT_LINES: usize = 100;

/// The logs of an ELF core, of a kdump dump and of the running guest are what the guest itself and makedumpfile say.
pub(crate) fn log(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let text = dmesg(context, &dump)?;
    let kdump = context.path("guest.kdump");
    let options = ["convert", "-q", "--format", "kdump", "-o"].map(OsStr::new);
    context.vmcore.run(options.into_iter().chain([kdump.as_os_str(), dump.as_os_str()]))?;
    ensure!(dmesg(context, &kdump)? == text, "the log of the kdump dump is another");

    let said = context.guest().dmesg()?;
    let uri = context.guest().uri();
    let live = lines(context, uri.as_ref())?;
    for (name, earlier) in [("the guest's own dmesg", said), ("the dump", lines(context, dump.as_os_str())?)]
    {
        ensure!(earlier.len() > BOOT_LINES, "{name} has {} lines", earlier.len());
        let differing = earlier.iter().zip(&live).find(|(earlier, live)| earlier != live);
        ensure!(differing.is_none(), "{name} differs: {differing:?}");
        ensure!(
            earlier.len() <= live.len(),
            "{name} has {} lines, the live guest {}",
            earlier.len(),
            live.len()
        );
    }
    // It knows only guests of the machine that it was built for.
    if context.guest().spec.arch != GuestArch::X86_64 {
        return Ok(Verdict::Passed);
    }
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let theirs = context.path("dmesg.txt");
    for dump in [&dump, &kdump] {
        output(Command::new(&makedumpfile).args(["-f", "--dump-dmesg"]).arg(dump).arg(&theirs))?;
        ensure!(std::fs::read(&theirs)? == text, "makedumpfile's log of {} is another", dump.display());
    }
    Ok(Verdict::Passed)
}

/// The kernel of this architecture cannot be looked into: an error that says so.
pub(crate) fn not_supported(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let out = any_output(context.vmcore.command(["dmesg"]).arg(&dump))?;
    fails_with(&out, &["cannot read the kernel's log", "not supported"])?;
    Ok(Verdict::Passed)
}

fn dmesg(context: &Context, dump: &Path) -> Result<Vec<u8>> {
    context.vmcore.run([OsStr::new("dmesg"), dump.as_os_str()])
}

/// The lines of a log as the console shows them: each with its time, and without spaces at its end.
fn lines(context: &Context, subject: &OsStr) -> Result<Vec<String>> {
    let report = context.vmcore.run([OsStr::new("dmesg"), OsStr::new("--json"), subject])?;
    let report: Value = serde_json::from_slice(&report).context("the report of dmesg")?;
    let mut lines = Vec::new();
    for record in report["records"].as_array().context("a log has records")? {
        let micros = record["timestamp_ns"].as_u64().context("a record has a time")? / 1000;
        let time = format!("[{:5}.{:06}]", micros / 1_000_000, micros % 1_000_000);
        let text = record["text"].as_str().context("a record has a text")?;
        lines.extend(text.split('\n').map(|line| format!("{time} {line}").trim_end().to_owned()));
    }
    Ok(lines)
}
