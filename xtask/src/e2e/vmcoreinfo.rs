//! Dumps of guests without the vmcoreinfo device: the note is found in their memory.

use super::consumers;
use super::python::{self, DRGN, LIBKDUMPFILE};
use super::{Context, Verdict, guests};
use crate::guest::{Guest, GuestArch, Spec};
use crate::oracle::core_file::CoreFile;
use crate::oracle::qemu;
use crate::run::{find, output};
use anyhow::{Context as _, Result, ensure};
use memchr::memmem::Finder;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
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

    // Where no name is left in memory, the banner says it.
    for name in ["Linux\0\0\0", "VMCOREINFO", "OSRELEASE="] {
        wipe(&theirs, name.as_bytes())?;
    }
    convert(context, &theirs, &kdump, &["--format", "kdump", "--force"])?;
    let info = context.vmcore.info(&kdump)?;
    ensure!(info["note"]["origin"].is_null(), "a wiped note was found: {}", info["note"]);
    ensure!(info["uts"]["release"] == json!(kernel.release), "by the banner it is {}", info["uts"]);
    ensure!(info["uts"]["version"] == uts["version"], "by the banner it is {}", info["uts"]);
    Ok(verdict)
}

/// Overwrites the first byte of `text` wherever it stands in the file.
fn wipe(path: &Path, text: &[u8]) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    let file = File::options().read(true).write(true).open(path)?;
    let finder = Finder::new(text);
    let mut block = vec![0; BLOCK + text.len() - 1];
    for at in (0..file.metadata()?.len()).step_by(BLOCK) {
        let len = file.read_at(&mut block, at)?;
        for place in finder.find_iter(&block[..len]) {
            file.write_all_at(b"?", at + place as u64)?;
        }
    }
    Ok(())
}

/// A guest that has booted over the memory of an earlier one, and uses less of it: the earlier kernel's note is still above 4 GiB,
/// where the search begins. The one that is found is that of the kernel that runs.
pub(crate) fn stale(context: &mut Context) -> Result<Verdict> {
    let (dump, spec) = (context.path("guest.vmcore"), guests::bare_over(context.path("memory")));
    let earlier = Guest::boot(&spec)?.kernel()?;
    let mut guest = Guest::boot(&Spec { append: Some("mem=512M".to_owned()), ..spec })?;
    let kernel = guest.kernel()?;
    context.vmcore.capture(&guest.uri(), &dump, &["--no-vmcoreinfo-search"])?;
    let core = CoreFile::open(&dump)?;
    let [old, new] = [earlier.note, kernel.note].map(|gpa| kaslr_offset(&core, gpa));
    let (old, new) = (old.context("the earlier kernel's note")?, new.context("the running kernel's note")?);
    ensure!(
        earlier.note >= 4 << 30,
        "the earlier note at {:#x} is not where the search begins",
        earlier.note
    );
    ensure!(old != new, "both kernels lie at {new:#x}");

    let note = &context.vmcore.info(&dump)?["note"];
    ensure!(note["gpa"] == json!(kernel.note), "{note} is found, the guest says {:#x}", kernel.note);
    ensure!(note["kaslr_offset"] == json!(new), "{note} is of another kernel than {new:#x}");
    ensure!(note["evidence"]["vcpu"] == json!(true), "no vCPU confirms {note}");
    let other = &note["others"][0];
    ensure!(other["gpa"] == json!(earlier.note), "the earlier note was not seen: {note}");
    ensure!(other["evidence"]["vcpu"] == json!(false), "a vCPU confirms the earlier note: {note}");
    let ours = context.path("converted.vmcore");
    convert(context, &dump, &ours, &[])?;
    is_readable(context, &ours, &kernel.release)
}

/// What the note at a place says of where KASLR has put its kernel.
fn kaslr_offset(core: &CoreFile, gpa: u64) -> Result<u64> {
    let mut note = vec![0; 4096];
    core.read_physical(gpa, &mut note)?;
    ensure!(note[12..].starts_with(b"VMCOREINFO\0\0OSRELEASE="), "no note is at {gpa:#x}");
    let text = String::from_utf8_lossy(&note);
    let offset = text.lines().find_map(|line| line.strip_prefix("KERNELOFFSET="));
    Ok(u64::from_str_radix(offset.context("it has no KERNELOFFSET")?, 16)?)
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
