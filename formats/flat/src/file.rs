//! The file inside a flattened stream.

use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use vmcore_core::{ReadAt, Run, RunState};

/// Where some bytes of the file are. Of two pieces the one that is further down the stream is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    /// Their offset in the stream.
    pub(crate) position: u64,
    /// Their offset in the file.
    pub(crate) offset: u64,
    /// How many there are.
    pub(crate) len: u64,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The part of the piece between two offsets in the file that lie within it.
    fn cut(&self, start: u64, end: u64) -> Self {
        Self { position: self.position + (start - self.offset), offset: start, len: end - start }
    }
}

/// The file inside a flattened stream, read where it lies.
///
/// It needs 24 bytes of memory for each record, whatever the length of the file.
pub struct FlatFile {
    stream: Arc<dyn ReadAt>,
    /// By offset, without overlap.
    pieces: Vec<Piece>,
}

impl std::fmt::Debug for FlatFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlatFile").field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

/// Bytes of the file with one answer to where they are.
struct Part {
    len: u64,
    /// Their offset in the stream; a gap has none.
    position: Option<u64>,
}

impl FlatFile {
    /// The file whose `pieces` ascend and do not overlap.
    pub(crate) fn new(stream: Arc<dyn ReadAt>, pieces: Vec<Piece>) -> Self {
        Self { stream, pieces }
    }

    /// What the file holds in `[offset, offset + len)`, up to its end.
    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part> {
        let first = self.pieces.partition_point(|piece| piece.end() <= offset);
        let mut pieces = self.pieces[first..].iter().peekable();
        let end = offset.saturating_add(len);
        let mut at = offset;
        std::iter::from_fn(move || {
            let piece = pieces.peek().filter(|_| at < end)?;
            let (stop, position) = if at < piece.offset {
                (piece.offset, None)
            } else {
                let position = piece.position + (at - piece.offset);
                (pieces.next()?.end(), Some(position))
            };
            let part = Part { len: stop.min(end) - at, position };
            at += part.len;
            Some(part)
        })
    }
}

/// The most records that one run spans: those of QEMU, of 16 KiB, add up to what is read at once.
const MAX_RUN_PARTS: usize = 64;

impl ReadAt for FlatFile {
    fn byte_len(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        for part in self.parts(offset, buf.len() as u64) {
            // A part is cut to what was asked for.
            let len = usize::try_from(part.len).unwrap_or(usize::MAX);
            let bytes = &mut buf[done..][..len];
            let Some(position) = part.position else {
                bytes.fill(0);
                done += len;
                continue;
            };
            let read = self.stream.read_at(position, bytes)?;
            done += read;
            if read < len {
                // The stream has become shorter since it was opened.
                break;
            }
        }
        Ok(done)
    }

    fn run_at(&self, offset: u64, max: u64) -> Run {
        let mut run = None;
        for part in self.parts(offset, max).take(MAX_RUN_PARTS) {
            let next = match part.position {
                Some(position) => self.stream.run_at(position, part.len),
                None => Run { len: part.len, state: RunState::Zero },
            };
            let before = run.unwrap_or(Run { len: 0, state: next.state });
            if before.state != next.state {
                break;
            }
            run = Some(Run { len: before.len + next.len.min(part.len), ..next });
            if next.len < part.len {
                break;
            }
        }
        run.unwrap_or(Run { len: max, state: RunState::Data })
    }
}

