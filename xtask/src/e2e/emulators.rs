//! Emulators of others, with the library embedded (`examples/`): what they say of their guests is what gdb reads in their dumps.

use super::{Context, Verdict};
use crate::run::{built_with, find, output};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The examples, and what they are told beside a folder.
const EMULATORS: [(&str, &[&str]); 4] =
    [("armv4t", &[]), ("ckb_vm", &[]), ("rust_vmm", &[]), ("rust_vmm", &["no-kvm"])];

/// Dumps that each makes: attached and detached.
const ELF: [&str; 2] = ["attached.elf", "detached.elf"];
const KDUMP: [&str; 2] = ["attached.kdump", "detached.kdump"];

pub(crate) fn dump_themselves(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else {
        return Ok(Verdict::Skipped("gdb-multiarch".to_owned()));
    };
    // As the tests build them: optimised ones would take CI a minute.
    let examples = built_with("dev", &["--package", "vmcore-examples", "--examples"], "examples")?;
    for (name, args) in EMULATORS {
        let folder = context.path(&[&[name], args].concat().join("-"));
        std::fs::create_dir(&folder)?;
        let said = output(Command::new(examples.join(name)).arg(&folder).args(args))?;
        for dump in ELF {
            check(&gdb, &folder.join(dump), facts(&said, dump)?)
                .with_context(|| format!("{name} {args:?}, {dump}"))?;
        }
        for dump in KDUMP {
            // gdb reads ELF alone.
            let core = folder.join(format!("{dump}.elf"));
            let kdump = folder.join(dump);
            context.vmcore.run([
                OsStr::new("convert"),
                kdump.as_os_str(),
                OsStr::new("-o"),
                core.as_os_str(),
            ])?;
            check(&gdb, &core, facts(&said, dump)?).with_context(|| format!("{name} {args:?}, {dump}"))?;
        }
    }
    Ok(Verdict::Passed)
}

/// What the emulator has said of its guest when it wrote this dump: gdb's names of registers, or `*ADDRESS`, and values.
fn facts<'a>(said: &'a str, dump: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let mut lines = said.lines().skip_while(|line| line.strip_prefix("dump ") != Some(dump)).skip(1);
    let event = lines.next().context("no event")?;
    ensure!(event.contains("DUMP_COMPLETED") && event.contains(r#""completed""#), "the event is {event}");
    let facts: Vec<_> = lines.map_while(|line| line.strip_prefix("fact ")?.split_once(' ')).collect();
    let has =
        |prefix: &[&str]| facts.iter().any(|(name, _)| prefix.iter().any(|prefix| name.starts_with(prefix)));
    ensure!(has(&["pc", "rip"]) && has(&["sp", "rsp"]) && has(&["*"]), "too few facts: {facts:?}");
    Ok(facts)
}

/// gdb reads this in the dump.
fn check(gdb: &Path, dump: &Path, facts: Vec<(&str, &str)>) -> Result<()> {
    let mut command = Command::new(gdb);
    command.args(["-nx", "-batch", "-ex"]).arg(format!("core-file {}", dump.display()));
    for (name, value) in &facts {
        let expression = match name.strip_prefix('*') {
            // The word is as long as its value says, or 4 bytes.
            Some(address) if value.len() > 8 => format!("*(unsigned long long *){address}"),
            Some(address) => format!("(unsigned long)*(unsigned *){address}"),
            None => format!("(unsigned long)${name}"),
        };
        command.arg("-ex").arg(format!("printf \"{name}=%llx\\n\", (unsigned long long){expression}"));
    }
    let out = output(&mut command)?;
    for (name, value) in facts {
        let line = format!("{name}={value}");
        ensure!(out.lines().any(|found| found == line), "gdb does not say {line}:\n{out}");
    }
    Ok(())
}
