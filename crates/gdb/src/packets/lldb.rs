//! What LLDB asks beside gdb's packets.
//!
//! Source: `spec/gdb-rsp.md` section 5.2; LLDB, `docs/resources/lldbgdbremote.md`.

use super::registers::write_value;
use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::reply::Reply;
use crate::stop::{Stop, StopReason};
use crate::table::Parameters;
use crate::target::{Host, WatchpointReport};
use crate::thread::ThreadId;
use core::fmt;

/// `QThreadSuffixSupported`: from now on register packets may name a thread.
pub(crate) fn thread_suffix(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.has_thread_suffix = true;
    Ok(Answer::Ok)
}

/// `QListThreadsInStopReply`: from now on a stop names all threads.
pub(crate) fn list_threads(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.lists_threads = true;
    Ok(Answer::Ok)
}

/// `QEnableErrorStrings`: from now on an error may have a text.
pub(crate) fn error_strings(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.has_error_strings = true;
    Ok(Answer::Ok)
}

/// What both descriptions of the machine begin with.
fn describe(context: &mut Context<'_, '_>) -> Outcome {
    let Some(host) = context.target.host() else { return Err(Error::UNSUPPORTED) };
    let Host { triple, is_big_endian, pointer_len, .. } = host;
    context.reply.text("triple:");
    context.reply.hex(triple.as_bytes());
    let endian = if is_big_endian { "big" } else { "little" };
    context.reply.format(format_args!(";endian:{endian};ptrsize:{pointer_len};"));
    Ok(Answer::Reply)
}

/// `qHostInfo`; its numbers are decimal.
pub(crate) fn host(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    describe(context)?;
    let Some(Host { page_size, address_bits, watchpoints, os_version, .. }) = context.target.host() else {
        return Err(Error::UNSUPPORTED);
    };
    let reply = &mut *context.reply;
    if let Some(report) = watchpoints {
        let when = match report {
            WatchpointReport::Before => "before",
            WatchpointReport::After => "after",
        };
        reply.format(format_args!("watchpoint_exceptions_received:{when};"));
    }
    if let Some(page_size) = page_size {
        reply.format(format_args!("vm-page-size:{page_size};"));
    }
    if let Some(bits) = address_bits {
        reply.format(format_args!("addressing_bits:{bits};"));
    }
    if let Some(version) = os_version {
        reply.format(format_args!("os_version:{version};"));
    }
    Ok(Answer::Reply)
}

/// `qProcessInfo`; its numbers are hexadecimal.
pub(crate) fn process(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    let process = context.session.thread()?.process;
    context.reply.format(format_args!("pid:{process:x};parent-pid:0;"));
    describe(context)
}

/// `qGDBServerVersion`
pub(crate) fn version(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.reply.text(concat!("name:vmcore;version:", env!("CARGO_PKG_VERSION"), ";"));
    Ok(Answer::Reply)
}

/// `qRegisterInfoNUMBER`: the target description in other words. An error ends the list.
pub(crate) fn register(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.thread()?;
    // A target that says nothing of its registers says nothing of the first.
    context.target.register_info(thread, 0).ok_or(Error::UNSUPPORTED)?;
    let number = parameters.small(0)?;
    let info = context.target.register_info(thread, number).ok_or(END_OF_REGISTERS)?;
    let len = context.target.register_len(thread, number).ok_or(END_OF_REGISTERS)?;
    let reply = &mut *context.reply;
    reply.format(format_args!("name:{};bitsize:{};", info.name, 8 * len));
    if number < context.target.g_count(thread) {
        let before = (0..number).filter_map(|number| context.target.register_len(thread, number));
        let offset: usize = before.sum();
        reply.format(format_args!("offset:{offset};"));
    }
    reply.format(format_args!("encoding:{};format:{};set:{};", info.encoding, info.format, info.set));
    if let Some(dwarf) = info.dwarf {
        reply.format(format_args!("gcc:{dwarf};dwarf:{dwarf};"));
    }
    if let Some(generic) = info.generic {
        reply.format(format_args!("generic:{generic};"));
    }
    Ok(Answer::Reply)
}

