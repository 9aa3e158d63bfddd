//! Breakpoints and watchpoints.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::stop::Access;
use crate::table::Parameters;
use crate::target::{Breakpoint, BreakpointKind, Breakpoints};

/// `ZKIND,ADDRESS,LENGTH`
pub(crate) fn insert(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    change(context, parameters, |breakpoints, breakpoint| breakpoints.insert(breakpoint))
}

/// `zKIND,ADDRESS,LENGTH`
pub(crate) fn remove(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    change(context, parameters, |breakpoints, breakpoint| breakpoints.remove(breakpoint))
}

fn change(
    context: &mut Context<'_, '_>,
    parameters: &Parameters<'_>,
    change: impl FnOnce(&mut dyn Breakpoints, Breakpoint) -> Result<(), Error>,
) -> Outcome {
    let breakpoints = context.target.breakpoints().ok_or(Error::UNSUPPORTED)?;
    context.session.thread()?;
    let kind = match parameters.bytes(0) {
        b"0" => BreakpointKind::Software,
        b"1" => BreakpointKind::Hardware,
        b"2" => BreakpointKind::Watch(Access::Write),
        b"3" => BreakpointKind::Watch(Access::Read),
        b"4" => BreakpointKind::Watch(Access::Any),
        _ => return Err(Error::UNSUPPORTED),
    };
    let (address, len) = (parameters.number(1)?, parameters.number(2)?);
    // Conditions and commands would be lost; no client sends them, for we do not say that we know them.
    let is_range = len > 0 && address.checked_add(len - 1).is_some();
    if parameters.get(3).is_some() || matches!(kind, BreakpointKind::Watch(_)) && !is_range {
        return Err(Error::INVALID);
    }
    change(breakpoints, Breakpoint { kind, address, len })?;
    Ok(Answer::Ok)
}
