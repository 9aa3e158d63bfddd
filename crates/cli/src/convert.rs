//! `vmcore convert`: open + write.

use crate::args::ConvertArgs;
use crate::failure::{Exit, Outcome};
use crate::kernel::{self, NoteOrigin};
use crate::{filter, info, input, job, text};
use anyhow::{Context, bail};
use std::time::Instant;
use vmcore::read_at::FileMemory;
use vmcore::vmcoreinfo::uts;
use vmcore::{Fill, Gpa, Layout, Severity, wrapper};

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let write = &args.write;
    if args.rearrange {
        return rearrange(args);
    }
    let mut target = write.target()?;
    let start = Instant::now();
    let (state, _) = job::cancel_on_signals()?;
    let mut input = input::open(&args.inputs, &args.open, &args.note)?;
    let name = input::names(&args.inputs);
    let is_sound = job::warn_of_damage(&input.machine, &name);
    let note = if target.format.abilities().registers || write.dump_level.is_some() {
        NoteOrigin::complete(&mut input.machine, &args.note, write.quiet, &state)?
    } else {
        // The note would be left out.
        NoteOrigin::default()
    };
    note.say(write.quiet);
    if target.names_kernel() && !uts::complete(&mut input.machine) && !args.note.no_vmcoreinfo_search {
        kernel::search_uname(&mut input.machine, write.quiet, &state)?;
    }
    let plan = filter::Plan::new(input.machine.kernel(), Some(&note), write, target.format)
        .with_context(|| format!("cannot filter {name}"))?;
    let filtered = plan.map(|plan| plan.apply(&mut input.machine, false, &state)).transpose()?;
    let layouts = target.plan(&input.machine);
    let layouts = layouts.with_context(|| format!("cannot write {} as {}", name, target.name()))?;
    target.warn_of_loss(&input.machine, write.quiet);
    let outputs = target.outputs(write)?;
    target.fit(&outputs, write.quiet)?;
    let written = target.write(&layouts, &*input.machine.memory, &outputs, write, &state)?;
    let judged = job::judge(&written.unreadable());
    let exit = if is_sound { judged } else { Exit::Incomplete };
    let mut json = written.as_json(&write.output, &target.name());
    json["findings"] = input.machine.findings.iter().map(info::finding_json).collect();
    json["note"] = note.as_json();
    if let Some(filtered) = &filtered {
        json["dump_level"] = filtered.as_json();
        filtered.say(write.quiet || write.json);
    }
    outputs.commit()?;
    if write.json {
        text::print_json(&json)?;
    } else if !write.quiet {
        written.say(&format!(", in {:.2} s", start.elapsed().as_secs_f64()));
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
    let outputs = target.outputs(write)?;
    let written = target.write(&[layout], &FileMemory::new(inside.file), &outputs, write, &state)?;
    outputs.commit()?;
    if !write.quiet {
        text::say(&format!("{}: {}", write.output, text::size(written.file_len())));
    }
    let is_sound = inside.findings.iter().all(|finding| finding.severity != Severity::Error);
    Ok(if is_sound { job::judge(&written.unreadable()) } else { Exit::Incomplete })
}
