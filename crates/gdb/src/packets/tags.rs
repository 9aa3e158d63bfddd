//! Tags of memory.
//!
//! Source: gdb manual, "General Query Packets" (`qMemTags`).

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::table::Parameters;
use crate::wire;

/// `qIsAddressTagged:ADDRESS`
pub(crate) fn is_tagged(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let address = parameters.number(0)?;
    let thread = context.session.thread()?;
    let is_tagged = context.target.memory_tags().ok_or(Error::UNSUPPORTED)?.is_tagged(thread, address)?;
    context.reply.hex(&[u8::from(is_tagged)]);
    Ok(Answer::Reply)
}

/// `qMemTags:ADDRESS,LENGTH:KIND`
pub(crate) fn read(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len, kind) = (parameters.number(0)?, parameters.number(1)?, parameters.small(2)?);
    let thread = context.session.thread()?;
    let tags = context.target.memory_tags().ok_or(Error::UNSUPPORTED)?;
    context.reply.text("m");
    context.reply.hex_from(usize::MAX, |buf| tags.read_tags(thread, address, len, kind, buf))?;
    Ok(Answer::Reply)
}

/// `QMemTags:ADDRESS,LENGTH:KIND:TAGS`
pub(crate) fn write(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len, kind) = (parameters.number(0)?, parameters.number(1)?, parameters.small(2)?);
    let thread = context.session.thread()?;
    let target = context.target.memory_tags().ok_or(Error::UNSUPPORTED)?;
    let tags = wire::unhex(parameters.bytes(3), context.reply.scratch()).ok_or(Error::INVALID)?;
    if tags.is_empty() {
        return Err(Error::INVALID);
    }
    target.write_tags(thread, address, len, kind, tags)?;
    Ok(Answer::Ok)
}
