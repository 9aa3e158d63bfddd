//! What `monitor` tells beside what every target does.

use crate::vmlinux::Vmlinux;
use crate::{bt, dmesg, failure};
use std::fmt;
use std::sync::Arc;
use vmcore::Machine;
use vmcore::backtrace::{Unwinder, image};
use vmcore::gdb::Command;

/// The commands; `description` is what `vmcore info` prints.
pub(super) fn commands(description: String, vmlinux: Option<Arc<Vmlinux>>) -> Vec<Command> {
    let info = move |_: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write| out.write_str(&description);
    let file = vmlinux.clone();
    let symbols = move |machine: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write| {
        symbols(machine, file.as_deref(), out)
    };
    let bt = move |machine: &Machine, _: usize, vcpu: &str, out: &mut dyn fmt::Write| {
        bt(machine, vmlinux.as_deref(), vcpu, out)
    };
    vec![
        Command {
            usage: "info",
            help: "what the dump holds, as `vmcore info` shows it",
            run: Arc::new(info),
        },
        Command {
            usage: "bt [VCPU]",
            help: "the backtrace of each vCPU, or of one, as `vmcore bt` shows it",
            run: Arc::new(bt),
        },
        Command { usage: "dmesg", help: "the log of the guest's kernel", run: Arc::new(dmesg) },
        Command {
            usage: "symbols",
            help: "the command that loads the kernel's symbols where KASLR has put it",
            run: Arc::new(symbols),
        },
    ]
}

fn dmesg(machine: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    match dmesg::text_of(machine) {
        Ok(text) => out.write_str(&text),
        Err(error) => failure::lines(&error.into()).iter().try_for_each(|line| writeln!(out, "{line}")),
    }
}

fn symbols(machine: &Machine, vmlinux: Option<&Vmlinux>, out: &mut dyn fmt::Write) -> fmt::Result {
    let Some(info) = machine.vmcoreinfo() else {
        return writeln!(
            out,
            "the guest's VMCOREINFO, which tells where KASLR has put the kernel, is not known"
        );
    };
    let (path, slide) = match vmlinux {
        Some(vmlinux) => (vmlinux.path.as_str(), Some(vmlinux.image.slide(&info))),
        None => ("vmlinux", info.hex("KERNELOFFSET")),
    };
    match slide {
        Some(slide) => writeln!(out, "{}", image::gdb_command(path, slide)),
        None => writeln!(
            out,
            "this kernel does not tell where KASLR has put it: `vmcore gdb --vmlinux FILE` finds out"
        ),
    }
}

/// The backtraces of all vCPUs, or of the one with the number `vcpu`: which of its threads gdb has asked for is not what its
/// user sees, after `info threads` it is the last one.
fn bt(machine: &Machine, vmlinux: Option<&Vmlinux>, vcpu: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    let count = machine.vcpus.len();
    let vcpus = match vcpu.parse() {
        _ if vcpu.is_empty() => 0..count,
        Ok(index) if index < count => index..index + 1,
        _ => return writeln!(out, "usage: bt [VCPU], a number below {count}"),
    };
    let unwinder = match Unwinder::new(machine, vmlinux.map(|vmlinux| &vmlinux.image)) {
        Ok(unwinder) => unwinder,
        Err(error) => return writeln!(out, "{}", error.with_causes()),
    };
    let traced = vcpus.map(|index| match unwinder.backtrace(index) {
        Ok(backtrace) => bt::text_of(index, &backtrace),
        Err(error) => format!("{}\n", error.with_causes()),
    });
    out.write_str(&traced.collect::<Vec<_>>().join("\n"))
}
