//! `dump-guest-memory` for emulators: what QEMU's monitor command does, with all formats that are linked in.
//!
//! An emulator describes its [`Guest`], and hangs a [`Dumper`] on its monitor:
//!
//! | QMP | here |
//! |---|---|
//! | `dump-guest-memory` | [`DumpRequest::from_json`], [`Dumper::dump`] |
//! | `query-dump` | [`Dumper::query`] |
//! | `query-dump-guest-memory-capability` | [`DumpGuestMemoryCapability::of_this_program`] |
//! | event `DUMP_COMPLETED` | [`Guest::completed`] |
//! | — | [`Dumper::cancel`], [`Dumper::wait`] |
//!
//! Arguments, conflicts, states and the texts of errors are QEMU's (10.0); the dumps are better. Where QEMU's are wrong or refused
//! by their readers, these are not.
//!
//! ```
//! use std::sync::Arc;
//! use vmcore::dump::{DumpRequest, DumpStatus, Dumper, Guest};
//! use vmcore::memory::BlockMemory;
//! use vmcore::{Arch, Error, Gpa, PhysMemory, RegisterFile, arch};
//!
//! struct Toy;
//!
//! impl Guest for Toy {
//!     fn arch(&self) -> &'static dyn Arch {
//!         arch::by_name("x86_64").expect("it is linked in")
//!     }
//!     fn memory(&self) -> Arc<dyn PhysMemory> {
//!         Arc::new(BlockMemory::new(vec![(Gpa(0), vec![0xf4; 0x1000])]).expect("one block"))
//!     }
//!     fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
//!         let mut registers = RegisterFile::new(self.arch().registers());
//!         registers.set_value("rip", 0x10);
//!         Ok(vec![registers])
//!     }
//!     fn stop(&self) -> Result<bool, Error> {
//!         Ok(true)
//!     }
//!     fn resume(&self) {}
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("toy.vmcore");
//! # let path = path.to_str().unwrap();
//! let dumper = Dumper::new(Arc::new(Toy));
//! dumper.dump(&DumpRequest::to_file(path, "elf"), |_| None)?;
//! assert_eq!(dumper.query().status, DumpStatus::Completed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing is global: a process may have any number of guests, each with its dumper.
//!
//! Source: `spec/elf-layout.md` part B; QEMU `qapi/dump.json`.

mod guest;
mod output;
mod request;

pub use guest::Guest;
pub use request::{DumpCompleted, DumpGuestMemoryCapability, DumpQueryResult, DumpRequest, DumpStatus};

use output::Output;
use request::Checked;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use vmcore_core::parallel::lock;
use vmcore_core::{
    DumpOptions, DumpState, Error, ExecuteOptions, Fill, Layout, Machine, Order, Report, Sink, Status,
    execute,
};

/// An error as QMP reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    /// Its class; of dumps always `GenericError`.
    pub class: String,
    /// What is wrong, for people.
    pub desc: String,
}

impl QmpError {
    fn new(desc: impl Into<String>) -> Self {
        Self { class: "GenericError".to_owned(), desc: desc.into() }
    }

    /// An error of the library, with its causes.
    fn of(error: &Error) -> Self {
        let mut desc = format!("dump: {error}");
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            desc += &format!(": {error}");
            source = error.source();
        }
        Self::new(desc)
    }
}

/// Dumps one guest, one dump at a time.
pub struct Dumper {
    guest: Arc<dyn Guest>,
    job: Mutex<Job>,
}

/// The dump that is under way, or the last one.
#[derive(Default)]
struct Job {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

/// What its thread and those that ask for it share.
#[derive(Default)]
struct Progress {
    state: DumpState,
    /// What was written.
    report: Mutex<Option<Report>>,
}

impl fmt::Debug for Dumper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dumper").field("query", &self.query()).finish_non_exhaustive()
    }
}

impl Dumper {
    /// Of a guest that was never dumped.
    #[must_use]
    pub fn new(guest: Arc<dyn Guest>) -> Self {
        Self { guest, job: Mutex::default() }
    }

    /// `dump-guest-memory`: stops the guest, writes its dump, and lets it go on if it ran.
    ///
    /// A detached dump is written in a thread of its own; what then goes wrong is in [`Guest::completed`] and [`Dumper::query`] only.
    /// `fds` gives the descriptor of a name (QMP's `getfd`); it is closed at the end.
    ///
    /// Guest memory that could not be read is zero in the dump, and in [`Dumper::report`].
    ///
    /// # Errors
    /// [`QmpError`]: arguments that do not fit together, another dump under way, an output that cannot be opened, a guest that cannot
    /// be dumped as is asked for; of a dump that is not detached also whatever fails while it is written.
    pub fn dump(
        &self,
        request: &DumpRequest,
        fds: impl FnOnce(&str) -> Option<OwnedFd>,
    ) -> Result<(), QmpError> {
        lock(&self.job).check_idle()?;
        let checked = request.check()?;
        let output = Output::open(&request.protocol, fds)?;
        // Whether the output will do.
        output.sink(&checked)?;
        let progress = lock(&self.job).begin()?;
        let mut running = Running { guest: Arc::clone(&self.guest), progress, is_stopped: false };
        let plan = running.prepare(request, &checked)?;
        if !request.detach.unwrap_or(false) {
            return running.write(&plan, &output, &checked);
        }
        let write = move || drop(running.write(&plan, &output, &checked));
        let thread = std::thread::Builder::new().name("dump".to_owned()).spawn(write);
        let thread = thread.map_err(|error| QmpError::new(format!("dump: no thread for it: {error}")))?;
        lock(&self.job).thread = Some(thread);
        Ok(())
    }

