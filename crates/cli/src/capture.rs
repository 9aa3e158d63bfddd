//! `vmcore capture`: a dump of a live guest.

use crate::args::{CaptureArgs, Memory};
use crate::failure::{Hint, Outcome};
use crate::kernel::NoteOrigin;
use crate::look::Look;
use crate::outputs::Outputs;
use crate::{filter, job, snapshot, text};
use anyhow::{Context, bail};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmcore::filter::Level;
use vmcore::vmcoreinfo::uts;
use vmcore::{AttachOptions, Attached, DumpState, Estimate, Region, SnapshotBuffer, source};

/// Room for headers and notes of very many vCPUs.
const HEADERS_LEN: u64 = 1 << 20;

pub(crate) fn run(args: &CaptureArgs) -> Outcome {
    let write = &args.write;
    let mut target = write.target()?;
    let (source, address) = source::by_uri(&args.source)?;
    if args.no_stop && args.memory == Memory::Stream {
        bail!("--no-stop needs --memory process: QEMU's own stream ends when the guest goes on");
    }
    if args.memory == Memory::Stream && write.dump_level.is_some_and(Level::needs_kernel) && !write.or_full {
        bail!("--dump-level needs --memory process: QEMU's own stream can be read only once");
    }
    let start = Instant::now();
    let (state, on_signal) = job::cancel_on_signals()?;
    let options = AttachOptions {
        max_pause: (args.max_pause > 0).then(|| Duration::from_secs(args.max_pause)),
        extra_registers: !args.no_extra_registers,
        stream_memory: args.memory == Memory::Stream,
    };
    let mut guest =
        source.attach(address, &options).with_context(|| format!("cannot attach to {}", args.source))?;
    on_signal.then(guest.let_go());
    say(write.quiet, &guest.description());
    for warning in guest.warnings() {
        text::say(&format!("vmcore: warning: {warning}"));
    }
    // Whatever can be known to fail fails now, while the guest runs.
    let estimate = guest.estimate();
    check_range(&estimate, args)?;
    let outputs = target.outputs(write)?;
    target.fit(&outputs, write.quiet)?;
    check_space(&outputs, expected_len(&estimate, args), target.is_compressed())?;
    state.check()?;

    let look = look_for_note(&*guest, args, &target, &state)?;
    let buffer = prepare(args, &target, &look, &estimate, &state)?;
    let job = Job { args, target: &target, outputs: &outputs, state: &state };
    let result = job.dump(&mut *guest, &look, buffer);
    let released = guest.release().context("the guest does not run again");
    // The reason why the dump failed comes first; that the guest was released is then only a remark.
    let done = match (result, &released) {
        // A signal has let it go.
        (_, Ok(_)) if state.check().is_err() => {
            return Err(job::explain(vmcore::Error::Cancelled, &outputs));
        }
        (Err(error), Ok(released)) if released.is_expired => {
            let hint =
                Hint(format!("raise --max-pause (now {} s), or write to a faster disk", args.max_pause));
            return Err(error.context("the guest was let go before the dump was done").context(hint));
        }
        (Err(error), _) => return Err(error),
        (Ok(done), _) => done,
    };
    let released = released?;
    if released.is_expired && !done.is_of_running {
        let hint = Hint(format!("raise --max-pause (now {} s), or write to a faster disk", args.max_pause));
        return Err(anyhow::anyhow!("the guest was let go before the dump was done").context(hint));
    }
    for warning in &released.warnings {
        text::say(&format!("vmcore: warning: {warning}"));
    }
    let Done { written, vcpus, note, filtered, .. } = done;
    let exit = job::judge(&written.unreadable());
    let pause_ms = released.pause.map(|pause| pause.as_secs_f64() * 1e3);
    let mut json = written.as_json(&write.output, &target.name());
    let extra = json!({
        "source": args.source,
        "vcpus": vcpus,
        "pause_ms": pause_ms,
        "state": released.state,
        "duration_ms": start.elapsed().as_secs_f64() * 1e3,
    });
    if let (Some(all), Some(extra)) = (json.as_object_mut(), extra.as_object()) {
        all.extend(extra.clone());
    }
    json["note"] = note.as_json();
    note.say(write.quiet || write.json);
    if let Some(filtered) = &filtered {
        json["dump_level"] = filtered.as_json();
        filtered.say(write.quiet || write.json);
    }
    let (names, are_files) = (outputs.names(), outputs.are_files());
    outputs.commit()?;
    if write.json {
        text::print_json(&json)?;
        return Ok(exit);
    }
    let pause = pause_ms.map_or(format!("the guest is {}, as before", released.state), |pause| {
        format!("pause {pause:.1} ms")
    });
    if !write.quiet {
        written.say(&format!(", in {:.2} s; {pause}", start.elapsed().as_secs_f64()));
    }
    if are_files {
        let names = names.join(" ");
        let gdb = if target.is_for_gdb() { format!(", `gdb-multiarch -c {names}`") } else { String::new() };
        say(write.quiet, &format!("next: `vmcore info {names}`{gdb}"));
    }
    Ok(exit)
}

