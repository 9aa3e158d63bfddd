//! A client of QMP, QEMU's machine protocol: commands, replies, and the events between them.
//!
//! What the code relies on, seen on QEMU 7.2 and 10.0 (`spec/live-capture.md` section 2):
//!
//! - A monitor serves one client. A second connection is accepted by the kernel, gets no greeting, and *what it sends is
//!   carried out later*: so nothing is sent before the greeting.
//! - Events come at any point, also between a command and its reply. They are queued with their time.
//! - Replies carry the `id` of their command. Errors are told apart by class, never by text.

use crate::address::Address;
use crate::error::{CaptureError, clip};
use crate::json::Framer;
use crate::socket::Socket;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How long a monitor may take to greet.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a command may take. QEMU's main loop stands still while it drains a slow disk.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that are kept; of more the oldest are dropped.
const MAX_EVENTS: usize = 1024;

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, as in `STOP`.
    pub name: String,
    /// When QEMU noticed it: time since 1970, on QEMU's clock.
    pub time: Duration,
    /// Its details; null if there are none.
    pub data: Value,
}

/// A connection to a monitor.
#[derive(Debug)]
pub struct Qmp {
    socket: Socket,
    framer: Framer,
    events: VecDeque<Event>,
    next_id: u64,
    version: String,
}

impl Qmp {
    /// Connects, waits for the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// [`CaptureError::Connect`], [`CaptureError::Busy`] if there is no greeting, [`CaptureError::NotQmp`].
    pub fn connect(address: &Address) -> Result<Self, CaptureError> {
        Self::connect_within(address, GREETING_TIMEOUT)
    }

