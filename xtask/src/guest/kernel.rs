//! Debian kernels and the files of theirs that a guest needs.

use super::arch::Linux;
use crate::apt::{Apt, RELEASE};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Fetches a kernel into the cache, unless it is there.
pub(crate) fn kernel(linux: &Linux) -> Result<Kernel> {
    let Linux { debian, package, .. } = linux;
    let apt = Apt::new(RELEASE, debian)?;
    let kernel = apt.unpacked(package, |apt| Ok(vec![apt.kernel_image(package)?]))?;
    let busybox = apt.unpacked(&format!("busybox-{debian}"), |_| Ok(vec!["busybox-static".to_owned()]))?;
    // Debian's `vmlinuz`, or `vmlinux` where it is not packed.
    let image = files(&kernel.join("boot"), &|name| name.starts_with("vmlinu"))?.into_iter().next();
    let image = image.with_context(|| format!("{} has no kernel", kernel.display()))?;
    Ok(Kernel { image, modules: kernel.join("lib/modules"), busybox: busybox.join("bin/busybox") })
}

impl Kernel {
    /// A driver of this kernel, by its file's name with `.ko`.
    pub(crate) fn driver(&self, name: &str) -> Result<PathBuf> {
        let found = files(&self.modules, &|found| found == name)?.into_iter().next();
        found.with_context(|| format!("{} has no {name}", self.modules.display()))
    }

    /// All drivers of this kernel, by path.
    pub(crate) fn drivers(&self) -> Result<Vec<PathBuf>> {
        files(&self.modules, &|name| name.ends_with(".ko"))
    }
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
