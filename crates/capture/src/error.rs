//! Why a guest cannot be captured, and what to do about it.

use std::io;
use std::time::Duration;

/// Why a guest cannot be captured. Each message ends with what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The address behind the scheme is none.
    #[error(
        "`{address}` is no address of a monitor; use qemu:PATH for a UNIX socket or qemu:HOST:PORT for TCP"
    )]
    Address {
        /// What was given.
        address: String,
    },
    /// No connection to the monitor.
    #[error("cannot connect to the monitor at {address}; {advice}")]
    Connect {
        /// The monitor.
        address: String,
        /// What to do.
        advice: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The monitor does not greet: it serves one client at a time.
    #[error(
        "the monitor at {address} takes the connection and says nothing: another client uses it (libvirt?); \
         close that client, or give QEMU one more monitor with -qmp unix:PATH,server=on,wait=off"
    )]
    Busy {
        /// The monitor.
        address: String,
    },
    /// Something answers, and it does not speak QMP.
    #[error(
        "{address} does not speak QMP (it says {said}); the address must be that of a -qmp option, \
         not of -monitor, -serial or -gdb"
    )]
    NotQmp {
        /// The monitor.
        address: String,
        /// The beginning of what it said.
        said: String,
    },
    /// The monitor closed the connection.
    #[error("the monitor closed the connection {during}: QEMU has ended, or its monitor was taken away")]
    Closed {
        /// At what point, as in "before it answered `stop`".
        during: String,
    },
    /// The monitor does not answer.
    #[error("the monitor has not answered `{command}` for {} s; QEMU may hang, or wait for a disk", waited.as_secs())]
    NoAnswer {
        /// What was asked.
        command: String,
        /// For how long.
        waited: Duration,
    },
    /// The monitor says more than is sensible.
    #[error("an answer of the monitor is longer than {limit} bytes; that is no QEMU")]
    TooLong {
        /// The most that is read.
        limit: usize,
    },
    /// The monitor's answer makes no sense.
    #[error("what the monitor says {during} is not understood: {said}")]
    Malformed {
        /// At what point, as in "to `query-status`".
        during: String,
        /// The beginning of the answer.
        said: String,
    },
    /// QEMU refuses a command.
    #[error("QEMU refuses `{command}`: {desc}")]
    Refused {
        /// What was asked.
        command: String,
        /// The class of the error, on which decisions are made.
        class: String,
        /// The text of the error, for people.
        desc: String,
    },
    /// The system refuses something.
    #[error("{what}")]
    Io {
        /// What was done.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The guest is in a state in which it cannot be dumped.
    #[error("the guest is in state `{state}`; {advice}")]
    State {
        /// QEMU's word for it.
        state: String,
        /// What to do.
        advice: &'static str,
    },
    /// The guest's memory is encrypted.
    #[error(
        "the guest is confidential ({by}): its memory is unreadable or ciphertext from outside; \
         dump it from inside, with kdump"
    )]
    Confidential {
        /// What says so.
        by: String,
    },
    /// QEMU's process is not to be seen from here.
    #[error(
        "QEMU's process cannot be found from here: {reason}; run vmcore on the host of the guest \
         and in its pid namespace, or take the memory through QEMU's own stream (--memory stream)"
    )]
    NoProcess {
        /// Why.
        reason: String,
    },
    /// The memory of QEMU's process may not be read.
    #[error(
        "{what} of QEMU (process {pid}, user {uid}) may not be read: run vmcore as that user, as root or with \
         CAP_SYS_PTRACE{yama}; or give the guest a shared memory backend \
         (-object memory-backend-memfd,share=on); or take the memory through QEMU's own stream (--memory stream)"
    )]
    NotPermitted {
        /// What was to be read.
        what: &'static str,
        /// QEMU.
        pid: i32,
        /// Its user.
        uid: u32,
        /// What the Yama module has to do with it; empty if nothing.
        yama: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// QEMU's process has ended, so its memory is gone.
    #[error("QEMU (process {pid}) has ended; the rest of the guest's memory is lost")]
    ProcessGone {
        /// QEMU.
        pid: i32,
    },
    /// A range of guest memory is not where QEMU said.
    #[error("guest memory at {gpa:#x}, {len:#x} bytes, {reason}")]
    Map {
        /// Its first guest physical address.
        gpa: u64,
        /// Its length in bytes.
        len: u64,
        /// What is wrong.
        reason: String,
    },
    /// There is no way to get QEMU's notes.
    #[error(
        "QEMU cannot hand its dump to this program: {reason}; connect through the UNIX socket of a monitor, \
         as QEMU's user or as root"
    )]
    NoTransport {
        /// Why each way failed.
        reason: String,
    },
    /// The dump ended before its headers.
    #[error("QEMU ended its dump before the headers were complete: {reason}")]
    DumpFailed {
        /// QEMU's reason.
        reason: String,
        /// What the reader of the dump said.
        source: Option<Box<vmcore_core::Error>>,
    },
    /// The guest was released because it had stood still for too long.
    #[error(
        "the guest was let go after {} s (--max-pause) before all of its memory was read; \
         allow more time, or write to a faster disk",
        max_pause.as_secs_f32()
    )]
    Expired {
        /// The most that was allowed.
        max_pause: Duration,
    },
    /// The guest does not run again though it did before.
    #[error(
        "the guest ran before and does not run now (state `{state}`): {reason}; `cont` on its monitor starts it"
    )]
    NotResumed {
        /// QEMU's word for its state.
        state: String,
        /// What went wrong.
        reason: String,
    },
}

impl From<CaptureError> for vmcore_core::Error {
    fn from(error: CaptureError) -> Self {
        Self::Source { scheme: crate::SCHEME, source: Box::new(error) }
    }
}

impl CaptureError {
    /// Wraps an error of the system.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The beginning of a text from outside, for a message: short, in one line, without control characters.
pub(crate) fn clip(text: &str) -> String {
    const MAX: usize = 120;
    let mut clipped: String = text.chars().take(MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX).is_some() {
        clipped.push_str("...");
    }
    clipped.trim().to_owned()
}