    /// `query-dump`.
    #[must_use]
    pub fn query(&self) -> DumpQueryResult {
        query(&lock(&self.job).progress.state)
    }

    /// What the last dump has written; `None` if there was none, if it is not done, or if it failed.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        lock(&lock(&self.job).progress.report).clone()
    }

    /// Lets the dump that is under way fail soon.
    pub fn cancel(&self) {
        lock(&self.job).progress.state.cancel();
    }

    /// Waits for the end of a detached dump, when the guest runs again.
    pub fn wait(&self) {
        let thread = lock(&self.job).thread.take();
        if let Some(thread) = thread {
            // A panic was the guest's own; the dump has failed then.
            let _ = thread.join();
        }
    }
}

impl Drop for Dumper {
    fn drop(&mut self) {
        self.cancel();
        self.wait();
    }
}

impl Job {
    fn check_idle(&self) -> Result<(), QmpError> {
        if self.progress.state.status() == Status::Active {
            return Err(QmpError::new("There is a dump in process, please wait."));
        }
        Ok(())
    }

    /// Begins a new dump.
    fn begin(&mut self) -> Result<Arc<Progress>, QmpError> {
        self.check_idle()?;
        *self = Self::default();
        self.progress.state.begin(0);
        Ok(Arc::clone(&self.progress))
    }
}

fn query(state: &DumpState) -> DumpQueryResult {
    DumpQueryResult { status: state.status().into(), completed: state.completed(), total: state.total() }
}

/// What a dump is made of.
struct Plan {
    machine: Machine,
    options: DumpOptions,
    layout: Layout,
}

/// A dump under way. However it ends, the guest then goes on, and the state says that it has ended.
struct Running {
    guest: Arc<dyn Guest>,
    progress: Arc<Progress>,
    /// Whether the guest ran, and has to be resumed.
    is_stopped: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        let state = &self.progress.state;
        if state.status() == Status::Active {
            state.end::<()>(&Err(Error::Cancelled));
        }
        if self.is_stopped {
            self.guest.resume();
        }
    }
}

impl Running {
    /// Stops the guest, and plans its dump.
    fn prepare(&mut self, request: &DumpRequest, checked: &Checked) -> Result<Plan, QmpError> {
        let of = |error| match error {
            Error::Range { what: vmcore_core::format::EMPTY_RANGE, .. } => {
                QmpError::new("dump: no guest memory to dump")
            }
            error => QmpError::of(&error),
        };
        self.is_stopped = self.guest.stop().map_err(of)?;
        let options = DumpOptions {
            range: request.range()?,
            paging: request.paging,
            compression: checked.variant.and_then(|variant| variant.compression),
            ..DumpOptions::default()
        };
        let machine = guest::machine(&*self.guest).map_err(of)?;
        let layout = checked.format.plan(&machine, &options).map_err(of)?;
        Ok(Plan { machine, options, layout })
    }

    /// Writes the dump, and tells the guest's emulator how it ended.
    fn write(self, plan: &Plan, output: &Output, checked: &Checked) -> Result<(), QmpError> {
        let sink = output.sink(checked)?;
        let memory = &*plan.machine.memory;
        let result = execute(&plan.layout, memory, &*sink, ExecuteOptions::default(), &self.progress.state);
        let result = result.map_err(|error| {
            mark_incomplete(plan, checked, &*sink);
            QmpError::of(&error)
        });
        let result = result.map(|report| *lock(&self.progress.report) = Some(report));
        let error = result.as_ref().err().map(|error| error.desc.clone());
        self.guest.completed(&DumpCompleted { result: query(&self.progress.state), error });
        result
    }
}

/// Lets the headers of a dump that failed say that it is not complete, where they can be written again.
fn mark_incomplete(plan: &Plan, checked: &Checked, sink: &dyn Sink) {
    if sink.order() != Order::Any {
        return;
    }
    let machine = Machine { is_incomplete: true, ..plan.machine.clone() };
    let Ok(layout) = checked.format.plan(&machine, &plan.options) else { return };
    for extent in layout.extents() {
        if let Fill::Bytes(bytes) = &extent.fill {
            // The dump has failed already.
            let _ = sink.write_at(extent.offset, bytes);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "all")]
mod tests;
