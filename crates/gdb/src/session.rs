//! What holds as long as a connection does.

use crate::error::Error;
use crate::stop::Stop;
use crate::target::{CaughtSyscalls, Target};
use crate::thread::{Pick, Selector, ThreadId};
use arrayvec::ArrayVec;

/// Clusters that a client can be attached to at once.
const PROCESSES: usize = 64;

/// What the client has said that it understands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// `multiprocess+`
    pub(crate) knows_processes: bool,
    /// `swbreak+`
    pub(crate) knows_swbreak: bool,
    /// `hwbreak+`
    pub(crate) knows_hwbreak: bool,
    /// `error-message+`
    pub(crate) knows_texts: bool,
}

/// Whether the target runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Run {
    #[default]
    Stopped,
    /// A stop reply is due.
    Running,
    /// The client works on a file operation, then the target goes on.
    FileCall,
    /// The client has ended the session.
    Closed,
}

/// The state of a connection. All of it is gone with the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) is_begun: bool,
    /// Neither side acknowledges any more.
    pub(crate) is_without_acks: bool,
    pub(crate) client: Client,
    pub(crate) run: Run,
    /// An interrupt came while the target stood still: it stops the next run at once.
    pub(crate) is_interrupted: bool,
    /// Processes that the client is attached to.
    attached: ArrayVec<u32, PROCESSES>,
    /// The thread that registers and memory are of (`Hg`).
    pub(crate) general: Option<ThreadId>,
    /// The thread that steps (`Hc`); none for all.
    pub(crate) control: Option<ThreadId>,
    /// The last stop of this session.
    pub(crate) stop: Option<Stop>,
    /// How many threads `qfThreadInfo` and `qsThreadInfo` have told so far.
    pub(crate) told_threads: usize,
    /// Addresses are physical.
    pub(crate) is_physical: bool,
    /// The bits of `Qqemu.sstep`; none for all that are supported.
    pub(crate) step_flags: Option<u8>,
    /// `!`, of a target that can begin anew: the session goes on when the target is gone.
    pub(crate) is_extended: bool,
    /// LLDB's `QThreadSuffixSupported`: registers may be asked for with a thread.
    pub(crate) has_thread_suffix: bool,
    /// LLDB's `QListThreadsInStopReply`
    pub(crate) lists_threads: bool,
    /// LLDB's `QEnableErrorStrings`
    pub(crate) has_error_strings: bool,
}

impl Session {
    /// Begins: the client is attached to the process of the first thread, and looks at the one that has stopped.
    pub(crate) fn begin(&mut self, target: &mut dyn Target) {
        *self = Self { is_begun: true, ..Self::default() };
        if let Some(first) = target.thread(0) {
            self.attached.push(first.process);
            target.attached(first.process);
        }
        let stopped = target.stop().thread;
        self.general = self.find(target, Pick::One(stopped.process), Pick::One(stopped.thread));
        self.general = self.general.or_else(|| self.find(target, Pick::Any, Pick::Any));
        self.control = self.general;
        if let Some(steps) = target.single_step() {
            steps.set_flags(STEP | steps.supported());
        }
    }

    /// The threads of the processes that the client is attached to.
    pub(crate) fn threads<'t>(&'t self, target: &'t dyn Target) -> impl Iterator<Item = ThreadId> + 't {
        all_threads(target).filter(|thread| self.attached.contains(&thread.process))
    }

    /// The first thread of those that a name allows.
    pub(crate) fn find(&self, target: &dyn Target, process: Pick, thread: Pick) -> Option<ThreadId> {
        self.threads(target).find(|id| process.allows(id.process) && thread.allows(id.thread))
    }

    /// The thread that a name means; of several the current one, else the first.
    pub(crate) fn chosen(&self, target: &dyn Target, name: Selector) -> Result<ThreadId, Error> {
        let current = self.general.filter(|thread| name.allows(*thread));
        current.or_else(|| self.find(target, name.process, name.thread)).ok_or(Error::INVALID)
    }

