//! Cuts a stream of bytes into JSON objects.
//!
//! QMP ends each object with CR LF, but a monitor with `pretty=on` spreads one object over many lines: what ends an
//! object is the brace that closes it. This module finds that brace and leaves the parsing to serde.

use crate::error::{CaptureError, clip};

/// The longest object that is accepted: `info mtree -f` of a large guest has some hundred KiB.
pub const MAX_MESSAGE_LEN: usize = 16 << 20;

/// Cuts a stream of bytes into JSON objects.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Framer {
    /// Takes in what was received.
    ///
    /// # Errors
    /// [`CaptureError::TooLong`] if an object becomes longer than [`MAX_MESSAGE_LEN`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        if self.buffer.len() + bytes.len() > MAX_MESSAGE_LEN {
            return Err(CaptureError::TooLong { limit: MAX_MESSAGE_LEN });
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole object, or `None` if it is not complete yet.
    ///
    /// # Errors
    /// What is there instead of an object, when it does not begin with a brace. The stream is then lost.
    pub fn next_object(&mut self) -> Result<Option<Vec<u8>>, String> {
        while let Some(byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth += 1,
                b'}' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let rest = self.buffer.split_off(self.scanned);
                        self.scanned = 0;
                        return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
                    }
                }
                byte if self.depth == 0 && !byte.is_ascii_whitespace() => return Err(self.said()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether an object has begun and not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.depth > 0
    }

    /// The beginning of what was received and is no whole object, for a message.
    #[must_use]
    pub fn said(&self) -> String {
        let head = &self.buffer[..self.buffer.len().min(200)];
        let said = clip(&String::from_utf8_lossy(head));
        if said.is_empty() { "nothing".to_owned() } else { format!("`{said}`") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objects(chunks: &[&[u8]]) -> Vec<String> {
        let mut framer = Framer::default();
        let mut found = Vec::new();
        for chunk in chunks {
            framer.push(chunk).unwrap();
            while let Some(object) = framer.next_object().unwrap() {
                found.push(String::from_utf8(object).unwrap().trim().to_owned());
            }
        }
        found
    }

    #[test]
    fn the_same_objects_wherever_the_stream_is_split() {
        let first = r#"{"return": {"text": "a } \" { b\\", "list": [{}, {"x": {}}]}, "id": 1}"#;
        let second = "{\n    \"event\": \"STOP\"\n}";
        let stream = format!("{first}\r\n{second}\r\n");
        let bytes = stream.as_bytes();
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(objects(&[head, tail]), [first, second], "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(objects(&single), [first, second]);
    }

    #[test]
    fn what_is_no_object_is_told() {
        let mut framer = Framer::default();
        framer.push(b"\r\nSSH-2.0-OpenSSH_9.2\r\n").unwrap();
        assert_eq!(framer.next_object().unwrap_err(), "`SSH-2.0-OpenSSH_9.2`");
        let mut framer = Framer::default();
        framer.push(b"}").unwrap();
        assert!(framer.next_object().is_err());
    }

    #[test]
    fn an_endless_object_is_refused() {
        let mut framer = Framer::default();
        let piece = vec![b'{'; 1 << 20];
        let error = (0..100).find_map(|_| framer.push(&piece).err()).unwrap();
        assert!(matches!(error, CaptureError::TooLong { .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_without_a_panic(chunks: Vec<Vec<u8>>) {
            let mut framer = Framer::default();
            for chunk in chunks {
                framer.push(&chunk).unwrap();
                while let Ok(Some(object)) = framer.next_object() {
                    prop_assert_eq!(object.last(), Some(&b'}'));
                }
            }
        }
    }
}
