//! Dumps of guests without the vmcoreinfo device: the note is found in their memory.

use super::python::{self, DRGN};
use super::{Context, Verdict};
use crate::guest::GuestArch;
use crate::oracle::core_file::CoreFile;
use crate::oracle::qemu;
use crate::run::{find, output};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// QEMU's dump, which has no note: ours of it has the one that the guest's kernel states, and its consumers open it.
pub(crate) fn found(context: &mut Context) -> Result<Verdict> {
    let (theirs, ours) = (context.path("qemu.dump"), context.path("converted.vmcore"));
    qemu::dump_to_file(context.guest(), &theirs, "elf")?;
    let kernel = context.guest().kernel()?;
    let head = CoreFile::open(&theirs)?.head;
    ensure!(head.vmcoreinfo("OSRELEASE").is_err(), "QEMU's dump has a note: nothing is to be found");

    let info = context.vmcore.info(&theirs)?;
    let note = &info["note"];
    let way = if context.guest().spec.arch == GuestArch::S390x { "pointer" } else { "search" };
    ensure!(note["origin"] == way, "the note comes from {note}, not from a {way}");
    ensure!(
        note["gpa"] == json!(kernel.note),
        "it is found at {}, the guest says {:#x}",
        note["gpa"],
        kernel.note
    );
    ensure!(note["evidence"]["uname"] == json!(true), "it is not confirmed: {note}");
    ensure!(note["evidence"]["vcpu"] != json!(false), "the vCPUs deny it: {note}");
    ensure!(info["kernel"]["release"] == json!(kernel.release), "info says {}", info["kernel"]);
    let uts = &info["kernel"]["uts"]["release"];
    ensure!(uts.is_null() || *uts == json!(kernel.release), "uname in memory is {uts}");

    convert(context, &theirs, &ours, &["--no-vmcoreinfo-search"])?;
    ensure!(
        CoreFile::open(&ours)?.head.vmcoreinfo("OSRELEASE").is_err(),
        "a note was searched for all the same"
    );
    convert(context, &theirs, &ours, &["--force"])?;
    let verdict = is_readable(context, &ours, &kernel.release)?;
    let kdump = context.path("guest.kdump");
    convert(context, &theirs, &kdump, &["--format", "kdump"])?;
    let uts = context.vmcore.info(&kdump)?["uts"].clone();
    ensure!(uts["release"] == json!(kernel.release), "the kdump header says {uts}");
    is_readable(context, &kdump, &kernel.release)?;
    Ok(verdict)
}

/// Our own dump, likewise.
pub(crate) fn captured(context: &mut Context) -> Result<Verdict> {
    let (dump, ours) = (context.dump()?, context.path("converted.vmcore"));
    let release = context.guest().kernel()?.release;
    convert(context, &dump, &ours, &[])?;
    is_readable(context, &ours, &release)
}

fn convert(context: &Context, from: &Path, to: &Path, options: &[&str]) -> Result<()> {
    let mut command = context.vmcore.command(["convert", "-q", "-o"]);
    output(command.arg(to).arg(from).args(options)).map(drop)
}

/// drgn finds the kernel in this dump, and makedumpfile, where it knows the machine, its log.
fn is_readable(context: &Context, dump: &Path, release: &str) -> Result<Verdict> {
    let info: Value = context.vmcore.info(dump)?;
    ensure!(info["note"]["origin"] == json!("dump"), "the dump has no note: {}", info["note"]);
    let Ok(environment) = python::environment() else { return Ok(Verdict::Skipped("drgn".to_owned())) };
    let found = output(Command::new(environment.join("python")).args(["-c", DRGN]).arg(dump))?;
    ensure!(found.trim() == release, "drgn finds {found}, expected {release}");
    if info["architecture"] != json!("x86_64") {
        return Ok(Verdict::Passed);
    }
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let log = context.path("dmesg.txt");
    output(Command::new(makedumpfile).args(["-f", "--dump-dmesg"]).arg(dump).arg(&log))?;
    let log = std::fs::read(&log).context("the kernel's log")?;
    let text = String::from_utf8_lossy(&log);
    ensure!(text.contains(&format!("Linux version {release}")), "the kernel's log does not name {release}");
    Ok(Verdict::Passed)
}
