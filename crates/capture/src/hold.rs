//! The held dump: what keeps the guest stopped, and the ways in which it ends.
//!
//! One detached `dump-guest-memory` into a pipe that is read no further than the notes stops the guest, and tells its
//! registers and its memory map. QEMU starts it again when the pipe is closed: by [`Hold::let_go`], by the timer of
//! [`Timer::start`], by `Drop` when this program panics, by the kernel when it is killed. Nothing else is needed, so no
//! signal is handled and no second process stands guard.
//!
//! What other clients of QEMU can do meanwhile: `stop`, `cont`, `migrate` and another dump are refused; detaching a gdb
//! starts the guest; and `system_reset` ends QEMU itself, which is a defect of 7.2 and 10.0 that every dump has ("invalid
//! runstate transition: 'save-vm' -> 'prelaunch'"). The shorter the pause the better.

use crate::error::CaptureError;
use crate::gate::Gate;
use crate::pipe::Pipe;
use crate::process::Process;
use crate::qmp::{Event, Qmp};
use crate::query::{self, Status};
use serde_json::Value;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use vmcore_core::Released;

/// How long QEMU may take to start the guest once the pipe is closed. It takes 1 to 7 ms.
const RESUME_TIMEOUT: Duration = Duration::from_secs(15);
/// How many seconds QEMU's process may take to end once its monitor is closed.
const END_TIMEOUT: i64 = 1;

/// A guest that is being stopped, or stands still.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) gate: Arc<Gate>,
    timer: Option<Timer>,
    /// Its state before.
    before: Status,
    /// Whether QEMU took the command.
    is_started: bool,
    /// What the user should know when the guest runs again.
    pub(crate) warnings: Vec<String>,
}

impl Hold {
    /// Prepares to stop a guest in the state `before`. The longest pause counts from now.
    pub(crate) fn new(pipe: Pipe, before: Status, max_pause: Option<Duration>) -> Result<Self, CaptureError> {
        let (pipe, gate) = (Arc::new(pipe), Arc::new(Gate::new(max_pause)));
        // A guest that stood still before may do so for as long as it takes.
        let timer = match max_pause.filter(|_| before.is_running) {
            Some(max_pause) => Some(Timer::start(max_pause, Arc::clone(&pipe), Arc::clone(&gate))?),
            None => None,
        };
        Ok(Self { pipe, gate, timer, before, is_started: false, warnings: Vec::new() })
    }

    /// QEMU took the command.
    pub(crate) fn started(&mut self) {
        self.is_started = true;
    }

    /// The state of the guest since QEMU took the command.
    pub(crate) fn see(&mut self, now: Status) {
        // A guest that the dump stopped is in this state. If it is in another one somebody else stopped it the moment
        // before, and it is for him to start it again.
        if now.name != "save-vm" {
            self.before = now;
        }
    }

    /// Lets the guest go. Does not wait, cannot fail, and may be called twice.
    pub(crate) fn let_go(&mut self) {
        self.pipe.close();
        self.timer = None;
    }

    /// Waits until the guest is as it was before; starts it if QEMU does not. To be called after [`Hold::let_go`].
    ///
    /// A guest whose QEMU, if it is this `process`, has ended meanwhile is gone.
    pub(crate) fn settle(&self, qmp: &mut Qmp, process: Option<&Process>) -> Result<Released, CaptureError> {
        self.settle_within(qmp, process, RESUME_TIMEOUT)
    }

    /// As [`Hold::settle`], with another time-out.
    pub(crate) fn settle_within(
        &self,
        qmp: &mut Qmp,
        process: Option<&Process>,
        timeout: Duration,
    ) -> Result<Released, CaptureError> {
        let is_expired = self.gate.is_expired();
        let mut released = Released { is_expired, warnings: self.warnings.clone(), ..Released::default() };
        let settled = self.wait(qmp, Instant::now() + timeout, &mut released.warnings);
        released.pause = pause(qmp);
        match settled {
            Ok(status) => released.state = status.name,
            Err(CaptureError::Closed { .. })
                if process.is_some_and(|process| process.is_gone_within(END_TIMEOUT)) =>
            {
                "gone".clone_into(&mut released.state);
                released.warnings.push("the guest has gone: QEMU has ended while it stood still".to_owned());
            }
            // The pipe is closed, so QEMU, if it is there, starts the guest without being asked.
            Err(error @ CaptureError::Closed { .. }) => {
                "unknown".clone_into(&mut released.state);
                released.warnings.push(format!("whether the guest runs again was not seen: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(released)
    }

    fn wait(
        &self,
        qmp: &mut Qmp,
        deadline: Instant,
        warnings: &mut Vec<String>,
    ) -> Result<Status, CaptureError> {
        let mut is_resumed = false;
        if self.is_started {
            qmp.wait_for("DUMP_COMPLETED", deadline)?;
            is_resumed = self.before.is_running && qmp.wait_for("RESUME", deadline)?;
        }
        let status = query::status(qmp)?;
        if status == self.before {
            return Ok(status);
        }
        if !self.before.is_running || status.is_running || is_resumed {
            let Status { name: before, .. } = &self.before;
            warnings.push(format!("the guest was in state `{before}` and is now in state `{}`", status.name));
            return Ok(status);
        }
        // It ran before, and nobody but us stopped it.
        let reason = match qmp.execute("cont", &Value::Null) {
            Ok(_) => {
                let status = query::status(qmp)?;
                if status.is_running {
                    warnings
                        .push("QEMU did not start the guest by itself; it was started by `cont`".to_owned());
                    return Ok(status);
                }
                "`cont` did not start it".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(CaptureError::NotResumed { state: status.name, reason })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// How long the guest stood still, by QEMU's clock: from the first STOP to the last RESUME.
fn pause(qmp: &Qmp) -> Option<Duration> {
    let named = |name: &'static str| move |event: &&Event| event.name == name;
    let stop = qmp.events().find(named("STOP"))?;
    let resume = qmp.events().rfind(named("RESUME"))?;
    Some(resume.time.saturating_sub(stop.time))
}

/// Lets the guest go when it has stood still for too long, whatever the rest of the program is waiting for.
#[derive(Debug)]
struct Timer {
    /// The thread ends when this is dropped.
    _cancel: Sender<()>,
}

impl Timer {
    fn start(max_pause: Duration, pipe: Arc<Pipe>, gate: Arc<Gate>) -> Result<Self, CaptureError> {
        let (cancel, cancelled) = channel();
        let thread = std::thread::Builder::new().name("max-pause".to_owned());
        let wait = move || {
            if cancelled.recv_timeout(max_pause) == Err(RecvTimeoutError::Timeout) {
                // In this order: what is read from now on may be newer than the registers.
                gate.expire();
                pipe.close();
            }
        };
        thread.spawn(wait).map_err(CaptureError::io("starting the timer of the longest pause"))?;
        Ok(Self { _cancel: cancel })
    }
}
