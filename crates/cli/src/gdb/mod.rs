//! `vmcore gdb`: a dump, or a guest that stands still, for gdb and LLDB.

mod address;
mod monitor;
mod server;

pub(crate) use address::Address;

use crate::args::GdbArgs;
use crate::failure::{Exit, Outcome};
use crate::info::Subject;
use crate::look::Look;
use crate::vmlinux::Vmlinux;
use crate::{input, job, text};
use address::{Listener, Place};
use anyhow::Context;
use server::Served;
use std::sync::{Arc, mpsc};
use vmcore::gdb::{CRASHED, MachineOptions, MachineTarget};
use vmcore::vmcoreinfo::log::Log;
use vmcore::{AttachOptions, Endianness, Machine};

pub(crate) fn run(args: &GdbArgs) -> Outcome {
    // What is wrong with these is known before a guest is stopped.
    let vmlinux = Vmlinux::of(&args.vmlinux)?;
    let door = if args.stdio { None } else { Some(args.listen.bind()?) };
    let (state, on_signal) = job::cancel_on_signals()?;
    let (end, ended) = mpsc::channel();
    let Some((source, address)) = input::live(&args.subject.inputs) else {
        let subject = Subject::of_dump(&args.subject.inputs, &args.subject.open, &args.subject.note)?;
        subject.note.say(args.quiet);
        on_signal.let_go(Arc::new({
            let end = end.clone();
            move || {
                end.send(()).ok();
            }
        }));
        serve(args, subject, vmlinux, door, end, &ended)?;
        return Ok(Exit::Complete);
    };
    let name = input::names(&args.subject.inputs);
    let context = || format!("cannot attach to {name}");
    let mut guest = source.attach(address, &AttachOptions::default()).with_context(context)?;
    let let_go = guest.let_go();
    on_signal.let_go(Arc::new({
        let end = end.clone();
        move || {
            let_go();
            end.send(()).ok();
        }
    }));
    let look = Look::at(&*guest, &args.subject.note, args.quiet, &state)?;
    let mut machine = guest.hold().with_context(context)?;
    let note = look.complete(&mut machine);
    note.say(args.quiet);
    let subject = Subject::of_guest(name, guest.description(), machine, note);
    let served = serve(args, subject, vmlinux, door, end, &ended);
    let released = guest.release().context("the guest does not run again")?;
    for warning in &released.warnings {
        text::say(&format!("vmcore: warning: {warning}"));
    }
    if !args.quiet {
        let pause = released.pause.map(|pause| format!("; it stood still for {:.1} s", pause.as_secs_f64()));
        text::say(&format!("the guest is {}{}", released.state, pause.unwrap_or_default()));
    }
    served.map(|()| Exit::Complete)
}

/// Serves clients that come through `door`, or else the one on standard input and output, until the first has left, if there
/// is to be one only, or until a signal comes.
fn serve(
    args: &GdbArgs,
    subject: Subject,
    vmlinux: Option<Vmlinux>,
    door: Option<(Listener, Place)>,
    end: mpsc::Sender<()>,
    ended: &mpsc::Receiver<()>,
) -> anyhow::Result<()> {
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
