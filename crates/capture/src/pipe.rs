//! The read end of the pipe that QEMU dumps into: as long as it is open and not read, the guest stands still.
//!
//! ```text
//! QEMU: ELF header | section headers | program headers | notes | memory ...
//! us:   read, and kept ─────────────────────────────────►| never read: QEMU blocks here, the guest is held
//!                                                        | or read once, forward only: QEMU's own dump as a stream
//! ```
//!
//! Closing it lets the guest go. The kernel does that too, whatever becomes of this program.

use crate::error::CaptureError;
use crate::gate::Gate;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vmcore_core::ReadAt;

/// The most that is kept of a dump's beginning: 250 vCPUs have 153 KiB of headers and notes.
const MAX_HEAD_LEN: usize = 64 << 20;
/// How long QEMU may take to write the next bytes. It writes headers and notes within milliseconds.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader keeps others from closing the pipe, in nanoseconds.
const POLL_NANOS: i64 = 5_000_000;

/// The read end of a pipe, which any thread may close.
#[derive(Debug)]
pub(crate) struct Pipe {
    end: Mutex<Option<OwnedFd>>,
    is_closing: AtomicBool,
}

impl Pipe {
    /// `end` must be non-blocking, and must not be inherited by other programs.
    pub(crate) fn new(end: OwnedFd) -> Self {
        Self { end: Mutex::new(Some(end)), is_closing: AtomicBool::new(false) }
    }

    /// Lets the guest go. Does nothing the second time.
    pub(crate) fn close(&self) {
        // Readers look at this before they take the lock, so that they do not take it for ever.
        self.is_closing.store(true, Ordering::SeqCst);
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sets how much QEMU can write ahead of us.
    ///
    /// For a dump that is held, as little as possible: QEMU reads as much guest memory as the pipe takes, and memory that
    /// the guest never touched comes to life by that (seen: 20 KiB of a memfd with the default of 64 KiB). For a
    /// stream, so much that it is worth a turn of the processes.
    pub(crate) fn set_len(&self, len: usize) {
        if let Some(end) = &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            // Where that is refused the pipe works as it is.
            let _ = rustix::pipe::fcntl_setpipe_size(end, len);
        }
    }

    /// Reads some bytes; 0 at the end.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + READ_TIMEOUT;
        loop {
            if self.is_closing.load(Ordering::SeqCst) {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the guest was let go"));
            }
            {
                let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(end) = &*end else { continue };
                match rustix::io::read(end, &mut *buf) {
                    Ok(len) => return Ok(len),
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                let wait = Timespec { tv_sec: 0, tv_nsec: POLL_NANOS };
                // Whatever it says, reading tells.
                let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&wait));
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "QEMU has stopped to write its dump"));
            }
        }
    }
}

/// The dump in a pipe: its beginning as often as one likes, the rest once and forward.
pub(crate) struct PipeReader {
    pipe: Arc<Pipe>,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

struct State {
    /// The beginning of the dump, as far as it was asked for.
    head: Vec<u8>,
    /// How many bytes were taken from the pipe.
    taken: u64,
    /// Whether the beginning is complete: what is read now is not kept.
    is_streaming: bool,
}

impl PipeReader {
    pub(crate) fn new(pipe: Arc<Pipe>, gate: Arc<Gate>) -> Self {
        let state = State { head: Vec::new(), taken: 0, is_streaming: false };
        Self { pipe, gate, state: Mutex::new(state) }
    }

    /// From now on nothing is kept, and reading goes forward only.
    pub(crate) fn stream(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_streaming = true;
    }

    /// Fills `buf` from the pipe; tells how much there was.
    fn take(&self, state: &mut State, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let read = self.pipe.read(&mut buf[done..]);
            self.gate.check().map_err(io::Error::other)?;
            match read? {
                0 => break,
                len => done += len,
            }
        }
        state.taken += done as u64;
        Ok(done)
    }

