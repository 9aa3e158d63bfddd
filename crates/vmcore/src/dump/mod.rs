//! `dump-guest-memory` for emulators: what QEMU's monitor command does, with all formats that are linked in.
//!
//! An emulator describes its [`Guest`], and hangs a [`Dumper`] on its monitor:
//!
//! | QMP | here |
//! |---|---|
//! | `dump-guest-memory` | [`DumpRequest`], which is deserialized or [read](DumpRequest#method.from_json) from JSON; [`Dumper::dump`] |
//! | `query-dump` | [`Dumper::query`] |
//! | `query-dump-guest-memory-capability` | [`DumpGuestMemoryCapability::of_this_program`] |
//! | event `DUMP_COMPLETED` | [`Guest::completed`] |
//! | `cont`, `stop`: refused while a dump is under way | [`Dumper::check_idle`] |
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

mod error;
mod guest;
mod output;
mod request;

pub use error::QmpError;
pub use guest::{Guest, Obstacle};
pub use request::{DumpCompleted, DumpGuestMemoryCapability, DumpQueryResult, DumpRequest, DumpStatus};

use output::Output;
use request::Checked;
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use vmcore_core::parallel::lock;
use vmcore_core::{
    DumpOptions, DumpState, Error, ExecuteOptions, Fill, Layout, Machine, Order, Report, Sink, Status,
    execute,
};

/// Dumps one guest, one dump at a time.
pub struct Dumper {
    guest: Arc<dyn Guest>,
    /// The dump that is under way, or the last one.
    progress: Mutex<Arc<Progress>>,
}

/// What the thread that dumps and those that ask for it share.
#[derive(Default)]
struct Progress {
    state: DumpState,
    /// What was written.
    report: Mutex<Option<Report>>,
    /// Who dumps, until the guest goes on. That is later than the end of the state: only then may the next dump stop the guest.
    owner: Mutex<Owner>,
    over: Condvar,
}

/// Who dumps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    /// A thread that is about to begin.
    Starting,
    Thread(ThreadId),
}

