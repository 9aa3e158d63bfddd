//! The loop that runs the guest and listens to the client.

use super::Processor;
use super::debuggee::Debuggee;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use vmcore::gdb::{Engine, PACKET_SIZE, Status, buffer_len};

/// A connection: what the client sends, as it comes, and where to answer.
struct Client {
    bytes: Receiver<Vec<u8>>,
    stream: TcpStream,
}

/// Waits for a client, and then runs the program to its end: as clients say, and freely while there is none.
pub(super) fn serve(debuggee: &mut Debuggee<impl Processor>, address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    eprintln!("waiting for gdb: target remote {}", listener.local_addr()?);
    let clients = clients(listener);
    let mut next = clients.recv().ok();
    while let Some(client) = next.take() {
        session(debuggee, client);
        debuggee.run_freely(|| {
            next = clients.try_recv().ok();
            next.is_none()
        });
    }
    Ok(())
}

/// The clients, one after the other: while one is there, the next waits for its connection.
fn clients(listener: TcpListener) -> Receiver<Client> {
    let (clients, receiver) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Packets are small, and each waits for the answer to the one before.
            let Ok(answers) = stream.set_nodelay(true).and_then(|()| stream.try_clone()) else { continue };
            let (bytes, input) = mpsc::channel();
            if clients.send(Client { bytes: input, stream: answers }).is_err() {
                break;
            }
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buf) {
                if bytes.send(buf[..count].to_vec()).is_err() {
                    break;
                }
            }
        }
    });
    receiver
}

/// Serves a client until it leaves or the program has ended.
fn session(debuggee: &mut Debuggee<impl Processor>, mut client: Client) {
    // Of one that does not listen any more there will be no more bytes either.
    let mut send = |reply: &[u8]| client.stream.write_all(reply).unwrap_or_default();
    let mut engine = Engine::new(vec![0; buffer_len(PACKET_SIZE)]);
    debuggee.halt();
    while engine.status() != Status::Closed && debuggee.end().is_none() {
        // A program that runs only looks whether something came; one that stands still waits for it.
        let bytes = match debuggee.is_running() {
            true => client.bytes.try_recv(),
            false => client.bytes.recv().map_err(|_| TryRecvError::Disconnected),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(TryRecvError::Empty) => Vec::new(),
            Err(TryRecvError::Disconnected) => break,
        };
        let mut input = &bytes[..];
        loop {
            input = engine.receive(input, debuggee, &mut send);
            if let Some(stop) = debuggee.run() {
                engine.stopped(stop, debuggee, &mut send);
            }
            if input.is_empty() {
                break;
            }
        }
    }
    engine.disconnect(debuggee);
}
