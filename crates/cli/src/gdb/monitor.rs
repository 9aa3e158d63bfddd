//! What `monitor` tells beside what every target does.

use crate::dmesg;
use std::fmt;
use std::sync::Arc;
use vmcore::Machine;
use vmcore::gdb::Command;

/// The commands; `description` is what `vmcore info` prints.
pub(super) fn commands(description: String) -> Vec<Command> {
    let info = move |_: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write| out.write_str(&description);
    vec![
        Command {
            usage: "info",
            help: "what the dump holds, as `vmcore info` shows it",
            run: Arc::new(info),
        },
        Command { usage: "dmesg", help: "the log of the guest's kernel", run: Arc::new(dmesg) },
        Command {
            usage: "symbols",
            help: "the commands that load the kernel's symbols where KASLR has put it",
            run: Arc::new(symbols),
        },
    ]
}

fn dmesg(machine: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    match dmesg::text_of(machine) {
        Ok(text) => out.write_str(&text),
        Err(error) => writeln!(out, "{error:#}"),
    }
}

fn symbols(machine: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    match machine.vmcoreinfo().and_then(|info| info.hex("KERNELOFFSET")) {
        Some(offset) => writeln!(out, "symbol-file -o {offset:#x} vmlinux"),
        None => {
            writeln!(out, "the kernel's VMCOREINFO does not tell where KASLR has put it: symbol-file vmlinux")
        }
    }
}
