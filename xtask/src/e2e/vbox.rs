//! VirtualBox cores: a real guest's memory and registers in VirtualBox's format, and who opens it.

use super::python::{self, DRGN};
use super::{Context, Verdict, consumers};
use crate::oracle::compare;
use crate::oracle::core_file::{CoreFile, Head};
use crate::oracle::qemu;
use crate::run::{any_output, find, output};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// The forms of all releases.
const FORMS: [&str; 9] = [
    "vbox",
    "vbox-7.0",
    "vbox-6.1",
    "vbox-5.0",
    "vbox-5.0.0",
    "vbox-4.3",
    "vbox-4.2",
    "vbox-4.1",
    "vbox-2010",
];

fn convert(context: &Context, from: &Path, to: &Path, options: &[&str]) -> Result<()> {
    let mut command = context.vmcore.command(["convert", "--force", "-q", "-o"]);
    output(command.arg(to).arg(from).args(options)).map(drop)
}

/// The guest's dump, in each form and back: the same memory, notes and registers; a core that is written again is the same file.
pub(crate) fn there_and_back(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let (vbox, again, back) =
        (context.path("guest.vbox"), context.path("again.vbox"), context.path("back.vmcore"));
    let registers = context.vmcore.info(&dump)?["vcpus"].clone();
    for form in FORMS {
        let check = |context: &mut Context| -> Result<()> {
            convert(context, &dump, &vbox, &["--format", form])?;
            context.vmcore.verify(&vbox)?;
            let info = context.vmcore.info(&vbox)?;
            ensure!(info["format"] == json!("vbox"), "it is opened as {}", info["format"]);
            ensure!(info["vcpus"] == registers, "info shows other registers");
            convert(context, &vbox, &again, &["--format", "vbox"])?;
            super::capture::same_files(&vbox, &again).context("written again")?;
            convert(context, &vbox, &back, &[])?;
            let mut file = File::open(&dump)?;
            let head = Head::read(&mut file)?;
            let back = CoreFile::open(&back)?;
            compare::same_segments(&head, &back.head)?;
            compare::same_notes(&head, &back.head)?;
            compare::same_memory(&head, &mut file, &back)
        };
        check(context).context(form)?;
    }
    Ok(Verdict::Passed)
}

/// The record alone, without the notes of other cores, tells all registers that it has room for.
pub(crate) fn record(context: &mut Context) -> Result<Verdict> {
    let (dump, vbox) = (context.dump()?, context.path("guest.vbox"));
    convert(context, &dump, &vbox, &["--format", "vbox"])?;
    let head = CoreFile::open(&vbox)?.head;
    let records = head.notes_of("VBCPU", 0xb01);
    ensure!(records.len() == context.guest().spec.cpus as usize, "there are {} records", records.len());
    let core = context.core()?.head;
    for (record, prstatus) in records.iter().zip(core.notes_of("CORE", 1)) {
        // `spec/vbox-core.md` section 3.2 and `spec/arch-notes.md` section 3.2.
        for (name, at, slot) in [
            ("rax", 0, 10),
            ("r15", 104, 0),
            ("rip", 112, 16),
            ("rsp", 120, 19),
            ("rflags", 136, 18),
            ("gs_base", 240, 22),
        ] {
            let (found, expected) = (core.order.u64(record, at), core.order.u64(prstatus, 112 + 8 * slot));
            ensure!(found == expected, "{name} is {found:#x}, expected {expected:#x}");
        }
    }
    for (record, cpu) in records.iter().zip(core.notes_of("QEMU", 0)) {
        for (name, at, place) in
            [("cr0", 288, 392), ("cr3", 304, 416), ("idt_base", 400, 384), ("tr_base", 440, 336)]
        {
            let (found, expected) = (core.order.u64(record, at), core.order.u64(cpu, place));
            ensure!(found == expected, "{name} is {found:#x}, expected {expected:#x}");
        }
        ensure!(core.order.u64(record, 488) & 1 << 10 != 0, "the guest is not in long mode");
    }
    Ok(Verdict::Passed)
}

