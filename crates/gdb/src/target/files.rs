//! Files: of the client for the target (`F`), and of the target for the client (`vFile`).

use crate::error::Error;

/// One argument of a [`FileCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileArgument {
    /// A number; also the address of a buffer, and a length of one.
    Number(u64),
    /// A text in the target's memory: its address, and its length with the 0 at its end.
    Text {
        /// Virtual address.
        address: u64,
        /// Bytes, the last of them 0.
        len: u64,
    },
}

/// A file operation that the target wants of the client, in place of a stop: semihosting.
///
/// The client reads and writes the target's memory as it needs. Names, arguments and flags are those of the
/// protocol: gdb manual, "File-I/O Remote Protocol Extension".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCall<'c> {
    /// `open`, `close`, `read`, `write`, `lseek`, `rename`, `unlink`, `stat`, `fstat`, `gettimeofday`, `isatty`
    /// or `system`.
    pub name: &'c str,
    /// Its arguments, in order.
    pub arguments: &'c [FileArgument],
}

/// What became of a [`FileCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// What the call gives, -1 for a failure.
    pub value: i64,
    /// Why it failed, in the numbers of the protocol, or 0.
    pub errno: u32,
}

/// The side of a target that asks for file operations.
pub trait FileIo {
    /// The call of [`Engine::file_call`](crate::Engine::file_call) is done; the target goes on as it was resumed
    /// before. If the user has interrupted the call, [`Resume::interrupt`](crate::Resume::interrupt) follows.
    ///
    /// # Errors
    /// Whatever keeps it from going on.
    fn completed(&mut self, result: FileResult) -> Result<(), Error>;
}

/// What `vFile:fstat` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Kind and permissions.
    pub mode: u32,
    /// Bytes.
    pub len: u64,
    /// Seconds since 1970 of the last change.
    pub modified: u32,
}

/// The number of an error as the protocol has it: `ENOENT` is 2, what has no number is 9999.
pub type Errno = u32;

/// Files that the target gives to the client: packets `vFile`.
pub trait HostIo {
    /// Opens a file with the flags and the mode of the protocol, and gives its descriptor.
    ///
    /// # Errors
    /// An [`Errno`]
    fn open(&mut self, path: &[u8], flags: u32, mode: u32) -> Result<u32, Errno>;

    /// Closes a descriptor.
    ///
    /// # Errors
    /// An [`Errno`]
    fn close(&mut self, fd: u32) -> Result<(), Errno>;

    /// Reads at an offset, and tells how many bytes; 0 at the end.
    ///
    /// # Errors
    /// An [`Errno`]
    fn pread(&mut self, fd: u32, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;

    /// Writes at an offset, and tells how many bytes.
    ///
    /// # Errors
    /// An [`Errno`], by default that of a file system that cannot be written.
    fn pwrite(&mut self, fd: u32, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let _ = (fd, offset, bytes);
        Err(30)
    }

    /// Tells about an open file.
    ///
    /// # Errors
    /// An [`Errno`]
    fn fstat(&mut self, fd: u32) -> Result<Stat, Errno>;

    /// Tells about a file by its name: by default opens it for that.
    ///
    /// # Errors
    /// An [`Errno`]
    fn stat(&mut self, path: &[u8]) -> Result<Stat, Errno> {
        let fd = self.open(path, 0, 0)?;
        let stat = self.fstat(fd);
        self.close(fd)?;
        stat
    }

    /// Removes a file.
    ///
    /// # Errors
    /// An [`Errno`], by default that of a file system that cannot be written.
    fn unlink(&mut self, path: &[u8]) -> Result<(), Errno> {
        let _ = path;
        Err(30)
    }

    /// Reads where a link leads, and tells how many bytes.
    ///
    /// # Errors
    /// An [`Errno`]
    fn readlink(&mut self, path: &[u8], buf: &mut [u8]) -> Result<usize, Errno>;
}
