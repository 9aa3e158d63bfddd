//! `PACKETS.md` says what the table says, and what a target without any extension answers.

use crate::table::{PACKETS, Packet};
use crate::{Engine, Error, Presence, Status, Stop, StopReason, Target, ThreadId, buffer_len};
use std::string::String;
use std::vec;
use std::vec::Vec;

const DOCUMENT: &str = include_str!("../PACKETS.md");

/// The cells of each row that begins with a packet.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

fn parts() -> (&'static str, &'static str) {
    DOCUMENT.split_once("# Answered empty").expect("there is such a part")
}

#[test]
fn every_packet_is_there() {
    let documented: Vec<_> = rows(parts().0).map(|row| (row[0], row[1])).collect();
    let known: Vec<_> = PACKETS.iter().map(|packet| (packet.name, packet.parameters)).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_others_are_not_known() {
    let lines = parts().1.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = lines.filter_map(|line| line.split('|').next());
    let names: Vec<_> =
        cells.flat_map(|cell| cell.split(", ").map(|name| name.trim().trim_matches('`'))).collect();
    assert!(names.len() > 50);
    for name in names {
        assert!(Packet::find(name.as_bytes()).is_none(), "{name}");
    }
}

/// As little as a target can be.
struct Bare;

const VCPU: ThreadId = ThreadId::of_vcpu(0);

impl Target for Bare {
    fn thread(&self, index: usize) -> Option<ThreadId> {
        (index == 0).then_some(VCPU)
    }
    fn stop(&self) -> Stop {
        Stop { thread: VCPU, reason: StopReason::TRAP }
    }
    fn description(&self, _: u32, annex: &str) -> Option<&[u8]> {
        (annex == "target.xml").then_some(b"<target/>")
    }
    fn g_count(&self, _: ThreadId) -> u32 {
        1
    }
    fn register_len(&self, _: ThreadId, number: u32) -> Option<usize> {
        (number == 0).then_some(1)
    }
    fn read_register(&mut self, _: ThreadId, _: u32, value: &mut [u8]) -> Result<Presence, Error> {
        value.fill(1);
        Ok(Presence::Known)
    }
    fn expedited(&self, _: ThreadId) -> &[u32] {
        &[0]
    }
    fn read_memory(&mut self, _: ThreadId, _: u64, buf: &mut [u8]) -> Result<usize, Error> {
        buf.fill(2);
        Ok(buf.len())
    }
}

/// A packet of its form that makes sense.
fn example(packet: &Packet) -> String {
    let mut example = String::from(packet.name);
    let pattern = packet.parameters.replace(['[', ']'], "");
    let mut rest = &*pattern;
    while let Some(mark) = rest.chars().next() {
        let len = rest.find(|char: char| !char.is_alphabetic()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(len.max(1));
        rest = behind;
        match word {
            "annex" if packet.name == "qXfer:features:read" => example.push_str("target.xml"),
            // Conditions are not for us; a client that does not say that it may names no thread here.
            "annex" | "more" | "suffix" => {}
            "thread" if packet.name == "H" => example.push_str("g1"),
            "actions" => example.push('c'),
            "values" | "value" | "digits" | "path" | "command" | "tags" | "signal" => example.push_str("05"),
            "kind" | "number" | "register" | "mode" | "flags" if mark.is_alphabetic() => example.push('0'),
            "flag" => example.push('C'),
            word if mark.is_alphabetic() => example.push_str(if word == "offset" { "0" } else { "1" }),
            mark => example.push_str(mark),
        }
    }
    String::from(example.trim_end_matches(';'))
}

#[test]
fn a_need_that_is_not_met_is_said() {
    for (row, packet) in rows(parts().0).zip(PACKETS) {
        let mut engine = Engine::new(vec![0; buffer_len(1024)]);
        let mut replies = Vec::new();
        let mut ask = |body: &str| {
            let sum = body.bytes().fold(0u8, u8::wrapping_add);
            let frame = std::format!("${body}#{sum:02x}");
            replies.clear();
            engine.receive(frame.as_bytes(), &mut Bare, &mut |bytes| replies.extend_from_slice(bytes));
            let reply = String::from_utf8(replies.clone()).expect("text");
            let body = reply.split_once('$').and_then(|(_, body)| body.split_once('#'));
            (body.map(|(body, _)| String::from(body)), engine.status())
        };
        let example = example(packet);
        let (reply, status) = ask(&example);
        let reply = reply.as_deref();
        let is_refused = matches!(reply, Some("" | "E01"))
            || (packet.name == "F" && reply == Some("E22"))
            || (packet.name == "R" && reply.is_none());
        let is_met = row[3].is_empty();
        assert_eq!(is_refused, !is_met, "{example} is answered by {reply:?}");
        let has_failed = reply.is_some_and(|reply| reply.starts_with('E'));
        assert!(!is_met || !has_failed, "{example} is answered by {reply:?}");
        assert_eq!(status == Status::Closed, packet.name == "k", "{example}");
    }
}
