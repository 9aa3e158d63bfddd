//! Positioned reading of a dump: of a file, of bytes in memory, of a stream's index, of a test's double.

use crate::parallel::lock;
use crate::{Error, Gpa, PhysMemory, Region, Run, RunState, Unreadable};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

/// A dump that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// Length in bytes; `u64::MAX` where it is not known (a stream).
    fn byte_len(&self) -> u64;

    /// Reads at `offset` until `buf` is full or the dump ends, and tells how many bytes were read.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// What is known of the bytes from `offset` on, at most `max` of them, without reading them.
    fn run_at(&self, offset: u64, max: u64) -> Run {
        let _ = offset;
        Run { len: max, state: RunState::Data }
    }

    /// Whether reads must come in ascending order.
    fn is_sequential(&self) -> bool {
        false
    }
}

/// Reads exactly `len` bytes at `offset`, after a look at whether the dump has them.
///
/// # Errors
/// [`Error::Truncated`] if it has not, [`Error::Io`].
pub fn read_vec(file: &dyn ReadAt, offset: u64, len: u64, what: &'static str) -> Result<Vec<u8>, Error> {
    let have = file.byte_len().saturating_sub(offset);
    let truncated = |have| Error::Truncated { what, offset, need: len, have };
    // The length is compared with what the file can hold before anything is allocated.
    let size = usize::try_from(len).ok().filter(|_| len <= have).ok_or_else(|| truncated(have))?;
    if file.byte_len() == u64::MAX && len > MAX_STREAM_READ {
        return Err(Error::TooLarge { what, found: len, limit: MAX_STREAM_READ });
    }
    let mut bytes = vec![0; size];
    let read = file.read_at(offset, &mut bytes).map_err(|source| Error::Io { what, offset, source })?;
    if read < size { Err(truncated(read as u64)) } else { Ok(bytes) }
}

/// The most that is read at once from a dump whose length is not known.
const MAX_STREAM_READ: u64 = 256 << 20;

impl ReadAt for [u8] {
    fn byte_len(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl ReadAt for Vec<u8> {
    fn byte_len(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

/// A dump in a file.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    len: u64,
    /// What the file system has said last, and from which offset on: it looks at each page of its answer.
    known: Mutex<(u64, Run)>,
}

impl FileReader {
    /// A reader of `file`, whose length is taken now.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::NotSeekable`] for pipes and [`io::ErrorKind::IsADirectory`].
    pub fn new(file: File) -> io::Result<Self> {
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Seeking to the end also tells the size of a block device.
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        Ok(Self { file, len, known: Mutex::new((0, Run { len: 0, state: RunState::Data })) })
    }
}

impl ReadAt for FileReader {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn run_at(&self, offset: u64, max: u64) -> Run {
        let mut known = lock(&self.known);
        let (start, run) = *known;
        let passed = offset.wrapping_sub(start);
        if passed < run.len {
            return Run { len: max.min(run.len - passed), ..run };
        }
        // All of it, whatever `max` is: where few bytes are asked for at a time, the next ones are known then.
        let run = file_run_at(&self.file, offset, self.len.saturating_sub(offset).max(max));
        *known = (offset, run);
        Run { len: max.min(run.len), ..run }
    }
}

/// A file as if it were guest memory from address 0 on: so that it can be copied as a dump is written.
pub struct FileMemory {
    file: Arc<dyn ReadAt>,
    region: [Region; 1],
}

impl FileMemory {
    /// Memory with the bytes of `file`.
    #[must_use]
    pub fn new(file: Arc<dyn ReadAt>) -> Self {
        let region = [Region::ram(Gpa(0), file.byte_len())];
        Self { file, region }
    }
}

impl std::fmt::Debug for FileMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileMemory").field("region", &self.region).finish_non_exhaustive()
    }
}

impl PhysMemory for FileMemory {
    fn regions(&self) -> &[Region] {
        &self.region
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        let io = |source| Error::Io { what: "reading the file", offset: gpa.0, source };
        let read = self.file.read_at(gpa.0, buf).map_err(io)?;
        buf[read..].fill(0);
        let mut unreadable = Unreadable::default();
        unreadable.add(Gpa(gpa.0 + read as u64), (buf.len() - read) as u64);
        Ok(unreadable)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        self.file.run_at(gpa.0, max)
    }

    fn is_sequential(&self) -> bool {
        self.file.is_sequential()
    }
}

/// What the file system knows of a file's bytes: holes are zero.
///
/// On file systems that do not tell (and past the end of the file), all is [`RunState::Data`].
#[must_use]
pub fn file_run_at(file: &File, offset: u64, max: u64) -> Run {
    use rustix::fs::{SeekFrom, seek};
    let data = Run { len: max, state: RunState::Data };
    match seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start > offset => Run { len: max.min(start - offset), state: RunState::Zero },
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(end) if end > offset => Run { len: max.min(end - offset), state: RunState::Data },
            _ => data,
        },
        // ENXIO: no data between here and the end of the file.
        Err(rustix::io::Errno::NXIO) => match seek(file, SeekFrom::End(0)) {
            Ok(end) if end > offset => Run { len: max.min(end - offset), state: RunState::Zero },
            _ => data,
        },
        Err(_) => data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_known_in_any_order() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        for at in [1 << 20, 5 << 20] {
            file.write_all_at(&[1; 1 << 20], at).unwrap();
        }
        let reader = FileReader::new(file.try_clone().unwrap()).unwrap();
        // Forwards, backwards, by small steps; the same as what the file system says each time.
        let steps = || (0..43_u64).map(|step| step * (192 << 10));
        let lengths = [4096, 1, 64 << 20].into_iter().cycle();
        for (offset, max) in steps().chain(steps().rev()).zip(lengths) {
            assert_eq!(reader.run_at(offset, max), file_run_at(&file, offset, max), "{offset:#x} {max:#x}");
        }
        assert_eq!(reader.run_at(9 << 20, 5), Run { len: 5, state: RunState::Data });
        assert_eq!(reader.run_at(u64::MAX, 5), file_run_at(&file, u64::MAX, 5));
        assert_eq!(reader.run_at(0, 0).len, 0);
    }

    #[test]
    fn a_length_is_checked_before_it_is_allocated() {
        let error = read_vec(&vec![1, 2, 3], 1, u64::MAX, "notes").unwrap_err();
        assert_eq!(
            error.to_string(),
            "notes at offset 0x1: 18446744073709551615 bytes are needed, 2 are left"
        );
        assert_eq!(read_vec(&vec![1, 2, 3], 1, 2, "notes").unwrap(), [2, 3]);
    }
}
