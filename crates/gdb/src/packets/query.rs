//! Questions that fit nowhere else.

use crate::dispatch::{Answer, ConsoleText, Context, Outcome};
use crate::error::Error;
use crate::table::Parameters;
use crate::target::Offsets;
use crate::wire;
use core::fmt::Write;

/// `qOffsets`: how far the program lies from where it was linked.
pub(crate) fn offsets(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let offsets = context.target.program().and_then(|program| program.offsets()).ok_or(Error::UNSUPPORTED)?;
    match offsets {
        Offsets::Segment(text) => context.reply.format(format_args!("TextSeg={text:x}")),
        Offsets::Sections { text, data, bss } => {
            context.reply.format(format_args!("Text={text:x};Data={data:x};Bss={bss:x}"));
        }
    }
    Ok(Answer::Reply)
}

/// `qSymbol`: the client offers symbols; none are wanted.
pub(crate) fn symbols(_: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    Ok(Answer::Ok)
}

/// `qRcmd,COMMAND`: a command of the target, in digits. What it says comes first, then the answer.
pub(crate) fn monitor(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.thread()?;
    let monitor = context.target.monitor().ok_or(Error::UNSUPPORTED)?;
    let mut buf = [0; LONGEST_COMMAND];
    let command = wire::unhex(parameters.bytes(0), &mut buf).ok_or(Error::INVALID)?;
    let command = core::str::from_utf8(command).ok().filter(|command| !command.is_empty());
    let command = command.ok_or(Error::INVALID)?;
    let mut text = ConsoleText { console: &mut context.console, reply: context.reply };
    let outcome = monitor.command(thread, command, &mut text);
    // The user is to know why, also by a client that shows numbers only.
    if let Err(error) = outcome
        && !context.session.shows_texts()
        && !error.text.is_empty()
    {
        let _ = writeln!(text, "{error}");
    }
    text.finish();
    outcome.map(|()| Answer::Ok)
}

/// Bytes of a command of the target.
const LONGEST_COMMAND: usize = 1024;
