//! The session: how it begins, what each side can do, how it ends.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::session::{Client, Run};
use crate::stop::{Stop, StopReason};
use crate::table::Parameters;
use crate::target::Document;

/// `!`: the server stays when a session ends; the session stays when the target ends, if that can begin anew.
pub(crate) fn extended(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.is_extended = context.target.restart().is_some();
    Ok(Answer::Ok)
}

/// `?`: why the target stands still.
pub(crate) fn why(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let thread = context.session.thread()?;
    let mut stop = context.session.last_stop(context.target);
    if !context.session.is_attached(stop.thread.process) {
        stop = Stop { thread, reason: StopReason::TRAP };
    }
    Ok(Answer::Stop(stop))
}

/// `qSupported`: notes what the client can do and tells what this target can.
pub(crate) fn supported(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let has = |feature: &[u8]| parameters.bytes(0).split(|byte| *byte == b';').any(|other| other == feature);
    context.session.client = Client {
        knows_processes: has(b"multiprocess+"),
        knows_swbreak: has(b"swbreak+"),
        knows_hwbreak: has(b"hwbreak+"),
        knows_texts: has(b"error-message+"),
    };
    let (process, thread) =
        (context.session.general.map_or(0, |thread| thread.process), context.session.general);
    let target = &mut *context.target;
    let stops = target.breakpoints().is_some();
    let goes_back = target.reverse().is_some();
    let has_map = target.memory_map().is_some();
    let program = target.program();
    let has_auxv =
        program.as_ref().zip(thread).is_some_and(|(program, thread)| program.auxv(thread).is_some());
    let has_path = program.as_ref().is_some_and(|program| program.exec_file(process).is_some());
    let documents = program.map_or(&[][..], |program| program.documents());
    let [libraries, svr4, siginfo, osdata] =
        [Document::Libraries, Document::LibrariesSvr4, Document::Siginfo, Document::Osdata]
            .map(|document| documents.contains(&document));
    let catches = target.syscalls().is_some();
    let has_tags = target.memory_tags().is_some();
    let has_description = target.description(process, "target.xml").is_some();

    let packet_size = context.reply.room();
    context.reply.format(format_args!("PacketSize={packet_size:x}"));
    #[rustfmt::skip] // a table is read by column
    let features = [
        (true,            "QStartNoAckMode+"),
        (has_description, "qXfer:features:read+"),
        (true,            "qXfer:threads:read+"),
        (has_map,         "qXfer:memory-map:read+"),
        (has_auxv,        "qXfer:auxv:read+"),
        (has_path,        "qXfer:exec-file:read+"),
        (libraries,       "qXfer:libraries:read+"),
        (svr4,            "qXfer:libraries-svr4:read+"),
        (siginfo,         "qXfer:siginfo:read+"),
        (osdata,          "qXfer:osdata:read+"),
        (catches,         "QCatchSyscalls+"),
        (has_tags,        "memory-tagging+"),
        (true,            "vContSupported+"),
        (true,            "multiprocess+"),
        (true,            "binary-upload+"),
        (true,            "error-message+"),
        (stops,           "swbreak+"),
        (stops,           "hwbreak+"),
        (goes_back,       "ReverseStep+"),
        (goes_back,       "ReverseContinue+"),
    ];
    for (_, feature) in features.iter().filter(|(has, _)| *has) {
        context.reply.format(format_args!(";{feature}"));
    }
    Ok(Answer::Reply)
}

/// `QStartNoAckMode`: this packet and its answer are the last ones that are acknowledged.
pub(crate) fn without_acks(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.is_without_acks = true;
    Ok(Answer::Ok)
}

/// `qAttached`: whether the target was there before the client. If so, a client that leaves lets it be.
pub(crate) fn attached(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let was_running = context.target.program().is_none_or(|program| program.was_running());
    context.reply.text(if was_running { "1" } else { "0" });
    Ok(Answer::Reply)
}

/// `vAttach;PROCESS`: its first thread becomes the current one.
pub(crate) fn attach(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.attach(context.target, parameters.small(0)?)?;
    Ok(Answer::Stop(Stop { thread, reason: StopReason::TRAP }))
}

/// `D` and `D;PROCESS`, 0 for all.
pub(crate) fn detach(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let process = match parameters.get(0) {
        None if context.session.client.knows_processes => return Err(Error::INVALID),
        None => None,
        Some(_) => Some(parameters.small(0)?).filter(|process| *process != 0),
    };
    context.session.detach(context.target, process)?;
    Ok(Answer::Ok)
}

/// `k`: ends the target if a client may do that, and the session in any case.
pub(crate) fn kill(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    if let Some(kill) = context.target.kill() {
        // There is no answer that could carry an error.
        let _ = kill.kill(None);
    }
    is_gone(context, None)?;
    Ok(Answer::Nothing)
}

/// A process was killed, or all: that is the end of the session, unless the target can begin anew.
fn is_gone(context: &mut Context<'_, '_>, process: Option<u32>) -> Result<(), Error> {
    if !context.session.is_extended {
        context.session.run = Run::Closed;
        return Ok(());
    }
    context.session.run = Run::Stopped;
    context.session.detach(context.target, process)
}

/// `vKill;PROCESS`
pub(crate) fn kill_process(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let process = parameters.small(0)?;
    if !context.session.is_attached(process) {
        return Err(Error::INVALID);
    }
    let kill = context.target.kill().ok_or(Error::refused("this target cannot be killed from here"))?;
    kill.kill(Some(process))?;
    is_gone(context, Some(process))?;
    Ok(Answer::Ok)
}
