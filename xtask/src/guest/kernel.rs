//! Debian kernels and the files of theirs that a guest needs.

use super::{GuestArch, Spec};
use crate::apt::{Apt, RELEASE};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// What a guest is booted from.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Fetches the kernel for a guest into the cache, unless it is there.
pub(crate) fn kernel(spec: &Spec) -> Result<Kernel> {
    let (arch, meta) = match (spec.arch, spec.paging) {
        (GuestArch::X86_64, 4 | 5) => ("amd64", "linux-image-cloud-amd64"),
        (GuestArch::I386, 2) => ("i386", "linux-image-686"),
        (GuestArch::I386, 3) => ("i386", "linux-image-686-pae"),
        (arch, levels) => bail!("{arch:?} has no page tables of {levels} levels"),
    };
    let apt = Apt::new(RELEASE, arch)?;
    let kernel = apt.unpacked(meta, |apt| Ok(vec![apt.kernel_image(meta)?]))?;
    let busybox = apt.unpacked(&format!("busybox-{arch}"), |_| Ok(vec!["busybox-static".to_owned()]))?;
    let image = files(&kernel.join("boot"), &|name| name.starts_with("vmlinuz"))?.into_iter().next();
    let image = image.with_context(|| format!("{} has no kernel", kernel.display()))?;
    Ok(Kernel { image, modules: kernel.join("lib/modules"), busybox: busybox.join("bin/busybox") })
}

impl Kernel {
    /// A driver of this kernel, by its file's name.
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
