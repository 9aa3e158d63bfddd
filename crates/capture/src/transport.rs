//! The ways to give QEMU a pipe: passed along with `getfd`, or named as a FIFO.

use crate::error::CaptureError;
use crate::qmp::Qmp;
use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, mknodat, open};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// The name under which QEMU keeps the pipe. It survives our connection; the next run replaces what was left behind.
const FD_NAME: &str = "vmcore-capture";

/// A pipe of which QEMU has, or can open, the other end.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Non-blocking, and closed on exec: a child that inherited it would hold the guest after our end.
    pub(crate) read_end: OwnedFd,
    /// Which file it is; both ends of a pipe are one file.
    pub(crate) stat: Stat,
    way: Way,
}

/// How QEMU finds the other end.
#[derive(Debug)]
pub(crate) enum Way {
    Passed,
    Fifo { path: PathBuf, _dir: TempDir },
}

impl Transport {
    /// Passes a pipe; where that cannot be done, makes a FIFO.
    pub(crate) fn new(qmp: &mut Qmp) -> Result<Self, CaptureError> {
        let passed = match Self::pass(qmp) {
            Ok(transport) => return Ok(transport),
            Err(error @ (CaptureError::Refused { .. } | CaptureError::Io { .. })) => error,
            Err(error) => return Err(error),
        };
        Self::fifo().map_err(|fifo| CaptureError::NoTransport {
            reason: format!("passing a pipe: {}; a FIFO: {}", chain(&passed), chain(&fifo)),
        })
    }

    /// Passes the write end of a new pipe with `getfd`.
    fn pass(qmp: &mut Qmp) -> Result<Self, CaptureError> {
        let error = || CaptureError::io("making a pipe");
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| error()(e.into()))?;
        // QEMU's end must block: a dump that finds the pipe full would fail.
        rustix::io::ioctl_fionbio(&read_end, true).map_err(|e| error()(e.into()))?;
        let stat = fstat(&read_end).map_err(|e| error()(e.into()))?;
        qmp.execute_with_fd("getfd", &json!({ "fdname": FD_NAME }), write_end.as_fd())?;
        Ok(Self { read_end, stat, way: Way::Passed })
    }

    /// Makes a FIFO that QEMU will find by its path, which nobody can guess.
    fn fifo() -> Result<Self, CaptureError> {
        let error = || CaptureError::io("making a FIFO");
        let dir = tempfile::Builder::new().prefix("vmcore-").rand_bytes(24).tempdir().map_err(error())?;
        let path = dir.path().join("dump");
        // QEMU may run as another user: it may pass through the folder, not list it, and write into the FIFO.
        let mode = Mode::RUSR | Mode::WUSR | Mode::WGRP | Mode::WOTH;
        mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0).map_err(|e| error()(e.into()))?;
        let open_to = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        };
        open_to(&path, 0o622).and_then(|()| open_to(dir.path(), 0o711)).map_err(error())?;
        // Our end first: without a reader QEMU's main loop would hang in its open.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let read_end = open(&path, flags, Mode::empty()).map_err(|e| error()(e.into()))?;
        let stat = fstat(&read_end).map_err(|e| error()(e.into()))?;
        Ok(Self { read_end, stat, way: Way::Fifo { path, _dir: dir } })
    }

    /// The argument `protocol` of `dump-guest-memory`.
    pub(crate) fn protocol(&self) -> String {
        match &self.way {
            Way::Passed => format!("fd:{FD_NAME}"),
            Way::Fifo { path, .. } => format!("file:{}", path.display()),
        }
    }

    /// Whether QEMU has the other end already.
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self.way, Way::Passed)
    }

    /// The read end, and what must outlive the start of the dump.
    pub(crate) fn into_parts(self) -> (OwnedFd, Way) {
        (self.read_end, self.way)
    }
}

impl Way {
    /// Takes back what QEMU did not use.
    pub(crate) fn abandon(self, qmp: &mut Qmp) {
        if let Self::Passed = self {
            // A descriptor that is left behind does no harm; the next run replaces it.
            let _ = qmp.execute("closefd", &json!({ "fdname": FD_NAME }));
        }
    }
}

/// An error with its reasons, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
