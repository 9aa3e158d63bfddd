//! A dump under way: progress on the terminal, and an end by a signal.

use crate::args::WriteArgs;
use crate::failure::{Exit, Hint};
use crate::output;
use crate::outputs::Outputs;
use crate::text;
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use vmcore::{
    Compression, DumpOptions, DumpState, ExecuteOptions, Format, Layout, LetGo, Machine, PhysMemory, Region,
    Report, Severity, Share, Sink, Unreadable, Wrapper, execute_all, format, wrapper,
};

/// The wrapper for outputs that cannot go back.
const FLAT: &str = "flat";

/// What is to be written.
pub(crate) struct Target {
    pub(crate) format: &'static dyn Format,
    /// What goes around it.
    wrapper: Option<&'static dyn Wrapper>,
    options: DumpOptions,
    /// Of how many files it is made, if it is split.
    split: Option<u32>,
}

impl Target {
    /// The name of the format, and of what is around it.
    pub(crate) fn name(&self) -> String {
        self.wrapper.map_or(self.format.name().to_owned(), |wrapper| {
            format!("{}, {}", self.format.name(), wrapper.name())
        })
    }

    /// Sees to it that the format can be written to this output.
    pub(crate) fn fit(&mut self, outputs: &Outputs, quiet: bool) -> anyhow::Result<()> {
        if self.wrapper.is_none() && !outputs.are_files() && !self.format.abilities().streaming {
            self.wrapper = Some(wrapper::by_name(FLAT)?);
            if !quiet {
                text::say(
                    "the output cannot go back: it becomes a flattened stream, which `makedumpfile -R` turns into a file",
                );
            }
        }
        Ok(())
    }

    /// Says what of `machine` the format cannot hold.
    pub(crate) fn warn_of_loss(&self, machine: &Machine, quiet: bool) {
        let has_more = !machine.vcpus.is_empty() || !machine.notes.is_empty() || machine.guest_note.is_some();
        if has_more && !quiet && !self.format.abilities().registers {
            text::say(&format!(
                "{} holds memory alone: registers and notes are left out",
                self.format.name()
            ));
        }
        if machine.memory.has_excluded() && !self.format.abilities().gaps {
            text::say(&format!(
                "vmcore: warning: pages that are left out read as zeros from {}, as if they were there: --format lime has gaps instead",
                self.format.name()
            ));
        }
    }

    /// Whether pages are compressed, so that nobody knows how long the dump becomes.
    pub(crate) fn is_compressed(&self) -> bool {
        let method = self.options.compression.or(self.format.abilities().compressions.first().copied());
        method.is_some_and(|method| method != Compression::None)
    }

    /// Whether gdb opens it: of all formats it knows ELF cores only.
    pub(crate) fn is_for_gdb(&self) -> bool {
        self.wrapper.is_none() && self.format.name() == "elf"
    }

    /// Whether the format's header says what the guest's `uname` says.
    pub(crate) fn names_kernel(&self) -> bool {
        self.format.name() == "kdump"
    }

    /// Opens the outputs that `args` name.
    pub(crate) fn outputs(&self, args: &WriteArgs) -> anyhow::Result<Outputs> {
        Outputs::create(&args.output, self.split, args.force)
    }

    /// Plans the dump of `machine`: its files.
    pub(crate) fn plan(&self, machine: &Machine) -> anyhow::Result<Vec<Layout>> {
        let Some(count) = self.split else { return Ok(vec![self.plan_file(machine, None)?]) };
        (0..count).map(|index| self.plan_file(machine, Some(Share { index, count }))).collect()
    }

    /// The memory of `machine` that the dump is to hold.
    pub(crate) fn wanted(&self, machine: &Machine) -> Result<Vec<Region>, vmcore::Error> {
        self.options.select(machine)
    }

    fn plan_file(&self, machine: &Machine, share: Option<Share>) -> anyhow::Result<Layout> {
        let options = DumpOptions { share, ..self.options.clone() };
        let error = match self.format.plan(machine, &options) {
            Ok(layout) => return Ok(layout),
            Err(error) => anyhow::Error::new(error),
        };
        let without_paging = DumpOptions { paging: false, ..options };
        if self.options.paging && self.format.plan(machine, &without_paging).is_ok() {
            let hint = Hint("leave --paging away: the dump then needs no page tables".to_owned());
            return Err(error.context(hint));
        }
        Err(error)
    }

