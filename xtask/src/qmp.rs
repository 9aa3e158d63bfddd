//! A small QMP client of the tests' own: it shares no code with the one that is tested.

use anyhow::{Context, Result, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far longer than any command takes, also on a loaded machine.
const REPLY: Duration = Duration::from_secs(120);

/// A connection to one monitor. Events are kept until somebody asks for them.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    messages: Receiver<io::Result<Value>>,
    events: VecDeque<Value>,
    next_id: u64,
}

impl Qmp {
    /// Greets the monitor at the other end.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let (sender, messages) = channel();
        let reader = stream.try_clone()?;
        std::thread::spawn(move || {
            let objects = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
            for object in objects {
                let is_error = object.is_err();
                if sender.send(object.map_err(io::Error::from)).is_err() || is_error {
                    break;
                }
            }
        });
        let mut qmp = Self { stream, messages, events: VecDeque::new(), next_id: 1 };
        let greeting = qmp.receive(Instant::now() + REPLY)?;
        if greeting.get("QMP").is_none() {
            bail!("the monitor greets with {greeting}");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.execute_with_fd(command, arguments, None)
    }

    /// As [`Qmp::execute`], with a descriptor sent along.
    pub(crate) fn execute_with_fd(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request =
            Map::from_iter([("execute".to_owned(), json!(command)), ("id".to_owned(), json!(id))]);
        request.insert("arguments".to_owned(), arguments);
        let text = Value::Object(request).to_string() + "\n";
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            bail!("no room for a descriptor");
        }
        let sent =
            sendmsg(self.stream.as_fd(), &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)
                .with_context(|| format!("sending {command}"))?;
        if sent != text.len() {
            bail!("{command} was sent in part");
        }
        let deadline = Instant::now() + REPLY;
        loop {
            let message =
                self.receive(deadline).with_context(|| format!("waiting for the reply to {command}"))?;
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else if message.get("id") == Some(&json!(id)) {
                return match message.get("return") {
                    Some(value) => Ok(value.clone()),
                    None => bail!("{command}: {}", message["error"]["desc"]),
                };
            }
        }
    }

    /// Waits for the next event of that name, and forgets those before it.
    pub(crate) fn wait_event(&mut self, name: &str, time: Duration) -> Result<Value> {
        let deadline = Instant::now() + time;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.receive(deadline).with_context(|| format!("waiting for the event {name}"))?,
            };
            if event.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(event);
            }
        }
    }

    /// Forgets the events so far. A command is sent first: QEMU sends events before the reply to a later command.
    pub(crate) fn forget_events(&mut self) -> Result<()> {
        self.execute("query-status", json!({}))?;
        self.events.clear();
        Ok(())
    }

    /// The names of all events that came since they were forgotten.
    pub(crate) fn events(&mut self) -> Result<Vec<String>> {
        self.execute("query-status", json!({}))?;
        let names = self.events.drain(..).filter_map(|event| event["event"].as_str().map(str::to_owned));
        Ok(names.collect())
    }

    /// The run state, as in `running` or `paused`.
    pub(crate) fn status(&mut self) -> Result<String> {
        let reply = self.execute("query-status", json!({}))?;
        Ok(reply["status"].as_str().unwrap_or_default().to_owned())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = self.messages.recv_timeout(left).context("the monitor says nothing")?;
        message.context("the monitor talks nonsense")
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // The reader holds the socket, too: closing ours would not end the connection.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// When QEMU says that an event took place, in microseconds.
pub(crate) fn event_time(event: &Value) -> Option<u64> {
    let time = &event["timestamp"];
    Some(time["seconds"].as_u64()? * 1_000_000 + time["microseconds"].as_u64()?)
}
