//! Backtraces of real guests: without any vmlinux, and with one where it is at hand.

use super::gdb::Script;
use super::{Context, Verdict};
use crate::run::{find, output};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints of each address that it is given the begin of the function which it lies in, and all names of that, by drgn's reader of
/// the kernel's list of symbols.
const DRGN_SYMBOLS: &str = r#"
import sys, drgn
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms
program = drgn.Program()
program.set_core_dump(sys.argv[1])
program.register_symbol_finder("kallsyms", load_vmlinux_kallsyms(program), enable_index=0)
for argument in sys.argv[2:]:
    begin = program.symbol(int(argument)).address
    print(begin, *(symbol.name for symbol in program.symbols(begin)))
"#;

/// Each vCPU has a backtrace to its end, of a dump and of the running guest, and its functions are those that drgn finds there. With
/// the kernel's vmlinux, lines and inlined functions are gdb's.
pub(crate) fn named(context: &mut Context) -> Result<Verdict> {
    let Ok(environment) = super::python::environment() else {
        return Ok(Verdict::Skipped("drgn".to_owned()));
    };
    let dump = context.dump()?;
    let uri = context.guest().uri();
    for subject in [dump.as_os_str(), OsStr::new(&uri)] {
        let report = context.vmcore.run([OsStr::new("bt"), OsStr::new("--json"), subject])?;
        let report: Value = serde_json::from_slice(&report).context("the report of bt")?;
        let vcpus = report["vcpus"].as_array().context("a report has vCPUs")?;
        ensure!(!vcpus.is_empty(), "there is no vCPU");
        for vcpu in vcpus {
            check(vcpu, &environment.join("python"), &dump)?;
        }
    }
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    let vmlinux = PathBuf::from(format!("/usr/lib/debug/boot/vmlinux-{release}"));
    match find("gdb-multiarch").filter(|_| vmlinux.is_file()) {
        Some(gdb) => lines(context, &gdb, &dump, &vmlinux),
        None => Ok(Verdict::Passed),
    }
}

/// As [`named`], for guests that drgn cannot look into: the functions are those that the guest itself names.
pub(crate) fn named_by_guest(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let report = context.vmcore.run([OsStr::new("bt"), OsStr::new("--json"), dump.as_os_str()])?;
    let report: Value = serde_json::from_slice(&report).context("the report of bt")?;
    let mut functions = BTreeSet::new();
    for vcpu in report["vcpus"].as_array().context("a report has vCPUs")? {
        functions.extend(self::functions(vcpu)?);
    }
    ensure!(!functions.is_empty(), "no vCPU is in the kernel: {report:#}");
    let theirs = context.guest().functions(&functions.iter().map(|(name, _)| *name).collect())?;
    for (name, begin) in functions {
        let is_there = theirs.contains(&(name.to_owned(), begin));
        ensure!(is_there, "{name} begins at {begin:#x}, the guest says {theirs:#x?}");
    }
    Ok(Verdict::Passed)
}

/// Each frame that gdb shows with a line has the same function and the same line here, and is inlined if it is there.
fn lines(context: &Context, gdb: &Path, dump: &Path, vmlinux: &Path) -> Result<Verdict> {
    let vmlinux = vmlinux.display().to_string();
    let options = ["bt", "--json", "--vmlinux", &vmlinux].map(OsStr::new);
    let report = context.vmcore.run(options.into_iter().chain([dump.as_os_str()]))?;
    let report: Value = serde_json::from_slice(&report).context("the report of bt")?;
    let symbols = report["gdb_command"].as_str().context("how gdb takes the symbols")?;
    for vcpu in report["vcpus"].as_array().context("a report has vCPUs")? {
        let index = vcpu["index"].as_u64().context("a vCPU has an index")?;
        let mut script = Script::new(gdb, &context.vmcore.info(dump)?);
        script.run([format!("file {vmlinux}"), symbols.to_owned()]);
        script.serve(&context.vmcore, dump, &[]);
        script.run([format!("thread {}", index + 1), "echo ==\\n".to_owned(), "bt".to_owned()]);
        let out = script.output()?;
        let theirs = out.split("==\n").nth(1).context("gdb shows no backtrace")?;
        let mut count = 0;
        for (line, frame) in theirs.lines().zip(vcpu["frames"].as_array().context("frames")?) {
            // #1  0xffffffffb120de8a in arch_safe_halt () at arch/x86/include/asm/paravirt.h:173
            let Some((call, source)) = line.rsplit_once(" at ") else { continue };
            let name = call.split(" (").next().unwrap_or_default().rsplit(' ').next().unwrap_or_default();
            let ours = format!("{}:{}", frame["file"].as_str().unwrap_or_default(), frame["line"]);
            ensure!(ours == source, "gdb says {line}, we say {frame:#}");
            // An address may have several names.
            let is_inlined = frame["by"] == "inlined";
            ensure!(!is_inlined || frame["function"] == name, "gdb says {line}, we say {frame:#}");
            count += 1;
        }
        ensure!(count > 3, "gdb shows {count} lines only:\n{out}");
    }
    Ok(Verdict::Passed)
}