/// What LLDB's own server says past the last register.
const END_OF_REGISTERS: Error = Error { number: 45, text: "" };

/// `qMemoryRegionInfo:ADDRESS`: what is mapped around it.
pub(crate) fn memory_region(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let address = parameters.number(0)?;
    let thread = context.session.thread()?;
    let regions = context.target.memory_regions().ok_or(Error::UNSUPPORTED)?;
    let area = regions.area(thread, address)?;
    // All of the address space has a length that no number of 64 bits says.
    let len = (area.last - area.start).saturating_add(1);
    context.reply.format(format_args!("start:{:x};size:{len:x};", area.start));
    if let Some(permissions) = area.permissions {
        context.reply.text("permissions:");
        for (letter, _) in ["r", "w", "x"].iter().zip(permissions).filter(|(_, has)| *has) {
            context.reply.text(letter);
        }
        context.reply.text(";");
    }
    Ok(Answer::Reply)
}

/// Why `thread` stands still: the one that has stopped with its reason, others because it did.
fn stop_of(context: &Context<'_, '_>, thread: ThreadId) -> Stop {
    let stop = context.session.last_stop(context.target);
    if stop.thread == thread { stop } else { Stop { thread, reason: StopReason::Signal(0) } }
}

/// `qThreadStopInfoTHREAD`: the stop reply of one thread.
pub(crate) fn thread_stop(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.one(context.target, parameters.bytes(0))?;
    let stop = stop_of(context, thread);
    crate::stop::write(context.reply, context.session, context.target, stop);
    Ok(Answer::Reply)
}

/// `jThreadsInfo`: all threads with their first registers, in one answer.
pub(crate) fn threads(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.session.thread()?;
    json(context, "[");
    for index in 0.. {
        let Some(thread) = context.session.threads(context.target).nth(index) else { break };
        let reason = stop_of(context, thread).reason;
        let word = match reason {
            StopReason::Watchpoint { .. } => "watchpoint",
            StopReason::SoftwareBreakpoint | StopReason::HardwareBreakpoint => "breakpoint",
            StopReason::Signal(0) => "none",
            StopReason::TRAP => "trace",
            _ => "signal",
        };
        json(context, if index == 0 { "{" } else { ",{" });
        let signal = reason.signal();
        context
            .reply
            .format(format_args!("\"tid\":{},\"reason\":\"{word}\",\"signal\":{signal}", thread.thread));
        json(context, ",\"name\":\"");
        // What does not fit is noted by the reply.
        let _ = context.target.thread_name(thread, &mut JsonText(context.reply));
        json(context, "\",\"registers\":{");
        let mut is_first = true;
        for place in 0.. {
            let Some(&number) = context.target.expedited(thread).get(place) else { break };
            let Some(len) = context.target.register_len(thread, number) else { continue };
            let before = context.reply.len();
            context.reply.format(format_args!("{}\"{number}\":\"", if is_first { "" } else { "," }));
            let value = context.reply.len();
            match write_value(context, thread, number, len) {
                Ok(()) if !context.reply.is_unknown(value) => context.reply.text("\""),
                _ => {
                    context.reply.truncate(before);
                    continue;
                }
            }
            is_first = false;
        }
        json(context, "}}");
        if context.reply.is_cut() {
            break;
        }
    }
    json(context, "]");
    Ok(Answer::Reply)
}

/// Adds text in which braces are escaped.
fn json(context: &mut Context<'_, '_>, text: &str) {
    for byte in text.bytes() {
        if !context.reply.escaped(byte) {
            context.reply.cut();
        }
    }
}

/// Text in a string of JSON.
struct JsonText<'r, 'b>(&'r mut Reply<'b>);

impl fmt::Write for JsonText<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let fits = match byte {
                b'"' | b'\\' => self.0.escaped(b'\\') && self.0.escaped(byte),
                // Control characters have no place in a name.
                0..b' ' => self.0.escaped(b' '),
                _ => self.0.escaped(byte),
            };
            if !fits {
                self.0.cut();
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
