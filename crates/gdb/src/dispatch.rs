//! One packet and its answer.

use crate::error::Error;
use crate::reply::Reply;
use crate::session::{Run, Session};
use crate::stop::{self, Stop};
use crate::table::{Packet, Turn};
use crate::target::Target;
use crate::wire;
use core::fmt;

/// What a handler works with.
pub(crate) struct Context<'c, 'b> {
    pub(crate) session: &'c mut Session,
    pub(crate) target: &'c mut dyn Target,
    pub(crate) reply: &'c mut Reply<'b>,
    /// What the user is to read before the answer comes.
    pub(crate) console: Console<'c>,
}

/// How a packet is answered, if nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With what is in the reply.
    Reply,
    /// With `OK`.
    Ok,
    /// With a stop reply now.
    Stop(Stop),
    /// With a stop reply when the target stops.
    Later,
    /// Not at all: the session is over, or the packet has none.
    Nothing,
}

pub(crate) type Outcome = Result<Answer, Error>;

/// Sends frames ahead of the answer.
pub(crate) struct Console<'c> {
    out: &'c mut dyn FnMut(&[u8]),
    /// The packet is not acknowledged yet.
    owes_ack: bool,
    packs_runs: bool,
}

impl Console<'_> {
    /// Sends the reply as it is and empties it.
    pub(crate) fn flush(&mut self, reply: &mut Reply<'_>) {
        if self.owes_ack {
            (self.out)(b"+");
            self.owes_ack = false;
        }
        (self.out)(reply.seal(self.packs_runs));
        reply.truncate(0);
    }
}

/// Undoes runs and escapes of the packet in `body[..len]`, in place; `None` if they are wrong.
pub(crate) fn decode(body: &mut [u8], len: usize) -> Option<usize> {
    let is_binary = Packet::find(&body[..len]).is_some_and(Packet::is_binary);
    let len = if is_binary { len } else { wire::expand_runs(body, len)? };
    wire::unescape(&mut body[..len])
}

/// Those who take part in an answer.
pub(crate) struct Exchange<'c, 'o> {
    pub(crate) session: &'c mut Session,
    pub(crate) target: &'c mut dyn Target,
    pub(crate) out: &'c mut (dyn FnMut(&[u8]) + 'o),
}

impl Exchange<'_, '_> {
    /// Answers a packet, `None` for one that cannot be read. Gives the length of the frame in `tx[1..]` that the
    /// client has to acknowledge.
    ///
    /// The acknowledgement of the packet goes out with the reply, in one piece.
    pub(crate) fn answer(&mut self, body: Option<&[u8]>, tx: &mut [u8], packs_runs: bool) -> Option<usize> {
        let mut reply = Reply::new(&mut tx[1..], self.session.client.knows_processes);
        let owes_ack = !self.session.is_without_acks;
        let mut context = Context {
            session: &mut *self.session,
            target: &mut *self.target,
            reply: &mut reply,
            console: Console { out: &mut *self.out, owes_ack, packs_runs },
        };
        let outcome = body.ok_or(Error::INVALID).and_then(|body| dispatch(&mut context, body));
        let owes_ack = context.console.owes_ack;
        let is_answered = self.write(outcome, &mut reply);
        let len = if is_answered { reply.seal(packs_runs).len() } else { 0 };
        tx[0] = b'+';
        let sent = &tx[usize::from(!owes_ack)..=len];
        if !sent.is_empty() {
            (self.out)(sent);
        }
        (is_answered && !self.session.is_without_acks).then_some(len)
    }

    /// Writes the body of the answer; tells whether there is one.
    fn write(&mut self, outcome: Outcome, reply: &mut Reply<'_>) -> bool {
        let outcome = match outcome {
            Ok(Answer::Reply) if reply.is_cut() => Err(Error::NO_ROOM),
            outcome => outcome,
        };
        if outcome != Ok(Answer::Reply) {
            reply.truncate(0);
        }
        match outcome {
            Ok(Answer::Reply) | Err(Error::UNSUPPORTED) => {}
            Ok(Answer::Ok) => reply.text("OK"),
            Ok(Answer::Stop(stop)) => stop::write(reply, self.session, self.target, stop),
            Ok(Answer::Later | Answer::Nothing) => return false,
            Err(error) => write_error(reply, self.session, error),
        }
        true
    }
}

fn dispatch(context: &mut Context<'_, '_>, body: &[u8]) -> Outcome {
    let packet = Packet::find(body);
    let turn = packet.map_or(Turn::Answer, |packet| packet.turn);
    if context.session.run == Run::Running && turn != Turn::Any {
        return Err(Error::INVALID);
    }
    let Some(packet) = packet else { return vendor(context, body) };
    let outcome = (packet.handler)(context, &packet.parameters(body)?);
    debug_assert!(
        turn == Turn::Stop || !matches!(outcome, Ok(Answer::Stop(_) | Answer::Later)),
        "no stop reply may follow {}",
        packet.name
    );
    outcome
}

/// A packet that is not in the table, which the target may know.
fn vendor(context: &mut Context<'_, '_>, body: &[u8]) -> Outcome {
    let thread = context.session.general;
    let (Some(vendor), Some(thread)) = (context.target.vendor(), thread) else {
        return Err(Error::UNSUPPORTED);
    };
    vendor.packet(thread, body, context.reply)?;
    Ok(if context.reply.len() == 0 { Answer::Ok } else { Answer::Reply })
}

/// Writes a failure in the words that the client has said it understands.
fn write_error(reply: &mut Reply<'_>, session: &Session, error: Error) {
    let Error { number, text } = error;
    if text.is_empty() || !session.shows_texts() {
        reply.format(format_args!("E{number:02}"));
    } else if session.client.knows_texts {
        reply.format(format_args!("E.{text}"));
    } else {
        reply.format(format_args!("E{number:02};"));
        reply.hex(text.as_bytes());
    }
}

/// Text for the user: packets `O`, each as long as may be.
pub(crate) struct ConsoleText<'t, 'c, 'b> {
    pub(crate) console: &'t mut Console<'c>,
    pub(crate) reply: &'t mut Reply<'b>,
}

impl ConsoleText<'_, '_, '_> {
    /// Sends what is not sent yet.
    pub(crate) fn finish(&mut self) {
        if self.reply.len() > 0 {
            self.console.flush(self.reply);
        }
    }
}

impl fmt::Write for ConsoleText<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.reply.room() < 3 {
                self.console.flush(self.reply);
            }
            if self.reply.len() == 0 {
                self.reply.text("O");
            }
            self.reply.hex(&[byte]);
        }
        Ok(())
    }
}
