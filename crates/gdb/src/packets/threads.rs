//! Which threads there are, and which is looked at.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::reply::HexText;
use crate::table::Parameters;
use crate::thread::{Pick, Selector};

/// `HgTHREAD` and `HcTHREAD`: the thread of the packets to come. If more than one is named, the current one stays
/// if it is among them.
pub(crate) fn select(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (use_of, name) = parameters.bytes(0).split_first().ok_or(Error::INVALID)?;
    let name = Selector::parse(name).ok_or(Error::INVALID)?;
    let chosen = context.session.chosen(context.target, name)?;
    match use_of {
        b'g' => context.session.general = Some(chosen),
        b'c' => context.session.control = (name.thread != Pick::All).then_some(chosen),
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
