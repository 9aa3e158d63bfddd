//! Positioned writing of a dump.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// In which order a sink takes what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Ascending offsets; gaps are filled with zeros.
    Ascending,
    /// Any offsets, gaps cost nothing; but what arrives is kept in the order in which it arrives.
    Arrival,
    /// Any offsets, gaps cost nothing, and the order makes no difference: many threads may write.
    Any,
}

/// Where a dump is written to.
pub trait Sink: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// What is never written reads as zeros. Nothing is written twice.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::NotSeekable`] for a step back on a stream.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// In which order offsets may come.
    fn order(&self) -> Order;

    /// Makes the dump `len` bytes long and hands everything to the operating system.
    ///
    /// # Errors
    /// Those of the operating system.
    fn finish(&self, len: u64) -> io::Result<()>;
}

/// A file, empty at first; what is not written becomes a hole.
#[derive(Debug)]
pub struct FileSink<'a>(pub &'a File);

impl Sink for FileSink<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// A pipe or any other writer that cannot go back; gaps are filled with zeros.
#[derive(Debug)]
pub struct StreamSink<W>(Mutex<(W, u64)>);

impl<W: Write + Send> StreamSink<W> {
    /// A sink that begins at offset 0 of the dump.
    pub fn new(writer: W) -> Self {
        Self(Mutex::new((writer, 0)))
    }
}

fn write_zeros(writer: &mut impl Write, mut len: u64) -> io::Result<()> {
    static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
    while len > 0 {
        let step = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        writer.write_all(&ZEROS[..step])?;
        len -= step as u64;
    }
    Ok(())
}

impl<W: Write + Send> Sink for StreamSink<W> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (writer, position) = &mut *guard;
        let gap = offset.checked_sub(*position).ok_or(io::ErrorKind::NotSeekable)?;
        write_zeros(writer, gap)?;
        writer.write_all(bytes)?;
        *position = offset + bytes.len() as u64;
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Ascending
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        self.write_at(len, &[])?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_fills_gaps_and_does_not_go_back() {
        let mut out = Vec::new();
        {
            let sink = StreamSink::new(&mut out);
            sink.write_at(2, b"ab").unwrap();
            assert_eq!(sink.write_at(3, b"c").unwrap_err().kind(), io::ErrorKind::NotSeekable);
            sink.finish(6).unwrap();
        }
        assert_eq!(out, [0, 0, b'a', b'b', 0, 0]);
    }
}
