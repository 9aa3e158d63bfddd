//! `vmcore convert`: open + write.

use crate::args::ConvertArgs;
use crate::failure::Outcome;
use crate::output::Output;
use crate::{input, job, text};
use anyhow::Context;
use std::time::Instant;
use vmcore::{Severity, format};

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let write = &args.write;
    let target = format::by_name(&write.format)?;
    let start = Instant::now();
    let (state, _) = job::cancel_on_signals()?;
    let input = input::open(&args.input)?;
    for finding in input.machine.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        eprintln!("vmcore: warning: {}: {}", args.input.display(), finding.text);
    }
    let layout = target.plan(&input.machine, &write.dump_options());
    let layout =
        layout.with_context(|| format!("cannot write {} as {}", args.input.display(), target.name()))?;
    let output = Output::create(&write.output, write.force)?;
    let report = job::run(
        &layout,
        &*input.machine.memory,
        &*output.sink(),
        write.execute_options(),
        &state,
        write.quiet,
    );
    let report = report.map_err(|error| job::explain(error, &output))?;
    let exit = job::judge(&report.unreadable);
    let json = job::report_json(&output, target.name(), &report);
    let name = output.name();
    output.commit()?;
    if write.json {
        text::print_line(&format!("{json:#}"))?;
    } else if !write.quiet {
        eprintln!(
            "{name}: {}, {} stored, in {:.2} s",
            text::size(report.file_len),
            text::size(report.written),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(exit)
}
