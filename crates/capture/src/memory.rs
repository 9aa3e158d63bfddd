//! Guest memory, read from QEMU's process and from the files behind it while QEMU holds the guest.

use crate::SCHEME;
use crate::backing::{Piece, Place, Span};
use crate::gate::Gate;
use crate::pagemap::{Pagemap, page_size};
use crate::process::Process;
use rustix::io::Errno;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use vmcore_core::memory::read_by_region;
use vmcore_core::{Error, Gpa, PhysMemory, Region, Run, RunState, Unreadable};

/// What must be read is found out for windows of this size, which lie at multiples of it in the process.
const WINDOW: u64 = 256 << 20;
/// Windows that are remembered. With 4 KiB pages, of which every other one is used, one takes 800 KiB.
const MAX_WINDOWS: usize = 16;
/// Zeros between data that are not worth a run of their own: a read more costs more than they do.
const MIN_ZEROS: u64 = 64 << 10;
/// Ranges that the kernel reads in one call (`UIO_MAXIOV`).
const MAX_RANGES: usize = 1024;

/// Guest memory in QEMU's process.
pub(crate) struct ProcessMemory {
    regions: Vec<Region>,
    /// In the order of guest physical addresses; together they are the regions.
    pieces: Vec<Piece>,
    process: Arc<Process>,
    pagemap: Option<Arc<Pagemap>>,
    gate: Arc<Gate>,
    /// The newest last.
    windows: Mutex<Vec<Window>>,
}

struct Window {
    piece: usize,
    start: u64,
    spans: Arc<Vec<Span>>,
}

impl ProcessMemory {
    /// Guest memory made of `pieces`, which ascend and cover `regions`.
    pub(crate) fn new(
        regions: Vec<Region>,
        pieces: Vec<Piece>,
        process: Arc<Process>,
        pagemap: Option<Arc<Pagemap>>,
        gate: Arc<Gate>,
    ) -> Self {
        Self { regions, pieces, process, pagemap, gate, windows: Mutex::default() }
    }

    /// Bytes that are not known to be zero.
    pub(crate) fn used_len(&self) -> u64 {
        let mut used = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let mut at = piece.hva.start;
            while at < piece.hva.end {
                let (window, spans) = self.window(index, at);
                used += spans.iter().map(|span| span.range.end - span.range.start).sum::<u64>();
                at = window.end;
            }
        }
        used
    }

    /// The piece that holds the byte at `gpa`.
    fn piece_at(&self, gpa: u64) -> Option<(usize, &Piece)> {
        let index = self.pieces.partition_point(|piece| piece.gpa + piece.len() <= gpa);
        self.pieces.get(index).filter(|piece| piece.gpa <= gpa).map(|piece| (index, piece))
    }

    /// What must be read of the window around the address `hva` of a piece, and the part of the piece that it is.
    fn window(&self, index: usize, hva: u64) -> (Range<u64>, Arc<Vec<Span>>) {
        let piece = &self.pieces[index];
        let start = (hva / WINDOW * WINDOW).max(piece.hva.start);
        let end = (hva / WINDOW * WINDOW).saturating_add(WINDOW).min(piece.hva.end);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = windows.iter().find(|window| window.piece == index && window.start == start) {
            return (start..end, Arc::clone(&known.spans));
        }
        let spans = piece.spans(start..end, self.pagemap.as_deref()).unwrap_or_else(|_| {
            // What is not known must be read.
            vec![Span { range: start..end, place: Place::Process }]
        });
        let spans = Arc::new(spans);
        if windows.len() == MAX_WINDOWS {
            windows.remove(0);
        }
        windows.push(Window { piece: index, start, spans: Arc::clone(&spans) });
        (start..end, spans)
    }

    /// Reads bytes of one region.
    fn read_piecewise(&self, gpa: Gpa, buf: &mut [u8], unreadable: &mut Unreadable) -> Result<(), Error> {
        let mut rest = buf;
        let mut at = gpa.0;
        while !rest.is_empty() {
            let Some((index, piece)) = self.piece_at(at) else {
                rest.fill(0);
                unreadable.add(Gpa(at), rest.len() as u64);
                return Ok(());
            };
            let hva = piece.hva.start + (at - piece.gpa);
            let (window, spans) = self.window(index, hva);
            let len = usize::try_from(window.end - hva).unwrap_or(usize::MAX).min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            let to_gpa = |hva: u64| Gpa(piece.gpa + (hva - piece.hva.start));
            self.read_spans(piece, &spans, hva, head, |hva, len| unreadable.add(to_gpa(hva), len))?;
            at += len as u64;
            rest = tail;
        }
        Ok(())
    }

    /// Reads the addresses from `hva` on: what lies in no span is zero. Tells `lost` what cannot be read.
    fn read_spans(
        &self,
        piece: &Piece,
        spans: &[Span],
        hva: u64,
        buf: &mut [u8],
        mut lost: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let end = hva + buf.len() as u64;
        let first = spans.partition_point(|span| span.range.end <= hva);
        let touched = spans.get(first..).unwrap_or_default().iter().take_while(|span| span.range.start < end);
        let mut batch = Batch::default();
        let mut at = hva;
        let mut rest = buf;
        for span in touched {
            let (start, stop) = (span.range.start.max(hva), span.range.end.min(end));
            let (zeros, tail) = rest.split_at_mut(to_len(start - at));
            zeros.fill(0);
            let (data, tail) = tail.split_at_mut(to_len(stop - start));
            match span.place {
                Place::Process => {
                    batch.push(start, data);
                    if batch.remote.len() == MAX_RANGES {
                        std::mem::take(&mut batch).read(&self.process, &mut lost)?;
                    }
                }
                Place::Nowhere => {
                    data.fill(0);
                    lost(start, stop - start);
                }
                Place::File => {
                    let read = |at, buf: &mut [u8]| piece.read_file(at, buf);
                    read_skipping(start, data, read, &mut lost).map_err(|source| Error::Io {
                        what: "reading guest memory from its file",
                        offset: piece.offset + (start - piece.hva.start),
                        source,
                    })?;
                }
            }
            (at, rest) = (stop, tail);
        }
        rest.fill(0);
        batch.read(&self.process, &mut lost)
    }
}

