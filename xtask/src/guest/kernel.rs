//! Debian kernels and the files of theirs that a guest needs.

use super::arch::Linux;
use super::deterministic::Pinned;
use crate::apt::{Apt, RELEASE};
use crate::run::bytes;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which kernel: that of a release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelVersion {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    /// The newest that is built for a release
    Newest,
    /// Of no release
    #[value(name = "sid")]
    Sid,
}

impl KernelVersion {
    /// The suite of Debian's archive that has it.
    pub(super) fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => RELEASE,
            Self::V6_12 => "trixie",
            Self::Newest => "trixie-backports",
            Self::Sid => "sid",
        }
    }
}

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Fetches a kernel into the cache, unless it is there. A version that is pinned, but no longer to be had, gives the series' own.
pub(crate) fn kernel(linux: &Linux, version: KernelVersion, pinned: Option<&Pinned>) -> Result<Kernel> {
    let Linux { debian, package, .. } = linux;
    let series = || {
        // The kernels of the tests' own release were here first.
        let name = match version {
            KernelVersion::V6_1 => (*package).to_owned(),
            _ => format!("{package}-{}", version.suite()),
        };
        Apt::new(version.suite(), debian)?
            .unpacked(&name, |apt| apt.kernel_packages(&apt.kernel_image(package)?))
    };
    let root = match pinned {
        Some(pinned) => {
            let found = Apt::new(pinned.suite, debian)?.unpacked(pinned.kernel, |apt| {
                if !apt.has(pinned.kernel) {
                    bail!("{} is no longer in {}", pinned.kernel, pinned.suite);
                }
                apt.kernel_packages(pinned.kernel)
            });
            found.or_else(|error| {
                eprintln!("{error:#}: the newest of that series instead");
                series()
            })?
        }
        None => series()?,
    };
    let release = busybox_release(debian);
    let busybox = Apt::new(release, debian)?
        .unpacked(&format!("busybox-{debian}"), |_| Ok(vec!["busybox-static".to_owned()]))?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| busybox.join(path));
    let busybox = busybox.into_iter().find(|path| path.is_file()).context("busybox-static has no busybox")?;
    // `lib` is a link to `usr/lib` from trixie on.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
    let modules = modules.into_iter().find(|path| path.is_dir());
    let modules = modules.with_context(|| format!("{} has no drivers", root.display()))?;
    // Debian's `vmlinuz`, or `vmlinux` where it is not packed; since 7.0 it lies beside the drivers.
    let boot = root.join("boot");
    let folder = if boot.is_dir() { &boot } else { &modules };
    let image = files(folder, &|name| name.starts_with("vmlinu"))?.into_iter().next();
    let image = image.with_context(|| format!("{} has no kernel", root.display()))?;
    Ok(Kernel { image, modules, busybox })
}

/// The release whose busybox is taken: riscv64 is in no release before trixie, whose busybox the pinned guest does not have.
fn busybox_release(debian: &str) -> &'static str {
    if debian == "riscv64" { "sid" } else { RELEASE }
}

impl Kernel {
    /// A driver of this kernel, unpacked.
    pub(crate) fn driver(&self, name: &str) -> Result<Vec<u8>> {
        let found = self.find(&name.replace('-', "_"))?;
        unpacked(&found.with_context(|| format!("{} has no {name}", self.modules.display()))?)
    }

    /// Drivers in the order in which they are loaded, those that they need before them; those that are built in left out.
    pub(crate) fn drivers_for(&self, names: &[&str]) -> Result<Vec<Vec<u8>>> {
        let (mut names_done, mut drivers) = (Vec::new(), Vec::new());
        for name in names {
            self.add(&name.replace('-', "_"), &mut names_done, &mut drivers)?;
        }
        Ok(drivers)
    }

    /// The kernel takes `-` and `_` in names for the same; here it is `_`.
    fn add(&self, name: &str, done: &mut Vec<String>, drivers: &mut Vec<Vec<u8>>) -> Result<()> {
        if done.iter().any(|done| done == name) {
            return Ok(());
        }
        done.push(name.to_owned());
        let Some(path) = self.find(name)? else {
            return match self.is_built_in(name)? {
                true => Ok(()),
                false => bail!("{} has no {name}, nor is it built in", self.modules.display()),
            };
        };
        let driver = unpacked(&path)?;
        for needed in depends(&driver) {
            self.add(&needed, done, drivers)?;
        }
        drivers.push(driver);
        Ok(())
    }

    /// Whether the kernel can have that driver: older ones lack some.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        let name = name.replace('-', "_");
        Ok(self.find(&name)?.is_some() || self.is_built_in(&name)?)
    }

    fn is_built_in(&self, name: &str) -> Result<bool> {
        let lists = files(&self.modules, &|file| file == "modules.builtin")?;
        let file = format!("/{name}.ko");
        for list in &lists {
            if fs::read_to_string(list)?.lines().any(|line| line.replace('-', "_").ends_with(&file)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file of a driver.
    fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let is_it =
            |file: &str| file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name);
        Ok(files(&self.modules, &is_it)?.into_iter().next())
    }

    /// All drivers of this kernel, by path.
    pub(crate) fn drivers(&self) -> Result<Vec<PathBuf>> {
        files(&self.modules, &|name| name.contains(".ko"))
    }
}

/// The bytes of a driver, whose file may be packed by xz.
pub(super) fn unpacked(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(fs::read(path)?),
        Some("xz") => bytes(Command::new("xz").args(["--decompress", "--stdout"]).arg(path)),
        _ => bail!("{} is packed in a way that is not known here", path.display()),
    }
}

/// What a driver says that must be loaded before it.
///
/// Source: Linux `scripts/mod/modpost.c`: the section `.modinfo` holds `KEY=value` texts with NULs between them.
fn depends(driver: &[u8]) -> Vec<String> {
    let texts = driver.split(|byte| *byte == 0);
    let value = texts.filter_map(|text| text.strip_prefix(b"depends=")).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value).replace('-', "_");
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The files below `folder` whose names fit, by path.
fn files(folder: &Path, fits: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path(), fits)?);
        } else if entry.file_name().to_str().is_some_and(fits) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_says_what_it_needs() {
        assert_eq!(depends(b"\x7fELF\0depends=virtio,virtio-ring\0name=x\0"), ["virtio", "virtio_ring"]);
        assert_eq!(depends(b"\x7fELF\0depends=\0"), [""; 0]);
    }
}
