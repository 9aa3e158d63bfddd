//! Running: how the target goes on, forwards and backwards.

use crate::error::Error;
use crate::thread::{Pick, Selector, ThreadId};
use crate::wire;

/// How one thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It runs.
    Continue {
        /// The signal that it gets first, if the client wants one; a machine has no use for it.
        signal: Option<u8>,
    },
    /// It executes one instruction.
    Step {
        /// As above.
        signal: Option<u8>,
    },
    /// It steps as long as its program counter is in `start..end`; one step is always allowed to be enough.
    StepRange {
        /// First address.
        start: u64,
        /// The address behind the last.
        end: u64,
    },
}

/// How each thread goes on, as the client wants it: packets `vCont`, `c`, `C`, `s` and `S`.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'p> {
    /// The one thread that does something of its own, of the packets that know no list.
    stepping: Option<(ThreadId, Action)>,
    /// What follows `vCont;`, which [`Self::parse`] has seen.
    list: &'p [u8],
    /// The thread that the list calls any.
    any: Option<ThreadId>,
    /// What threads do that the list does not name.
    others: Option<Action>,
}

impl<'p> Actions<'p> {
    /// All threads continue; the one that gets the signal is the machine's affair.
    pub(crate) const fn run(signal: Option<u8>) -> Self {
        Self { stepping: None, list: b"", any: None, others: Some(Action::Continue { signal }) }
    }

    /// `thread` steps, the others run.
    pub(crate) const fn step(thread: ThreadId, signal: Option<u8>) -> Self {
        let stepping = Some((thread, Action::Step { signal }));
        Self { stepping, ..Self::run(None) }
    }

    /// Reads `ACTION[:THREAD];...`. `find` gives the first thread that a name allows: a name of nobody is an error,
    /// also beside names of somebody.
    pub(crate) fn parse(list: &'p [u8], find: impl Fn(Selector) -> Option<ThreadId>) -> Option<Self> {
        let mut any = None;
        for row in list.split(|byte| *byte == b';') {
            let (_, who) = parse_row(row)?;
            let first = find(who)?;
            if who.thread == Pick::Any {
                any = any.or(Some(first));
            }
        }
        Some(Self { stepping: None, list, any, others: None })
    }

    /// How `thread` goes on, or `None` if it stands still while others run.
    ///
    /// This is for threads of processes that the client is attached to; those of others always run.
    #[must_use]
    pub fn of(&self, thread: ThreadId) -> Option<Action> {
        if let Some((_, action)) = self.stepping.filter(|(stepping, _)| *stepping == thread) {
            return Some(action);
        }
        let names = |who: Selector| match who.thread {
            Pick::Any => self.any == Some(thread) && who.process.allows(thread.process),
            Pick::All | Pick::One(_) => who.allows(thread),
        };
        let mut rows = self.list.split(|byte| *byte == b';').filter_map(parse_row);
        rows.find(|(_, who)| names(*who)).map(|(action, _)| action).or(self.others)
    }
}

fn parse_row(row: &[u8]) -> Option<(Action, Selector)> {
    let mut parts = row.splitn(2, |byte| *byte == b':');
    let (kind, parameters) = parts.next()?.split_first()?;
    let who = parts.next().map_or(Some(Selector::ALL), Selector::parse)?;
    let signal = |digits: &[u8]| match digits {
        [high, low] => wire::byte(*high, *low),
        _ => None,
    };
    let action = match (kind, parameters) {
        (b'c', []) => Action::Continue { signal: None },
        (b's', []) => Action::Step { signal: None },
        (b'C', digits) => Action::Continue { signal: Some(signal(digits)?) },
        (b'S', digits) => Action::Step { signal: Some(signal(digits)?) },
        (b'r', range) => {
            let comma = range.iter().position(|byte| *byte == b',')?;
            let (start, end) = (wire::number(&range[..comma])?, wire::number(&range[comma + 1..])?);
            Action::StepRange { start, end }
        }
        _ => return None,
    };
    Some((action, who))
}

/// Running the target.
///
/// The engine runs nothing itself. [`Self::resume`] says how the target is to go on; the embedder's loop then
/// runs it, and tells the engine when it stops ([`Engine::stopped`](crate::Engine::stopped)).
pub trait Resume {
    /// Lets the target go on, each thread by its [`Actions::of`]. The stop must not be reported from here.
    ///
    /// A client waits until something stops: the step of a vCPU that is halted ends where it began.
    ///
    /// # Errors
    /// Whatever keeps it from going on.
    fn resume(&mut self, actions: &Actions<'_>) -> Result<(), Error>;

    /// Makes `thread` go on at `address`.
    ///
    /// # Errors
    /// Whatever keeps it from being set.
    fn set_program_counter(&mut self, thread: ThreadId, address: u64) -> Result<(), Error>;

    /// Asks a running target to stop soon. The stop is reported as
    /// [`StopReason::Interrupted`](crate::StopReason::Interrupted).
    fn interrupt(&mut self);
}

/// Running backwards, of a recorded guest: packets `bs` and `bc`. The stop is reported as any other one, at the
/// beginning of the record as [`StopReason::ReplayStart`](crate::StopReason::ReplayStart).
pub trait Reverse {
    /// Goes back one instruction of `thread`.
    ///
    /// # Errors
    /// Whatever keeps it from going back, as [`Error::INVALID`] if nothing is recorded now.
    fn step_back(&mut self, thread: ThreadId) -> Result<(), Error>;

    /// Goes back to the last breakpoint.
    ///
    /// # Errors
    /// As [`Self::step_back`].
    fn run_back(&mut self) -> Result<(), Error>;
}

/// What stands still during a step: QEMU's packets `qqemu.sstepbits` and `Qqemu.sstep`.
///
/// Bit 0 says that a step is a step, bit 1 that no interrupts are taken in it, bit 2 that the guest's clock
/// stands still. Each session begins with all that are supported.
pub trait SingleStep {
    /// The bits that it can do.
    fn supported(&self) -> u8;

    /// Sets the bits; there is none among them that is not supported.
    fn set_flags(&mut self, flags: u8);
}