/// A length that was derived from that of a buffer.
fn to_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Ranges of the process that are read in one call.
#[derive(Default)]
struct Batch<'a> {
    remote: Vec<(u64, usize)>,
    local: Vec<&'a mut [u8]>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, hva: u64, buf: &'a mut [u8]) {
        self.remote.push((hva, buf.len()));
        self.local.push(buf);
    }

    fn read(self, process: &Process, lost: &mut impl FnMut(u64, u64)) -> Result<(), Error> {
        let Self { remote, mut local } = self;
        if remote.is_empty() {
            return Ok(());
        }
        let wanted: usize = remote.iter().map(|(_, len)| len).sum();
        let mut slices: Vec<IoSliceMut<'_>> = local.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        let mut done = match process.read_memory(&remote, &mut slices) {
            Ok(done) if done == wanted => return Ok(()),
            Ok(done) => done,
            Err(error) if is_fault(&error) => 0,
            Err(error) => return Err(process.denied("the memory", error).into()),
        };
        // Somewhere a page cannot be read. The rest goes range by range, around it.
        for ((hva, len), buf) in remote.into_iter().zip(local) {
            let skip = done.min(len);
            done -= skip;
            let read = |at: u64, buf: &mut [u8]| {
                let len = buf.len();
                process.read_memory(&[(at, len)], &mut [IoSliceMut::new(buf)])
            };
            read_skipping(hva + skip as u64, &mut buf[skip..], read, lost)
                .map_err(|error| process.denied("the memory", error))?;
        }
        Ok(())
    }
}

/// Whether one page cannot be read (not mapped, damaged hardware), and not the process as a whole.
fn is_fault(error: &io::Error) -> bool {
    let pages = [Errno::FAULT, Errno::IO, Errno::HWPOISON, Errno::NXIO].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| pages.contains(&code))
}

/// Reads `buf.len()` bytes from `at` on. Pages that cannot be read are zero, and `lost` is told.
fn read_skipping(
    at: u64,
    buf: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    lost: &mut impl FnMut(u64, u64),
) -> io::Result<()> {
    let mut at = at;
    let mut rest = buf;
    while !rest.is_empty() {
        let done = match read(at, rest) {
            Ok(done) => done.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_fault(&error) => 0,
            Err(error) => return Err(error),
        };
        let step = if done > 0 {
            done
        } else {
            let page_end = (at / page_size() + 1).saturating_mul(page_size());
            let step = to_len(page_end - at).min(rest.len());
            rest[..step].fill(0);
            lost(at, step as u64);
            step
        };
        at += step as u64;
        rest = &mut rest[step..];
    }
    Ok(())
}

impl PhysMemory for ProcessMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        self.gate.check()?;
        let unreadable = read_by_region(&self.regions, gpa, buf, |_, at, bytes, unreadable| {
            self.read_piecewise(at, bytes, unreadable)
        })?;
        // If the guest was let go in between, the bytes may be newer than the registers.
        self.gate.check()?;
        Ok(unreadable)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let unknown = Run { len: max, state: RunState::Data };
        // Once the guest was let go nothing is known; reading says why.
        if self.gate.check().is_err() {
            return unknown;
        }
        let Some((index, piece)) = self.piece_at(gpa.0) else { return unknown };
        let hva = piece.hva.start + (gpa.0 - piece.gpa);
        let (window, spans) = self.window(index, hva);
        let end = window.end.min(hva.saturating_add(max));
        let first = spans.partition_point(|span| span.range.end <= hva);
        let mut ahead = spans.get(first..).unwrap_or_default().iter();
        match ahead.next() {
            Some(span) if span.range.start <= hva => {
                let mut stop = span.range.end;
                for next in ahead.take_while(|next| next.range.start < end) {
                    if next.range.start - stop >= MIN_ZEROS {
                        break;
                    }
                    stop = next.range.end;
                }
                Run { len: stop.min(end) - hva, state: RunState::Data }
            }
            Some(span) => Run { len: span.range.start.min(end) - hva, state: RunState::Zero },
            None => Run { len: end - hva, state: RunState::Zero },
        }
    }
}

impl std::fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessMemory")
            .field("scheme", &SCHEME)
            .field("pid", &self.process.pid())
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
