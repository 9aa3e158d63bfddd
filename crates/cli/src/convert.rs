//! `vmcore convert`: open + write.

use crate::args::ConvertArgs;
use crate::failure::{Exit, Outcome};
use crate::output::Output;
use crate::{info, input, job, text};
use anyhow::Context;
use std::time::Instant;

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let write = &args.write;
    let mut target = write.target()?;
    let start = Instant::now();
    let (state, _) = job::cancel_on_signals()?;
    let input = input::open(&args.inputs)?;
    let name = input::names(&args.inputs);
    let is_sound = job::is_sound(&input.machine);
    if !is_sound {
        for finding in &input.machine.findings {
            text::say(&format!("vmcore: warning: {}: {}", name, finding.text));
        }
    }
    let layout = target.plan(&input.machine);
    let layout = layout.with_context(|| format!("cannot write {} as {}", name, target.name()))?;
    let output = Output::create(&write.output, write.force)?;
    target.fit(&output, write.quiet)?;
    let report = target.write(&layout, &*input.machine.memory, &output, write, &state)?;
    let judged = job::judge(&report.unreadable);
    let exit = if is_sound { judged } else { Exit::Incomplete };
    let mut json = job::report_json(&output, &target.name(), &report);
    json["findings"] = input.machine.findings.iter().map(info::finding_json).collect();
    let name = output.name();
    output.commit()?;
    if write.json {
        text::print_json(&json)?;
    } else if !write.quiet {
        text::say(&format!(
            "{name}: {}, {} stored, in {:.2} s",
            text::size(report.file_len),
            text::size(report.written),
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(exit)
}
