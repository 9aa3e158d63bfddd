//! Registers, all of them or one.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::table::Parameters;
use crate::target::{Presence, Target};
use crate::thread::ThreadId;
use crate::wire;

/// The thread that a packet means: LLDB names it behind the parameters (`;thread:1;`) once it was told that it can.
fn thread_of(context: &Context<'_, '_>, suffix: Option<&[u8]>) -> Result<ThreadId, Error> {
    let Some(suffix) = suffix else { return context.session.thread() };
    if !context.session.has_thread_suffix {
        return Err(Error::INVALID);
    }
    let name = suffix.strip_prefix(b"thread:").ok_or(Error::INVALID)?;
    context.session.one(context.target, name.strip_suffix(b";").unwrap_or(name))
}

/// Adds the value of a register: digits, or `xx` for each byte of a value that is not known.
pub(crate) fn write_value(
    context: &mut Context<'_, '_>,
    thread: ThreadId,
    number: u32,
    len: usize,
) -> Result<(), Error> {
    if context.reply.room() < 2 * len {
        return Err(Error::NO_ROOM);
    }
    let start = context.reply.len();
    let mut presence = Presence::Unknown;
    context.reply.hex_from(len, |value| {
        presence = context.target.read_register(thread, number, value)?;
        Ok(len)
    })?;
    if presence == Presence::Unknown {
        context.reply.truncate(start);
        for _ in 0..len {
            context.reply.text("xx");
        }
    }
    Ok(())
}

/// `g`: the registers that the target description puts there, in the order of their numbers.
///
/// One that cannot be read is as one that is not known. If not all fit, the client asks for the others by `p`.
pub(crate) fn read_all(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = thread_of(context, parameters.get(0))?;
    for number in 0..context.target.g_count(thread) {
        let Some(len) = context.target.register_len(thread, number) else { continue };
        match write_value(context, thread, number, len) {
            Ok(()) => {}
            Err(Error::NO_ROOM) => break,
            Err(_) => (0..len).for_each(|_| context.reply.text("xx")),
        }
    }
    Ok(Answer::Reply)
}

/// `GVALUES`: all registers of `g`, or those at its beginning.
pub(crate) fn write_all(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = thread_of(context, parameters.get(1))?;
    let target = &mut *context.target;
    let values = wire::unhex(parameters.bytes(0), context.reply.scratch()).ok_or(Error::INVALID)?;
    if values.is_empty() {
        return Err(Error::INVALID);
    }
    // Nothing is written if the values do not end with a register.
    each_of(target, thread, values, |_, _, _| Ok(()))?;
    each_of(target, thread, values, |target, number, value| target.write_register(thread, number, value))?;
    Ok(Answer::Ok)
}

/// Cuts the values of a `G` packet into registers.
fn each_of(
    target: &mut dyn Target,
    thread: ThreadId,
    values: &[u8],
    mut each: impl FnMut(&mut dyn Target, u32, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rest = values;
    for number in 0..target.g_count(thread) {
        let Some(len) = target.register_len(thread, number) else { continue };
        if rest.is_empty() {
            break;
        }
        let (value, behind) = rest.split_at_checked(len).ok_or(Error::INVALID)?;
        each(target, number, value)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(Error::INVALID) }
}

/// The register that a packet means, and its length.
fn register_of(
    context: &Context<'_, '_>,
    thread: ThreadId,
    parameters: &Parameters<'_>,
) -> Result<(u32, usize), Error> {
    let number = u32::try_from(parameters.number(0)?).map_err(|_| Error::FAULT)?;
    let len = context.target.register_len(thread, number).ok_or(Error::FAULT)?;
    Ok((number, len))
}

/// `pNUMBER`
pub(crate) fn read(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = thread_of(context, parameters.get(1))?;
    let (number, len) = register_of(context, thread, parameters)?;
    write_value(context, thread, number, len)?;
    Ok(Answer::Reply)
}

/// `PNUMBER=VALUE`: the value has the length of the register.
pub(crate) fn write(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = thread_of(context, parameters.get(2))?;
    let (number, len) = register_of(context, thread, parameters)?;
    let value = wire::unhex(parameters.bytes(1), context.reply.scratch()).ok_or(Error::INVALID)?;
    if value.len() != len {
        return Err(Error::INVALID);
    }
    context.target.write_register(thread, number, value)?;
    Ok(Answer::Ok)
}
