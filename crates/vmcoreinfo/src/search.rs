//! The search for a note that nobody has stated: candidates, what speaks for each, and which of them is the best.
//!
//! Source: `spec/vmcoreinfo.md` sections 5.3 and 5.4.

use crate::candidate::read_xen;
use crate::scan::{Stride, scan};
use crate::verify::{Guest, verify};
use crate::{Candidate, Evidence, Level, candidate::Shape};
use std::cmp::Reverse;
use std::fmt;
use std::ops::ControlFlow;
use vmcore_core::{DumpState, Error, Gpa, Note, memory};

/// Addresses that are looked at closely in one pass. Real guests have a handful; memory that is full of headers must not
/// take for ever.
const MAX_LOOKS: usize = 4096;
/// Notes that are kept.
const MAX_FOUND: usize = 64;

/// How a note was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The architecture's pointer leads to it.
    Pointer,
    /// It lies in memory.
    Scan,
}

/// A note that was found, and what speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The note.
    pub candidate: Candidate,
    /// How it was found.
    pub way: Way,
    /// What speaks for it.
    pub evidence: Evidence,
}

impl Found {
    /// The higher, the better: evidence, then the time of a crash, then a note rather than a text without a header.
    fn rank(&self) -> (Level, bool, u64, bool) {
        let Self { candidate, evidence, .. } = self;
        let crash_time = candidate.info().get("CRASHTIME").and_then(|time| time.trim().parse().ok());
        (evidence.level(), evidence.uname, crash_time.unwrap_or(0), candidate.shape == Shape::Note)
    }

    /// Whether no other note can be better: the kernel that it describes is there, and this much speaks for it.
    fn is_enough(&self, enough: Level) -> bool {
        self.evidence.level() >= enough && self.evidence.uname && !self.evidence.is_denied()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { candidate, evidence, .. } = self;
        let info = candidate.info();
        write!(f, "{} at {}", info.release().unwrap_or_default(), candidate.gpa)?;
        if let Some(offset) = info.hex("KERNELOFFSET") {
            write!(f, ", KASLR offset {offset:#x}")?;
        }
        write!(f, ", confirmed by {}", evidence.level())
    }
}

/// What a search has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The notes of kernels, the best first. Of those that say the same only one.
    pub found: Vec<Found>,
    /// Notes of a Xen hypervisor that were met on the way: they stand before the kernel's in a dump.
    pub xen: Vec<Note>,
    /// Whether the search gave up because memory is full of what looks like notes.
    pub is_cut: bool,
}

/// Searches the guest's memory for its note.
///
/// It ends at the first note that `enough` speaks for: [`Level::Vcpu`] where the registers are known. Of a guest that runs,
/// [`Level::PageTables`] finds the likely one soon, which [`crate::recheck`] makes sure of when the guest stands still.
/// Memory is read twice at most: first where kernels since 4.13 have their notes, then, if none is acceptable, everywhere.
/// `state` counts the bytes that were passed, and ends the search if it is cancelled.
///
/// # Errors
/// [`Error::Unsupported`] for memory that can only be read in order, [`Error::Cancelled`], and errors of reading.
pub fn search(guest: &Guest<'_>, enough: Level, state: &DumpState) -> Result<Findings, Error> {
    if guest.memory.is_sequential() {
        let found = "memory that comes as a stream".to_owned();
        return Err(Error::Unsupported { what: "a search for VMCOREINFO", found });
    }
    let mut searcher = Searcher { guest, enough, looks: 0, findings: Findings::default() };
    if let Some(gpa) = pointed_at(guest) {
        // The search goes on only if the vCPUs run something else.
        let is_over = searcher.look(gpa, Way::Pointer).is_break();
        if is_over || searcher.findings.found.iter().any(|found| !found.evidence.is_denied()) {
            return Ok(searcher.finish());
        }
    }
    for stride in [Stride::Page, Stride::Word] {
        searcher.looks = 0;
        scan(&**guest.memory, stride, state, |gpa| searcher.look(gpa, Way::Scan))?;
        if searcher.findings.found.iter().any(|found| found.evidence.is_acceptable()) {
            break;
        }
    }
    Ok(searcher.finish())
}

/// Where the architecture's pointer leads.
fn pointed_at(guest: &Guest<'_>) -> Option<Gpa> {
    let at = guest.arch?.note_pointer()?;
    let bytes: [u8; 8] = memory::read_array(&**guest.memory, at, "the pointer to VMCOREINFO").ok()?;
    Some(Gpa(guest.endianness.decode(&bytes))).filter(|gpa| gpa.0 != 0)
}

struct Searcher<'a> {
    guest: &'a Guest<'a>,
    enough: Level,
    looks: usize,
    findings: Findings,
}

impl Searcher<'_> {
    /// Looks at what lies at `gpa`; breaks if the search is over.
    fn look(&mut self, gpa: Gpa, way: Way) -> ControlFlow<()> {
        let Findings { found, xen, is_cut } = &mut self.findings;
        self.looks += 1;
        if self.looks > MAX_LOOKS || found.len() >= MAX_FOUND {
            *is_cut = true;
            return ControlFlow::Break(());
        }
        let (memory, endianness) = (&**self.guest.memory, self.guest.endianness);
        let Some(candidate) = Candidate::read(memory, gpa, endianness) else {
            let note =
                read_xen(memory, gpa, endianness).filter(|note| xen.len() < MAX_FOUND && !xen.contains(note));
            xen.extend(note);
            return ControlFlow::Continue(());
        };
        // The kernel has a copy of its text without a header, and a note has a text inside.
        if let Some(same) = found.iter_mut().find(|found| found.candidate.says_the_same(&candidate)) {
            if same.candidate.shape == Shape::Text && candidate.shape == Shape::Note {
                same.candidate = candidate;
            }
            return ControlFlow::Continue(());
        }
        let evidence = verify(self.guest, candidate.info());
        let new = Found { candidate, way, evidence };
        let is_enough = new.is_enough(self.enough);
        found.push(new);
        if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(mut self) -> Findings {
        // Those that are equal stay in the order in which they were found.
        self.findings.found.sort_by_key(|found| Reverse(found.rank()));
        self.findings
    }
}
