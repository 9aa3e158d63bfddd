//! `vmcore gdb`: a dump, or a guest that stands still, for gdb and LLDB.

mod monitor;
mod server;

use crate::address::{Listener, Place};
use crate::args::GdbArgs;
use crate::failure::{Exit, Outcome};
use crate::info::Subject;
use crate::job::{self, OnSignal};
use crate::text;
use crate::visit::Visit;
use crate::vmlinux::Vmlinux;
use server::Served;
use std::sync::{Arc, mpsc};
use vmcore::gdb::{CRASHED, MachineOptions, MachineTarget};
use vmcore::vmcoreinfo::log::Log;
use vmcore::{Endianness, Machine};

pub(crate) fn run(args: &GdbArgs) -> Outcome {
    // What is wrong with these is known before a guest is stopped.
    let vmlinux = Vmlinux::of(&args.vmlinux)?;
    let door = if args.stdio { None } else { Some(args.listen.bind()?) };
    let visit = Visit { subject: &args.subject, max_pause: None, quiet: args.quiet };
    visit.make(|visited, on_signal| {
        visited.note.say(args.quiet);
        serve(args, Subject::of(&visit, visited), vmlinux, door, on_signal)
    })?;
    Ok(Exit::Complete)
}

/// Serves clients that come through `door`, or else the one on standard input and output, until the first has left, if there
/// is to be one only, or until a signal comes.
fn serve(
    args: &GdbArgs,
    subject: Subject,
    vmlinux: Option<Vmlinux>,
    door: Option<(Listener, Place)>,
    on_signal: &OnSignal,
) -> anyhow::Result<()> {
    let (end, ended) = mpsc::channel();
    on_signal.then(Arc::new({
        let end = end.clone();
        move || {
            end.send(()).ok();
        }
    }));
    let description = subject.as_text(false);
    job::warn_of_damage(&subject.machine, &subject.name);
    let machine = subject.machine;
    let panicked = panicked_vcpu(&machine);
    let stop = panicked.map_or(MachineOptions::default().stop, |vcpu| (vcpu, CRASHED));
    let mut kernel_start = None;
    if let Some(vmlinux) = &vmlinux {
        if let Some(warning) = vmlinux.check(&machine)? {
            text::say(&format!("vmcore: warning: {warning}"));
        }
        let slide = machine.vmcoreinfo().map_or(0, |info| vmlinux.image.slide(&info));
        kernel_start = vmlinux.image.start().map(|start| start.0.wrapping_add(slide));
    }
    let options = MachineOptions { stop, is_writable: args.writable, kernel_start };
    let commands = monitor::commands(description, vmlinux.map(Arc::new));
    // What cannot be served is known before anybody waits for it.
    MachineTarget::new(machine.clone(), &options)?;
    let is_big_endian = machine.identity.endianness == Endianness::Big;
    let served = Arc::new(Served { machine, options, commands, quiet: args.quiet });
    if is_big_endian && !args.quiet {
        text::say(
            "the guest is big-endian: without the kernel's file gdb has to be told, by `set endian big`",
        );
    }
    let _place = match door {
        None => {
            served.on_stdio(end);
            None
        }
        Some((listener, place)) => {
            if args.listen.is_public() {
                text::say(
                    "vmcore: warning: nobody is asked for a password: whoever reaches this address reads the whole guest",
                );
            }
            text::say(&format!("waiting for gdb: target remote {place}"));
            served.listen(listener, args.once, end);
            Some(place)
        }
    };
    // An error is that nobody is left who could end it.
    let _ = ended.recv();
    Ok(())
}

/// Index of the vCPU whose kernel has panicked, if the kernel's log tells it.
fn panicked_vcpu(machine: &Machine) -> Option<usize> {
    let log = machine.kernel().and_then(|kernel| Log::open(&kernel)).ok()?;
    usize::try_from(log.panic_cpu()?).ok().filter(|vcpu| *vcpu < machine.vcpus.len())
}
