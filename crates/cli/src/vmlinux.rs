//! The ELF file of the guest's kernel.

use crate::args::VmlinuxArgs;
use crate::failure::Hint;
use crate::input;
use anyhow::{Context, anyhow};
use std::path::Path;
use vmcore::Machine;
use vmcore::backtrace::{Identification, Image};

/// The kernel's ELF file as the user names it.
pub(crate) struct Vmlinux {
    pub(crate) path: String,
    pub(crate) image: Image,
    force: bool,
}

impl Vmlinux {
    /// Opens the file that the user names, if one is named.
    pub(crate) fn of(args: &VmlinuxArgs) -> anyhow::Result<Option<Self>> {
        args.vmlinux.as_ref().map(|path| Self::open(path, args.force)).transpose()
    }

    fn open(path: &Path, force: bool) -> anyhow::Result<Self> {
        let files = input::open_files(&[path])?;
        let image = Image::open(&files[0]);
        let path = path.display().to_string();
        let hint = "the vmlinux is the ELF file in the kernel's package of debug symbols; a packed one (vmlinuz, Image) is unpacked by the kernel's scripts/extract-vmlinux";
        let image = image
            .context(Hint(hint.to_owned()))
            .with_context(|| format!("cannot use {path} as the kernel's vmlinux"))?;
        Ok(Self { path, image, force })
    }

    /// Refuses the file if it is another kernel's. Tells what the user must know of it.
    pub(crate) fn check(&self, machine: &Machine) -> anyhow::Result<Option<String>> {
        let path = &self.path;
        // That is beyond what --force may overrule.
        machine
            .arch
            .map_or(Ok(()), |arch| self.image.check_arch(arch))
            .with_context(|| format!("cannot use {path} as the kernel's vmlinux"))?;
        match self.image.identify(machine) {
            Identification::Same => Ok(None),
            Identification::Unknown => Ok(Some(format!(
                "nothing tells whether {path} is that of the guest's kernel: there is no build id to compare"
            ))),
            Identification::Other { guest, file } => {
                let text = format!(
                    "{path} is not that of the guest's kernel: its build id is {file}, the kernel's {guest}"
                );
                if self.force {
                    return Ok(Some(text));
                }
                let hint = "--force uses it all the same; without --vmlinux the kernel's own tables and names are used";
                Err(anyhow!(text).context(Hint(hint.to_owned())))
            }
        }
    }
}
