//! Where a dump goes: a file that gets its name when it is complete, standard output, a descriptor, a device.

use crate::failure::Hint;
use anyhow::{Context, bail};
use rustix::fs::{OFlags, StatVfs, statvfs};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use vmcore::{FileSink, Sink, StreamSink, Wrapper};

/// An output that is open but not complete.
pub(crate) enum Output {
    /// A file in the folder of its final name. It is removed when dropped.
    File { temporary: NamedTempFile, path: PathBuf, replace: bool },
    /// Something that is written in order: a pipe, standard output, a device.
    Stream { file: File, name: String },
}

impl Output {
    /// Opens the output that the user calls `name`: a path, `-` or `fd:N`. Behind symbolic links it is what they point to.
    pub(crate) fn create(name: &str, replace: bool) -> anyhow::Result<Self> {
        let context = || format!("cannot write {name}");
        if let Some(number) = descriptor(name) {
            return Self::stream(duplicate(number).with_context(context)?, name);
        }
        if name.starts_with("fd:") {
            bail!("`{name}`: a number is expected behind fd:");
        }
        match fs::metadata(name) {
            Ok(found) if found.is_dir() => bail!("cannot write {name}: it is a folder"),
            // A pipe or a device.
            Ok(found) if !found.is_file() => {
                return Self::stream(File::options().write(true).open(name).with_context(context)?, name);
            }
            Ok(_) if !replace => {
                let hint = Hint("--force replaces it".to_owned());
                return Err(anyhow::anyhow!("cannot write {name}: the file exists").context(hint));
            }
            _ => {}
        }
        let path = behind_links(name).with_context(context)?;
        let (folder, file_name) = split(&path).with_context(context)?;
        let mut prefix = OsString::from(".");
        prefix.push(&file_name);
        prefix.push(".");
        let temporary = tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempfile_in(&folder);
        let temporary = temporary.with_context(|| format!("cannot write into {}", folder.display()))?;
        Ok(Self::File { temporary, path, replace })
    }

    fn stream(file: File, name: &str) -> anyhow::Result<Self> {
        if file.is_terminal() {
            bail!("a dump is not for a terminal: redirect standard output, or name a file with -o");
        }
        Ok(Self::Stream { file, name: if name == "-" { "standard output" } else { name }.to_owned() })
    }

    /// The sink that writes to it, through a wrapper if there is one.
    pub(crate) fn sink(&self, wrapper: Option<&'static dyn Wrapper>) -> Box<dyn Sink + '_> {
        match (wrapper, self) {
            (Some(wrapper), Self::File { temporary, .. }) => wrapper.sink(Box::new(temporary.as_file())),
            (Some(wrapper), Self::Stream { file, .. }) => wrapper.sink(Box::new(file)),
            (None, Self::File { temporary, .. }) => Box::new(FileSink(temporary.as_file())),
            (None, Self::Stream { file, .. }) => Box::new(StreamSink::new(file)),
        }
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Stream { name, .. } => name.clone(),
        }
    }

    /// Whether the dump can be opened under that name.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Where it takes space; `None` if it does not.
    pub(crate) fn disk(&self) -> anyhow::Result<Option<Disk>> {
        let Self::File { temporary, path, .. } = self else { return Ok(None) };
        let (folder, _) = split(path)?;
        let context = || format!("cannot ask {} for its free space", folder.display());
        let device = temporary.as_file().metadata().with_context(context)?.dev();
        let StatVfs { f_bavail, f_frsize, .. } = statvfs(&folder).with_context(context)?;
        Ok(Some(Disk { device, folder, free: f_bavail.saturating_mul(f_frsize) }))
    }

    /// Gives the complete file its name, and tells it.
    pub(crate) fn commit(self) -> anyhow::Result<Option<PathBuf>> {
        let Self::File { temporary, path, replace } = self else { return Ok(None) };
        let result = if replace { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        result
            .map_err(|error| error.error)
            .with_context(|| format!("cannot name the dump {}", path.display()))?;
        Ok(Some(path))
    }
}

/// The file system that an output lies on.
pub(crate) struct Disk {
    /// Its number.
    pub(crate) device: u64,
    pub(crate) folder: PathBuf,
    /// Bytes that are left.
    pub(crate) free: u64,
}

fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.to_owned(), name.to_owned()))
}

/// Whether an output of this name is a descriptor of this process.
pub(crate) fn is_descriptor(name: &str) -> bool {
    name.starts_with("fd:") || descriptor(name).is_some()
}

/// Whether an output of this name is standard output.
pub(crate) fn is_stdout(name: &str) -> bool {
    descriptor(name) == Some(1)
}

/// The descriptor of this process that `name` means, if it means one.
fn descriptor(name: &str) -> Option<i32> {
    match name {
        "-" | "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ => {
            let number =
                ["fd:", "/dev/fd/", "/proc/self/fd/"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
            number.parse().ok()
        }
    }
}

/// A descriptor of our own for what the user opened for writing as descriptor `number`.
fn duplicate(number: i32) -> anyhow::Result<File> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags =
        info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    // What was handed over to us lacks CLOEXEC; what we opened ourselves has it.
    let flags = flags.map(OFlags::from_bits_retain).filter(|flags| !flags.contains(OFlags::CLOEXEC));
    let flags =
        flags.with_context(|| format!("no descriptor {number} was handed over, as by `{number}>FILE`"))?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        bail!("descriptor {number} is not open for writing");
    }
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(File::from(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?))
}

/// The path that is left when `path` is followed through symbolic links; nothing need be there.
fn behind_links(path: &str) -> io::Result<PathBuf> {
    // As many as Linux follows.
    const MAX_LINKS: usize = 40;
    let mut path = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path.pop();
        path.push(target);
    }
    Err(Errno::LOOP.into())
}