    /// The one thread that a client means.
    pub(crate) fn one(&self, target: &dyn Target, name: &[u8]) -> Result<ThreadId, Error> {
        let name = Selector::parse(name).filter(|name| name.thread != Pick::All).ok_or(Error::INVALID)?;
        self.chosen(target, name)
    }

    /// The thread that registers and memory are of.
    pub(crate) fn thread(&self) -> Result<ThreadId, Error> {
        self.general.ok_or(Error::INVALID)
    }

    /// Whether the client is attached to a process.
    pub(crate) fn is_attached(&self, process: u32) -> bool {
        self.attached.contains(&process)
    }

    pub(crate) fn attach(&mut self, target: &mut dyn Target, process: u32) -> Result<ThreadId, Error> {
        let first = all_threads(target).find(|thread| thread.process == process).ok_or(Error::INVALID)?;
        if !self.is_attached(process) {
            self.attached.try_push(process).map_err(|_| Error::NO_ROOM)?;
            target.attached(process);
        }
        self.look_at(first);
        Ok(first)
    }

    /// Detaches from a process, or from all for `None`; with the last one go all breakpoints.
    pub(crate) fn detach(&mut self, target: &mut dyn Target, process: Option<u32>) -> Result<(), Error> {
        if process.is_some_and(|process| !self.is_attached(process)) {
            return Err(Error::INVALID);
        }
        let is_meant = |other: &u32| process.is_none_or(|process| process == *other);
        let (gone, left): (ArrayVec<u32, PROCESSES>, _) = self.attached.iter().copied().partition(is_meant);
        self.attached = left;
        if self.attached.is_empty() {
            if let Some(breakpoints) = target.breakpoints() {
                breakpoints.clear();
            }
            if let Some(syscalls) = target.syscalls() {
                syscalls.catch(CaughtSyscalls::None);
            }
        }
        for process in gone {
            target.detached(process);
        }
        let is_left = |thread: &ThreadId| self.attached.contains(&thread.process);
        let (control, general) = (self.control.filter(is_left), self.general.filter(is_left));
        self.control = control;
        self.general = general.or_else(|| self.find(target, Pick::Any, Pick::Any));
        Ok(())
    }

    /// Ends: nothing of it is left, here or in the target.
    pub(crate) fn end(&mut self, target: &mut dyn Target) {
        self.detach(target, None).expect("all processes are always there");
        *self = Self::default();
    }

    /// Makes `thread` the current one in every respect, if the client has to do with it.
    pub(crate) fn look_at(&mut self, thread: ThreadId) {
        if self.is_attached(thread.process) {
            self.general = Some(thread);
            self.control = Some(thread);
        }
    }

    /// The byte 3 came: a running target is asked to stop, one that stands still stops at once when it is to run.
    pub(crate) fn interrupt(&mut self, target: &mut dyn Target) {
        match (self.run, target.resume()) {
            (Run::Running, Some(resume)) => resume.interrupt(),
            (_, Some(_)) => self.is_interrupted = true,
            (_, None) => {} // Nothing will ever run that it could stop.
        }
    }

    /// Whether the client is LLDB: nobody else knows this packet.
    pub(crate) fn is_lldb(&self) -> bool {
        self.has_thread_suffix
    }

    /// Whether the client shows the text of an error.
    pub(crate) fn shows_texts(&self) -> bool {
        self.client.knows_texts || self.has_error_strings
    }

    /// Why the target stands still.
    pub(crate) fn last_stop(&self, target: &dyn Target) -> Stop {
        self.stop.unwrap_or_else(|| target.stop())
    }
}

/// Bit 0 of the flags of a step.
pub(crate) const STEP: u8 = 1;

pub(crate) fn all_threads(target: &dyn Target) -> impl Iterator<Item = ThreadId> + '_ {
    (0..).map_while(|index| target.thread(index))
}
