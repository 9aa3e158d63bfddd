//! The engine: the bytes of a client in, the bytes for it out.

use crate::dispatch::{self, Exchange};
use crate::frame::{Event, FRAME, Receiver};
use crate::reply::Reply;
use crate::session::{Run, Session};
use crate::stop::{self, Stop};
use crate::target::{FileArgument, FileCall, Target};
use core::fmt;

/// Where the engine puts what the client is to get: each call is a reply in its frame, complete.
pub type Output<'o> = dyn FnMut(&[u8]) + 'o;

/// What a server has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Wait for the client; the target stands still.
    Stopped,
    /// Run the target, look now and then for bytes of the client, and tell of the stop.
    Running,
    /// Close the connection: the client has ended the session.
    Closed,
}

/// Bytes that the client may send in a packet, where a server has no reason to choose another number.
///
/// The longest register of today (SME's ZA) needs so many digits.
pub const PACKET_SIZE: usize = 0x2_0000;

/// Bytes of buffer for packets of `packet_size` bytes.
#[must_use]
pub const fn buffer_len(packet_size: usize) -> usize {
    2 * packet_size + 1 + FRAME
}

/// The protocol on the side of the target, for one client.
///
/// The engine has no thread, no clock and no connection. The server gives it the bytes of the client as they come
/// ([`Self::receive`]) and sends what it puts out; an emulator also says when the target stops ([`Self::stopped`]).
/// Its memory is the buffer that it is made of: an array, a vector, or borrowed.
///
/// ```
/// use vmcore_gdb::{Engine, Status, Target};
///
/// /// Serves a client until it goes: for a target that never runs this is all.
/// fn serve(connection: &mut impl std::io::Read, replies: &mut Vec<u8>, target: &mut dyn Target) -> std::io::Result<()> {
///     let mut engine = Engine::new(vec![0; vmcore_gdb::buffer_len(vmcore_gdb::PACKET_SIZE)]);
///     let mut bytes = [0; 4096];
///     while engine.status() != Status::Closed {
///         let count = connection.read(&mut bytes)?;
///         if count == 0 {
///             break;
///         }
///         let mut input = &bytes[..count];
///         while !input.is_empty() {
///             input = engine.receive(input, target, &mut |reply| replies.extend(reply));
///         }
///     }
///     engine.disconnect(target);
///     Ok(())
/// }
/// ```
pub struct Engine<B> {
    buffer: B,
    receiver: Receiver,
    session: Session,
    /// Bytes of the last frame that went out, kept until the client has it.
    held: Option<usize>,
    packs_runs: bool,
}

impl<B> fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Engine<B> {
    /// The shortest buffer: what each side can do fits, which clients tell in some 250 bytes, and a target that can do all in some 400.
    pub const MIN_BUFFER: usize = buffer_len(512);

    /// An engine that waits for its first client. Half of the buffer takes packets, half replies: see
    /// [`buffer_len`].
    ///
    /// # Panics
    /// If the buffer is shorter than [`Self::MIN_BUFFER`].
    pub fn new(buffer: B) -> Self {
        assert!(buffer.as_ref().len() >= Self::MIN_BUFFER, "the buffer of the engine is too short");
        Self {
            buffer,
            receiver: Receiver::default(),
            session: Session::default(),
            held: None,
            packs_runs: true,
        }
    }

    /// Whether replies have runs in place of repeated bytes, where that makes them notably shorter. They have, if
    /// this is never called. Every client reads runs; scripts that only know QEMU's stub may not.
    pub fn pack_runs(&mut self, does_pack: bool) {
        self.packs_runs = does_pack;
    }

    /// The longest body of a packet, and of a reply.
    #[must_use]
    pub fn packet_size(&self) -> usize {
        (self.buffer.as_ref().len() - buffer_len(0)) / 2
    }