/// The vCPU whose kernel has panicked stands in the module that tells QEMU so, far below `panic`.
pub(crate) fn shows_module(context: &Context, dump: &Path) -> Result<()> {
    let report = context.vmcore.run([OsStr::new("bt"), OsStr::new("--json"), dump.as_os_str()])?;
    let report: Value = serde_json::from_slice(&report).context("the report of bt")?;
    let vcpus = report["vcpus"].as_array().context("a report has vCPUs")?;
    let is_there = |vcpu: &&Value, name: &str, module: Value| {
        let mut frames = vcpu["frames"].as_array().into_iter().flatten();
        frames.any(|frame| frame["function"] == name && frame["module"] == module)
    };
    let vcpu = vcpus.iter().find(|vcpu| is_there(vcpu, "pvpanic_panic_notify", "pvpanic".into()));
    let vcpu = vcpu.with_context(|| format!("no vCPU is in pvpanic: {report:#}"))?;
    ensure!(vcpu["is_complete"] == true, "a backtrace ends early: {vcpu:#}");
    ensure!(is_there(&vcpu, "panic", Value::Null), "there is no panic: {vcpu:#}");
    Ok(())
}

fn check(vcpu: &Value, python: &Path, dump: &Path) -> Result<()> {
    let functions = functions(vcpu)?;
    let mut python = Command::new(python);
    python.args(["-c", DRGN_SYMBOLS]).arg(dump);
    python.args(functions.iter().map(|(_, begin)| begin.to_string()));
    let found = output(&mut python)?;
    ensure!(found.lines().count() == functions.len(), "drgn says of {} functions: {found}", functions.len());
    for (line, (name, begin)) in found.lines().zip(functions) {
        let mut words = line.split(' ');
        ensure!(words.next() == Some(&begin.to_string()), "{name} begins at {begin:#x}, drgn says {line}");
        ensure!(words.any(|word| word == name), "at {begin:#x} is {name}, drgn says {line}");
    }
    Ok(())
}

/// The functions of a backtrace, and where each begins; none if the vCPU was in a program. The backtrace must not end early, and
/// an idle vCPU has the caller that all of them have.
fn functions(vcpu: &Value) -> Result<Vec<(&str, u64)>> {
    ensure!(vcpu["is_complete"] == true, "a backtrace ends early: {vcpu:#}");
    if vcpu["end"].as_str().context("a backtrace has an end")? == "in program" {
        return Ok(Vec::new());
    }
    let frames = vcpu["frames"].as_array().context("a backtrace has frames")?;
    ensure!(frames.len() > 2, "{} frames", frames.len());
    let mut functions = Vec::new();
    for frame in frames {
        let name = frame["function"].as_str().with_context(|| format!("a frame without a name: {frame}"))?;
        let pc = frame["pc"].as_u64().context("a pc")?;
        functions.push((name, pc - frame["offset"].as_u64().context("an offset")?));
    }
    // That a name is right says nothing of who called it. In any kernel one function does nothing but call this one.
    for called in functions.windows(2).filter(|pair| pair[0].0 == "do_idle") {
        ensure!(called[1].0 == "cpu_startup_entry", "do_idle is called by {}: {vcpu:#}", called[1].0);
    }
    Ok(functions)
}
