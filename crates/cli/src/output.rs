//! Where a dump goes: a file that gets its name when it is complete, standard output, a descriptor, a device.

use crate::failure::Hint;
use anyhow::{Context, bail};
use rustix::fs::{StatVfs, statvfs};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use vmcore::{FileSink, Sink, StreamSink};

/// An output that is open but not complete.
pub(crate) enum Output {
    /// A file in the folder of its final name. It is removed when dropped.
    File { temporary: NamedTempFile, path: PathBuf, replace: bool },
    /// Something that is written in order: a pipe, standard output, a device.
    Stream { file: File, name: String },
}

impl Output {
    /// Opens the output that the user calls `name`: a path, `-` or `fd:N`.
    pub(crate) fn create(name: &str, replace: bool) -> anyhow::Result<Self> {
        let context = || format!("cannot write {name}");
        if name == "-" {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                bail!("a dump is not for a terminal: redirect standard output, or name a file with -o");
            }
            let file = File::from(rustix::io::dup(&stdout).with_context(context)?);
            return Ok(Self::Stream { file, name: "standard output".to_owned() });
        }
        if let Some(number) = name.strip_prefix("fd:") {
            let number =
                number.parse().ok().with_context(|| format!("`{name}`: a number is expected behind fd:"))?;
            let file = File::from(duplicate(number).with_context(context)?);
            return Ok(Self::Stream { file, name: name.to_owned() });
        }
        let path = PathBuf::from(name);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => bail!("cannot write {name}: it is a folder"),
            Ok(found) if !found.is_file() => return Self::open_special(&path, &found).with_context(context),
            Ok(_) if !replace => {
                let hint = Hint("--force replaces it".to_owned());
                return Err(anyhow::anyhow!("cannot write {name}: the file exists").context(hint));
            }
            _ => {}
        }
        let (folder, file_name) = split(&path).with_context(context)?;
        let mut prefix = OsString::from(".");
        prefix.push(&file_name);
        prefix.push(".");
        let temporary = tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempfile_in(&folder);
        let temporary = temporary.with_context(|| format!("cannot write into {}", folder.display()))?;
        Ok(Self::File { temporary, path, replace })
    }

    fn open_special(path: &Path, found: &fs::Metadata) -> io::Result<Self> {
        let kind = found.file_type();
        debug_assert!(kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket());
        let file = File::options().write(true).open(path)?;
        Ok(Self::Stream { file, name: path.display().to_string() })
    }

    /// The sink that writes to it.
    pub(crate) fn sink(&self) -> Box<dyn Sink + '_> {
        match self {
            Self::File { temporary, .. } => Box::new(FileSink(temporary.as_file())),
            Self::Stream { file, .. } => Box::new(StreamSink::new(file)),
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

    /// Fails if the file system has not `need` bytes left.
    pub(crate) fn check_space(&self, need: u64) -> anyhow::Result<()> {
        let Self::File { path, .. } = self else { return Ok(()) };
        let (folder, _) = split(path)?;
        let StatVfs { f_bavail, f_frsize, .. } = statvfs(&folder)
            .with_context(|| format!("cannot ask {} for its free space", folder.display()))?;
        let free = f_bavail.saturating_mul(f_frsize);
        if free < need {
            let hint = Hint("name another folder with -o, or send the dump down a pipe with -o -".to_owned());
            let (need, free) = (crate::text::size(need), crate::text::size(free));
            return Err(anyhow::anyhow!("{} has {free} left, the dump may need {need}", folder.display())
                .context(hint));
        }
        Ok(())
    }

    /// Gives the complete dump its name.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let Self::File { temporary, path, replace } = self else { return Ok(()) };
        let result = if replace { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        result
            .map_err(|error| error.error)
            .with_context(|| format!("cannot name the dump {}", path.display()))?;
        Ok(())
    }
}

fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.to_owned(), name.to_owned()))
}

/// A descriptor of our own for the open file behind descriptor `number` of this process.
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}
