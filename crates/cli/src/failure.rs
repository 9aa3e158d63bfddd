//! How a command ends: its exit status, and what it says of an error.

use crate::text;
use std::process::ExitCode;
use vmcore::Error;

/// What a command returns.
pub(crate) type Outcome = anyhow::Result<Exit>;

/// Exit status of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything is there, and sound.
    Complete,
    /// The dump that was read or written is not complete or not sound.
    Incomplete,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Complete => Self::SUCCESS,
            Exit::Incomplete => Self::from(3),
        }
    }
}

/// An error together with what to do about it.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) String);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints an error and gives the exit status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    for line in lines(error) {
        text::say(&line);
    }
    ExitCode::from(if is_cancelled(error) { 130 } else { 1 })
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Cancelled)))
}

/// An error with all its causes, each once, and what to do.
pub(crate) fn lines(error: &anyhow::Error) -> Vec<String> {
    // A hint rides on the error as its context; it is printed last.
    let own_hint = error.downcast_ref::<Hint>().map(|hint| hint.0.clone());
    let mut said = Vec::new();
    if is_cancelled(error) {
        said.push("interrupted".to_owned());
    }
    for cause in error.chain() {
        // The one is said already, the other only carries the next cause.
        if matches!(cause.downcast_ref(), Some(Error::Cancelled | Error::Source { .. })) {
            continue;
        }
        let text = cause.to_string();
        if own_hint.as_ref() != Some(&text) {
            said.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
        }
    }
    said.dedup();
    said.extend(own_hint.or_else(|| hint(error)).map(|hint| format!("hint: {hint}")));
    let indents = std::iter::once("vmcore: ").chain(std::iter::repeat("  "));
    indents.zip(said).map(|(indent, line)| format!("{indent}{line}")).collect()
}

/// What to do about an error of the library.
fn hint(error: &anyhow::Error) -> Option<String> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    let text = match error {
        Error::UnknownFormat { .. } => {
            "`vmcore list` shows the formats that can be read; an image of memory alone is opened with --input-format raw"
        }
        Error::Truncated { .. } => "the file is cut off; copy it again, or take the dump again",
        Error::Unknown { what: "source", .. } => {
            "a source is a scheme and an address, as in qemu:/run/qmp.sock"
        }
        Error::NotMapped { .. } | Error::NotCanonical { .. } => {
            "another vCPU may have other page tables: try --cpu N; `vmcore info` lists them. A physical address needs no --virt"
        }
        Error::NoRegister { .. } => {
            "the dump holds too few registers for this; read by physical address, without --virt"
        }
        Error::UnknownArch { elf_machine: 0, .. } => "--arch names the guest's architecture (`vmcore list`)",
        Error::NoVmcoreinfo { .. } => {
            "--vmcoreinfo FILE supplies it; with `-device vmcoreinfo` a guest gives QEMU its own, and its dumps have it"
        }
        Error::TooLarge { what, .. } if what.contains("32-bit") => {
            "leave --class away: the dump then gets 64-bit structures"
        }
        Error::TooLarge { what, .. } if what.contains("split dump") => {
            "ask for fewer files: each holds 4096 pages or more"
        }
        Error::Range { what, .. } if what.contains("holds no guest memory") => {
            "`vmcore info` shows the memory map"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn each_line_says_something() {
        let check = |error: &anyhow::Error, expected: &[&str]| assert_eq!(lines(error), expected);
        check(&anyhow!(Error::Cancelled), &["vmcore: interrupted"]);
        check(
            &anyhow!(Error::Cancelled).context("x was not written"),
            &["vmcore: interrupted", "  x was not written"],
        );
        let source = Error::Source { scheme: "qemu", source: "it hung up\n\nbye".into() };
        check(
            &anyhow!(source).context("cannot stop the guest").context(Hint("start it".into())),
            &["vmcore: cannot stop the guest", "  it hung up", "  bye", "  hint: start it"],
        );
        check(&anyhow!("twice").context("twice"), &["vmcore: twice"]);
    }
}
