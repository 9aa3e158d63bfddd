//! `vmcore verify`: every structure, every page.

use crate::args::VerifyArgs;
use crate::failure::{Exit, Outcome};
use crate::{input, job, text};
use serde_json::json;
use std::io;
use std::ops::Range;
use vmcore::{Fill, Finding, Gpa, Layout, Machine, Order, RegionKind, Severity, Sink};

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

/// What is wrong with a range that cannot be read: each page, where the format knows of pages.
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

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (state, _) = job::cancel_on_signals()?;
    let input = input::open(&args.inputs)?;
    let name = input::names(&args.inputs);
    let machine = &input.machine;
    let mut layout = Layout::default();
    for region in machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram) {
        layout.push("memory", region.len, Fill::Memory(region.gpa))?;
    }
    let options = job::execute_options(args.threads, true);
    let report = job::run(&layout, &*machine.memory, &Nowhere, options, &state, args.quiet || args.json)?;
    let mut findings = machine.findings.clone();
    findings.extend(report.unreadable.ranges().iter().flat_map(|range| faults(machine, range)));
    let is_sound = job::is_sound(machine) && report.unreadable.is_empty();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if args.json {
        let findings: Vec<_> = findings.iter().map(crate::info::finding_json).collect();
        let json = json!({
            "dump": name,
            "format": input.format,
            "is_sound": is_sound,
            "memory_len": layout.memory_len(),
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
            let read = text::size(layout.memory_len() - report.unreadable.byte_len());
            text::print_line(&format!("{}: {verdict}; {read} of guest memory read", name))?;
        }
    }
    Ok(if is_sound { Exit::Complete } else { Exit::Incomplete })
}
