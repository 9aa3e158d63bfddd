//! QEMU's own packets, so that scripts written for its stub go on to work.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::session::STEP;
use crate::table::Parameters;

/// `qqemu.Supported`: which of these packets there are.
pub(crate) fn supported(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let features = [
        (context.target.single_step().is_some(), "sstepbits;sstep"),
        (context.target.physical_memory().is_some(), "PhyMemMode"),
    ];
    for (_, feature) in features.iter().filter(|(has, _)| *has) {
        context.reply.text(if context.reply.len() == 0 { "" } else { ";" });
        context.reply.text(feature);
    }
    Ok(Answer::Reply)
}

/// `qqemu.sstepbits`: what can stand still during a step.
pub(crate) fn step_bits(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let supported = context.target.single_step().ok_or(Error::UNSUPPORTED)?.supported();
    context.reply.text("ENABLE=1");
    for (bit, name) in [(2, "NOIRQ"), (4, "NOTIMER")] {
        if supported & bit != 0 {
            context.reply.format(format_args!(",{name}={bit}"));
        }
    }
    Ok(Answer::Reply)
}

/// `qqemu.sstep` tells what stands still during a step, `Qqemu.sstep=FLAGS` sets it.
pub(crate) fn step_flags(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let steps = context.target.single_step().ok_or(Error::UNSUPPORTED)?;
    let all = STEP | steps.supported();
    if parameters.get(0).is_none() {
        let flags = context.session.step_flags.unwrap_or(all);
        context.reply.format(format_args!("0x{flags:x}"));
        return Ok(Answer::Reply);
    }
    let flags = u8::try_from(parameters.number(0)?).ok().filter(|flags| flags & !all == 0);
    let flags = flags.ok_or(Error::INVALID)?;
    steps.set_flags(flags);
    context.session.step_flags = Some(flags);
    Ok(Answer::Ok)
}

/// `qqemu.PhyMemMode`: whether addresses are physical.
pub(crate) fn is_physical(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.target.physical_memory().ok_or(Error::UNSUPPORTED)?;
    context.reply.text(if context.session.is_physical { "1" } else { "0" });
    Ok(Answer::Reply)
}

/// `Qqemu.PhyMemMode:MODE`: 0 for virtual addresses, anything else for physical ones, until the connection ends.
pub(crate) fn set_physical(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    context.target.physical_memory().ok_or(Error::UNSUPPORTED)?;
    context.session.is_physical = parameters.number(0)? != 0;
    Ok(Answer::Ok)
}
