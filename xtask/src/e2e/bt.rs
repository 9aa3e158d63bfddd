//! Backtraces of real guests, without any vmlinux.

use super::{Context, Verdict};
use crate::run::output;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
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
/// How a backtrace ends that shows all there is.
const WHOLE: [&str; 3] = ["outermost", "in program", "from program"];

/// Each vCPU has a backtrace to its end, of a dump and of the running guest, and its functions are those that drgn finds there.
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
    Ok(Verdict::Passed)
}

fn check(vcpu: &Value, python: &Path, dump: &Path) -> Result<()> {
    let end = vcpu["end"].as_str().context("a backtrace has an end")?;
    ensure!(WHOLE.contains(&end), "a backtrace ends early: {vcpu:#}");
    if end == "in program" {
        return Ok(());
    }
    let frames = vcpu["frames"].as_array().context("a backtrace has frames")?;
    ensure!(frames.len() > 2, "{} frames", frames.len());
    let mut python = Command::new(python);
    python.args(["-c", DRGN_SYMBOLS]).arg(dump);
    let mut wanted = Vec::new();
    for frame in frames {
        let name = frame["function"].as_str().with_context(|| format!("a frame without a name: {frame}"))?;
        let (pc, offset) =
            (frame["pc"].as_u64().context("a pc")?, frame["offset"].as_u64().context("an offset")?);
        python.arg((pc - offset).to_string());
        wanted.push((pc - offset, name));
    }
    let found = output(&mut python)?;
    ensure!(found.lines().count() == wanted.len(), "drgn says of {} functions: {found}", wanted.len());
    for (line, (begin, name)) in found.lines().zip(wanted) {
        let mut words = line.split(' ');
        ensure!(words.next() == Some(&begin.to_string()), "{name} begins at {begin:#x}, drgn says {line}");
        ensure!(words.any(|word| word == name), "at {begin:#x} is {name}, drgn says {line}");
    }
    Ok(())
}
