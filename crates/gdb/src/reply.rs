//! The body of a reply while it is written, in a buffer of fixed size.

use crate::error::Error;
use crate::frame::{FRAME, seal};
use crate::thread::{Name, ThreadId};
use crate::wire;
use core::fmt;

/// A body that grows in its frame. What does not fit is left away and remembered.
#[derive(Debug)]
pub(crate) struct Reply<'b> {
    /// `$`, the body, `#cc`.
    frame: &'b mut [u8],
    len: usize,
    is_cut: bool,
    /// Whether the client knows of processes, and so how threads are written.
    with_process: bool,
}

impl<'b> Reply<'b> {
    /// An empty body; `frame` has room for more than the frame itself.
    pub(crate) fn new(frame: &'b mut [u8], with_process: bool) -> Self {
        Self { frame, len: 0, is_cut: false, with_process }
    }

    /// Closes the frame and gives it; `may_pack` allows runs in it.
    pub(crate) fn seal(&mut self, may_pack: bool) -> &[u8] {
        let len = seal(self.frame, self.len, may_pack);
        &self.frame[..len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    fn body(&self) -> &[u8] {
        &self.frame[1..=self.len]
    }

    /// Whether something did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many bytes fit.
    pub(crate) fn room(&self) -> usize {
        self.frame.len() - FRAME - self.len
    }

    /// Forgets all behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.is_cut = false;
    }

    /// Notes that something did not fit.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Replaces the first byte.
    pub(crate) fn set_first(&mut self, byte: u8) {
        if self.len > 0 {
            self.frame[1] = byte;
        }
    }

    /// Replaces the `width` bytes at `at` by the digits of `number`.
    pub(crate) fn set_number(&mut self, at: usize, width: usize, number: usize) {
        let mut rest = number;
        for place in self.frame[1 + at..1 + at + width].iter_mut().rev() {
            *place = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
        }
    }

    /// Whether a register value that begins at `at` is not known.
    pub(crate) fn is_unknown(&self, at: usize) -> bool {
        self.frame[1..=self.len].get(at) == Some(&b'x')
    }

    /// The rest of the buffer, to work in.
    pub(crate) fn scratch(&mut self) -> &mut [u8] {
        let end = self.frame.len() - (FRAME - 1);
        &mut self.frame[1 + self.len..end]
    }

    /// Adds `bytes` as they are: all of them, or nothing.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        match self.scratch().get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.is_cut = true,
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// Adds what `format_args!` says.
    pub(crate) fn format(&mut self, text: fmt::Arguments<'_>) {
        // The only error is that there is no room, which is remembered.
        let _ = fmt::Write::write_fmt(self, text);
    }

    /// Adds two digits for each byte.
    pub(crate) fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.raw(&wire::hex(*byte));
        }
    }

    /// Adds a thread as this client writes it.
    pub(crate) fn thread(&mut self, id: ThreadId) {
        let name = Name { id, with_process: self.with_process };
        self.format(format_args!("{name}"));
    }

    /// Adds a byte, escaped if it has to be; tells whether it fits.
    pub(crate) fn escaped(&mut self, byte: u8) -> bool {
        let escaped = wire::escape(byte);
        let fits = escaped.len() <= self.room();
        if fits {
            self.raw(&escaped);
        }
        fits
    }

    /// Adds as digits what `read` puts into the buffer that it is given: `len` bytes or, if fewer fit, so many.
    /// `read` says how many of them count. There is no copy in between.
    pub(crate) fn hex_from(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let len = len.min(self.room() / 2);
        let room = &mut self.scratch()[..2 * len];
        let count = read(&mut room[len..])?.min(len);
        // What counts has to fill the second half of the part that it spreads to.
        if count < len {
            room.copy_within(len..len + count, count);
        }
        wire::spread_hex(&mut room[..2 * count]);
        self.len += 2 * count;
        Ok(count)
    }

    /// As [`Self::hex_from`], with the bytes themselves, escaped: as many as fit then.
    pub(crate) fn escaped_from(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let room = self.scratch();
        let len = len.min(room.len());
        let count = read(&mut room[..len])?.min(len);
        let count = wire::count_fitting(&room[..count], room.len());
        // From the end of the buffer to its front: what is to be read lies as far behind as there are escapes to come.
        let mut from = room.len() - count;
        room.copy_within(..count, from);
        let mut to = 0;
        while from < room.len() {
            let len = wire::count_plain(&room[from..]);
            room.copy_within(from..from + len, to);
            (from, to) = (from + len, to + len);
            if let Some(&special) = room.get(from) {
                room[to..to + 2].copy_from_slice(&[wire::ESCAPE, special ^ wire::ESCAPED]);
                (from, to) = (from + 1, to + 2);
            }
        }
        self.len += to;
        Ok(count)
    }
}

impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Writes text as digits, two for each byte.
pub(crate) struct HexText<'r, 'b>(pub(crate) &'r mut Reply<'b>);

impl fmt::Write for HexText<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.hex(text.as_bytes());
        if self.0.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn fill(from: &[u8]) -> impl FnOnce(&mut [u8]) -> Result<usize, Error> {
        move |buf| {
            let len = buf.len().min(from.len());
            buf[..len].copy_from_slice(&from[..len]);
            Ok(len)
        }
    }

    proptest! {
        #[test]
        fn digits_and_escapes_of_what_fits(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'}')], 0..64),
            asked in 0..80usize,
            size in 0..100usize,
        ) {
            let mut buf = vec![0; size + FRAME];
            let mut reply = Reply::new(&mut buf, false);
            let count = reply.hex_from(asked, fill(&bytes)).unwrap();
            prop_assert_eq!(count, asked.min(size / 2).min(bytes.len()));
            let mut back = vec![0; count];
            prop_assert_eq!(&*wire::unhex(reply.body(), &mut back).unwrap(), &bytes[..count]);

            reply.truncate(0);
            let count = reply.escaped_from(asked, fill(&bytes)).unwrap();
            let wanted = asked.min(bytes.len()).min(size);
            let expected: Vec<u8> = bytes[..count].iter().flat_map(|byte| wire::escape(*byte)).collect();
            prop_assert_eq!(reply.body(), &expected[..]);
            prop_assert!(count == wanted || reply.room() < 2, "no byte is left away that fits");
        }
    }
}
