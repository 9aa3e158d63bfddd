//! Dumps of guests without the vmcoreinfo device: the note is found in their memory.

use super::consumers;
use super::python::{self, DRGN, LIBKDUMPFILE};
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

/// drgn and libkdumpfile find the kernel in this dump, and makedumpfile, where it knows the machine, its log.
fn is_readable(context: &Context, dump: &Path, release: &str) -> Result<Verdict> {
    let info: Value = context.vmcore.info(dump)?;
    ensure!(info["note"]["origin"] == json!("dump"), "the dump has no note: {}", info["note"]);
    let uname = uname_address(&info["vmcoreinfo"])?;
    let Ok(environment) = python::environment() else { return Ok(Verdict::Skipped("drgn".to_owned())) };
    let mut drgn = Command::new(environment.join("python"));
    drgn.args(["-c", DRGN]).arg(dump);
    // Of ppc64 it wants `cur_cpu_spec`, which kernels before 6.2 do not state; in kdump dumps libkdumpfile does it.
    let is_able = info["architecture"] != json!("ppc64") || info["format"] != json!("elf");
    names_itself(drgn, Some(uname).filter(|_| is_able), release)?;
    let Some(python) = consumers::with_libkdumpfile() else {
        return Ok(Verdict::Skipped("libkdumpfile".to_owned()));
    };
    let mut libkdumpfile = Command::new(python);
    libkdumpfile.args(["-c", LIBKDUMPFILE]).arg(dump);
    names_itself(libkdumpfile, Some(uname), release)?;
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

/// The virtual address of `struct new_utsname`.
fn uname_address(vmcoreinfo: &Value) -> Result<u64> {
    let value = |key: &str| vmcoreinfo[key].as_str();
    let symbol = value("SYMBOL(init_uts_ns)").context("no SYMBOL(init_uts_ns)")?;
    // Kernels before 5.11 do not state it.
    let offset = value("OFFSET(uts_namespace.name)").unwrap_or("4");
    Ok(u64::from_str_radix(symbol, 16)?.wrapping_add(offset.parse()?))
}

/// A script finds this release, in the first line that it prints or at the kernel's virtual address of `uname`.
fn names_itself(mut command: Command, uname: Option<u64>, release: &str) -> Result<()> {
    // The name of the system, that of the host, and the release: 65 bytes each.
    command.args(uname.map(|address| format!("virtual:{address:#x}:195")));
    let out = output(&mut command)?;
    let mut lines = out.lines();
    let first = lines.next().unwrap_or_default();
    let Some(line) = uname.and_then(|_| lines.next()) else {
        ensure!(uname.is_none() && first == release, "it finds {first}, expected {release}");
        return Ok(());
    };
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (system, found) = line.split_at_checked(2 * 130).context("it reads less than uname")?;
    ensure!(system.starts_with(&hex("Linux\0")), "no uname is at its virtual address: {line}");
    ensure!(found.starts_with(&hex(&format!("{release}\0"))), "uname is of another release: {line}");
    Ok(())
}
