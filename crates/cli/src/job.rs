//! A dump under way: progress on the terminal, and an end by a signal.

use crate::args::WriteArgs;
use crate::failure::{Exit, Hint};
use crate::output::{self, Output};
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
    Compression, DumpOptions, DumpState, ExecuteOptions, Format, Layout, LetGo, Machine, PhysMemory, Report,
    Severity, Sink, Unreadable, Wrapper, execute, format, wrapper,
};

/// The wrapper for outputs that cannot go back.
const FLAT: &str = "flat";

/// What is to be written.
pub(crate) struct Target {
    pub(crate) format: &'static dyn Format,
    /// What goes around it.
    wrapper: Option<&'static dyn Wrapper>,
    pub(crate) options: DumpOptions,
}

impl Target {
    /// The name of the format, and of what is around it.
    pub(crate) fn name(&self) -> String {
        self.wrapper.map_or(self.format.name().to_owned(), |wrapper| {
            format!("{}, {}", self.format.name(), wrapper.name())
        })
    }

    /// Sees to it that the format can be written to this output.
    pub(crate) fn fit(&mut self, output: &Output, quiet: bool) -> anyhow::Result<()> {
        if self.wrapper.is_none() && !output.is_file() && !self.format.abilities().streaming {
            self.wrapper = Some(wrapper::by_name(FLAT)?);
            if !quiet {
                text::say(
                    "the output cannot go back: it becomes a flattened stream, which `makedumpfile -R` turns into a file",
                );
            }
        }
        Ok(())
    }

    /// Plans the dump of `machine`.
    pub(crate) fn plan(&self, machine: &Machine) -> anyhow::Result<Layout> {
        let error = match self.format.plan(machine, &self.options) {
            Ok(layout) => return Ok(layout),
            Err(error) => anyhow::Error::new(error),
        };
        let without_paging = DumpOptions { paging: false, ..self.options.clone() };
        if self.options.paging && self.format.plan(machine, &without_paging).is_ok() {
            let hint = Hint("leave --paging away: the dump then needs no page tables".to_owned());
            return Err(error.context(hint));
        }
        Err(error)
    }

    /// Writes the dump that `layout` plans, with a progress bar, if standard error is a terminal.
    pub(crate) fn write(
        &self,
        layout: &Layout,
        memory: &dyn PhysMemory,
        output: &Output,
        args: &WriteArgs,
        state: &DumpState,
    ) -> anyhow::Result<Report> {
        let sink = output.sink(self.wrapper);
        run(layout, memory, &*sink, args.execute_options(), state, args.quiet)
            .map_err(|error| explain(error, output))
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
        let wrapper = if self.flatten { Some(FLAT) } else { variant.and_then(|variant| variant.wrapper) };
        let options = DumpOptions {
            range: self.range,
            paging: self.paging,
            class: self.class,
            compression,
            level: self.level,
            all_memory: self.all_memory,
            share: None,
        };
        Ok(Target { format, wrapper: wrapper.map(wrapper::by_name).transpose()?, options })
    }

    pub(crate) fn execute_options(&self) -> ExecuteOptions {
        execute_options(self.threads, !self.no_sparse)
    }
}

/// Options of [`execute`] with the default number of threads for `None`.
pub(crate) fn execute_options(threads: Option<u16>, sparse: bool) -> ExecuteOptions {
    let default = ExecuteOptions::default();
    ExecuteOptions { threads: threads.map_or(default.threads, usize::from), sparse }
}

/// How long a job that a signal has cancelled may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What a signal does.
#[derive(Default)]
pub(crate) struct OnSignal {
    /// Lets the guest go, if there is one.
    let_go: Mutex<Option<LetGo>>,
}

impl OnSignal {
    /// From now on a signal lets this guest go, also while the dump waits for its reader or its disk.
    pub(crate) fn let_go(&self, let_go: LetGo) {
        *self.let_go.lock().unwrap_or_else(PoisonError::into_inner) = Some(let_go);
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
            if let Some(let_go) = &*actions.let_go.lock().unwrap_or_else(PoisonError::into_inner) {
                let_go();
            }
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

/// Carries out `layout` with a progress bar, if standard error is a terminal.
pub(crate) fn run(
    layout: &Layout,
    memory: &dyn PhysMemory,
    sink: &dyn Sink,
    options: ExecuteOptions,
    state: &DumpState,
    quiet: bool,
) -> Result<Report, vmcore::Error> {
    let is_shown = !quiet && std::io::stderr().is_terminal();
    with_progress(is_shown, state, || execute(layout, memory, sink, options, state))
}

fn with_progress<T>(is_shown: bool, state: &DumpState, work: impl FnOnce() -> T) -> T {
    const TEMPLATE: &str = "{percent:>3}% [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if !is_shown {
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

/// A report as JSON: what `capture` and `convert` have in common.
pub(crate) fn report_json(output: &Output, format: &str, report: &Report) -> Value {
    let unreadable: Vec<Value> = ranges_json(&report.unreadable);
    json!({
        "output": output.name(),
        "format": format,
        "file_len": report.file_len,
        "bytes_written": report.written,
        "unreadable": unreadable,
    })
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
pub(crate) fn explain(error: vmcore::Error, output: &Output) -> anyhow::Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let name = output.name();
    let is_full = matches!(&error, vmcore::Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded));
    let context = match error {
        vmcore::Error::Cancelled if output.is_file() => format!("{name} was not written"),
        vmcore::Error::Cancelled => format!("{name} got only a part of the dump"),
        _ => format!("cannot write {name}"),
    };
    let error = anyhow::Error::new(error).context(context);
    if is_full && output.is_file() {
        return error
            .context(Hint("nothing was left behind; make room, or name another folder with -o".to_owned()));
    }
    error
}