    /// Writes the files that `layouts` plan, with a progress bar, if standard error is a terminal.
    pub(crate) fn write(
        &self,
        layouts: &[Layout],
        memory: &dyn PhysMemory,
        outputs: &Outputs,
        args: &WriteArgs,
        state: &DumpState,
    ) -> anyhow::Result<Written> {
        let sinks = outputs.sinks(self.wrapper);
        let files: Vec<(&Layout, &dyn Sink)> = layouts.iter().zip(sinks.iter().map(|sink| &**sink)).collect();
        let options = execute_options(args.threads, !args.no_sparse);
        let reports = with_progress(args.quiet, state, || execute_all(&files, memory, options, state));
        let reports = reports.map_err(|error| explain(error, outputs))?;
        Ok(Written { files: outputs.names().into_iter().zip(reports).collect() })
    }
}

impl WriteArgs {
    /// The format that is asked for; fails if a dump cannot be written as the options say.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        if self.json && output::is_stdout(&self.output) {
            bail!("--json and the dump cannot both go to standard output: name a file with -o");
        }
        let format = format::by_name(&self.format)?;
        let variant = format.variants().iter().find(|variant| variant.name == self.format);
        let compression = match (self.compress, variant.and_then(|variant| variant.compression)) {
            (Some(asked), Some(named)) if asked != named => {
                bail!("--format {} means {}, --compress says {}", self.format, named.name(), asked.name())
            }
            (asked, named) => asked.or(named),
        };
        let can = format.abilities().compressions;
        if can.is_empty()
            && (self.level.is_some() || compression.is_some_and(|method| method != Compression::None))
        {
            bail!("format {} does not compress: --format kdump does", format.name());
        }
        if self.split.is_some() && !format.abilities().shares {
            bail!("--split: a dump in format {} is one file: --format kdump can be split", format.name());
        }
        let wrapper = if self.flatten { Some(FLAT) } else { variant.and_then(|variant| variant.wrapper) };
        let options = DumpOptions {
            range: self.range,
            paging: self.paging,
            class: self.class,
            compression,
            level: self.level,
            all_memory: self.all_memory,
            share: None,
            variant: variant.map(|variant| variant.name),
        };
        let wrapper = wrapper.map(wrapper::by_name).transpose()?;
        Ok(Target { format, wrapper, options, split: self.split })
    }
}

/// Options of [`vmcore::execute()`] with the default number of threads for `None`.
pub(crate) fn execute_options(threads: Option<u16>, sparse: bool) -> ExecuteOptions {
    let default = ExecuteOptions::default();
    ExecuteOptions { threads: threads.map_or(default.threads, usize::from), sparse }
}

/// How long a job that a signal has cancelled may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What the first signal does beside cancelling the job.
#[derive(Default)]
pub(crate) struct OnSignal(Mutex<Actions>);

#[derive(Default)]
struct Actions {
    /// Whether it has come.
    is_over: bool,
    actions: Vec<LetGo>,
}

impl OnSignal {
    /// The signal lets this guest go, also while the job waits for its reader or its disk; or does another thing that must not wait.
    /// If it has come already, that is now.
    pub(crate) fn then(&self, action: LetGo) {
        let mut actions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if actions.is_over {
            action();
        }
        actions.actions.push(action);
    }

    fn come(&self) {
        let mut actions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        actions.is_over = true;
        actions.actions.iter().for_each(|action| action());
    }
}

/// From now on the first SIGINT, SIGTERM or SIGHUP lets the guest go and cancels the job; the second ends the process at
/// once, as does a job that is stuck. Signals that the parent ignores (`nohup`) stay ignored.
pub(crate) fn cancel_on_signals() -> anyhow::Result<(Arc<DumpState>, Arc<OnSignal>)> {
    let (state, on_signal) = (Arc::new(DumpState::default()), Arc::new(OnSignal::default()));
    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted)?;
    let (job, actions) = (Arc::clone(&state), Arc::clone(&on_signal));
    std::thread::spawn(move || {
        let mut is_first = true;
        for _ in signals.forever() {
            if !std::mem::take(&mut is_first) {
                std::process::exit(130);
            }
            job.cancel();
            actions.come();
            std::thread::spawn(|| {
                std::thread::sleep(END_TIMEOUT);
                std::process::exit(130);
            });
        }
    });
    Ok((state, on_signal))
}

