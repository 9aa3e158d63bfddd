//! Which threads there are, and which is looked at.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::reply::HexText;
use crate::table::Parameters;
use crate::thread::{Pick, Selector};

/// `HgTHREAD` and `HcTHREAD`: the thread of the packets to come. All of them changes nothing for `g`.
pub(crate) fn select(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (use_of, name) = parameters.bytes(0).split_first().ok_or(Error::INVALID)?;
    let Selector { process, thread } = Selector::parse(name).ok_or(Error::INVALID)?;
    let first = context.session.find(context.target, process, thread).ok_or(Error::INVALID)?;
    match (use_of, thread) {
        (b'g', Pick::All) => {
            let is_there = context.session.general.is_some_and(|now| process.allows(now.process));
            context.session.general = if is_there { context.session.general } else { Some(first) };
        }
        (b'g', _) => context.session.general = Some(first),
        (b'c', Pick::All) => context.session.control = None,
        (b'c', _) => context.session.control = Some(first),
        _ => return Err(Error::INVALID),
    }
    Ok(Answer::Ok)
}

/// `TTHREAD`: whether it is alive.
pub(crate) fn is_alive(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    context.session.one(context.target, parameters.bytes(0))?;
    Ok(Answer::Ok)
}

/// `qC`: the current thread.
pub(crate) fn current(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let thread = context.session.thread()?;
    context.reply.text("QC");
    context.reply.thread(thread);
    Ok(Answer::Reply)
}

/// `qfThreadInfo`: the first threads, as many as fit.
pub(crate) fn first(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    context.session.told_threads = 0;
    next(context, parameters)
}

/// `qsThreadInfo`: the threads behind those that were told; `l` if there are none.
pub(crate) fn next(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let reply = &mut *context.reply;
    let told = context.session.told_threads;
    let mut count = 0;
    for thread in context.session.threads(context.target).skip(told) {
        let before = reply.len();
        reply.text(if count == 0 { "m" } else { "," });
        reply.thread(thread);
        if reply.is_cut() {
            reply.truncate(before);
            break;
        }
        count += 1;
    }
    if count == 0 {
        reply.text("l");
    }
    context.session.told_threads = told + count;
    Ok(Answer::Reply)
}

/// `qThreadExtraInfo,THREAD`: what there is to say of it, for the user.
pub(crate) fn info(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.one(context.target, parameters.bytes(0))?;
    // What does not fit is left away, which `Answer::Reply` tells.
    let _ = context.target.thread_info(thread, &mut HexText(context.reply));
    Ok(Answer::Reply)
}
