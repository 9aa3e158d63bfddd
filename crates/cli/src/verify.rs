//! `vmcore verify`: every structure, every page.

use crate::args::{NoteArgs, VerifyArgs};
use crate::failure::{Exit, Outcome};
use crate::{input, job, text};
use serde_json::json;
use std::io;
use std::ops::Range;
use vmcore::{
    Fill, Finding, Gpa, Layout, Machine, Order, PhysMemory, RegionKind, RunState, Severity, Sink, Unreadable,
    execute,
};

/// Takes everything and keeps nothing: reading is the check.
struct Nowhere;

impl Sink for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Faults that are named one by one, of a range.
const MAX_FAULTS: usize = 1000;
/// Pages of a range that are looked at for faults: a hostile dump can lack 2^52 of them.
const MAX_PAGES: usize = 1 << 18;

/// What is wrong with a range that is damaged: each page, where the format knows of pages.
fn faults(machine: &Machine, range: &Range<u64>) -> Vec<Finding> {
    let step = usize::try_from(machine.dump_info().page_size).unwrap_or(usize::MAX);
    let pages = range.clone().step_by(step);
    let found: Vec<Finding> =
        pages.take(MAX_PAGES).filter_map(|at| machine.memory.fault_at(Gpa(at))).take(MAX_FAULTS).collect();
    if !found.is_empty() {
        return found;
    }
    let text = format!("guest memory {:#x}-{:#x} cannot be read", range.start, range.end - 1);
    vec![Finding { severity: Severity::Error, offset: None, text }]
}

/// Memory that the dump does not give.
#[derive(Default)]
struct Absent {
    /// Bytes that were left out on purpose.
    excluded: u64,
    /// In no file: the dump is cut off, or a part of it was not named.
    missing: Unreadable,
    /// There, but not as it was written.
    damaged: Unreadable,
}

impl Absent {
    /// `unreadable` is what could not be read of all memory.
    fn of(memory: &dyn PhysMemory, unreadable: &Unreadable) -> Self {
        let mut absent = Self::default();
        for region in memory.regions().iter().filter(|region| region.kind == RegionKind::Ram) {
            let runs = runs(memory, region.gpa.0..region.end().0);
            let excluded = runs.filter(|(_, state)| *state == RunState::Excluded);
            absent.excluded += excluded.map(|(range, _)| range.end - range.start).sum::<u64>();
        }
        for (range, state) in unreadable.ranges().iter().flat_map(|range| runs(memory, range.clone())) {
            let kind = if state == RunState::Missing { &mut absent.missing } else { &mut absent.damaged };
            kind.add(Gpa(range.start), range.end - range.start);
        }
        absent
    }

    fn findings(&self, machine: &Machine) -> Vec<Finding> {
        let missing = self.missing.ranges().iter().map(|range| {
            let fault = machine.memory.fault_at(Gpa(range.start));
            let reason = fault.as_ref().map(|fault| format!(": {}", fault.text)).unwrap_or_default();
            let text = format!("guest memory {:#x}-{:#x} is missing{reason}", range.start, range.end - 1);
            Finding { severity: Severity::Error, offset: fault.and_then(|fault| fault.offset), text }
        });
        missing.chain(self.damaged.ranges().iter().flat_map(|range| faults(machine, range))).collect()
    }
}

/// The runs of a range: what is known of its memory without reading it.
fn runs(memory: &dyn PhysMemory, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, RunState)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let left = range.end.checked_sub(at).filter(|left| *left > 0)?;
        let run = memory.run_at(Gpa(at), left);
        let start = at;
        at += run.len.clamp(1, left);
        Some((start..at, run.state))
    })
}

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (state, _) = job::cancel_on_signals()?;
    let input = input::open(&args.inputs, &args.open, &NoteArgs::default())?;
    let name = input::names(&args.inputs);
    let machine = &input.machine;
    let mut layout = Layout::default();
    for region in machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram) {
        layout.push("memory", region.len, Fill::Memory(region.gpa))?;
    }
    let options = job::execute_options(args.threads, true);
    let report = job::with_progress(args.quiet || args.json, &state, || {
        execute(&layout, &*machine.memory, &Nowhere, options, &state)
    })?;
    let absent = Absent::of(&*machine.memory, &report.unreadable);
    let (excluded, missing, damaged) =
        (absent.excluded, absent.missing.byte_len(), absent.damaged.byte_len());
    let read = layout.memory_len().saturating_sub(excluded + missing + damaged);
    let mut findings = machine.findings.clone();
    findings.extend(absent.findings(machine));
    let is_sound = job::is_sound(machine) && report.unreadable.is_empty();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if args.json {
        let findings: Vec<_> = findings.iter().map(crate::info::finding_json).collect();
        let json = json!({
            "dump": name,
            "format": input.format(),
            "is_sound": is_sound,
            "memory_len": layout.memory_len(),
            "read_len": read,
            "excluded_len": excluded,
            "missing_len": missing,
            "damaged_len": damaged,
            "unreadable": job::ranges_json(&report.unreadable),
            "findings": findings,
        });
        text::print_json(&json)?;
    } else {
        for finding in findings.iter().filter(|finding| !args.quiet || finding.severity == Severity::Error) {
            text::print_line(&crate::info::finding_text(finding))?;
        }
        let verdict = match errors {
            0 if is_sound => "sound".to_owned(),
            0 => "not finished".to_owned(),
            _ => text::count(errors as u64, "error"),
        };
        if !args.quiet {
            let page_size = machine.dump_info().page_size;
            let pages = |len: u64, what: &str| match len {
                0 => String::new(),
                _ => {
                    format!(", {} ({}) {what}", text::count(len.div_ceil(page_size), "page"), text::size(len))
                }
            };
            text::print_line(&format!(
                "{name}: {verdict}; {} of guest memory read{}{}{}",
                text::size(read),
                pages(excluded, "excluded"),
                pages(missing, "missing"),
                pages(damaged, "damaged"),
            ))?;
        }
    }
    Ok(if is_sound { Exit::Complete } else { Exit::Incomplete })
}
