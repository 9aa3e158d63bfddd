//! The invariants of the design that can be checked: who depends on whom, and what the core never touches.

use crate::deny;
use crate::run::{output, repository};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders whose crates are plugins.
const PLUGINS: [&str; 2] = ["arch", "formats"];
const CORE: &str = "vmcore-core";
const FACADE: &str = "vmcore";
/// The crate that has all plugins, a line of its manifest each. Beside it the facade names plugins, for who wants few of them.
const ALL_PLUGINS: &str = "vmcore-plugins";
/// No part of the product.
const NOT_SHIPPED: [&str; 2] = ["vmcore-tests", "xtask"];
/// Crates that are fed bytes and return bytes.
const PURE: [&str; 7] = [
    "crates/backtrace",
    "crates/core",
    "crates/filter",
    "crates/gdb",
    "crates/vmcoreinfo",
    "arch",
    "formats",
];
/// Process, socket and terminal code.
const WORLD: [&str; 8] = [
    "std::process",
    "std::net",
    "unix::net",
    "UnixStream",
    "TcpStream",
    "Command::new",
    "is_terminal",
    "std::env",
];

/// `cargo xtask tidy`.
pub(crate) fn tidy() -> Result<()> {
    let metadata = metadata()?;
    let mut wrong = arrows(&metadata)?;
    wrong.extend(unlinked(&metadata)?);
    wrong.extend(deny::check(&metadata)?);
    wrong.extend(words()?);
    for line in &wrong {
        println!("  {line}");
    }
    match wrong.len() {
        0 => Ok(()),
        count => bail!("{count} breaches of the design (DESIGN.md, Invariants)"),
    }
}

fn metadata() -> Result<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    let text =
        output(cargo.args(["metadata", "--format-version", "1", "--locked"]).current_dir(repository()))?;
    serde_json::from_str(&text).context("the output of cargo metadata")
}

/// A crate of the workspace.
struct Crate<'a> {
    name: &'a str,
    /// The top-level folder that it lies in.
    folder: &'a str,
    /// Names of the crates that it needs outside of its tests.
    needs: Vec<&'a str>,
}

fn crates(metadata: &Value) -> Result<Vec<Crate<'_>>> {
    let root = metadata["workspace_root"].as_str().context("no workspace_root")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let own = packages.iter().filter(|package| package["source"].is_null());
    let own = own.map(|package| {
        let name = package["name"].as_str().context("a package without a name")?;
        let manifest = package["manifest_path"].as_str().context("a package without a path")?;
        let inside = manifest.strip_prefix(root).context("a package outside of the workspace")?;
        let folder = inside.trim_start_matches('/').split('/').next().unwrap_or_default();
        let needs = package["dependencies"].as_array().context("a package without dependencies")?;
        let needs = needs.iter().filter(|need| need["kind"].as_str() != Some("dev"));
        Ok(Crate { name, folder, needs: needs.filter_map(|need| need["name"].as_str()).collect() })
    });
    own.collect()
}

/// The arrows of the design: core names no plugin, plugins need core only, only two crates name plugins.
fn arrows(metadata: &Value) -> Result<Vec<String>> {
    let crates = crates(metadata)?;
    let own: BTreeSet<&str> = crates.iter().map(|krate| krate.name).collect();
    let is_plugin =
        |name: &str| crates.iter().any(|krate| krate.name == name && PLUGINS.contains(&krate.folder));
    let mut wrong = Vec::new();
    for krate in &crates {
        for need in krate.needs.iter().filter(|need| own.contains(*need)) {
            let name = krate.name;
            if name == CORE {
                wrong.push(format!("{name} needs {need}: the core needs nothing of ours"));
            } else if PLUGINS.contains(&krate.folder) && *need != CORE {
                wrong.push(format!("{name} needs {need}: a plugin needs {CORE} only"));
            } else if is_plugin(need)
                && ![FACADE, ALL_PLUGINS].contains(&name)
                && !NOT_SHIPPED.contains(&name)
            {
                wrong.push(format!(
                    "{name} needs the plugin {need}: only {ALL_PLUGINS} and {FACADE} name plugins"
                ));
            }
        }
    }
    if !own.contains(CORE) || !own.contains(FACADE) {
        bail!("{CORE} and {FACADE} are not in the workspace: this check has to follow their names");
    }
    Ok(wrong)
}

/// The facade, as cargo describes it.
fn facade(metadata: &Value) -> Result<&Value> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    packages.iter().find(|package| package["name"] == FACADE).context("no facade")
}

/// The features of the facade, those of its plugins too.
pub(crate) fn facade_features() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let features = facade(&metadata)?["features"].as_object().context("the facade has no features")?;
    Ok(features.keys().cloned().collect())
}

/// The plugins that are not linked by default: nobody would have them.
fn unlinked(metadata: &Value) -> Result<Vec<String>> {
    let crates = crates(metadata)?;
    let all = crates.iter().find(|krate| krate.name == ALL_PLUGINS).context("no crate of all plugins")?;
    let unlinked =
        crates.iter().filter(|krate| PLUGINS.contains(&krate.folder) && !all.needs.contains(&krate.name));
    Ok(unlinked.map(|krate| format!("{} is not in the manifest of {ALL_PLUGINS}", krate.name)).collect())
}

/// What the sources may not say.
fn words() -> Result<Vec<String>> {
    let mut plugins = Vec::new();
    for folder in PLUGINS {
        for entry in fs::read_dir(repository().join(folder))? {
            plugins.push(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    let plugins: Vec<&str> = plugins.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for folder in PURE {
        wrong.extend(find(&repository().join(folder), &WORLD, "code without a world")?);
    }
    wrong.extend(find(&repository().join("crates/core"), &plugins, "the core names no plugin")?);
    Ok(wrong)
}

/// The lines of the sources below `folder` that say one of `words`; comments and tests may.
fn find(folder: &Path, words: &[&str], why: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in sources(folder)? {
        let text = fs::read_to_string(&path)?;
        let shown = path.strip_prefix(repository()).unwrap_or(&path).display();
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        for (number, line) in code.enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| says(code, word)) {
                found.push(format!("{shown}:{}: `{word}` in {why}", number + 1));
            }
        }
    }
    Ok(found)
}

/// Whether `code` has `word`, and not as a part of a longer name.
fn says(code: &str, word: &str) -> bool {
    let is_name = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, behind) = (&code[..at], &code[at + word.len()..]);
        !before.ends_with(is_name) && !behind.starts_with(is_name)
    })
}

/// The Rust files of the `src` folders below `folder`, test modules in files of their own left out.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files); // a crate that is not written yet
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["tests", "fuzz", "benches", "examples", "target"].contains(&name) {
                files.extend(sources(&path)?);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_not_a_part_of_a_name() {
        assert!(says("by_name(\"elf\")", "elf"));
        assert!(!says("identity.elf_machine", "elf"));
        assert!(!says("self.x", "elf"));
        assert!(says("use std::process::Command;", "std::process"));
    }
}
