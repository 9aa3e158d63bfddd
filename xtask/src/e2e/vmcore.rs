//! Runs the command that is tested.

use crate::run::{any_output, printed, text};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program.
#[derive(Debug)]
pub(crate) struct Vmcore {
    pub(crate) program: PathBuf,
}

impl Vmcore {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args);
        command
    }

    /// Runs it; it must succeed. Gives standard output.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
        succeeded(&mut self.command(args))
    }

    /// Captures a guest completely, and gives the report.
    pub(crate) fn capture(&self, uri: &str, out: &Path, options: &[&str]) -> Result<Value> {
        let mut command = self.capture_command(uri, out, options);
        let stdout = succeeded(command.arg("--json"))?;
        let report: Value = serde_json::from_slice(&stdout).context("the report of a capture")?;
        ensure!(
            report["unreadable"] == serde_json::json!([]),
            "memory was not readable: {}",
            report["unreadable"]
        );
        Ok(report)
    }

    pub(crate) fn capture_command(&self, uri: &str, out: &Path, options: &[&str]) -> Command {
        let mut command = self.command(["capture", uri, "-o"]);
        command.arg(out).args(options);
        command
    }

    /// `info --json`.
    pub(crate) fn info(&self, dump: &Path) -> Result<Value> {
        let stdout = self.run([OsStr::new("info"), OsStr::new("--json"), dump.as_os_str()])?;
        serde_json::from_slice(&stdout).context("the report of info")
    }

    /// `verify` finds nothing wrong.
    pub(crate) fn verify(&self, dump: &Path) -> Result<()> {
        self.run([OsStr::new("verify"), dump.as_os_str()]).map(drop)
    }

    /// `read` with further options.
    pub(crate) fn read(&self, dump: &Path, addr: u64, len: usize, options: &[&str]) -> Result<Vec<u8>> {
        let mut command = self.command([OsStr::new("read"), dump.as_os_str()]);
        command.arg(format!("{addr:#x}")).arg(len.to_string()).args(options);
        succeeded(&mut command)
    }
}

fn succeeded(command: &mut Command) -> Result<Vec<u8>> {
    let out = any_output(command)?;
    if !out.status.success() {
        bail!("{} ended with {}\n{}", text(command), out.status, printed(&out));
    }
    Ok(out.stdout)
}

/// It failed with exit status 1, and its message has these words.
pub(crate) fn fails_with(out: &Output, words: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(1), "it ended with {}, not with status 1: {message}", out.status);
    ensure!(
        message.lines().any(|line| line.starts_with("vmcore: ")),
        "the message does not say who speaks: {message}"
    );
    for word in words {
        ensure!(
            message.to_lowercase().contains(&word.to_lowercase()),
            "the message lacks `{word}`: {message}"
        );
    }
    Ok(())
}