    fn read_head(&self, state: &mut State, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(buf.len()));
        let Some(end) = end.filter(|end| *end <= MAX_HEAD_LEN) else {
            return Err(io::Error::other(CaptureError::TooLong { limit: MAX_HEAD_LEN }));
        };
        let have = state.head.len();
        if end > have {
            let mut more = vec![0; end - have];
            let read = self.take(state, &mut more)?;
            state.head.extend_from_slice(&more[..read]);
        }
        Ok(copy_from(&state.head, offset, buf))
    }

    fn read_on(&self, state: &mut State, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let from_head = copy_from(&state.head, offset, buf);
        let (offset, buf) = (offset + from_head as u64, &mut buf[from_head..]);
        if buf.is_empty() {
            return Ok(from_head);
        }
        if offset < state.taken {
            return Err(io::Error::new(io::ErrorKind::NotSeekable, "QEMU's stream cannot go back"));
        }
        let mut waste = [0; 1 << 14];
        while state.taken < offset {
            let len = usize::try_from(offset - state.taken).unwrap_or(usize::MAX).min(waste.len());
            if self.take(state, &mut waste[..len])? < len {
                return Ok(from_head);
            }
        }
        Ok(from_head + self.take(state, buf)?)
    }
}

fn copy_from(head: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let there = usize::try_from(offset).ok().and_then(|offset| head.get(offset..)).unwrap_or_default();
    let len = there.len().min(buf.len());
    buf[..len].copy_from_slice(&there[..len]);
    len
}

impl ReadAt for PipeReader {
    fn byte_len(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_streaming {
            self.read_on(&mut state, offset, buf)
        } else {
            self.read_head(&mut state, offset, buf)
        }
    }

    fn is_sequential(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::Write;

    /// A reader, and a thread that writes 0, 1, 2 ... until nobody listens.
    fn reader(len: usize) -> (Arc<Pipe>, PipeReader, std::thread::JoinHandle<bool>) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let writer = std::thread::spawn(move || std::fs::File::from(write).write_all(&bytes).is_ok());
        let pipe = Arc::new(Pipe::new(read));
        (Arc::clone(&pipe), PipeReader::new(pipe, Arc::default()), writer)
    }

    #[test]
    fn the_head_is_kept_and_the_rest_flows_by() {
        let (_pipe, reader, writer) = reader(1 << 20);
        let mut buf = [0; 4];
        assert_eq!(reader.read_at(100, &mut buf).unwrap(), 4);
        assert_eq!(buf, [100, 101, 102, 103]);
        assert_eq!(reader.read_at(0, &mut buf).unwrap(), 4);
        assert_eq!(buf, [0, 1, 2, 3]);
        reader.stream();
        assert_eq!(reader.read_at(102, &mut buf).unwrap(), 4, "half from the head");
        assert_eq!(buf, [102, 103, 104, 105]);
        assert_eq!(reader.read_at(104, &mut buf).unwrap_err().kind(), io::ErrorKind::NotSeekable);
        assert_eq!(reader.read_at(251 * 1000, &mut buf).unwrap(), 4, "what lies between is passed over");
        assert_eq!(buf, [0, 1, 2, 3]);
        assert_eq!(reader.read_at((1 << 20) - 2, &mut buf).unwrap(), 2, "the stream ends");
        assert!(writer.join().unwrap());
    }

    #[test]
    fn closing_breaks_the_writer_and_a_waiting_reader() {
        let (pipe, reader, writer) = reader(1 << 20);
        let mut buf = [0; 16];
        reader.read_at(0, &mut buf).unwrap();
        pipe.close();
        pipe.close();
        assert!(!writer.join().unwrap());
        assert_eq!(reader.read_at(8, &mut buf[..4]).unwrap(), 4, "what is kept stays");
        assert!(reader.read_at(1000, &mut buf).is_err());

        let (read, _write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let pipe = Arc::new(Pipe::new(read));
        let reader = PipeReader::new(Arc::clone(&pipe), Arc::default());
        let waiting = std::thread::spawn(move || reader.read_at(0, &mut [0; 4]).unwrap_err().kind());
        pipe.close();
        assert_eq!(waiting.join().unwrap(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn an_expired_pause_ends_reading_and_an_absurd_head_is_refused() {
        let (_pipe, reader, _writer) = reader(100);
        assert!(reader.read_at(u64::MAX, &mut [0; 4]).is_err());
        assert!(reader.read_at(1 << 40, &mut [0; 4]).is_err());
        reader.gate.expire();
        let error = reader.read_at(0, &mut [0; 4]).unwrap_err();
        assert!(error.to_string().contains("--max-pause"), "{error}");
    }
}
