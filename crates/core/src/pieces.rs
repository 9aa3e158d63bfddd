//! Guest memory in pieces of a file, as ELF cores and LiME images have it.

use crate::memory::read_by_region;
use crate::{Error, Gpa, PhysMemory, ReadAt, Region, RegionKind, Run, RunState, Unreadable};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where the bytes of a piece of guest memory are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, from this offset on.
    File(u64),
    /// Nowhere: they are zero (`p_memsz` beyond `p_filesz`).
    Zero,
    /// They should be in the file, but it ends before.
    Missing,
    /// Nowhere: a dump level leaves them out.
    Excluded,
    /// Nowhere: the dump knows the address only.
    Mmio,
}

impl Place {
    /// The place `bytes` further on.
    fn skip(self, bytes: u64) -> Self {
        match self {
            Self::File(offset) => Self::File(offset + bytes),
            other => other,
        }
    }
}

/// Consecutive guest memory with its bytes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first address.
    pub gpa: Gpa,
    /// Bytes. `gpa + len` must not pass 2^64.
    pub len: u64,
    /// Where its bytes are.
    pub place: Place,
    /// Which segment of the dump it belongs to: pieces of different segments are different regions.
    pub segment: usize,
}

impl Piece {
    fn end(&self) -> Gpa {
        Gpa(self.gpa.0 + self.len)
    }
}

/// Pieces that do not overlap; of two that would, the first added counts.
#[derive(Debug, Default)]
pub struct PieceMap {
    by_start: BTreeMap<Gpa, Piece>,
    /// What the pieces cover, neighbors merged: start to end. Each piece added merges what it touches, so that many pieces
    /// over one place cost no more than many places.
    covered: BTreeMap<Gpa, Gpa>,
}

impl PieceMap {
    /// Adds the parts of `piece` that no earlier piece covers.
    pub fn add(&mut self, piece: Piece) {
        let (mut start, mut end) = (piece.gpa, piece.end());
        let mut at = piece.gpa;
        let before = self.covered.range(..at).next_back().map(|(start, end)| (*start, *end));
        let mut touched = before.filter(|(_, end)| *end >= at).or_else(|| self.covered_from(at, end));
        while let Some((covered_start, covered_end)) = touched {
            self.add_part(piece, at, covered_start);
            self.covered.remove(&covered_start);
            start = start.min(covered_start);
            end = end.max(covered_end);
            at = at.max(covered_end);
            touched = self.covered_from(at, piece.end());
        }
        self.add_part(piece, at, piece.end());
        self.covered.insert(start, end);
    }

    /// The first covered range that begins in `at..=end`.
    fn covered_from(&self, at: Gpa, end: Gpa) -> Option<(Gpa, Gpa)> {
        let mut found = self.covered.range(at..).take_while(|(start, _)| **start <= end);
        found.next().map(|(start, end)| (*start, *end))
    }

    /// Adds the part of `piece` from `at` to `stop`, which is free.
    fn add_part(&mut self, piece: Piece, at: Gpa, stop: Gpa) {
        let stop = stop.min(piece.end());
        if at < stop {
            let place = piece.place.skip(at.0 - piece.gpa.0);
            self.by_start.insert(at, Piece { gpa: at, len: stop.0 - at.0, place, ..piece });
        }
    }

    /// The pieces, ascending.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Piece> {
        self.by_start.into_values().collect()
    }
}

/// The memory of an opened dump, which reads its pieces from the file.
pub struct PieceMemory {
    file: Arc<dyn ReadAt>,
    pieces: Vec<Piece>,
    regions: Vec<Region>,
    has_excluded: bool,
}

impl PieceMemory {
    /// Memory made of pieces that ascend and do not overlap.
    #[must_use]
    pub fn new(file: Arc<dyn ReadAt>, pieces: Vec<Piece>) -> Self {
        let mut regions: Vec<(usize, Region)> = Vec::new();
        for piece in &pieces {
            let kind = if piece.place == Place::Mmio { RegionKind::Mmio } else { RegionKind::Ram };
            match regions.last_mut() {
                Some((segment, last))
                    if *segment == piece.segment && last.kind == kind && last.end() == piece.gpa =>
                {
                    last.len += piece.len;
                }
                _ => regions.push((piece.segment, Region { gpa: piece.gpa, len: piece.len, kind })),
            }
        }
        let has_excluded = pieces.iter().any(|piece| piece.place == Place::Excluded);
        Self { file, pieces, regions: regions.into_iter().map(|(_, region)| region).collect(), has_excluded }
    }

    /// The pieces that hold `[gpa, gpa + len)`, each cut to it.
    fn pieces_in(&self, gpa: Gpa, len: u64) -> impl Iterator<Item = Piece> {
        let end = gpa.0.saturating_add(len);
        let first = self.pieces.partition_point(|piece| piece.end() <= gpa);
        let touched = self.pieces[first..].iter().take_while(move |piece| piece.gpa.0 < end);
        touched.map(move |piece| {
            let start = piece.gpa.max(gpa);
            let place = piece.place.skip(start.0 - piece.gpa.0);
            Piece { gpa: start, len: piece.end().0.min(end) - start.0, place, ..*piece }
        })
    }
}

