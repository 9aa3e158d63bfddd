//! `vmcore dmesg`: the log of the guest's kernel.

use crate::args::DmesgArgs;
use crate::failure::{Exit, Hint, Outcome};
use crate::info::List;
use crate::text;
use crate::visit::Visit;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use vmcore::vmcoreinfo::log::{Caller, Damage, FACILITIES, LEVELS, Log, Record};
use vmcore::{Error, Machine};

/// How long a guest may stand still for its log, which takes milliseconds.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How many damaged records are named.
const SHOWN: usize = 8;

pub(crate) fn run(args: &DmesgArgs) -> Outcome {
    let visit = Visit { subject: &args.subject, max_pause: Some(MAX_PAUSE), quiet: false };
    let name = visit.name();
    let (log, _) = visit.make(|visited, _| {
        visited.note.say(false);
        of_machine(&visited.machine, &name)
    })?;
    let damages: Vec<Damage> = log.records().filter_map(Result::err).collect();
    let is_wanted = |record: &Record<'_>| args.levels.is_empty() || args.levels.contains(&record.level);
    let records = || log.records().filter_map(Result::ok).filter(is_wanted);
    if args.json {
        text::print_json(&Report {
            name: &name,
            records: List(|| records().map(|record| record_json(&record))),
            damaged: List(|| damages.iter().map(damage_json)),
        })?;
    } else {
        text::on_stdout(|out| {
            records().try_for_each(|record| Ok(out.write_all(record_text(&record, args.decode).as_bytes())?))
        })?;
    }
    Ok(judge(&damages))
}

/// The log as JSON.
#[derive(Serialize)]
struct Report<'a, R, D> {
    name: &'a str,
    records: R,
    damaged: D,
}

fn of_machine(machine: &Machine, name: &str) -> anyhow::Result<Log> {
    let log = machine.kernel().and_then(|kernel| Log::open(&kernel));
    log.map_err(|error| {
        let hint = hint(&error);
        let error = anyhow::Error::new(error).context(format!("cannot read the kernel's log of {name}"));
        match hint {
            Some(hint) => error.context(Hint(hint.to_owned())),
            None => error,
        }
    })
}

/// The whole log of a machine, as `dmesg` prints it.
pub(crate) fn text_of(machine: &Machine) -> Result<String, Error> {
    let log = machine.kernel().and_then(|kernel| Log::open(&kernel))?;
    Ok(log.records().filter_map(Result::ok).map(|record| record_text(&record, false)).collect())
}

/// What to do about a log that cannot be read, where it is another thing than elsewhere.
fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::NotMapped { .. } | Error::NotCanonical { .. } | Error::NoMemory { .. } => {
            Some("the dump lacks memory of the kernel, or its VMCOREINFO is that of another kernel")
        }
        _ => None,
    }
}

/// Says which records were left out, and gives the exit status.
fn judge(damages: &[Damage]) -> Exit {
    if damages.is_empty() {
        return Exit::Complete;
    }
    let count = text::count(damages.len() as u64, "damaged record");
    text::say(&format!("vmcore: warning: {count} of the log left out:"));
    damages.iter().take(SHOWN).for_each(|damage| text::say(&format!("  {damage}")));
    if damages.len() > SHOWN {
        text::say("  and more (--json lists them all)");
    }
    Exit::Incomplete
}

/// A record as `dmesg` prints it: `[    0.000000] text`, its further lines under the first.
fn record_text(record: &Record<'_>, decode: bool) -> String {
    let mut out = String::new();
    if decode {
        let _ = write!(out, "{:<6}:{:<6}: ", facility(record.facility), level(record.level));
    }
    if let Some(time) = record.timestamp_ns {
        let _ = write!(out, "[{:5}.{:06}]", time / 1_000_000_000, time / 1000 % 1_000_000);
    }
    let caller = record.caller.filter(|_| decode);
    if let Some(caller) = caller {
        let _ = write!(out, "[{:>6}]", caller.to_string());
    }
    if record.timestamp_ns.is_some() || caller.is_some() {
        out.push(' ');
    }
    let further = format!("\n{:1$}", "", out.len());
    let lines: Vec<String> = record.text.split(|byte| *byte == b'\n').map(text::visible_bytes).collect();
    out + &lines.join(&further) + "\n"
}

fn record_json(record: &Record<'_>) -> Value {
    let name = |bytes: &'_ [u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
    json!({
        "sequence": record.sequence,
        "timestamp_ns": record.timestamp_ns,
        "facility": facility(record.facility),
        "level": level(record.level),
        "caller": record.caller.as_ref().map(Caller::to_string),
        "subsystem": name(record.subsystem),
        "device": name(record.device),
        "text": String::from_utf8_lossy(record.text),
    })
}

fn damage_json(damage: &Damage) -> Value {
    json!({ "record": damage.place, "text": damage.what })
}

fn level(level: u8) -> String {
    LEVELS.get(usize::from(level)).map_or_else(|| level.to_string(), |&name| name.to_owned())
}

fn facility(facility: u8) -> String {
    FACILITIES.get(usize::from(facility)).map_or_else(|| facility.to_string(), |&name| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record<'static> = Record {
        sequence: Some(7),
        timestamp_ns: Some(12_345_678_999),
        facility: 0,
        level: 6,
        caller: None,
        text: b"pci 0000:00:1f.2: reg 0x20",
        subsystem: b"pci",
        device: b"+pci:0000:00:1f.2",
    };

    fn records() -> [Record<'static>; 6] {
        [
            RECORD,
            Record { timestamp_ns: Some(0), text: b"Memory:\n\tDMA  zone\n\nend", ..RECORD },
            Record { caller: Some(Caller::Cpu(3)), text: b"", level: 0, ..RECORD },
            Record { caller: Some(Caller::Thread(101)), facility: 3, text: b"from a program", ..RECORD },
            Record {
                timestamp_ns: Some(u64::MAX),
                facility: 31,
                text: b"\x1b[31m\x07 \xff \xc3\xa9",
                ..RECORD
            },
            Record { timestamp_ns: None, level: 4, text: b"no time", ..RECORD },
        ]
    }

    #[test]
    fn text_for_people() {
        let text = |decode| records().map(|record| record_text(&record, decode)).concat();
        insta::assert_snapshot!(format!("{}\n{}", text(false), text(true)));
    }

    #[test]
    fn json_for_programs() {
        let records = records().map(|record| record_json(&record));
        insta::assert_snapshot!(serde_json::to_string_pretty(&records).unwrap());
    }
}
