//! Frames: what a client sends cut into packets, and the frame around a reply.
//!
//! ```text
//!           ┌────── any `$`: a new packet ──────┐
//!  Idle ─$─► Body ─#─► Sum1 ─digit─► Sum2 ─digit─► packet
//!    └─%─► Note ─#─► two bytes ─► Idle             (a notification, not for us)
//! ```
//!
//! Source: `spec/gdb-rsp.md` section 1.

use crate::wire;

/// What a client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// `+`
    Ack,
    /// `-`
    Nack,
    /// The byte 3 outside of a packet.
    Interrupt,
    /// `$`: whoever begins a packet has got our last reply.
    Begin,
    /// The body of a packet: its first bytes of the buffer, as they were sent.
    Packet {
        /// How many.
        len: usize,
        /// Whether the checksum is right.
        is_intact: bool,
    },
    /// A packet whose body is longer than the buffer.
    TooLong {
        /// Whether the checksum is right.
        is_intact: bool,
    },
}

/// Cuts a stream into [`Event`]s; the body gathers in a buffer that the caller keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receiver {
    state: State,
    len: usize,
    sum: u8,
    is_too_long: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Idle,
    Body,
    /// Behind `#`.
    Sum1,
    /// Behind the first digit of the checksum, its value if it was one.
    Sum2(Option<u8>),
    Notification,
    /// Behind the `#` of a notification.
    NotificationSum,
    /// Behind the first digit of its checksum.
    NotificationEnd,
}

impl Receiver {
    /// Takes bytes from `input` up to the next event. Gives how many it took, all if there is no event.
    pub(crate) fn take(&mut self, input: &[u8], body: &mut [u8]) -> (usize, Option<Event>) {
        let mut at = 0;
        while at < input.len() {
            if matches!(self.state, State::Body) {
                let rest = &input[at..];
                let end = rest.iter().position(|byte| matches!(byte, b'#' | b'$')).unwrap_or(rest.len());
                self.append(&rest[..end], body);
                at += end;
                if at == input.len() {
                    break;
                }
            }
            let event = self.step(input[at]);
            at += 1;
            if event.is_some() {
                return (at, event);
            }
        }
        (at, None)
    }

    fn append(&mut self, bytes: &[u8], body: &mut [u8]) {
        self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
        match body.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.is_too_long = true,
        }
    }

    fn step(&mut self, byte: u8) -> Option<Event> {
        let (state, event) = match (self.state, byte) {
            // In a body it would be escaped, so this is always a beginning: of the packet that is sent again.
            (_, b'$') => {
                *self = Self::default();
                (State::Body, Some(Event::Begin))
            }
            (State::Idle, b'+') => (State::Idle, Some(Event::Ack)),
            (State::Idle, b'-') => (State::Idle, Some(Event::Nack)),
            (State::Idle, INTERRUPT) => (State::Idle, Some(Event::Interrupt)),
            (State::Idle, b'%') => (State::Notification, None),
            (State::Idle, _) => (State::Idle, None),
            (State::Body, _) => (State::Sum1, None),
            (State::Sum1, _) => (State::Sum2(wire::digit(byte)), None),
            (State::Sum2(high), _) => {
                let sum = high.zip(wire::digit(byte)).map(|(high, low)| high << 4 | low);
                let is_intact = sum == Some(self.sum);
                let event = match self.is_too_long {
                    true => Event::TooLong { is_intact },
                    false => Event::Packet { len: self.len, is_intact },
                };
                (State::Idle, Some(event))
            }
            (State::Notification, b'#') => (State::NotificationSum, None),
            (State::Notification, _) => (State::Notification, None),
            (State::NotificationSum, _) => (State::NotificationEnd, None),
            (State::NotificationEnd, _) => (State::Idle, None),
        };
        self.state = state;
        event
    }
}

/// The byte that stops a running target.
const INTERRUPT: u8 = 3;

/// Bytes that a frame has around its body: `$` and `#cc`.
pub(crate) const FRAME: usize = 4;

/// Closes the frame whose body is `frame[1..=len]`, and gives the length of all.
///
/// `may_pack` allows runs in place of repeated bytes; they are taken where they pay.
pub(crate) fn seal(frame: &mut [u8], len: usize, may_pack: bool) -> usize {
    let body = &mut frame[1..=len];
    let len = if may_pack && wire::has_runs(body) { wire::pack_runs(body) } else { len };
    let sum = frame[1..=len].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let [high, low] = wire::hex(sum);
    frame[0] = b'$';
    frame[len + 1..len + FRAME].copy_from_slice(&[b'#', high, low]);
    len + FRAME
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn events(input: &[u8]) -> Vec<Event> {
        let mut receiver = Receiver::default();
        let (mut body, mut at, mut events) = ([0; 8], 0, Vec::new());
        while at < input.len() {
            let (used, event) = receiver.take(&input[at..], &mut body);
            at += used;
            events.extend(event.filter(|event| *event != Event::Begin));
        }
        events
    }

    #[test]
    fn cuts_packets() {
        let good = |len| Event::Packet { len, is_intact: true };
        let bad = |len| Event::Packet { len, is_intact: false };
        assert_eq!(events(b"+$?#3f-\x03"), [Event::Ack, good(1), Event::Nack, Event::Interrupt]);
        assert_eq!(events(b"$qC#B4"), [good(2)], "upper case is fine");
        assert_eq!(events(b"$g#00"), [bad(1)]);
        assert_eq!(events(b"$?#zz$?#3f"), [bad(1), good(1)]);
        assert_eq!(events(b"$m0,$?#3f"), [good(1)], "a new packet drops a broken one");
        assert_eq!(events(b"$?#$?#3$?#3f"), [good(1)]);
        assert_eq!(events(b"%Stop:$?#3f"), [good(1)], "so does one in a notification");
        assert_eq!(events(b"%Stop:T05#00x\x03"), [Event::Interrupt]);
        assert_eq!(events(b"$#00"), [good(0)]);
        assert_eq!(events(b"$aaaaaaaa#08"), [good(8)]);
        assert_eq!(events(b"$aaaaaaaaa#69$?#3f"), [Event::TooLong { is_intact: true }, good(1)]);
        assert_eq!(events(b"$a\x03#64"), [good(2)], "in a packet it is data");
    }
}
