//! The server: a thread and a target of its own for each client.

use crate::address::Listener;
use crate::text;
use std::io::{self, Read, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use vmcore::Machine;
use vmcore::gdb::{Command, Engine, MachineOptions, MachineTarget, PACKET_SIZE, Status, buffer_len};

/// What is served.
pub(super) struct Served {
    pub(super) machine: Machine,
    pub(super) options: MachineOptions,
    pub(super) commands: Vec<Command>,
    pub(super) quiet: bool,
}

impl Served {
    /// Serves the client on standard input and output, and tells `end` when it has left.
    pub(super) fn on_stdio(self: Arc<Self>, end: mpsc::Sender<()>) {
        thread::spawn(move || {
            self.session(io::stdin().lock(), io::stdout().lock(), "gdb");
            end.send(()).ok();
        });
    }

    /// Serves clients that come to `listener` from now on: any number at the same time, or `once` one, behind whom nobody waits
    /// in vain.
    pub(super) fn listen(self: Arc<Self>, listener: Listener, once: bool, end: mpsc::Sender<()>) {
        thread::spawn(move || {
            if once {
                let (input, output, name) = self.next_client(&listener);
                drop(listener);
                self.session(input, output, &name);
                end.send(()).ok();
                return;
            }
            loop {
                let (input, output, name) = self.next_client(&listener);
                let served = Arc::clone(&self);
                let started = thread::Builder::new().spawn(move || served.session(input, output, &name));
                if let Err(error) = started {
                    self.refuse(&error);
                }
            }
        });
    }

    /// Waits for a client. One that is gone again, or for whom there is no room, is no end of the others.
    fn next_client(&self, listener: &Listener) -> Client {
        loop {
            match listener.accept() {
                Ok(client) => return client,
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// Tells of a client that is not served, and lets others leave before the next one is tried.
    fn refuse(&self, error: &io::Error) {
        self.say(&format!("a client cannot be served: {error}"));
        thread::sleep(AFTER_REFUSAL);
    }

    /// Serves one client until it leaves.
    fn session(&self, input: impl Read, output: impl Write, name: &str) {
        self.say(&format!("{name} is connected"));
        match self.talk(input, output) {
            Ok(()) => self.say(&format!("{name} has left")),
            Err(error) => self.say(&format!("{name} is gone: {error}")),
        }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            text::say(line);
        }
    }

    fn talk(&self, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
        let target = MachineTarget::new(self.machine.clone(), &self.options).map_err(io::Error::other)?;
        let mut target = target.with_commands(&self.commands);
        let mut engine = Engine::new(vec![0; buffer_len(PACKET_SIZE)]);
        let mut bytes = vec![0; 0x1_0000];
        while engine.status() != Status::Closed {
            let count = input.read(&mut bytes)?;
            if count == 0 {
                break;
            }
            let mut rest = &bytes[..count];
            let mut result = Ok(());
            while !rest.is_empty() && result.is_ok() {
                rest = engine.receive(rest, &mut target, &mut |reply| {
                    if result.is_ok() {
                        result = output.write_all(reply);
                    }
                });
            }
            result?;
            output.flush()?;
        }
        engine.disconnect(&mut target);
        Ok(())
    }
}

/// How long nobody is let in after one could not be.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// A client: where to read, where to write, and who it is.
type Client = (Box<dyn Read + Send>, Box<dyn Write + Send>, String);

impl Listener {
    fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                // Packets are small, and each waits for the answer to the one before.
                stream.set_nodelay(true)?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream), address.to_string()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream), "a client".to_owned()))
            }
        }
    }
}
