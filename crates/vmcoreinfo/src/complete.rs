//! A machine gets its note: its own if that is good, or the one that a search finds.

use crate::note::is_of_a_kernel;
use crate::search::{Findings, Found, search};
use crate::verify::{Guest, recheck, verify};
use crate::{Candidate, Evidence, Level, Way};
use vmcore_core::{DumpState, Error, Machine};

/// What became of a machine's note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Where its note comes from; `None` if it has none.
    pub origin: Option<Origin>,
    /// What else lies in memory, the best first.
    pub others: Vec<Found>,
    /// What the user must know, as sentences without a full stop.
    pub warnings: Vec<String>,
}

/// Where a machine's note comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It had it: a device or the dump gave it. With the evidence, if memory could be asked.
    Own(Option<Evidence>),
    /// It was found in memory.
    Found(Found),
}

/// Sees to it that the machine has its guest's note.
///
/// A note that a kernel wrote is left alone. Otherwise memory is searched, unless it can only be read in order; but one of `known`,
/// which were found while the guest ran, is taken without a search if it is confirmed now. What is found becomes the guest's
/// note, in place of one that no kernel wrote.
///
/// # Errors
/// [`Error::Cancelled`]. All else that goes wrong is a warning: a dump never fails for its note.
pub fn complete(machine: &mut Machine, known: &[Candidate], state: &DumpState) -> Result<Outcome, Error> {
    let mut outcome = complete_from(machine, known);
    if outcome.origin.is_some() {
        return Ok(outcome);
    }
    match Guest::of(machine, |guest| search(guest, Level::Vcpu, state)) {
        Ok(findings) => outcome.take(machine, findings),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => outcome.warn(&format!("there is no VMCOREINFO note, and none was found: {error}")),
    }
    Ok(outcome)
}

/// As [`complete()`], without a search: for a guest that stands still, and must not do so for longer than it takes to look at
/// what is `known`.
pub fn complete_from(machine: &mut Machine, known: &[Candidate]) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(note) = &machine.guest_note {
        if is_of_a_kernel(note) {
            outcome.keep(machine);
            return outcome;
        }
        outcome.warn("the VMCOREINFO note is not of a kernel: it does not begin with OSRELEASE=");
    }
    if let Some(found) = Guest::of(machine, |guest| confirmed(guest, known)) {
        outcome.take(machine, Findings { found: vec![found], ..Findings::default() });
    }
    outcome
}

/// The first of these that speaks for itself, now that the guest stands still: a vCPU confirms it, or, if none can, its
/// page tables.
fn confirmed(guest: &Guest<'_>, known: &[Candidate]) -> Option<Found> {
    known.iter().find_map(|candidate| {
        let evidence = recheck(guest, candidate)?;
        let is_confirmed = evidence.uname && !evidence.is_denied() && evidence.level() >= Level::PageTables;
        is_confirmed.then(|| Found { candidate: candidate.clone(), way: Way::Scan, evidence })
    })
}

impl Outcome {
    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    /// The machine's own note stays.
    fn keep(&mut self, machine: &Machine) {
        let info = machine.vmcoreinfo().filter(|_| !machine.memory.is_sequential());
        let evidence = info.as_ref().map(|info| Guest::of(machine, |guest| verify(guest, info)));
        if let (Some(info), Some(true)) = (info, evidence.map(|evidence| evidence.is_denied())) {
            let release = info.release().unwrap_or_default();
            self.warn(&format!("no vCPU runs the kernel {release}, which the VMCOREINFO note describes"));
        }
        self.origin = Some(Origin::Own(evidence));
    }

    /// The best of what was found becomes the machine's note.
    fn take(&mut self, machine: &mut Machine, findings: Findings) {
        if findings.is_cut {
            self.warn("the search for VMCOREINFO gave up: memory is full of what looks like it");
        }
        let xen = findings.xen.into_iter().filter(|note| !machine.notes.contains(note));
        machine.notes.extend(xen.collect::<Vec<_>>());
        let mut found = findings.found;
        if found.first().is_none_or(|best| !best.evidence.is_acceptable()) {
            if let Some(best) = found.first() {
                self.warn(&format!("VMCOREINFO was found, but it is not of the kernel that runs: {best}"));
            }
            self.others = found;
            return;
        }
        let best = found.remove(0);
        if best.evidence.is_denied() {
            self.warn(&format!("no vCPU runs the kernel of the VMCOREINFO that was found: {best}"));
        }
        if best.evidence.level() < Level::Vcpu && !found.is_empty() {
            let others: Vec<String> = found.iter().map(ToString::to_string).collect();
            self.warn(&format!("there is more than one VMCOREINFO; also {}", others.join("; ")));
        }
        machine.guest_note = Some(best.candidate.note());
        self.others = found;
        self.origin = Some(Origin::Found(best));
    }
}
