//! A small client of gdb's remote protocol: it shares no code with our server, and treats every server alike.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Bytes that replies to one measurement may have: each byte of memory in two digits, and their frames.
const ROOM: usize = 192 << 20;

/// A connection to a server whose target stands still.
pub(super) struct Client {
    stream: TcpStream,
    /// Bytes of the longest packet that the server takes.
    packet_size: u64,
    has_acks: bool,
    /// Replies as they came, one behind the other.
    replies: Vec<u8>,
    /// How many bytes they have.
    len: usize,
}

impl Client {
    pub(super) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, packet_size: 0, has_acks: true, replies: vec![0; ROOM], len: 0 };
        let features = String::from_utf8(client.ask("qSupported")?)?;
        let size = features.split(';').find_map(|feature| feature.strip_prefix("PacketSize="));
        client.packet_size = u64::from_str_radix(size.context("the server has no PacketSize")?, 16)?;
        if features.split(';').any(|feature| feature == "QStartNoAckMode+") {
            let answer = client.ask("QStartNoAckMode")?;
            ensure!(answer == b"OK", "acknowledgements stay");
            client.has_acks = false;
        }
        // QEMU's stub knows no single registers until somebody has asked which there are.
        client.exchange("qXfer:features:read:target.xml:0,100")?;
        Ok(client)
    }

    /// Lets addresses be physical, or those of the vCPU.
    pub(super) fn set_physical(&mut self, is_physical: bool) -> Result<()> {
        let answer = self.ask(&format!("Qqemu.PhyMemMode:{}", u8::from(is_physical)))?;
        ensure!(answer == b"OK", "the memory cannot be chosen: {}", answer.escape_ascii());
        Ok(())
    }

    /// Sends a packet, and gives the body of the reply.
    pub(super) fn ask(&mut self, body: &str) -> Result<Vec<u8>> {
        self.exchange(body)?;
        self.bodies().next().context("no reply")?
    }

    /// Sends a packet, and waits for the reply alone.
    pub(super) fn exchange(&mut self, body: &str) -> Result<()> {
        self.len = 0;
        self.add_reply(body)
    }

    /// Reads memory by the packets `m` or `x`, in blocks as gdb takes them: half of a packet, which fits in digits.
    pub(super) fn read_memory(&mut self, letter: char, start: u64, len: u64) -> Result<()> {
        self.len = 0;
        let (block, end) = (self.packet_size / 2, start + len);
        let mut address = start;
        while address < end {
            let len = block.min(end - address);
            self.add_reply(&format!("{letter}{address:x},{len:x}"))?;
            address += len;
        }
        Ok(())
    }

    /// The memory that the replies to packets of that letter have.
    pub(super) fn memory(&self, letter: char) -> Result<Vec<u8>> {
        let mut memory = Vec::new();
        for body in self.bodies() {
            let body = body?;
            match (letter, body.strip_prefix(b"b")) {
                ('x', Some(bytes)) => unescape(bytes, &mut memory),
                _ => unhex(&body, &mut memory),
            }
            .with_context(|| format!("a wrong reply: {}", body[..body.len().min(80)].escape_ascii()))?;
        }
        Ok(memory)
    }

    fn add_reply(&mut self, body: &str) -> Result<()> {
        let ack = if self.has_acks { "+" } else { "" };
        let sum = body.bytes().fold(0, u8::wrapping_add);
        self.stream.write_all(format!("{ack}${body}#{sum:02x}").as_bytes())?;
        let start = self.len;
        // In a body there is no `#`.
        while !matches!(self.replies[start..self.len], [.., b'#', _, _]) {
            let count = self.stream.read(&mut self.replies[self.len..])?;
            ensure!(count > 0, "the server has closed the connection");
            self.len += count;
        }
        Ok(())
    }

    /// The bodies of the replies, without runs.
    fn bodies(&self) -> impl Iterator<Item = Result<Vec<u8>>> + '_ {
        let frames = self.replies[..self.len].split(|byte| *byte == b'$').skip(1);
        frames.map(|frame| {
            let end = frame.iter().position(|byte| *byte == b'#').context("a reply has no end")?;
            let (body, sum) =
                (&frame[..end], frame.get(end + 1..end + 3).context("a reply has no checksum")?);
            let expected = format!("{:02x}", body.iter().copied().fold(0, u8::wrapping_add));
            ensure!(sum == expected.as_bytes(), "the checksum of a reply is wrong");
            expand_runs(body).context("a run is wrong")
        })
    }
}

/// Repeats what stands before each `*`: the byte behind it, which may be a `*` itself, less 29 says how often.
fn expand_runs(body: &[u8]) -> Option<Vec<u8>> {
    let mut expanded = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(star) = rest.iter().position(|byte| *byte == b'*') {
        expanded.extend(&rest[..star]);
        let count = usize::from(rest.get(star + 1)?.checked_sub(29)?);
        expanded.resize(expanded.len() + count, *expanded.last()?);
        rest = &rest[star + 2..];
    }
    expanded.extend(rest);
    Some(expanded)
}

/// Adds the bytes of pairs of digits.
fn unhex(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let digit = |char: u8| char::from(char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = digits.as_chunks() else { return None };
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(())
}

/// Adds bytes that are escaped by `}`: the next one is XORed with 0x20.
fn unescape(escaped: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let mut pieces = escaped.split(|byte| *byte == b'}');
    bytes.extend(pieces.next()?);
    for piece in pieces {
        let (first, rest) = piece.split_first()?;
        bytes.push(first ^ 0x20);
        bytes.extend(rest);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_digits_and_escapes() {
        assert_eq!(expand_runs(b"0* 1**2").as_deref(), Some(&b"0000111111111111112"[..]));
        assert_eq!(expand_runs(b"*!"), None);
        let mut bytes = Vec::new();
        unhex(b"00fF", &mut bytes).expect("digits");
        unescape(b"a}\x03}\x5d", &mut bytes).expect("escapes");
        assert_eq!(bytes, b"\0\xffa#}");
        assert_eq!((unhex(b"0", &mut bytes), unescape(b"}", &mut bytes)), (None, None));
    }
}
