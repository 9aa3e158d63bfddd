//! Running, forwards and backwards.

use crate::dispatch::{Answer, ConsoleText, Context, Outcome};
use crate::error::Error;
use crate::session::Run;
use crate::stop::{Stop, StopReason};
use crate::table::Parameters;
use crate::target::{Actions, Resume, Reverse, Target};
use crate::thread::{Selector, ThreadId};
use crate::wire;
use core::fmt::Write;

/// The error of a target that only stands still. The empty reply would make gdb wait for ever.
const STANDS_STILL: Error = Error::refused("this target does not run");

fn runner(target: &mut dyn Target) -> Result<&mut dyn Resume, Error> {
    target.resume().ok_or(STANDS_STILL)
}

/// Answers who wants a target to run that only stands still: with an error, but LLDB, which gives up a session with an error
/// here, is told in words that nothing has moved.
fn stand_still(context: &mut Context<'_, '_>) -> Outcome {
    let thread = context.session.thread()?;
    if !context.session.is_lldb() {
        return Err(STANDS_STILL);
    }
    let mut text = ConsoleText { console: &mut context.console, reply: context.reply };
    // What does not fit into a packet goes into the next one.
    let _ = writeln!(text, "{STANDS_STILL}");
    text.finish();
    // After any other stop at the same place it would try to step again, for ever.
    Ok(Answer::Stop(Stop { thread, reason: StopReason::Interrupted }))
}

/// Sets the target going by `start`, unless an interrupt waits.
fn set_going(
    context: &mut Context<'_, '_>,
    start: impl FnOnce(&mut dyn Target) -> Result<(), Error>,
) -> Outcome {
    if context.session.run != Run::Stopped {
        return Err(Error::INVALID);
    }
    if context.target.resume().is_none() {
        return stand_still(context);
    }
    let thread = context.session.thread()?;
    if core::mem::take(&mut context.session.is_interrupted) {
        let stop = Stop { thread, reason: StopReason::Interrupted };
        context.session.stop = Some(stop);
        return Ok(Answer::Stop(stop));
    }
    start(context.target)?;
    context.session.run = Run::Running;
    Ok(Answer::Later)
}

/// The thread that steps: the one of `Hc`, else the current one.
fn stepping(context: &Context<'_, '_>) -> Result<ThreadId, Error> {
    context.session.control.map_or_else(|| context.session.thread(), Ok)
}

/// Sets the program counter if the packet has an address, and goes on.
fn go_on(context: &mut Context<'_, '_>, address: Option<&[u8]>, actions: &Actions<'_>) -> Outcome {
    let thread = stepping(context)?;
    let address = address.map(|digits| wire::number(digits).ok_or(Error::INVALID)).transpose()?;
    set_going(context, |target| {
        let runner = runner(target)?;
        if let Some(address) = address {
            runner.set_program_counter(thread, address)?;
        }
        runner.resume(actions)
    })
}

/// An optional address at the end of a name: nothing is none.
fn address<'p>(parameters: &Parameters<'p>) -> Option<&'p [u8]> {
    parameters.get(0).filter(|digits| !digits.is_empty())
}

/// Two digits of a signal.
fn signal(parameters: &Parameters<'_>) -> Result<Option<u8>, Error> {
    match parameters.bytes(0) {
        [high, low] => wire::byte(*high, *low).map(Some).ok_or(Error::INVALID),
        _ => Err(Error::INVALID),
    }
}

/// `c`: all threads run.
pub(crate) fn go(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    go_on(context, address(parameters), &Actions::run(None))
}

/// `C SIGNAL`: as `c`.
pub(crate) fn go_signal(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    go_on(context, parameters.get(1), &Actions::run(signal(parameters)?))
}

/// `s`: one thread steps, the others run.
pub(crate) fn step(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = stepping(context)?;
    go_on(context, address(parameters), &Actions::step(thread, None))
}

/// `S SIGNAL`: as `s`.
pub(crate) fn step_signal(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = stepping(context)?;
    go_on(context, parameters.get(1), &Actions::step(thread, signal(parameters)?))
}

/// `vCont?`: what `vCont` can do. gdb uses it only if `c` and `C` are among it.
pub(crate) fn actions(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let is_running = context.target.resume().is_some();
    context.reply.text(if is_running { "vCont;c;C;s;S;r" } else { "vCont;c;C;s;S" });
    Ok(Answer::Reply)
}

/// `vCont;ACTION:THREAD...`: each thread by itself.
pub(crate) fn resume(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (session, target) = (&*context.session, &*context.target);
    let find = |who: Selector| session.find(target, who.process, who.thread);
    let actions = Actions::parse(parameters.bytes(0), find).ok_or(Error::INVALID)?;
    set_going(context, |target| runner(target)?.resume(&actions))
}

/// `vCtrlC`: as the byte 3, with an answer of its own.
pub(crate) fn interrupt(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    if context.target.resume().is_none() {
        return Err(Error::UNSUPPORTED);
    }
    context.session.interrupt(context.target);
    Ok(Answer::Ok)
}

fn reverser(target: &mut dyn Target) -> Result<&mut dyn Reverse, Error> {
    target.reverse().ok_or(Error::INVALID)
}

/// `bc`
pub(crate) fn go_back(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    set_going(context, |target| reverser(target)?.run_back())
}

/// `bs`
pub(crate) fn step_back(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let thread = stepping(context)?;
    set_going(context, |target| reverser(target)?.step_back(thread))
}
