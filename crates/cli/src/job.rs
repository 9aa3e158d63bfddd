//! A dump under way: progress on the terminal, and an end by a signal.

use crate::args::WriteArgs;
use crate::failure::{Exit, Hint};
use crate::output::Output;
use crate::text;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use vmcore::{
    DumpOptions, DumpState, ExecuteOptions, Layout, LetGo, PhysMemory, Report, Sink, Unreadable, execute,
};

impl WriteArgs {
    pub(crate) fn dump_options(&self) -> DumpOptions {
        DumpOptions {
            range: self.range,
            paging: self.paging,
            class: self.class,
            ..DumpOptions::default()
        }
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

/// What to do after a dump of which some memory could not be read, and the exit status.
pub(crate) fn judge(unreadable: &Unreadable) -> Exit {
    if unreadable.is_empty() {
        return Exit::Complete;
    }
    let (len, count) =
        (text::size(unreadable.byte_len()), text::count(unreadable.ranges().len() as u64, "range"));
    eprintln!(
        "vmcore: warning: {len} of guest memory in {count} could not be read; the dump has zeros there:"
    );
    for range in unreadable.ranges().iter().take(8) {
        eprintln!("  {:#x}-{:#x}", range.start, range.end - 1);
    }
    if unreadable.ranges().len() > 8 {
        eprintln!("  and more (--json lists them all)");
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

/// Adds to an error of writing what the user can do.
pub(crate) fn explain(error: vmcore::Error, output: &Output) -> anyhow::Error {
    let kind = match &error {
        vmcore::Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    let context = anyhow::Error::new(error).context(format!("cannot write {}", output.name()));
    match kind {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => context
            .context(Hint("nothing was left behind; make room, or name another folder with -o".to_owned())),
        _ => context,
    }
}