impl fmt::Debug for PieceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PieceMemory").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl PhysMemory for PieceMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        read_by_region(&self.regions, gpa, buf, |_, at, bytes, unreadable| {
            let mut rest = bytes;
            for piece in self.pieces_in(at, rest.len() as u64) {
                // A piece was cut to what was asked for, which is in memory.
                let len = usize::try_from(piece.len).unwrap_or(usize::MAX).min(rest.len());
                let (head, tail) = rest.split_at_mut(len);
                let read = match piece.place {
                    Place::File(offset) => {
                        let error = |source| Error::Io { what: "reading guest memory", offset, source };
                        self.file.read_at(offset, head).map_err(error)?
                    }
                    Place::Zero => {
                        head.fill(0);
                        len
                    }
                    Place::Missing | Place::Excluded | Place::Mmio => 0,
                };
                // Also when the file has become shorter since it was opened.
                head[read..].fill(0);
                unreadable.add(Gpa(piece.gpa.0 + read as u64), (len - read) as u64);
                rest = tail;
            }
            Ok(())
        })
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        let Some(piece) = self.pieces_in(gpa, max).next() else {
            return Run { len: max, state: RunState::Data };
        };
        if piece.gpa > gpa {
            return Run { len: piece.gpa.0 - gpa.0, state: RunState::Data };
        }
        let state = match piece.place {
            Place::File(offset) => return self.file.run_at(offset, piece.len),
            Place::Zero => RunState::Zero,
            Place::Excluded => RunState::Excluded,
            Place::Missing | Place::Mmio => RunState::Missing,
        };
        Run { len: piece.len, state }
    }

    fn has_excluded(&self) -> bool {
        self.has_excluded
    }

    fn excluded_at(&self, gpa: Gpa, max: u64) -> (bool, u64) {
        match self.pieces_in(gpa, max).next() {
            Some(piece) if piece.gpa == gpa => (piece.place == Place::Excluded, piece.len),
            Some(piece) => (false, piece.gpa.0 - gpa.0),
            None => (false, max),
        }
    }

    fn is_sequential(&self) -> bool {
        self.file.is_sequential()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(gpa: u64, len: u64, place: Place, segment: usize) -> Piece {
        Piece { gpa: Gpa(gpa), len, place, segment }
    }

    #[test]
    fn the_first_of_two_overlapping_pieces_counts() {
        let mut map = PieceMap::default();
        map.add(piece(0x1000, 0x1000, Place::File(0x100), 0));
        map.add(piece(0x3000, 0x1000, Place::File(0x2000), 1));
        map.add(piece(0x0, 0x5000, Place::Zero, 2));
        map.add(piece(0x1800, 0x100, Place::Missing, 3));
        let pieces: Vec<_> = map.into_pieces().iter().map(|p| (p.gpa.0, p.len, p.segment)).collect();
        assert_eq!(
            pieces,
            [
                (0, 0x1000, 2),
                (0x1000, 0x1000, 0),
                (0x2000, 0x1000, 2),
                (0x3000, 0x1000, 1),
                (0x4000, 0x1000, 2)
            ]
        );
    }

    /// A file that may not be asked for its holes.
    struct NoHoles;

    impl ReadAt for NoHoles {
        fn byte_len(&self) -> u64 {
            0x100
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
        fn run_at(&self, _: u64, _: u64) -> Run {
            panic!("nobody wants to know what is zero")
        }
    }

    #[test]
    fn what_is_excluded_is_told_without_a_look_for_zeros() {
        let places = [(0x1000, Place::File(0)), (0x1100, Place::Excluded), (0x3000, Place::Excluded)];
        let pieces = places.map(|(gpa, place)| piece(gpa, 0x100, place, 0)).to_vec();
        let memory = PieceMemory::new(Arc::new(NoHoles), pieces.clone());
        let states = [
            (0xf00, (false, 0x100)),
            (0x1010, (false, 0xf0)),
            (0x1100, (true, 0x100)),
            (0x2000, (false, 0x1000)),
        ];
        for (gpa, expected) in states {
            assert_eq!(memory.excluded_at(Gpa(gpa), 0x10_0000), expected, "{gpa:#x}");
        }
        assert_eq!(memory.excluded_at(Gpa(0x3000), 0x10), (true, 0x10));
        // Both tell the same.
        let memory = PieceMemory::new(Arc::new(vec![0; 0x100]), pieces);
        for gpa in (0xf00..0x3200).step_by(0x10) {
            let run = memory.run_at(Gpa(gpa), 0x10_0000);
            assert_eq!(
                memory.excluded_at(Gpa(gpa), 0x10_0000),
                (run.state == RunState::Excluded, run.len),
                "{gpa:#x}"
            );
        }
    }

    #[test]
    fn a_cut_piece_reads_from_its_own_offset() {
        let mut map = PieceMap::default();
        map.add(piece(0x10, 0x10, Place::File(4), 0));
        map.add(piece(0x0, 0x40, Place::File(0), 1));
        let file: Vec<u8> = (0..=0x2f).collect();
        let memory = PieceMemory::new(Arc::new(file), map.into_pieces());
        assert_eq!(memory.regions().len(), 3);
        let mut buf = [0xff; 0x44];
        let unreadable = memory.read_at(Gpa(0), &mut buf).unwrap();
        assert_eq!(
            (buf[0xf], buf[0x10], buf[0x1f], buf[0x20], buf[0x2f], buf[0x30]),
            (0xf, 4, 0x13, 0x20, 0x2f, 0)
        );
        assert_eq!(unreadable.ranges(), [0x30..0x44]);
    }
}
