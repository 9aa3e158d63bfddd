//! `vmcore convert`: open + write.

use crate::args::ConvertArgs;
use crate::failure::{Exit, Outcome};
use crate::output::Output;
use crate::{info, input, job, text};
use anyhow::{Context, bail};
use std::time::Instant;
use vmcore::read_at::FileMemory;
use vmcore::{Fill, Gpa, Layout, Severity, wrapper};

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let write = &args.write;
    if args.rearrange {
        return rearrange(args);
    }
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

/// Writes what is inside a flattened stream, byte for byte.
fn rearrange(args: &ConvertArgs) -> Outcome {
    let write = &args.write;
    let target = write.target()?;
    let name = input::names(&args.inputs);
    let (state, _) = job::cancel_on_signals()?;
    let files = input::open_files(&args.inputs)?;
    let Ok([file]) = <[_; 1]>::try_from(files) else { bail!("--rearrange takes one file") };
    let inside = wrapper::open(&file).with_context(|| format!("cannot open {name}"))?;
    let Some((_, inside)) = inside else { bail!("{name} is no flattened stream") };
    for finding in &inside.findings {
        text::say(&format!("vmcore: warning: {name}: {}", info::finding_text(finding)));
    }
    let mut layout = Layout::default();
    layout.push("the file", inside.file.byte_len(), Fill::Memory(Gpa(0)))?;
    let output = Output::create(&write.output, write.force)?;
    let report = target.write(&layout, &FileMemory::new(inside.file), &output, write, &state)?;
    output.commit()?;
    if !write.quiet {
        text::say(&format!("{}: {}", write.output, text::size(report.file_len)));
    }
    let is_sound = inside.findings.iter().all(|finding| finding.severity != Severity::Error);
    Ok(if is_sound { job::judge(&report.unreadable) } else { Exit::Incomplete })
}