/// Finds out, while the guest runs, what its kernel says of itself, where the dump has a place for it or depends on it.
fn look_for_note<'a>(
    guest: &dyn Attached,
    args: &'a CaptureArgs,
    target: &job::Target,
    state: &DumpState,
) -> anyhow::Result<Look<'a>> {
    if !target.format.abilities().registers && args.write.dump_level.is_none() {
        return Ok(Look::none(guest, &args.note));
    }
    Look::at(guest, &args.note, args.write.quiet, state)
}

/// Does all that can be done before the guest is stopped: fails if it cannot be dumped as is asked for, and makes room for a copy
/// of its memory.
fn prepare(
    args: &CaptureArgs,
    target: &job::Target,
    look: &Look<'_>,
    estimate: &Estimate,
    state: &DumpState,
) -> anyhow::Result<Option<SnapshotBuffer>> {
    let plan = match look.kernel() {
        Some(kernel) => filter::Plan::new(kernel, None, &args.write, target.format)?,
        None => None,
    };
    if !args.snapshot {
        return Ok(None);
    }
    let memory = match (look.memory(), plan) {
        (Some(memory), Some(plan)) => Some(plan.preview(memory, state)?),
        (memory, _) => memory.cloned(),
    };
    Ok(snapshot::prepare(args, memory.as_deref(), &selected(estimate, args), estimate))
}

/// A dump that was written.
struct Done {
    written: job::Written,
    vcpus: usize,
    note: NoteOrigin,
    filtered: Option<filter::Filtered>,
    /// Whether the guest ran, or might run, while the dump was written.
    is_of_running: bool,
}

/// What a dump needs beside the guest.
struct Job<'a> {
    args: &'a CaptureArgs,
    target: &'a job::Target,
    outputs: &'a Outputs,
    state: &'a DumpState,
}

impl Job<'_> {
    /// Stops the guest and writes its dump; the guest may have been released then, or not.
    fn dump(
        &self,
        guest: &mut dyn Attached,
        look: &Look<'_>,
        buffer: Option<SnapshotBuffer>,
    ) -> anyhow::Result<Done> {
        const NOT_RELEASED: &str = "the guest does not run again";
        let Self { args, target, outputs, state } = self;
        let mut machine = guest.hold().context("cannot stop the guest")?;
        if args.no_stop {
            guest.release().context(NOT_RELEASED)?;
        }
        let note = look.complete(&mut machine);
        let plan = filter::Plan::new(machine.kernel(), Some(&note), &args.write, target.format)?;
        let filtered = plan.map(|plan| plan.apply(&mut machine, args.no_stop, state)).transpose()?;
        if target.names_kernel() {
            uts::complete(&mut machine);
        }
        // Page tables are read for the plan: it comes before what is not wanted is gone.
        let layouts = target.plan(&machine)?;
        let mut is_of_running = args.no_stop;
        if let Some(buffer) = buffer {
            let wanted = target.wanted(&machine)?;
            let threads = job::execute_options(args.write.threads, false).threads;
            match buffer.copy(&*machine.memory, &wanted, threads, state)? {
                Some(copy) => {
                    guest.release().context(NOT_RELEASED)?;
                    machine.memory = Arc::new(copy);
                    is_of_running = true;
                }
                None => snapshot::refuse("its memory has grown since it was looked at"),
            }
        }
        target.warn_of_loss(&machine, args.write.quiet);
        let written = target.write(&layouts, &*machine.memory, outputs, &args.write, state)?;
        Ok(Done { written, vcpus: machine.vcpus.len(), note, filtered, is_of_running })
    }
}

