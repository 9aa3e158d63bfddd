//! QEMU's process, as `/proc` shows it.
//!
//! Everything is opened through one handle of `/proc/PID`. It belongs to the process and not to the number: when the
//! process has ended, opening fails, also after the number was given to another. `process_vm_readv` takes a number, so a
//! pidfd is asked before each read.

use crate::error::CaptureError;
use crate::maps::{self, Vma};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, open, openat, readlinkat, statat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::OwnedFd;

/// The longest text of `/proc` that is read: 65,530 mappings, with long paths.
const MAX_TEXT_LEN: u64 = 64 << 20;

/// A process of this host.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    uid: u32,
    dir: OwnedFd,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// The process with this number.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::NotFound`] if there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        let dir =
            open(format!("/proc/{pid}"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let uid = statat(&dir, "", AtFlags::EMPTY_PATH)?.st_uid;
        let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let process = Self { pid, uid, dir, pidfd };
        // The number may have changed hands between the two; the directory decides.
        process.read_text("stat")?;
        Ok(process)
    }

    /// The process that the thread `tid` belongs to.
    ///
    /// # Errors
    /// As [`Process::open`].
    pub fn of_thread(tid: i32) -> io::Result<Self> {
        let status = Self::open(tid)?.read_text("status")?;
        let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        Self::open(tgid.ok_or(io::ErrorKind::InvalidData)?)
    }

    /// Its number in our pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its user. Root for a process that is not dumpable.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Opens a file of its directory for reading, as in `maps`, `pagemap` or `fd/7`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        Ok(openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?
            .into())
    }

    /// What a link of its directory says, as in `fd/7`: a path, and ` (deleted)` behind one that is no more.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn link(&self, name: &str) -> io::Result<String> {
        Ok(readlinkat(&self.dir, name, Vec::new())?.to_string_lossy().into_owned())
    }

    fn read_text(&self, name: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.open_file(name)?.take(MAX_TEXT_LEN).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its mappings.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::PermissionDenied`] if it belongs to another user.
    pub fn maps(&self) -> io::Result<Vec<Vma>> {
        Ok(maps::parse(&self.read_text("maps")?))
    }

    /// Its file descriptors: their numbers and what they are.
    ///
    /// # Errors
    /// As [`Process::maps`].
    pub fn files(&self) -> io::Result<Vec<(String, Stat)>> {
        let dir =
            openat(&self.dir, "fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut files = Vec::new();
        for entry in Dir::new(dir)? {
            let name = format!("fd/{}", entry?.file_name().to_string_lossy());
            // One that was closed in the meantime is no file of it.
            if let Ok(stat) = statat(&self.dir, name.as_str(), AtFlags::empty()) {
                files.push((name, stat));
            }
        }
        Ok(files)
    }

    /// Whether it has the file of `stat` open.
    ///
    /// # Errors
    /// As [`Process::maps`].
    pub fn has_open(&self, stat: &Stat) -> io::Result<bool> {
        let is_same = |other: &Stat| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino);
        Ok(self.files()?.iter().any(|(_, other)| is_same(other)))
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_gone_within(0)
    }

    /// Whether it has ended, or ends within so many seconds: its sockets close a moment before it is gone.
    #[must_use]
    pub(crate) fn is_gone_within(&self, seconds: i64) -> bool {
        let Some(pidfd) = &self.pidfd else { return self.read_text("stat").is_err() };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        // A pidfd becomes readable when its process has ended.
        poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Copies its memory: the bytes of `remote` (start and length in the process), in order, into `local`.
    ///
    /// Tells how many bytes were copied: fewer than asked when the next page cannot be read.
    ///
    /// # Errors
    /// Those of the operating system; `EFAULT` if the first page cannot be read, `ESRCH` if it has ended.
    pub fn read_memory(&self, remote: &[(u64, usize)], local: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.is_gone() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        let mut ranges = Vec::with_capacity(remote.len());
        for (start, len) in remote {
            let base = usize::try_from(*start).map_err(|_| io::ErrorKind::InvalidInput)?;
            ranges.push(RemoteIoVec { base, len: *len });
        }
        Ok(process_vm_readv(nix::unistd::Pid::from_raw(self.pid), local, &ranges)?)
    }

    /// The error for something of this process that could not be opened or read.
    #[must_use]
    pub fn denied(&self, what: &'static str, source: io::Error) -> CaptureError {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                CaptureError::NotPermitted { what, pid: self.pid, uid: self.uid, yama: yama_advice(), source }
            }
            _ if self.is_gone() => CaptureError::ProcessGone { pid: self.pid },
            _ => CaptureError::Io { what: format!("reading {what} of QEMU (process {})", self.pid), source },
        }
    }
}

/// What Yama's `ptrace_scope` has to do with a refusal.
fn yama_advice() -> &'static str {
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").as_deref().map(str::trim) {
        Ok("1") => " (kernel.yama.ptrace_scope is 1: as that user it must be 0)",
        Ok("2") => " (kernel.yama.ptrace_scope is 2: CAP_SYS_PTRACE is needed)",
        Ok("3") => " (kernel.yama.ptrace_scope is 3: nobody may until the next boot)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn myself() -> Process {
        Process::open(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_process_reads_itself() {
        let process = myself();
        let secret = vec![7_u8; 100];
        let mut buf = [0; 100];
        let at = secret.as_ptr() as u64;
        let mut local = [IoSliceMut::new(&mut buf)];
        assert_eq!(process.read_memory(&[(at, 60), (at + 60, 40)], &mut local).unwrap(), 100);
        assert_eq!(buf.as_slice(), secret);
        assert!(maps::cover(&process.maps().unwrap(), at, 100).is_some());
        assert!(!process.is_gone());
        let error = process.read_memory(&[(0, 1)], &mut [IoSliceMut::new(&mut [0])]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::FAULT.raw_os_error()));
    }

    #[test]
    fn open_files_are_found_by_identity() {
        let (read, _write) = io::pipe().unwrap();
        let stat = rustix::fs::fstat(&read).unwrap();
        assert!(myself().has_open(&stat).unwrap());
        drop((read, _write));
        assert!(!myself().has_open(&stat).unwrap());
    }

    #[test]
    fn a_process_that_has_ended_is_gone() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!process.is_gone());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.is_gone());
        let read = process.read_memory(&[(0x1000, 1)], &mut [IoSliceMut::new(&mut [0])]);
        assert!(matches!(process.denied("the memory", read.unwrap_err()), CaptureError::ProcessGone { .. }));
    }

    #[test]
    fn a_thread_leads_to_its_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        // Of all threads of this process, this one lives for sure.
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(Process::of_thread(tid).unwrap().pid(), pid);
    }
}
