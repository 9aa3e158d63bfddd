//! The program that a target runs: that it begins anew, and its system calls.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::stop::{Stop, StopReason};
use crate::table::Parameters;
use crate::target::{Arguments, CaughtSyscalls};

/// Begins anew; the first thread becomes the current one.
fn begin_anew(context: &mut Context<'_, '_>, arguments: &Arguments<'_>) -> Result<Stop, Error> {
    context.target.restart().ok_or(Error::UNSUPPORTED)?.restart(arguments)?;
    let first = context.target.thread(0).ok_or(Error::INVALID)?;
    let thread = context.session.attach(context.target, first.process)?;
    let stop = Stop { thread, reason: StopReason::TRAP };
    context.session.stop = Some(stop);
    Ok(stop)
}

/// `vRun;PROGRAM;ARGUMENT...`, in digits.
pub(crate) fn run(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let arguments = Arguments::new(parameters.bytes(0));
    context.target.restart().ok_or(Error::UNSUPPORTED)?;
    if !arguments.are_digits() {
        return Err(Error::INVALID);
    }
    Ok(Answer::Stop(begin_anew(context, &arguments)?))
}

/// `RDIGITS`, which mean nothing: as `vRun` of the same program. There is never an answer: gdb, which sends it when there is no `vRun`, would
/// take one for that to its next packet.
pub(crate) fn restart(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    // Whether it has worked is seen by `?`, which gdb asks next.
    let _ = begin_anew(context, &Arguments::new(b""));
    Ok(Answer::Nothing)
}

/// `QCatchSyscalls:1;NUMBER...` and `QCatchSyscalls:0`
pub(crate) fn catch_syscalls(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let syscalls = context.target.syscalls().ok_or(Error::UNSUPPORTED)?;
    syscalls.catch(CaughtSyscalls::parse(parameters.bytes(0)).ok_or(Error::INVALID)?);
    Ok(Answer::Ok)
}
