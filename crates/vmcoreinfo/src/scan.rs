//! A pass over guest memory: in which order, in which blocks, and where something begins that may be a note.
//!
//! What is known to be zero, missing or left out is passed over. The rest is looked at where it lies, if it lies in our
//! own memory, and else read in blocks: a read for each page would cost a hundred times the look at it.
//!
//! Source: `spec/vmcoreinfo.md` section 5.4.

use crate::candidate::{NAME_OFFSET, NAME_START};
use crate::note::FIRST_KEY;
use std::ops::{ControlFlow, Range};
use vmcore_core::{DumpState, Error, Gpa, PhysMemory, RegionKind, RunState};

/// How much is read at once.
const BLOCK: u64 = 1 << 20;
/// Kernels since 4.13 put the note at the start of a page; 4 KiB is the smallest that a kernel has.
const PAGE: usize = 0x1000;
const WORD: usize = 4;
/// Where the note lies in most guests, which are therefore looked at first: a kernel allocates it from its highest zone,
/// right above 4 GiB or, without memory there, low.
const HIGH: Range<u64> = 4 << 30..(4 << 30) + (256 << 20);
const LOW: Range<u64> = 16 << 20..256 << 20;

/// Where notes may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stride {
    /// At the start of a page; with a header.
    Page,
    /// At any 32-bit word; with a header or without.
    Word,
}

/// Calls `look` with each address where a note may begin, until it breaks. Counts what it has passed in `state`.
pub(crate) fn scan(
    memory: &dyn PhysMemory,
    stride: Stride,
    state: &DumpState,
    mut look: impl FnMut(Gpa) -> ControlFlow<()>,
) -> Result<(), Error> {
    blocks(memory, state, |at, bytes| match stride {
        Stride::Page => look_at_pages(at, bytes, &mut look),
        Stride::Word => look_at_words(at, bytes, &mut look),
    })
}

/// Calls `look` with each address, a multiple of four, where `start` may begin, until it breaks. Counts what it has passed in `state`.
pub(crate) fn words(
    memory: &dyn PhysMemory,
    start: &[u8; 2 * WORD],
    state: &DumpState,
    mut look: impl FnMut(Gpa) -> ControlFlow<()>,
) -> Result<(), Error> {
    let first = [start[0], start[1], start[2], start[3]];
    blocks(memory, state, |at, bytes| {
        let from = up_to_multiple(at, WORD);
        let rest = bytes.get(from..).unwrap_or_default();
        let (words, _) = rest.as_chunks::<WORD>();
        for (page, words) in words.chunks(PAGE / WORD).enumerate() {
            // No early end, as in `has_start`.
            if !words.iter().fold(false, |found, word| found | (*word == first)) {
                continue;
            }
            for offset in (0..words.len()).map(|word| page * PAGE + word * WORD) {
                if begins(&rest[offset..], start) {
                    look(Gpa(at + (from + offset) as u64))?;
                }
            }
        }
        ControlFlow::Continue(())
    })
}

/// Calls `look` with each block of memory and its address, until it breaks. Counts what it has passed in `state`.
fn blocks(
    memory: &dyn PhysMemory,
    state: &DumpState,
    mut look: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<(), Error> {
    let ranges = in_order(memory);
    state.begin(ranges.iter().map(|range| range.end - range.start).sum());
    let mut buf = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let (state_of_run, end) = run(memory, at, range.end);
            if state_of_run == RunState::Data && look(at, block(memory, at, end, &mut buf)?).is_break() {
                return Ok(());
            }
            state.advance(end - at)?;
            at = end;
        }
    }
    Ok(())
}

/// All RAM, cut where the order in which it is looked at changes.
fn in_order(memory: &dyn PhysMemory) -> Vec<Range<u64>> {
    let ram = || memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    let start = ram().next().map_or(0, |region| region.gpa.0);
    let low = start.saturating_add(LOW.start)..start.saturating_add(LOW.end);
    let mut ranges = Vec::new();
    for region in ram() {
        let mut at = region.gpa.0;
        let cuts = [HIGH.start, HIGH.end, low.start, low.end, region.end().0];
        while let Some(cut) = cuts.into_iter().filter(|cut| *cut > at && *cut <= region.end().0).min() {
            ranges.push(at..cut);
            at = cut;
        }
    }
    let turn = |range: &Range<u64>| match range.start {
        at if HIGH.contains(&at) => 0,
        at if low.contains(&at) => 1,
        _ => 2,
    };
    ranges.sort_by_key(turn);
    ranges
}

