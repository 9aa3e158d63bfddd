//! A connection to QEMU's gdb stub over a socket that was passed to it: nothing of it is in a file system or on a network.

use crate::error::{CaptureError, clip};
use crate::qmp::Qmp;
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The name of the descriptor, and of the character device that is made of it.
const NAME: &str = "vmcore-gdb";
/// How QEMU names the device of a stub that somebody else has opened (`-gdb`, `-s`, `gdbserver`).
const OTHER: &str = "gdb";
/// How long an answer may take; alone it takes 0.1 ms.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest packet that is read; QEMU's have 4 KiB.
const MAX_PACKET: usize = 1 << 16;
/// Requests that are sent at once: their replies, vectors too, fit the buffer of a socket.
const BATCH: usize = 128;

/// The connection. The guest stays stopped when it is closed without a detach packet, which is never sent.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes behind the last packet.
    received: Vec<u8>,
}

impl Connection {
    /// Opens QEMU's stub. `None` if somebody else has: QEMU has one only, and would take it from them.
    pub(super) fn open(qmp: &mut Qmp) -> Result<Option<Self>, CaptureError> {
        let devices = qmp.execute("query-chardev", &json!(null))?;
        let is_other = |device: &serde_json::Value| device["label"] == OTHER;
        if devices.as_array().is_some_and(|devices| devices.iter().any(is_other)) {
            return Ok(None);
        }
        let (ours, theirs) = UnixStream::pair().map_err(CaptureError::io("making a socket"))?;
        qmp.execute_with_fd("getfd", &json!({ "fdname": NAME }), theirs.as_fd())?;
        let address = json!({ "type": "fd", "data": { "str": NAME } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        qmp.execute("chardev-add", &json!({ "id": NAME, "backend": backend }))?;
        qmp.human(&format!("gdbserver chardev:{NAME}"))?;
        Self::new(ours).map(Some)
    }

    pub(super) fn new(stream: UnixStream) -> Result<Self, CaptureError> {
        let error = CaptureError::io("setting the time-out of a socket");
        let both =
            stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
        both.map_err(error)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Closes the stub, and with it the device.
    pub(super) fn close(self, qmp: &mut Qmp) -> Result<(), CaptureError> {
        drop(self);
        qmp.human("gdbserver none").map(drop)
    }

    /// Sends a packet and waits for the reply, whose escapes and runs are undone.
    ///
    /// # Errors
    /// [`CaptureError::Io`], [`CaptureError::Malformed`], [`CaptureError::TooLong`]; the connection is then of no more use.
    pub(super) fn ask(&mut self, request: &str) -> Result<String, CaptureError> {
        self.send(&[request])?;
        self.reply(request)
    }

    /// As [`ask`](Self::ask) for each request, without waiting for a reply before the next is sent.
    ///
    /// QEMU takes a packet for the acknowledgement of the reply before it, and answers all that come with one read.
    pub(super) fn ask_all(&mut self, requests: &[String]) -> Result<Vec<String>, CaptureError> {
        let mut replies = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            self.send(batch)?;
            for request in batch {
                replies.push(self.reply(request)?);
            }
        }
        Ok(replies)
    }

    /// Sends packets, and acknowledges all that was received before.
    fn send<S: AsRef<str>>(&mut self, requests: &[S]) -> Result<(), CaptureError> {
        let mut bytes = "+".to_owned();
        for request in requests.iter().map(AsRef::as_ref) {
            let sum = request.bytes().fold(0, u8::wrapping_add);
            bytes += &format!("${request}#{sum:02x}");
        }
        self.stream.write_all(bytes.as_bytes()).map_err(CaptureError::io("asking QEMU's gdb stub"))
    }

    /// Waits for the reply to the oldest request that has none.
    fn reply(&mut self, request: &str) -> Result<String, CaptureError> {
        let error = || CaptureError::io(format!("asking QEMU's gdb stub for `{}`", clip(request)));
        loop {
            while let Some(packet) = self.packet(request)? {
                // QEMU 7.2 tells without being asked that the guest stands still.
                if !packet.starts_with(['T', 'S']) {
                    return Ok(packet);
                }
            }
            if self.received.len() > MAX_PACKET {
                return Err(CaptureError::TooLong { limit: MAX_PACKET });
            }
            let mut room = [0; 4096];
            let len = self.stream.read(&mut room).map_err(error())?;
            if len == 0 {
                return Err(CaptureError::Closed {
                    during: format!("before it answered `{}`", clip(request)),
                });
            }
            self.received.extend_from_slice(&room[..len]);
        }
    }

    /// Takes the next packet from what was received.
    fn packet(&mut self, request: &str) -> Result<Option<String>, CaptureError> {
        let Some(start) = self.received.iter().position(|byte| *byte == b'$') else { return Ok(None) };
        let body = &self.received[start + 1..];
        let Some(len) = body.iter().position(|byte| *byte == b'#') else { return Ok(None) };
        let Some(sum) = body.get(len + 1..len + 3) else { return Ok(None) };
        let sum = std::str::from_utf8(sum).ok().and_then(|sum| u8::from_str_radix(sum, 16).ok());
        let body = &body[..len];
        let text = plain(body).filter(|_| sum == Some(body.iter().copied().fold(0, u8::wrapping_add)));
        let text = text.ok_or_else(|| CaptureError::Malformed {
            during: format!("in its gdb stub, to `{}`", clip(request)),
            said: clip(&String::from_utf8_lossy(body)),
        })?;
        self.received.drain(..start + 1 + len + 3);
        Ok(Some(text))
    }
}

/// The text of a packet without its escapes (`}` and a byte that is off by 0x20) and runs (`*` and a count); `None` if it is none.
fn plain(body: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(body.len());
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'}' => text.push(bytes.next()? ^ 0x20),
            b'*' => {
                let (count, last) = (bytes.next()?.checked_sub(29)?, *text.last()?);
                text.extend(std::iter::repeat_n(last, count.into()));
            }
            _ => text.push(*byte),
        }
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escapes_and_runs_are_undone() {
        assert_eq!(plain(b"m0* }]x").as_deref(), Some("m0000}x"));
        for bad in [&b"*!"[..], b"a*", b"}", b"a*\x05", b"\xff"] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }
}
