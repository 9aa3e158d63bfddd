//! The loop that runs the guest and listens to the client.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use vmcore::gdb::{Engine, PACKET_SIZE, Status, Stop, StopReason, Target, buffer_len};

/// A target that the server runs, and that ends some day.
pub trait Machine: Target {
    /// Whether it is to run.
    fn is_running(&self) -> bool;

    /// Runs for a while, and tells of the stop if it stops by itself. Not called of a machine that is to stand still.
    fn run(&mut self) -> Option<Stop>;

    /// How its program has ended.
    fn end(&self) -> Option<StopReason>;

    /// What other threads call so that [`Self::run`] returns soon, now or when it is called next. Asked for by the thread that runs the
    /// machine. Nothing is needed if it never runs long.
    fn waker(&self) -> Box<dyn Fn() + Send> {
        Box::new(|| ())
    }
}

/// A connection: what the client sends, as it comes, and where to answer.
struct Client {
    bytes: Receiver<Vec<u8>>,
    stream: TcpStream,
}

/// Waits for a client, and then runs the program to its end: as clients say, and freely while there is none.
pub(super) fn serve(machine: &mut impl Machine, address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    eprintln!("waiting for gdb: target remote {}", listener.local_addr()?);
    let clients = clients(listener, machine.waker());
    while machine.end().is_none() {
        match next(&clients, machine) {
            Ok(client) => session(machine, client),
            Err(TryRecvError::Empty) => drop(machine.run()),
            Err(TryRecvError::Disconnected) => break,
        }
    }
    Ok(())
}

/// A machine that runs only looks whether something came; one that stands still waits for it.
fn next<T>(receiver: &Receiver<T>, machine: &impl Machine) -> Result<T, TryRecvError> {
    match machine.is_running() {
        true => receiver.try_recv(),
        false => receiver.recv().map_err(|_| TryRecvError::Disconnected),
    }
}

/// The clients, one after the other: while one is there, the next waits for its connection.
fn clients(listener: TcpListener, wake: impl Fn() + Send + 'static) -> Receiver<Client> {
    let (clients, receiver) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Packets are small, and each waits for the answer to the one before.
            let Ok(answers) = stream.set_nodelay(true).and_then(|()| stream.try_clone()) else { continue };
            let (bytes, input) = mpsc::channel();
            if clients.send(Client { bytes: input, stream: answers }).is_err() {
                break;
            }
            wake();
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buf) {
                if bytes.send(buf[..count].to_vec()).is_err() {
                    break;
                }
                wake();
            }
            drop(bytes);
            wake();
        }
    });
    receiver
}

/// Serves a client until it leaves or the program has ended.
fn session(machine: &mut impl Machine, mut client: Client) {
    // Of one that does not listen any more there will be no more bytes either.
    let mut send = |reply: &[u8]| client.stream.write_all(reply).unwrap_or_default();
    let mut engine = Engine::new(vec![0; buffer_len(PACKET_SIZE)]);
    while engine.status() != Status::Closed && machine.end().is_none() {
        match next(&client.bytes, machine) {
            Ok(bytes) => {
                let mut input = &bytes[..];
                while !input.is_empty() {
                    input = engine.receive(input, machine, &mut send);
                }
            }
            Err(TryRecvError::Empty) => {
                if let Some(stop) = machine.run() {
                    engine.stopped(stop, machine, &mut send);
                }
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    engine.disconnect(machine);
}