/// Fails if the range holds no memory, by what is known of the guest while it runs.
fn check_range(estimate: &Estimate, args: &CaptureArgs) -> anyhow::Result<()> {
    match args.write.range {
        Some(range) if selected_len(estimate, args) == 0 => {
            let what = "the range holds no guest memory";
            Err(vmcore::Error::Range { what, start: range.begin.0, len: range.len }.into())
        }
        _ => Ok(()),
    }
}

/// Fails if the dump may need more space than there is. Pages that are compressed take less than is expected, so that this
/// is then only a warning: if they do not, the dump fails and leaves nothing behind.
fn check_space(outputs: &Outputs, expected_len: u64, is_compressed: bool) -> anyhow::Result<()> {
    let Some(shortage) = outputs.shortage(expected_len)? else { return Ok(()) };
    if is_compressed {
        text::say(&format!("vmcore: warning: {shortage} if its pages do not shrink"));
        return Ok(());
    }
    let hint =
        "name another folder with -o, compress with --format kdump, or send the dump down a pipe with -o -";
    Err(anyhow::anyhow!(shortage).context(Hint(hint.to_owned())))
}

/// How many bytes the dump may take, without compression.
fn expected_len(estimate: &Estimate, args: &CaptureArgs) -> u64 {
    let selected = selected_len(estimate, args);
    let memory = if args.write.no_sparse { selected } else { estimate.used_len.min(selected) };
    memory.saturating_add(HEADERS_LEN)
}

/// The memory that is asked for.
fn selected(estimate: &Estimate, args: &CaptureArgs) -> Vec<Region> {
    let Some(range) = args.write.range else { return estimate.regions.clone() };
    let clipped = estimate.regions.iter().filter_map(|region| range.clip(region.gpa, region.len));
    clipped.map(|(gpa, len)| Region::ram(gpa, len)).collect()
}

/// How many bytes of it.
fn selected_len(estimate: &Estimate, args: &CaptureArgs) -> u64 {
    selected(estimate, args).iter().map(|region| region.len).sum()
}

fn say(quiet: bool, line: &str) {
    if !quiet {
        text::say(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;
    use vmcore::Gpa;

    #[test]
    fn a_range_needs_the_space_of_its_memory() {
        let regions = vec![Region::ram(Gpa(0), 0xa_0000), Region::ram(Gpa(0x10_0000), 0x1f0_0000)];
        let estimate = Estimate { regions, used_len: 0x80_0000 };
        let check = |options: &[&str], expected: u64| {
            let args = [&["vmcore", "capture", "demo:x86_64", "-o", "x"], options].concat();
            let Command::Capture(args) = Args::try_parse_from(args).unwrap().command else {
                unreachable!("it says capture")
            };
            assert_eq!(expected_len(&estimate, &args) - HEADERS_LEN, expected, "{options:?}");
        };
        check(&[], 0x80_0000);
        check(&["--no-sparse"], 0x1fa_0000);
        check(&["--range", "0:1M"], 0xa_0000);
        check(&["--range", "0:4G"], 0x80_0000);
        check(&["--range", "0x90000:4G", "--no-sparse"], 0x1f1_0000);
    }

    #[test]
    fn a_dump_that_may_shrink_is_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("x");
        let outputs = Outputs::create(name.to_str().unwrap(), Some(2), false).unwrap();
        for is_compressed in [true, false] {
            check_space(&outputs, 2, is_compressed).unwrap();
        }
        check_space(&outputs, u64::MAX, true).unwrap();
        let error = check_space(&outputs, u64::MAX, false).unwrap_err();
        assert!(format!("{error:?}").contains("left, the dump may need 15.9 EiB"), "{error:?}");
    }
}
