//! What QEMU's gdb stub says of the registers: a small reader of the tests' own.
//!
//! Source: gdb's manual, appendices "Remote Protocol" and "Target Descriptions"; `spec/gdb-rsp.md`.

use super::core_file::Order;
use crate::guest::Guest;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(60);

/// A register of the target description.
#[derive(Debug)]
struct Described {
    feature: String,
    name: String,
    number: u32,
}

/// One register of a vCPU.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// The feature that it belongs to, as in `org.gnu.gdb.i386.core`.
    pub(crate) feature: String,
    /// Hexadecimal digits without leading zeros.
    pub(crate) hex: String,
}

/// The registers of each vCPU by their names in small letters. The guest must be stopped, and stays so.
pub(crate) fn registers(
    guest: &mut Guest,
    socket: &Path,
    order: Order,
) -> Result<Vec<BTreeMap<String, Value>>> {
    let mut human =
        |line: String| guest.qmp.execute("human-monitor-command", json!({ "command-line": line })).map(drop);
    human(format!("gdbserver unix:{},server=on,wait=off", socket.display()))?;
    let result = Stub::new(socket).and_then(|mut stub| stub.registers(order));
    human("gdbserver none".to_owned())?;
    result.context("QEMU's gdb stub")
}

struct Stub {
    stream: UnixStream,
}

impl Stub {
    fn new(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self { stream })
    }

    fn registers(&mut self, order: Order) -> Result<Vec<BTreeMap<String, Value>>> {
        // Without the description QEMU numbers the registers in an older way.
        let described = self.described()?;
        let threads = self.threads()?;
        let mut vcpus = Vec::new();
        for thread in threads {
            ensure!(self.ask(&format!("Hg{thread}"))? == "OK", "there is no thread {thread}");
            let mut vcpu = BTreeMap::new();
            for register in &described {
                let reply = self.ask(&format!("p{:x}", register.number))?;
                // Registers that this vCPU does not have are described all the same.
                if reply.is_empty() || reply.starts_with('E') {
                    continue;
                }
                let value = Value { feature: register.feature.clone(), hex: number(&reply, order)? };
                // ppc64 describes LR, CTR and XER again among the SPRs, where QEMU does not keep them: they read as zero.
                vcpu.entry(register.name.to_lowercase()).or_insert(value);
            }
            vcpus.push(vcpu);
        }
        Ok(vcpus)
    }

    fn described(&mut self) -> Result<Vec<Described>> {
        let target = self.file("target.xml")?;
        let (mut described, mut next) = (Vec::new(), 0);
        for include in tags(&target, "xi:include") {
            let name = attribute(include, "href").context("an include has no href")?;
            let text = self.file(&name)?;
            let feature = tags(&text, "feature").next().and_then(|feature| attribute(feature, "name"));
            let feature = feature.with_context(|| format!("{name} has no feature"))?;
            for register in tags(&text, "reg") {
                let given = attribute(register, "regnum").map(|number| number.parse()).transpose()?;
                let name = attribute(register, "name").context("a register has no name")?;
                let number = given.unwrap_or(next);
                next = number + 1;
                described.push(Described { feature: feature.clone(), name, number });
            }
        }
        ensure!(!described.is_empty(), "no registers are described: {target}");
        Ok(described)
    }

    fn threads(&mut self) -> Result<Vec<String>> {
        let (mut threads, mut reply) = (Vec::new(), self.ask("qfThreadInfo")?);
        while let Some(list) = reply.strip_prefix('m') {
            threads.extend(list.split(',').map(str::to_owned));
            reply = self.ask("qsThreadInfo")?;
        }
        Ok(threads)
    }

    /// A file of the target description.
    fn file(&mut self, name: &str) -> Result<String> {
        let mut text = String::new();
        loop {
            let part = self.ask(&format!("qXfer:features:read:{name}:{:x},400", text.len()))?;
            let (is_last, rest) = match part.split_at_checked(1) {
                Some(("l", rest)) => (true, rest),
                Some(("m", rest)) if !rest.is_empty() => (false, rest),
                _ => bail!("{name}: {part}"),
            };
            text.push_str(rest);
            if is_last {
                return without_comments(&text);
            }
        }
    }

    /// Sends a packet and gives the reply to it.
    fn ask(&mut self, request: &str) -> Result<String> {
        let sum = request.bytes().fold(0, u8::wrapping_add);
        self.stream.write_all(format!("${request}#{sum:02x}").as_bytes())?;
        loop {
            let reply = self.packet().with_context(|| request.to_owned())?;
            self.stream.write_all(b"+")?;
            // QEMU 7.2 says without being asked that the guest stands still.
            if !reply.starts_with(['T', 'S']) {
                return Ok(reply);
            }
        }
    }

    fn packet(&mut self) -> Result<String> {
        while self.byte()? != b'$' {}
        let mut payload = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                b'}' => payload.push(self.byte()? ^ 0x20),
                byte => payload.push(byte),
            }
        }
        // A stream that is reliable needs no check of the sum.
        let _sum = [self.byte()?, self.byte()?];
        Ok(String::from_utf8(payload)?)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

/// The digits of a number that the stub sends as bytes in the guest's order.
fn number(bytes: &str, order: Order) -> Result<String> {
    ensure!(bytes.is_ascii() && bytes.len().is_multiple_of(2), "a register is {bytes}");
    let mut pairs: Vec<&str> = (0..bytes.len()).step_by(2).map(|at| &bytes[at..at + 2]).collect();
    if order == Order::Little {
        pairs.reverse();
    }
    Ok(pairs.concat().trim_start_matches('0').to_owned())
}

/// QEMU's files have registers in comments.
fn without_comments(text: &str) -> Result<String> {
    let mut parts = text.split("<!--");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once("-->").context("a comment does not end")?.1);
    }
    Ok(kept)
}

/// The insides of all tags of that name.
fn tags<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let open = format!("<{name} ");
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(&open)?;
        let (tag, behind) = behind.split_once('>')?;
        rest = behind;
        Some(tag)
    })
}

/// The value of an attribute inside a tag.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let spaced = format!(" {tag}");
    let (_, value) = spaced.split_once(&format!(" {name}="))?;
    let quote = value.chars().next()?;
    value[1..].split(quote).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read() {
        let text = r#"<feature name="org.x"><reg name="pc" bitsize='64' regnum="3"/><vector id="v"/>
            <reg name="lr" bitsize="64"/></feature>"#;
        let names: Vec<_> = tags(text, "reg").filter_map(|tag| attribute(tag, "name")).collect();
        assert_eq!(names, ["pc", "lr"]);
        let first = tags(text, "reg").next().unwrap();
        assert_eq!(attribute(first, "regnum").as_deref(), Some("3"));
        assert_eq!(attribute(first, "bitsize").as_deref(), Some("64"));
        assert_eq!(attribute(first, "type"), None);
        assert_eq!(without_comments("a<!-- <reg/> -->b<!---->c").unwrap(), "abc");
    }

    #[test]
    fn a_number_has_the_order_of_the_guest() {
        assert_eq!(number("0012ab00", Order::Big).unwrap(), "12ab00");
        assert_eq!(number("0012ab00", Order::Little).unwrap(), "ab1200");
        assert_eq!(number("0000", Order::Big).unwrap(), "");
    }
}
