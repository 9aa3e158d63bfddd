//! Times and memory.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Milliseconds that `work` takes.
pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(milliseconds(start.elapsed()))
}

/// Milliseconds that `work` takes to write this file anew: what an earlier round has left is removed before, because to give back
/// the pages of an old file is work of its own.
pub(crate) fn timed_dump(file: &Path, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => timed(work),
    }
}

pub(crate) fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() % 2 {
        0 if !times.is_empty() => (times[middle - 1] + times[middle]) / 2.0,
        0 => 0.0,
        _ => times[middle],
    }
}

/// The most memory that a process took, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// Everything resident, its own program included.
    pub(crate) all: u64,
    /// Memory that is no file's.
    pub(crate) anonymous: u64,
}

/// Runs a program and looks at its memory as often as can be.
///
/// `VmHWM` is the kernel's own maximum: it is exact however seldom we look, as long as we look once behind the peak.
pub(crate) fn run_and_watch(command: &mut Command) -> Result<Peak> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let path = format!("/proc/{}/status", child.id());
    let mut peak = Peak::default();
    let status = loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        peak.all = peak.all.max(field("VmHWM").unwrap_or(0));
        peak.anonymous = peak.anonymous.max(field("RssAnon").unwrap_or(0));
        if let Some(status) = child.try_wait().context("the program that is measured")? {
            break status;
        }
    };
    if !status.success() {
        bail!("{} ended with {status}", crate::run::text(command));
    }
    Ok(peak)
}
