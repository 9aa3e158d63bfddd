//! `cargo xtask new-arch NAME`: the crate of an architecture, that compiles and is linked in, to be filled.

use crate::package::LICENSES;
use crate::run::{repository, run};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Which architecture.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its name as `uname -m` says it, as in riscv64
    #[arg(value_parser = name)]
    name: String,
    /// e_machine of its ELF files, as in 243
    #[arg(long)]
    elf_machine: u16,
}

/// The files of the crate, and their texts, in which `@NAME@`, `@TYPE@` and `@MACHINE@` stand for what is asked for.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("src/registers.rs", include_str!("template/registers.rs.in")),
    ("src/notes.rs", include_str!("template/notes.rs.in")),
    ("src/paging.rs", include_str!("template/paging.rs.in")),
];

/// The file that links plugins in.
const PLUGINS: &str = "crates/plugins/Cargo.toml";
/// The line of [`PLUGINS`] that links the crate in, and how the line begins before which it stands.
const LINK: &str =
    "@NAME@ = { package = \"vmcore-arch-@NAME@\", path = \"../../arch/@NAME@\", version = \"0.1.0\" }\n";
const BEFORE: &str = "x86_64 = {";

/// A name that is one for a folder, a feature and a crate.
fn name(text: &str) -> Result<String, String> {
    let is_name = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("lower-case letters, digits and `_`, a letter first".to_owned())
    }
}

pub(crate) fn new_arch(args: &Args) -> Result<()> {
    let repository = repository();
    write(repository, &args.name, args.elf_machine)?;
    // The test of all architectures has snapshots.
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "--package", "vmcore-tests", "--test", "architectures"]);
    run(test.current_dir(repository).env("INSTA_UPDATE", "always"))?;
    println!("\narch/{0} compiles and is linked in: `cargo run -- list` shows it", args.name);
    println!("next: docs/adding-an-architecture.md");
    Ok(())
}

/// Sees to it that what is written compiles and has no warnings, in a workspace of its own.
pub(crate) fn check() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    for path in [PLUGINS, "Cargo.toml", "Cargo.lock"] {
        copy(path, root)?;
    }
    write(root, "skeleton", 0xfe00)?;
    fs::remove_dir_all(root.join("crates"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let of_workspace = |line: &&str| !line.starts_with("default-members") && !line.starts_with("exclude");
    let line = |line: &str| match line.split_once('=') {
        Some(("members ", _)) => "members = [\"arch/*\"]".to_owned(),
        Some((name, _)) if name.starts_with("vmcore") => {
            line.replace("path = \"", &format!("path = \"{}/", repository().display()))
        }
        _ => line.to_owned(),
    };
    let lines: Vec<String> = manifest.lines().filter(of_workspace).map(line).collect();
    fs::write(root.join("Cargo.toml"), lines.join("\n"))?;
    let mut clippy = Command::new(env!("CARGO"));
    clippy.args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]).current_dir(root);
    run(clippy.env("CARGO_TARGET_DIR", repository().join("target/skeleton")))
}

/// Writes the crate and links it in, in the checkout `repository`. Nothing is written if something is in the way.
fn write(repository: &Path, name: &str, elf_machine: u16) -> Result<()> {
    let folder = repository.join("arch").join(name);
    if folder.exists() {
        bail!("arch/{name} exists already");
    }
    let mut initial = name[..1].to_uppercase();
    initial.push_str(&name[1..]);
    let fill = |text: &str| {
        text.replace("@NAME@", name)
            .replace("@TYPE@", &initial)
            .replace("@MACHINE@", &elf_machine.to_string())
    };
    let plugins = repository.join(PLUGINS);
    let mut linked = fs::read_to_string(&plugins).with_context(|| format!("cannot read {PLUGINS}"))?;
    let place =
        linked.find(&format!("\n{BEFORE}")).with_context(|| format!("{PLUGINS} has no `{BEFORE}`"))?;
    linked.insert_str(place + 1, &fill(LINK));
    for (path, text) in FILES {
        let path = folder.join(path);
        ensure!(!path.exists(), "{} exists already", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(path, fill(text))?;
    }
    for license in LICENSES {
        symlink(Path::new("../..").join(license), folder.join(license))?;
    }
    fs::write(plugins, linked)?;
    Ok(())
}

/// Copies the file at `path` of this checkout to the same place below `root`.
fn copy(path: &str, root: &Path) -> Result<()> {
    let copy = root.join(path);
    fs::create_dir_all(copy.parent().unwrap_or(root))?;
    fs::copy(repository().join(path), copy)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_crates() {
        assert!(name("riscv64").is_ok());
        for bad in ["", "64", "Risc", "a-b", "../x", "a b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    /// That the skeleton compiles is for [`check`] to see.
    #[test]
    fn a_crate_is_written_and_linked_in_once() {
        let folder = tempfile::tempdir().expect("a folder");
        copy(PLUGINS, folder.path()).expect("a copy");
        write(folder.path(), "z80", 220).expect("a new architecture");
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).expect("a file");
        assert!(read("arch/z80/src/lib.rs").contains("const ELF_MACHINE: u16 = 220;"));
        assert!(read("arch/z80/src/lib.rs").contains("struct Z80;"));
        let before = fs::read_to_string(repository().join(PLUGINS)).expect("a manifest");
        let link =
            "z80 = { package = \"vmcore-arch-z80\", path = \"../../arch/z80\", version = \"0.1.0\" }\n";
        let linked = read(PLUGINS);
        assert_eq!(linked.len(), before.len() + link.len(), "one line");
        assert_eq!(linked.replace(link, ""), before, "and nothing else");
        assert!(write(folder.path(), "z80", 220).is_err());
    }
}
