//! How a command ends: its exit status, and what it says of an error.

use std::process::ExitCode;
use vmcore::Error;

/// What a command returns.
pub(crate) type Outcome = anyhow::Result<Exit>;

/// Exit status of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything is there.
    Complete,
    /// The check found errors.
    Damaged,
    /// A dump was written, but not all memory could be read.
    Incomplete,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Complete => Self::SUCCESS,
            Exit::Damaged => Self::from(1),
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

/// Prints an error with all its causes, once, and what to do; gives the exit status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // Whoever read our output has had enough.
        return ExitCode::SUCCESS;
    }
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let line = cause.to_string();
        // A hint rides on the error as its context; it is printed last.
        if error.downcast_ref::<Hint>().is_some_and(|hint| hint.0 == line) || lines.last() == Some(&line) {
            continue;
        }
        lines.push(line);
    }
    eprintln!("vmcore: {}", lines.first().map_or("failed", String::as_str));
    for line in lines.iter().skip(1) {
        eprintln!("  {}", line.replace('\n', "\n  "));
    }
    if let Some(hint) = error.downcast_ref::<Hint>().map(|hint| hint.0.clone()).or_else(|| hint(error)) {
        eprintln!("  hint: {}", hint.replace('\n', "\n  "));
    }
    let is_cancelled = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Cancelled)));
    if is_cancelled { ExitCode::from(130) } else { ExitCode::from(1) }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // Only our standard output counts: a dump that was cut off on its way is an error.
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What to do about an error of the library.
fn hint(error: &anyhow::Error) -> Option<String> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<Error>())?;
    let text = match error {
        Error::UnknownFormat { .. } => "`vmcore list` shows the formats that can be read",
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
        Error::TooLarge { what, .. } if what.contains("32-bit") => {
            "leave --class away: the dump then gets 64-bit structures"
        }
        Error::Range { what, .. } if what.contains("holds no guest memory") => {
            "`vmcore info` shows the memory map"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
