//! makedumpfile of any architecture, with the libraries that it was built with.

use crate::apt::{Apt, RELEASE};
use crate::run::output;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first suite with version 1.7.8. That of the release before, 1.7.6, leaves all free pages of Linux 6.12 in the dump.
const SUITE: &str = "forky";
/// With the libraries that it depends on, directly or not.
const PACKAGES: [&str; 9] = [
    "makedumpfile",
    "libbz2-1.0",
    "libc6",
    "libdw1t64",
    "libelf1t64",
    "liblzma5",
    "liblzo2-2",
    "libzstd1",
    "zlib1g",
];

/// One that runs on this machine.
#[derive(Debug)]
pub(crate) struct Makedumpfile {
    root: PathBuf,
    /// QEMU that runs a program of the architecture, unless that is the host's.
    emulator: Option<PathBuf>,
}

impl Makedumpfile {
    /// That of an architecture, by Debian's name.
    pub(crate) fn new(debian: &str) -> Result<Self> {
        let packages = PACKAGES.map(str::to_owned).to_vec();
        let root =
            Apt::new(SUITE, debian)?.unpacked(&format!("makedumpfile-{SUITE}-{debian}"), |_| Ok(packages))?;
        if debian == "amd64" {
            return Ok(Self { root, emulator: None });
        }
        let emulators =
            Apt::new(RELEASE, "amd64")?.unpacked("qemu-user", |_| Ok(vec!["qemu-user-static".to_owned()]))?;
        let qemu = match debian {
            "arm64" => "aarch64",
            "ppc64el" => "ppc64le",
            same => same,
        };
        Ok(Self { root, emulator: Some(emulators.join(format!("usr/bin/qemu-{qemu}-static"))) })
    }

    /// Filters a dump into one of the kdump format, whose pages are not compressed.
    pub(crate) fn filter(&self, level: u32, dump: &Path, out: &Path) -> Result<()> {
        let libraries = self.root.join("usr/lib");
        // The loader is named in each program, but lies elsewhere here.
        let loader = [&libraries, &self.root.join("usr/lib64")].into_iter().find_map(|folder| {
            find(folder, |name| name.starts_with("ld") && name.contains(".so.")).ok().flatten()
        });
        let loader = loader.with_context(|| format!("{} has no loader", self.root.display()))?;
        let folder = find(&libraries, |name| name.ends_with("-linux-gnu"))?.context("no libraries")?;
        let mut command = match &self.emulator {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(loader);
                command
            }
            None => Command::new(loader),
        };
        command.arg("--library-path").arg(folder).arg(self.root.join("usr/bin/makedumpfile"));
        command.args(["-f", "-d", &level.to_string()]).arg(dump).arg(out);
        output(&mut command).map(drop)
    }
}

/// An entry of a folder by its name.
fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().find(|entry| entry.file_name().to_str().is_some_and(&is_it)).map(fs::DirEntry::path))
}