/// The signals that this process was started with as ignored: bit 0 is signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Does `work` with a progress bar, if standard error is a terminal.
pub(crate) fn with_progress<T>(quiet: bool, state: &DumpState, work: impl FnOnce() -> T) -> T {
    const TEMPLATE: &str = "{percent:>3}% [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if quiet || !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let style =
                ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
            while let Err(mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(Duration::from_millis(100))
            {
                bar.set_length(state.total());
                bar.set_position(state.completed());
            }
            bar.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}

/// Whether an opened dump is complete and nothing in it is wrong.
pub(crate) fn is_sound(machine: &Machine) -> bool {
    !machine.is_incomplete && machine.findings.iter().all(|finding| finding.severity != Severity::Error)
}

/// Warns of all that is to be said of a dump, named `name`, that is not sound. Tells whether it is.
pub(crate) fn warn_of_damage(machine: &Machine, name: &str) -> bool {
    for text in damage(machine) {
        text::say(&format!("vmcore: warning: {name}: {text}"));
    }
    is_sound(machine)
}

/// All that is to be said of a dump that is not sound.
pub(crate) fn damage(machine: &Machine) -> Vec<String> {
    let findings = if is_sound(machine) { &[] } else { &machine.findings[..] };
    findings.iter().map(|finding| finding.text.clone()).collect()
}

/// What to do after a dump of which some memory could not be read, and the exit status.
pub(crate) fn judge(unreadable: &Unreadable) -> Exit {
    if unreadable.is_empty() {
        return Exit::Complete;
    }
    let (len, count) =
        (text::size(unreadable.byte_len()), text::count(unreadable.ranges().len() as u64, "range"));
    text::say(&format!(
        "vmcore: warning: {len} of guest memory in {count} could not be read; the dump has zeros there:"
    ));
    for range in unreadable.ranges().iter().take(8) {
        text::say(&format!("  {:#x}-{:#x}", range.start, range.end - 1));
    }
    if unreadable.ranges().len() > 8 {
        text::say("  and more (--json lists them all)");
    }
    Exit::Incomplete
}

/// What was written: the files of a dump, each with its report.
pub(crate) struct Written {
    files: Vec<(String, Report)>,
}

impl Written {
    /// Length of all files together.
    pub(crate) fn file_len(&self) -> u64 {
        self.files.iter().map(|(_, report)| report.file_len).sum()
    }

    /// Guest memory that could not be read.
    pub(crate) fn unreadable(&self) -> Unreadable {
        let mut all = Unreadable::default();
        self.files.iter().for_each(|(_, report)| all.merge(&report.unreadable));
        all
    }

    /// Says how long each file has become and, of several, all together; `end` ends the last line.
    pub(crate) fn say(&self, end: &str) {
        let line = |name: &str, file_len, written| {
            format!("{name}: {}, {} stored", text::size(file_len), text::size(written))
        };
        let files = self.files.iter();
        let mut lines: Vec<String> =
            files.map(|(name, report)| line(name, report.file_len, report.written)).collect();
        if lines.len() > 1 {
            lines.push(line(&text::count(lines.len() as u64, "file"), self.file_len(), self.written()));
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(end);
        }
        lines.iter().for_each(|line| text::say(line));
    }

    /// As JSON: what `capture` and `convert` have in common. `asked` is what the user calls a dump in several files.
    pub(crate) fn as_json(&self, asked: &str, format: &str) -> Value {
        let output = if let [(name, _)] = &self.files[..] { name } else { asked };
        let file = |(name, report): &(String, Report)| json!({ "output": name, "file_len": report.file_len, "bytes_written": report.written });
        json!({
            "output": output,
            "format": format,
            "file_len": self.file_len(),
            "bytes_written": self.written(),
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "unreadable": ranges_json(&self.unreadable()),
        })
    }

    fn written(&self) -> u64 {
        self.files.iter().map(|(_, report)| report.written).sum()
    }
}

/// Ranges of guest memory as JSON.
pub(crate) fn ranges_json(unreadable: &Unreadable) -> Vec<Value> {
    unreadable
        .ranges()
        .iter()
        .map(|range| json!({ "gpa": range.start, "len": range.end - range.start }))
        .collect()
}

/// Adds to an error of writing what became of the output, and what the user can do.
pub(crate) fn explain(error: vmcore::Error, outputs: &Outputs) -> anyhow::Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let name = outputs.name();
    let is_full = matches!(&error, vmcore::Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded));
    let context = match error {
        vmcore::Error::Cancelled if outputs.are_files() => format!("{name} was not written"),
        vmcore::Error::Cancelled => format!("{name} got only a part of the dump"),
        _ => format!("cannot write {name}"),
    };
    let error = anyhow::Error::new(error).context(context);
    if is_full && outputs.are_files() {
        return error
            .context(Hint("nothing was left behind; make room, or name another folder with -o".to_owned()));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn a_signal_is_not_lost_on_who_comes_late() {
        let count = Arc::new(AtomicUsize::new(0));
        let action = || -> LetGo {
            let count = Arc::clone(&count);
            Arc::new(move || {
                count.fetch_add(1, Relaxed);
            })
        };
        let on_signal = OnSignal::default();
        on_signal.then(action());
        assert_eq!(count.load(Relaxed), 0);
        on_signal.come();
        assert_eq!(count.load(Relaxed), 1);
        on_signal.then(action());
        assert_eq!(count.load(Relaxed), 2);
    }
}
