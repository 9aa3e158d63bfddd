//! The server: a thread and a target of its own for each client.

use super::address::{Address, Listener};
use crate::text;
use std::io::{self, Read, Write};
use std::sync::{Arc, mpsc};
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
        std::thread::spawn(move || {
            self.session(io::stdin().lock(), io::stdout().lock(), "gdb");
            end.send(()).ok();
        });
    }

    /// Serves clients that come to `address`, any number at the same time, from now on.
    pub(super) fn listen(
        self: Arc<Self>,
        address: &Address,
        once: bool,
        end: mpsc::Sender<()>,
    ) -> anyhow::Result<()> {
        let (listener, name) = address.bind()?;
        if address.is_public() {
            text::say(
                "vmcore: warning: nobody is asked for a password: whoever reaches this address reads the whole guest",
            );
        }
        text::say(&format!("waiting for gdb: target remote {name}"));
        std::thread::spawn(move || {
            while let Ok((input, output, name)) = listener.accept() {
                if once {
                    self.session(input, output, &name);
                    break;
                }
                let served = Arc::clone(&self);
                std::thread::spawn(move || served.session(input, output, &name));
            }
            end.send(()).ok();
        });
        Ok(())
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