/// What is known of memory from `at` on, and where that ends. Data ends with a block at the latest, which then begins the
/// next one on a page.
fn run(memory: &dyn PhysMemory, at: u64, stop: u64) -> (RunState, u64) {
    let next = |at: u64| {
        let run = memory.run_at(Gpa(at), stop - at);
        (run.state, at + run.len.clamp(1, stop - at))
    };
    let (state, mut end) = next(at);
    if state != RunState::Data {
        return (state, end);
    }
    // Formats that store pages one by one may know of one page at a time.
    while end < stop && end - at < BLOCK {
        match next(end) {
            (RunState::Data, further) => end = further,
            _ => break,
        }
    }
    let limit = Gpa(at.saturating_add(BLOCK)).align_down(PAGE as u64).0;
    (state, end.min(limit))
}

/// The bytes from `at` to `end`, which are no more than a block; those that cannot be read are zero.
fn block<'a>(memory: &'a dyn PhysMemory, at: u64, end: u64, buf: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
    let len = usize::try_from(end - at).map_err(|_| Error::Range {
        what: "guest memory",
        start: at,
        len: end - at,
    })?;
    if let Some(bytes) = memory.slice(Gpa(at), len) {
        return Ok(bytes);
    }
    buf.resize(len, 0);
    memory.read_at(Gpa(at), buf)?;
    Ok(buf)
}

fn look_at_pages(at: u64, bytes: &[u8], look: &mut impl FnMut(Gpa) -> ControlFlow<()>) -> ControlFlow<()> {
    for start in (up_to_multiple(at, PAGE)..bytes.len()).step_by(PAGE) {
        if bytes.get(start + NAME_OFFSET..).is_some_and(|rest| begins(rest, NAME_START)) {
            look(Gpa(at + start as u64))?;
        }
    }
    ControlFlow::Continue(())
}

fn look_at_words(at: u64, bytes: &[u8], look: &mut impl FnMut(Gpa) -> ControlFlow<()>) -> ControlFlow<()> {
    for start in (up_to_multiple(at, WORD)..bytes.len()).step_by(PAGE) {
        let rest = &bytes[start..];
        // One more word: a start may cross the page.
        let (words, _) = rest[..rest.len().min(PAGE + WORD)].as_chunks::<WORD>();
        if !has_start(words) {
            continue;
        }
        for offset in (0..rest.len().min(PAGE)).step_by(WORD) {
            let (rest, gpa) = (&rest[offset..], at + (start + offset) as u64);
            if begins(rest, FIRST_KEY) {
                look(Gpa(gpa))?;
            } else if begins(rest, NAME_START)
                // Before the first byte of memory there is no header.
                && let Some(gpa) = gpa.checked_sub(NAME_OFFSET as u64)
            {
                look(Gpa(gpa))?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Whether `bytes` begin with `text`, or with as much of it as there is before the block ends.
fn begins(bytes: &[u8], text: &[u8]) -> bool {
    let len = bytes.len().min(text.len());
    len >= WORD && bytes[..len] == text[..len]
}

/// Bytes from `at` up to the next multiple of `step`, a power of two.
fn up_to_multiple(at: u64, step: usize) -> usize {
    // The rest of a division by a `usize` is one.
    usize::try_from(at.wrapping_neg() % step as u64).unwrap_or(0)
}

/// Whether a name or a text may begin at one of these words: it does if its first two words are there, or the first as the
/// last one. There is no early end: so the compiler compares many words at once, at the speed of memory.
fn has_start(words: &[[u8; WORD]]) -> bool {
    let word =
        |text: &[u8], at: usize| u32::from_ne_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    let [name, text] = [NAME_START, FIRST_KEY].map(|start| (word(start, 0), word(start, WORD)));
    let is_start = |(first, second): (&[u8; WORD], &[u8; WORD])| {
        let words = (u32::from_ne_bytes(*first), u32::from_ne_bytes(*second));
        let is = |start: (u32, u32)| u32::from(words.0 == start.0) & u32::from(words.1 == start.1);
        is(name) | is(text)
    };
    let pairs = words.iter().zip(words.get(1..).unwrap_or_default());
    let is_cut = words.last().is_some_and(|last| [name.0, text.0].contains(&u32::from_ne_bytes(*last)));
    is_cut || pairs.fold(0, |found, pair| found | is_start(pair)) != 0
}
