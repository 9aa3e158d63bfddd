//! Running other programs, and where things are.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The top of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// A folder of the cache, which git ignores. It is made if it is missing.
pub(crate) fn cache(folder: &str) -> Result<PathBuf> {
    let path = repository().join(".cache").join(folder);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Runs a program whose output the user sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", text(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", text(command));
    }
    Ok(())
}

/// Runs a program that must succeed, and gives its standard output. The error has all that it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// As [`output`], of a program that prints no text.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let out = any_output(command)?;
    if !out.status.success() {
        bail!("{} ended with {}\n{}", text(command), out.status, printed(&out));
    }
    Ok(out.stdout)
}

/// Runs a program that may also fail.
pub(crate) fn any_output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", text(command)))
}

/// Builds a program of ours, optimised; `program` is its place in the folder of such programs.
pub(crate) fn built(args: &[&str], program: &str) -> Result<PathBuf> {
    built_with("release", args, program)
}

/// As [`built`], with another profile.
pub(crate) fn built_with(profile: &str, args: &[&str], program: &str) -> Result<PathBuf> {
    run(Command::new(env!("CARGO"))
        .args(["build", "--profile", profile])
        .args(args)
        .current_dir(repository()))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    // The profile `dev` has a folder of another name.
    Ok(target.join(if profile == "dev" { "debug" } else { profile }).join(program))
}

/// All that a program printed, for messages.
pub(crate) fn printed(out: &Output) -> String {
    let all = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // The end says why.
    let start = all.char_indices().rev().nth(4000).map_or(0, |(index, _)| index);
    all.get(start..).unwrap_or(&all).trim_end().to_owned()
}

/// The command line, for messages.
pub(crate) fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let all = words.join(" ");
    match all.char_indices().nth(300) {
        Some((end, _)) => format!("`{} ...`", &all[..end]),
        None => format!("`{all}`"),
    }
}

/// Where a program of that name lies, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // The folders of administration are not in everybody's PATH.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Does `work` up to `times` times, until it succeeds. For what depends on the world: downloads and boots.
pub(crate) fn retry<T>(times: u32, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for left in (1..times).rev() {
        match work() {
            Ok(value) => return Ok(value),
            Err(error) => eprintln!("{what}: {error:#}; trying again ({left} left)"),
        }
    }
    work().with_context(|| what.to_owned())
}