    /// As [`Qmp::connect`], with another time-out for the greeting.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub fn connect_within(address: &Address, timeout: Duration) -> Result<Self, CaptureError> {
        let name = address.to_string();
        let mut qmp = Self {
            socket: Socket::connect(address, timeout)?,
            framer: Framer::default(),
            events: VecDeque::new(),
            next_id: 1,
            version: String::new(),
        };
        let not_qmp = |said| CaptureError::NotQmp { address: name.clone(), said };
        let greeting = match qmp.receive("it greeted", Instant::now() + timeout) {
            Ok(Some(message)) => message,
            // Half a greeting is none of QEMU's.
            Ok(None) if qmp.framer.is_inside() => return Err(not_qmp(qmp.framer.said())),
            Ok(None) => return Err(CaptureError::Busy { address: name }),
            Err(CaptureError::Malformed { said, .. }) => return Err(not_qmp(said)),
            Err(error) => return Err(error),
        };
        let Some(hello) = greeting.get("QMP") else {
            return Err(not_qmp(clip(&Value::Object(greeting).to_string())));
        };
        qmp.version = version_of(hello);
        qmp.execute("qmp_capabilities", &Value::Null)?;
        Ok(qmp)
    }

    /// QEMU's version as it greeted, as in `7.2.22 (Debian 1:7.2+dfsg-7)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The process at the other end of the socket, in our pid namespace, where the system tells.
    ///
    /// It is the one that listens, so it is not QEMU when libvirt made the socket.
    #[must_use]
    pub fn peer_pid(&self) -> Option<i32> {
        self.socket.peer_pid()
    }

    /// Carries out a command. `arguments` is an object, or null for none.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] with QEMU's reason; [`CaptureError::Closed`], [`CaptureError::NoAnswer`],
    /// [`CaptureError::Malformed`], [`CaptureError::TooLong`] and [`CaptureError::Io`] if the connection is bad.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, CaptureError> {
        let id = self.send(command, arguments, None)?;
        self.reply(command, id, REPLY_TIMEOUT)
    }

    /// As [`Qmp::execute`], and passes a file descriptor along. Only over UNIX sockets.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn execute_with_fd(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, CaptureError> {
        let id = self.send(command, arguments, Some(fd))?;
        self.reply(command, id, REPLY_TIMEOUT)
    }

    /// Carries out a command of the human monitor and gives its text.
    ///
    /// An unknown command is not an error but a text that says so.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn human(&mut self, line: &str) -> Result<String, CaptureError> {
        let arguments = serde_json::json!({ "command-line": line });
        match self.execute("human-monitor-command", &arguments)? {
            Value::String(text) => Ok(text),
            other => Err(CaptureError::Malformed {
                during: format!("to `{line}`"),
                said: clip(&other.to_string()),
            }),
        }
    }

    /// Forgets the events so far.
    pub fn clear_events(&mut self) {
        self.events.clear();
    }

    /// The events that came and were not forgotten, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter()
    }

    /// Waits until an event of this name has come, at most until `deadline`; tells whether it has.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn wait_for(&mut self, name: &str, deadline: Instant) -> Result<bool, CaptureError> {
        loop {
            if self.events.iter().any(|event| event.name == name) {
                return Ok(true);
            }
            match self.receive(&format!("the event {name} came"), deadline)? {
                Some(message) => self.queue_event(&message),
                None => return Ok(false),
            }
        }
    }

    fn send(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<u64, CaptureError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = serde_json::json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        let line = format!("{request}\r\n");
        let error = CaptureError::io(format!("sending `{command}` to the monitor"));
        match self.socket.send(line.as_bytes(), fd) {
            Ok(()) => Ok(id),
            Err(source) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(CaptureError::Closed { during: format!("before it took `{command}`") })
            }
            Err(source) => Err(error(source)),
        }
    }

    fn reply(&mut self, command: &str, id: u64, timeout: Duration) -> Result<Value, CaptureError> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(mut message) = self.receive(&format!("it answered `{command}`"), deadline)? else {
                return Err(CaptureError::NoAnswer { command: command.to_owned(), waited: timeout });
            };
            // Replies to commands that were given up on, and what is no reply at all, are passed over.
            let is_ours = message.get("id").is_some_and(|found| found.as_u64() == Some(id));
            if let Some(value) = message.remove("return").filter(|_| is_ours) {
                return Ok(value);
            }
            // An error without an id is about bytes that QEMU could not parse: ours.
            if let Some(error) = message.get("error").filter(|_| is_ours || !message.contains_key("id")) {
                let text = |name| error.get(name).and_then(Value::as_str).unwrap_or("?");
                return Err(CaptureError::Refused {
                    command: command.to_owned(),
                    class: clip(text("class")),
                    desc: clip(text("desc")),
                });
            }
            self.queue_event(&message);
        }
    }

    fn queue_event(&mut self, message: &Map<String, Value>) {
        let Some(name) = message.get("event").and_then(Value::as_str) else { return };
        let time = |field| message.get("timestamp")?.get(field)?.as_u64();
        let time = Duration::from_secs(time("seconds").unwrap_or(0))
            .saturating_add(Duration::from_micros(time("microseconds").unwrap_or(0)));
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let data = message.get("data").cloned().unwrap_or(Value::Null);
        self.events.push_back(Event { name: name.to_owned(), time, data });
    }

    /// The next object, or `None` at the deadline. `before` ends the sentence "it closed the connection before ...".
    fn receive(
        &mut self,
        before: &str,
        deadline: Instant,
    ) -> Result<Option<Map<String, Value>>, CaptureError> {
        let malformed = |said| CaptureError::Malformed { during: format!("before {before}"), said };
        let mut chunk = [0; 1 << 14];
        loop {
            if let Some(object) = self.framer.next_object().map_err(malformed)? {
                return match serde_json::from_slice(&object) {
                    Ok(Value::Object(message)) => Ok(Some(message)),
                    _ => Err(malformed(format!("`{}`", clip(&String::from_utf8_lossy(&object))))),
                };
            }
            match self.socket.receive(&mut chunk, deadline) {
                Ok(Some(0)) => return Err(CaptureError::Closed { during: format!("before {before}") }),
                Ok(Some(len)) => self.framer.push(&chunk[..len])?,
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Err(CaptureError::Closed { during: format!("before {before}") });
                }
                Err(error) => return Err(CaptureError::io("reading from the monitor")(error)),
            }
        }
    }
}

fn version_of(hello: &Value) -> String {
    let qemu = &hello["version"]["qemu"];
    let number = |name: &str| qemu[name].as_u64().unwrap_or(0);
    let package = hello["version"]["package"].as_str().map(clip).unwrap_or_default();
    let version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
    match package.trim_matches(['(', ')', ' ']) {
        "" => version,
        package => format!("{version} ({package})"),
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