impl Owner {
    fn this_thread() -> Self {
        Self::Thread(thread::current().id())
    }
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
        Self { guest, progress: Mutex::default() }
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
        request.check_format()?;
        let obstacle = self.guest.obstacle();
        if obstacle == Some(Obstacle::IncomingMigration) {
            return Err(Obstacle::IncomingMigration.into());
        }
        self.check_idle()?;
        let checked = request.check()?;
        let output = Output::open(&request.protocol, fds)?;
        // Whether the output will do.
        output.sink(&checked)?;
        if let Some(obstacle) = obstacle {
            return Err(obstacle.into());
        }
        let progress = self.begin()?;
        let mut running = Running { guest: Arc::clone(&self.guest), progress, is_stopped: false };
        let plan = running.prepare(request, &checked)?;
        if !request.detach.unwrap_or(false) {
            return running.write(&plan, &output, &checked);
        }
        running.progress.set_owner(Owner::Starting);
        let write = move || {
            running.progress.set_owner(Owner::this_thread());
            drop(running.write(&plan, &output, &checked));
        };
        let thread = thread::Builder::new().name("dump".to_owned()).spawn(write);
        thread.map(drop).map_err(|error| QmpError::new(format!("dump: no thread for it: {error}")))
    }

    /// Whether a dump may begin, and also whether a monitor may execute `cont` and `stop`.
    ///
    /// # Errors
    /// [`QmpError`] in QEMU's words, if a dump is under way.
    pub fn check_idle(&self) -> Result<(), QmpError> {
        let progress = self.progress();
        if progress.state.status() == Status::Active || progress.is_own() { Err(busy()) } else { Ok(()) }
    }

    fn progress(&self) -> Arc<Progress> {
        Arc::clone(&lock(&self.progress))
    }

    /// Begins a new dump.
    fn begin(&self) -> Result<Arc<Progress>, QmpError> {
        loop {
            self.check_idle()?;
            self.wait();
            let mut progress = lock(&self.progress);
            // Another thread may have been faster.
            if progress.owner() == Owner::Nobody {
                *progress = Arc::default();
                progress.set_owner(Owner::this_thread());
                progress.state.begin(0);
                return Ok(Arc::clone(&progress));
            }
        }
    }

    /// `query-dump`.
    #[must_use]
    pub fn query(&self) -> DumpQueryResult {
        query(&self.progress().state)
    }

    /// What the last dump has written; `None` if there was none, if it is not done, or if it failed.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        lock(&self.progress().report).clone()
    }

    /// Lets the dump that is under way fail soon.
    pub fn cancel(&self) {
        self.progress().state.cancel();
    }

    /// Waits for the end of the dump that is under way, when the guest runs again. From [`Guest::completed`] it returns at once.
    pub fn wait(&self) {
        let progress = self.progress();
        if !progress.is_own() {
            let over = progress.over.wait_while(lock(&progress.owner), |owner| *owner != Owner::Nobody);
            drop(over.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Dumper {
    fn drop(&mut self) {
        self.cancel();
        self.wait();
    }
}

impl Progress {
    fn owner(&self) -> Owner {
        *lock(&self.owner)
    }

    fn set_owner(&self, owner: Owner) {
        *lock(&self.owner) = owner;
        self.over.notify_all();
    }

    /// Whether this thread is the one that dumps: the guest asks, of which it has called a method.
    fn is_own(&self) -> bool {
        self.owner() == Owner::this_thread()
    }
}

fn busy() -> QmpError {
    QmpError::new("There is a dump in process, please wait.")
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
        // Also if the guest panics.
        let _over = Over(&self.progress);
        if self.is_stopped {
            self.guest.resume();
        }
    }
}

/// Says at its end that the guest goes on.
struct Over<'a>(&'a Progress);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.set_owner(Owner::Nobody);
    }
}

impl Running {
    /// Stops the guest, and plans its dump.
    fn prepare(&mut self, request: &DumpRequest, checked: &Checked) -> Result<Plan, QmpError> {
        self.is_stopped = self.guest.stop().map_err(|error| QmpError::of(&error))?;
        let options = DumpOptions {
            range: request.range()?,
            paging: request.paging,
            compression: checked.variant.and_then(|variant| variant.compression),
            variant: checked.variant.map(|variant| variant.name),
            ..DumpOptions::default()
        };
        let machine = guest::machine(&*self.guest).map_err(|error| QmpError::of(&error))?;
        let layout = checked.format.plan(&machine, &options).map_err(|error| QmpError::of(&error))?;
        Ok(Plan { machine, options, layout })
    }

    /// Writes the dump, and tells the guest's emulator how it ended.
    fn write(self, plan: &Plan, output: &Output, checked: &Checked) -> Result<(), QmpError> {
        let sink = output.sink(checked)?;
        let (memory, state) = (&*plan.machine.memory, &self.progress.state);
        // The guest's memory is the emulator's code: whoever waits for the dump's end must hear of it even if that panics.
        let work = || execute(&plan.layout, memory, &*sink, ExecuteOptions::default(), state);
        let (result, panic) = match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => (result.map_err(|error| QmpError::of_writing(&error, &plan.layout)), None),
            Err(panic) => {
                state.end::<()>(&Err(Error::Cancelled));
                (Err(QmpError::new("dump: a method of the guest has panicked")), Some(panic))
            }
        };
        if result.is_err() {
            mark_incomplete(plan, checked, &*sink);
        }
        let result = result.map(|report| *lock(&self.progress.report) = Some(report));
        let error = result.as_ref().err().map(|error| error.desc.clone());
        self.guest.completed(&DumpCompleted { result: query(state), error });
        match panic {
            Some(panic) => panic::resume_unwind(panic),
            None => result,
        }
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