/// Cuts pieces, which ascend by offset, so that of those that overlap the last in the stream counts.
///
/// There are less than twice as many pieces then. It takes O(n log n) steps.
pub(crate) fn resolve_overlaps(pieces: &[Piece]) -> Vec<Piece> {
    let mut resolved: Vec<Piece> = Vec::with_capacity(pieces.len());
    // The pieces that cover `at`, the one that counts on top. Others that end before it are below.
    let mut covering: BinaryHeap<Piece> = BinaryHeap::new();
    let mut at = 0;
    let starts = pieces.iter().map(|piece| piece.offset);
    for (piece, next) in pieces.iter().zip(starts.skip(1).chain([u64::MAX])) {
        // What is wholly under the one that counts will never count.
        if covering.peek().is_none_or(|top| top < piece || top.end() < piece.end()) {
            covering.push(*piece);
        }
        at = at.max(piece.offset);
        while let Some(top) = covering.peek().copied().filter(|_| at < next) {
            let end = top.end().min(next);
            if at < end {
                let part = top.cut(at, end);
                match resolved.last_mut() {
                    // What was cut only because a piece begins that does not count.
                    Some(last) if last.end() == at && last.position + last.len == part.position => {
                        last.len += part.len;
                    }
                    _ => resolved.push(part),
                }
                at = end;
            }
            if top.end() <= at {
                covering.pop();
            }
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that follow each other in the stream, as (offset, length), and what becomes of them.
    fn check(records: &[(u64, u64)], expected: &[(u64, u64, usize)]) {
        let mut pieces = in_stream(records);
        pieces.sort_by_key(|piece| piece.offset);
        let origin = |piece: &Piece| usize::try_from(piece.position / 1000).unwrap();
        let resolved = resolve_overlaps(&pieces);
        let resolved: Vec<_> =
            resolved.iter().map(|piece| (piece.offset, piece.len, origin(piece))).collect();
        assert_eq!(resolved, expected, "{records:?}");
    }

    fn in_stream(records: &[(u64, u64)]) -> Vec<Piece> {
        (0..).zip(records).map(|(at, &(offset, len))| Piece { position: at * 1000, offset, len }).collect()
    }

    #[test]
    fn the_last_of_two_overlapping_pieces_counts() {
        check(&[(0, 10), (10, 5), (20, 5)], &[(0, 10, 0), (10, 5, 1), (20, 5, 2)]);
        check(&[(0, 10), (5, 10)], &[(0, 5, 0), (5, 10, 1)]);
        check(&[(5, 10), (0, 10)], &[(0, 10, 1), (10, 5, 0)]);
        check(&[(0, 10), (3, 2)], &[(0, 3, 0), (3, 2, 1), (5, 5, 0)]);
        check(&[(3, 2), (0, 10)], &[(0, 10, 1)]);
        check(&[(0, 4), (0, 8), (0, 6)], &[(0, 6, 2), (6, 2, 1)]);
        check(&[(0, 9), (9, 9), (4, 9), (30, 1)], &[(0, 4, 0), (4, 9, 2), (13, 5, 1), (30, 1, 3)]);
    }

    proptest! {
        /// Each byte is in the piece that the last record that covers it became, and pieces are as few as can be.
        #[test]
        fn pieces_say_what_records_in_order_would_write(
            records in prop::collection::vec((0..60u64, 1..20u64), 0..12),
        ) {
            let mut written = vec![None; 80];
            let mut pieces = in_stream(&records);
            for piece in &pieces {
                for byte in 0..piece.len {
                    written[usize::try_from(piece.offset + byte).unwrap()] = Some(piece.position + byte);
                }
            }
            pieces.sort_by_key(|piece| piece.offset);
            let resolved = resolve_overlaps(&pieces);
            let mut read = vec![None; 80];
            for piece in &resolved {
                for byte in 0..piece.len {
                    let was = read[usize::try_from(piece.offset + byte).unwrap()].replace(piece.position + byte);
                    prop_assert_eq!(was, None);
                }
            }
            prop_assert_eq!(read, written);
            let joined = |pair: &[Piece]| pair[0].end() == pair[1].offset && pair[0].position + pair[0].len == pair[1].position;
            prop_assert!(!resolved.windows(2).any(joined));
        }
    }

    /// A stream that knows where it has holes: the bytes that are zero.
    struct Sparse(Vec<u8>);

    impl ReadAt for Sparse {
        fn byte_len(&self) -> u64 {
            self.0.byte_len()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(offset, buf)
        }

        fn run_at(&self, offset: u64, max: u64) -> Run {
            let rest = &self.0[usize::try_from(offset).unwrap()..];
            let len = rest.iter().take_while(|byte| (**byte == 0) == (rest[0] == 0)).count() as u64;
            Run { len: len.min(max), state: if rest[0] == 0 { RunState::Zero } else { RunState::Data } }
        }
    }

    #[test]
    fn runs_join_records_and_know_holes() {
        // Offset:          0123456789
        // The file inside: abcd00..ef      (a digit is a zero of the stream, a dot a gap)
        let stream = Sparse(b"ab|cd\0|\0|ef".to_vec());
        let piece = |position, offset, len| Piece { position, offset, len };
        let pieces = vec![piece(0, 0, 2), piece(3, 2, 3), piece(7, 5, 1), piece(9, 8, 2)];
        let file = FlatFile::new(Arc::new(stream), pieces);
        let run = |offset, max| {
            let run = file.run_at(offset, max);
            (run.len, run.state == RunState::Zero)
        };
        assert_eq!((run(0, 100), run(1, 2), run(3, 100)), ((4, false), (2, false), (1, false)));
        assert_eq!(
            (run(4, 100), run(5, 100), run(5, 2), run(7, 9)),
            ((4, true), (3, true), (2, true), (1, true))
        );
        assert_eq!((run(8, 100), run(10, 100)), ((2, false), (100, false)));
        let mut bytes = [0xff; 12];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 10);
        assert_eq!(&bytes, b"abcd\0\0\0\0ef\xff\xff");
        assert_eq!(file.read_at(10, &mut bytes).unwrap(), 0);
        assert_eq!(file.read_at(u64::MAX, &mut bytes).unwrap(), 0);
    }

    #[test]
    fn a_stream_that_became_shorter_reads_short() {
        let pieces = vec![Piece { position: 0, offset: 0, len: 4 }, Piece { position: 4, offset: 6, len: 1 }];
        let file = FlatFile::new(Arc::new(b"ab".to_vec()), pieces);
        assert_eq!(file.read_at(0, &mut [0; 8]).unwrap(), 2);
    }
}
