//! `vmcore verify`: every structure, every page.

use crate::args::VerifyArgs;
use crate::failure::{Exit, Outcome};
use crate::{input, job, text};
use serde_json::json;
use std::io;
use vmcore::{Fill, Finding, Layout, Order, RegionKind, Severity, Sink};

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

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (state, _) = job::cancel_on_signals()?;
    let input = input::open(&args.input)?;
    let machine = &input.machine;
    let mut layout = Layout::default();
    for region in machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram) {
        layout.push("memory", region.len, Fill::Memory(region.gpa))?;
    }
    let options = job::execute_options(args.threads, true);
    let report = job::run(&layout, &*machine.memory, &Nowhere, options, &state, args.quiet || args.json)?;
    let mut findings = machine.findings.clone();
    findings.extend(report.unreadable.ranges().iter().map(|range| Finding {
        severity: Severity::Error,
        offset: None,
        text: format!("guest memory {:#x}-{:#x} cannot be read", range.start, range.end - 1),
    }));
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if args.json {
        let findings: Vec<_> = findings.iter().map(crate::info::finding_json).collect();
        let json = json!({
            "dump": args.input.display().to_string(),
            "format": input.format,
            "is_sound": errors == 0,
            "memory_len": layout.memory_len(),
            "unreadable": job::ranges_json(&report.unreadable),
            "findings": findings,
        });
        text::print_line(&format!("{json:#}"))?;
    } else {
        for finding in findings.iter().filter(|finding| !args.quiet || finding.severity == Severity::Error) {
            text::print_line(&crate::info::finding_text(finding))?;
        }
        let verdict = if errors == 0 { "sound".to_owned() } else { text::count(errors as u64, "error") };
        if !args.quiet {
            let read = text::size(layout.memory_len() - report.unreadable.byte_len());
            text::print_line(&format!("{}: {verdict}; {read} of guest memory read", args.input.display()))?;
        }
    }
    Ok(if errors == 0 { Exit::Complete } else { Exit::Damaged })
}
