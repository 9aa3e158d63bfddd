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
    let bt = move |machine: &Machine, vcpu: usize, _: &str, out: &mut dyn fmt::Write| {
        bt(machine, vmlinux.as_deref(), vcpu, out)
    };
    vec![
        Command {
            usage: "info",
            help: "what the dump holds, as `vmcore info` shows it",
            run: Arc::new(info),
        },
        Command {
            usage: "bt",
            help: "the backtrace of the vCPU, as `vmcore bt` shows it",
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

fn bt(machine: &Machine, vmlinux: Option<&Vmlinux>, vcpu: usize, out: &mut dyn fmt::Write) -> fmt::Result {
    let traced = Unwinder::new(machine, vmlinux.map(|vmlinux| &vmlinux.image))
        .and_then(|unwinder| unwinder.backtrace(vcpu));
    match traced {
        Ok(backtrace) => out.write_str(&bt::text_of(vcpu, &backtrace)),
        Err(error) => writeln!(out, "{error}"),
    }
}