/// readelf finds no fault, and so does elfutils', which refuses VirtualBox's own.
pub(crate) fn elf_tools(context: &mut Context) -> Result<Verdict> {
    let (dump, vbox) = (context.dump()?, context.path("guest.vbox"));
    let Some(readelf) = find("readelf") else { return Ok(Verdict::Skipped("readelf".to_owned())) };
    let wanted = context.core()?.head.segments.len();
    for form in FORMS {
        convert(context, &dump, &vbox, &["--format", form])?;
        let out = any_output(Command::new(&readelf).args(["--all", "--wide"]).arg(&vbox))?;
        let wrong = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success() && wrong.is_empty(), "readelf finds fault with {form}: {wrong}");
        let said = String::from_utf8_lossy(&out.stdout);
        let lines = |start: &str| said.lines().filter(|line| line.trim_start().starts_with(start)).count();
        ensure!(lines("LOAD ") == wanted, "readelf sees {} segments of {wanted} in {form}", lines("LOAD "));
        let cpus = lines(if form == "vbox-2010" { "VBOXCPU " } else { "VBCPU " });
        ensure!(cpus == context.guest().spec.cpus as usize, "readelf sees {cpus} records in {form}");
        if let Some(theirs) = find("eu-readelf") {
            output(Command::new(theirs).args(["-l", "-n"]).arg(&vbox)).context(form)?;
        }
    }
    Ok(Verdict::Passed)
}

pub(crate) fn volatility(context: &mut Context) -> Result<Verdict> {
    let (dump, vbox) = (context.dump()?, context.path("guest.vbox"));
    for form in ["vbox", "vbox-5.0", "vbox-4.1"] {
        convert(context, &dump, &vbox, &["--format", form])?;
        if let skipped @ Verdict::Skipped(_) = consumers::volatility_of(context, &vbox).context(form)? {
            return Ok(skipped);
        }
    }
    Ok(Verdict::Passed)
}

/// What VirtualBox itself never is: a dump that drgn, libkdumpfile and crash know for one of Linux.
pub(crate) fn kernel_tools(context: &mut Context) -> Result<Verdict> {
    let (dump, vbox) = (context.dump()?, context.path("guest.vbox"));
    convert(context, &dump, &vbox, &["--format", "vbox"])?;
    consumers::crash_of(context, &vbox)?;
    consumers::libkdumpfile_of(context, &vbox)?;
    consumers::drgn_of(context, &vbox)
}

/// As VirtualBox leaves it: no note of the kernel. It is found, in the core itself and on the way into other formats.
pub(crate) fn found(context: &mut Context) -> Result<Verdict> {
    let (theirs, vbox, kdump) =
        (context.path("qemu.dump"), context.path("guest.vbox"), context.path("guest.kdump"));
    qemu::dump_to_file(context.guest(), &theirs, "elf")?;
    let release = context.guest().kernel()?.release;
    convert(context, &theirs, &vbox, &["--format", "vbox", "--no-vmcoreinfo-search"])?;
    ensure!(
        context.vmcore.info(&vbox)?["note"]["origin"] == json!("search"),
        "it has a note: nothing is to be found"
    );
    let Ok(environment) = python::environment() else { return Ok(Verdict::Skipped("drgn".to_owned())) };
    for (to, options) in
        [(&kdump, ["--format", "kdump"]), (&theirs, ["--format", "elf"]), (&kdump, ["--format", "vbox-6.1"])]
    {
        convert(context, &vbox, to, &options)?;
        let out = output(Command::new(environment.join("python")).args(["-c", DRGN]).arg(to))?;
        ensure!(out.trim() == release, "drgn says {out} of {options:?}, expected {release}");
    }
    Ok(Verdict::Passed)
}
