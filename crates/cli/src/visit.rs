//! A visit to a dump, or to a running guest, which stands still meanwhile: what `info`, `dmesg`, `bt` and `gdb` have in common.

use crate::args::SubjectArgs;
use crate::input::{self, Input};
use crate::job::{self, OnSignal};
use crate::kernel::NoteOrigin;
use crate::look::Look;
use crate::text;
use anyhow::Context;
use std::time::Duration;
use vmcore::{AttachOptions, Attached, DumpState, Machine, Released, Source};

/// How a command visits what the user has named.
pub(crate) struct Visit<'a> {
    pub(crate) subject: &'a SubjectArgs,
    /// How long a guest may stand still. Without a bound the user is told how long it did.
    pub(crate) max_pause: Option<Duration>,
    /// Whether nothing but warnings is said.
    pub(crate) quiet: bool,
}

/// What is visited.
pub(crate) struct Visited {
    pub(crate) machine: Machine,
    /// Where the guest's note comes from.
    pub(crate) note: NoteOrigin,
    pub(crate) kind: Kind,
}

/// Where a machine comes from.
pub(crate) enum Kind {
    Dump {
        format: &'static str,
        /// What is around the format.
        wrapper: Option<&'static str>,
        /// Length of all its files.
        file_len: u64,
    },
    /// A guest that stands still: its emulator, in a line.
    Guest(String),
}

impl Visit<'_> {
    /// The name of what is visited, for messages.
    pub(crate) fn name(&self) -> String {
        input::names(&self.subject.inputs)
    }

    /// Does `work` there, and tells what became of the guest, if it is one: it runs again on every way out.
    ///
    /// # Errors
    /// What stands against it, and [`vmcore::Error::Cancelled`] after a signal, which lets the guest go at once.
    pub(crate) fn make<T>(
        &self,
        work: impl FnOnce(Visited, &OnSignal) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Option<Released>)> {
        let (state, on_signal) = job::cancel_on_signals()?;
        let Some((source, address)) = input::live(&self.subject.inputs) else {
            let result = self.open(&state).and_then(|visited| work(visited, &on_signal));
            state.check()?;
            return Ok((result?, None));
        };
        let mut guest = self.attach(source, address)?;
        on_signal.then(guest.let_go());
        let result = self.hold(&mut *guest, &state).and_then(|visited| work(visited, &on_signal));
        let released = guest.release().context("the guest does not run again");
        if let Ok(released) = &released {
            self.say(released);
        }
        // A signal has let the guest go: what failed for that is no error of its own.
        state.check()?;
        let result = result?;
        Ok((result, Some(released?)))
    }

    fn open(&self, state: &DumpState) -> anyhow::Result<Visited> {
        let SubjectArgs { inputs, open, note } = self.subject;
        let Input { format, wrapper, mut machine, file_len } = input::open(inputs, open, note)?;
        let note = NoteOrigin::complete(&mut machine, note, self.quiet, state)?;
        Ok(Visited { machine, note, kind: Kind::Dump { format, wrapper, file_len } })
    }

    fn attach(&self, source: &dyn Source, address: &str) -> anyhow::Result<Box<dyn Attached>> {
        // Registers that a dump's notes lack count, too: they tell which of several kernels in memory runs.
        let options = AttachOptions { max_pause: self.max_pause, ..AttachOptions::default() };
        source.attach(address, &options).with_context(|| format!("cannot attach to {}", self.name()))
    }

    /// Stops the guest.
    fn hold(&self, guest: &mut dyn Attached, state: &DumpState) -> anyhow::Result<Visited> {
        let look = Look::at(guest, &self.subject.note, self.quiet, state)?;
        let mut machine = guest.hold().context("cannot stop the guest")?;
        let note = look.complete(&mut machine);
        Ok(Visited { machine, note, kind: Kind::Guest(guest.description()) })
    }

    /// Says what became of the guest.
    fn say(&self, released: &Released) {
        for warning in &released.warnings {
            text::say(&format!("vmcore: warning: {warning}"));
        }
        if !self.quiet && self.max_pause.is_none() {
            let pause =
                released.pause.map(|pause| format!("; it stood still for {:.1} s", pause.as_secs_f64()));
            text::say(&format!("the guest is {}{}", released.state, pause.unwrap_or_default()));
        }
    }
}