    /// What the server has to do.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.session.run {
            Run::Stopped | Run::FileCall => Status::Stopped,
            Run::Running => Status::Running,
            Run::Closed => Status::Closed,
        }
    }

    /// Takes bytes of the client, up to the end of the first packet or interrupt, and gives those behind it.
    ///
    /// Any bytes may come, in any pieces: what is no packet is left alone, a damaged packet is asked for again, and
    /// a packet that makes no sense gets an error. Each packet gets one answer; there is none yet for one that
    /// lets the target run. What comes after the client has ended the session is dropped.
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
        target: &mut dyn Target,
        out: &mut Output<'_>,
    ) -> &'i [u8] {
        if self.session.run == Run::Closed {
            return &[];
        }
        if !self.session.is_begun {
            self.session.begin(target);
        }
        let (body, tx) = split(self.buffer.as_mut());
        let mut at = 0;
        while at < input.len() {
            let (used, event) = self.receiver.take(&input[at..], body);
            at += used;
            match event {
                None => {}
                Some(Event::Ack | Event::Begin) => self.held = None,
                Some(Event::Nack) => {
                    if let Some(len) = self.held {
                        out(&tx[1..=len]);
                        return &input[at..];
                    }
                }
                Some(Event::Interrupt) => {
                    self.session.interrupt(target);
                    return &input[at..];
                }
                Some(Event::Packet { is_intact: false, .. } | Event::TooLong { is_intact: false })
                    if !self.session.is_without_acks =>
                {
                    out(b"-");
                    return &input[at..];
                }
                Some(event) => {
                    let len = if let Event::Packet { len, .. } = event {
                        dispatch::decode(body, len)
                    } else {
                        None
                    };
                    let mut exchange = Exchange { session: &mut self.session, target, out };
                    self.held = exchange.answer(len.map(|len| &body[..len]), tx, self.packs_runs);
                    return &input[at..];
                }
            }
        }
        &input[at..]
    }

    /// The target has stopped. If it ran for the client, the client is told.
    pub fn stopped(&mut self, stop: Stop, target: &mut dyn Target, out: &mut Output<'_>) {
        self.session.stop = Some(stop);
        if self.session.run != Run::Running {
            return;
        }
        self.session.run = Run::Stopped;
        self.session.look_at(stop.thread);
        self.send(out, |session, reply| stop::write(reply, session, target, stop));
    }

    /// Shows the user a text of the running target.
    pub fn print(&mut self, text: &[u8], out: &mut Output<'_>) {
        if self.session.run == Run::Running {
            for piece in text.chunks(self.packet_size() / 2 - 1) {
                self.send(out, |_, reply| {
                    reply.text("O");
                    reply.hex(piece);
                });
            }
        }
    }

    /// The running target wants a file operation of the client; it stands still until
    /// [`FileIo::completed`](crate::FileIo::completed). Tells whether the client can be asked now.
    pub fn file_call(&mut self, call: &FileCall<'_>, out: &mut Output<'_>) -> bool {
        if self.session.run != Run::Running {
            return false;
        }
        self.session.run = Run::FileCall;
        self.send(out, |_, reply| {
            reply.format(format_args!("F{}", call.name));
            for argument in call.arguments {
                match argument {
                    FileArgument::Number(number) => reply.format(format_args!(",{number:x}")),
                    FileArgument::Text { address, len } => reply.format(format_args!(",{address:x}/{len:x}")),
                }
            }
        });
        true
    }

    /// The client is gone: all that it has set is taken back, and it is detached. The next bytes are those of
    /// another client.
    pub fn disconnect(&mut self, target: &mut dyn Target) {
        self.session.end(target);
        self.receiver = Receiver::default();
        self.held = None;
    }

    /// Sends what the client did not ask for with the last bytes.
    fn send(&mut self, out: &mut Output<'_>, write: impl FnOnce(&Session, &mut Reply<'_>)) {
        let (_, tx) = split(self.buffer.as_mut());
        let mut reply = Reply::new(&mut tx[1..], self.session.client.knows_processes);
        write(&self.session, &mut reply);
        let frame = reply.seal(self.packs_runs);
        out(frame);
        self.held = (!self.session.is_without_acks).then_some(frame.len());
    }
}

/// The parts of the buffer: the body of the packet; an acknowledgement and the frame of the reply.
fn split(buffer: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let packet_size = (buffer.len() - buffer_len(0)) / 2;
    // Of an odd byte neither part gets more: what is advertised is what both can do.
    buffer[..buffer_len(packet_size)].split_at_mut(packet_size)
}
