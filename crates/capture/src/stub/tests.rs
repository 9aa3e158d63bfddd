use super::*;
use crate::fake;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vmcore_arch_x86_64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Gpa, arch};

const RIP: u64 = 0xffff_ffff_8123_4567;
const EFER: u64 = 0xd01;

/// A machine of two vCPUs of which the instruction pointer is known.
fn machine() -> Machine {
    let arch = arch::by_name("x86_64").unwrap();
    let mut registers = RegisterFile::new(arch.registers());
    registers.set_value("rip", RIP);
    let memory = BlockMemory::new(vec![(Gpa(0), vec![0; 0x1000])]).unwrap();
    Machine::new(arch, Arc::new(memory), vec![registers.clone(), registers])
}

/// A stub that answers each request.
fn stub(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Connection {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        // As QEMU 7.2 greets.
        let _ = theirs.write_all(b"$T02thread:01;#04");
        let mut requests = BufReader::new(theirs.try_clone().unwrap());
        let (mut request, mut byte) = (Vec::new(), [0]);
        while let Ok(1) = requests.read(&mut byte) {
            request.push(byte[0]);
            let Some(start) = request.iter().position(|byte| *byte == b'$') else { continue };
            let Some(end) = request.iter().position(|byte| *byte == b'#') else { continue };
            if request.len() < end + 3 {
                continue;
            }
            let Some(reply) = answer(std::str::from_utf8(&request[start + 1..end]).unwrap()) else { return };
            let sum = reply.bytes().fold(0, u8::wrapping_add);
            let _ = theirs.write_all(format!("+${reply}#{sum:02x}").as_bytes());
            request.clear();
        }
    });
    Connection::new(ours).unwrap()
}

/// What a stub of two vCPUs says that gives registers in this order of bytes.
fn usual(request: &str, bytes: fn(u64) -> [u8; 8]) -> String {
    let hex = |value| bytes(value).map(|byte| format!("{byte:02x}")).concat();
    match request {
        "qXfer:features:read:target.xml:0,7f0" => {
            "m<target><feature name=\"a\"><reg name=\"rip\" bitsize=\"64\"/>".to_owned()
        }
        _ if request.starts_with("qXfer") => {
            "l<reg name=\"EFER\" regnum=\"40\"/><reg name=\"cr8\"/></feature></target>".to_owned()
        }
        "qfThreadInfo" => "m01".to_owned(),
        "qsThreadInfo" => "m02".to_owned(),
        "p0" => hex(RIP),
        "p28" => hex(EFER),
        "p29" => "xxxxxxxxxxxxxxxx".to_owned(),
        _ if request.starts_with("Hg") => "OK".to_owned(),
        _ => String::new(),
    }
}

#[test]
fn registers_are_added_in_either_byte_order() {
    for bytes in [u64::to_le_bytes, u64::to_be_bytes] {
        let mut machine = machine();
        // A list of threads ends with `l`.
        let asked = std::sync::Mutex::new(0);
        let mut stub = stub(move |request| {
            if request == "qsThreadInfo" {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                return Some(if *asked == 1 { "m02" } else { "l" }.to_owned());
            }
            Some(usual(request, bytes))
        });
        assert_eq!(read(&mut machine, &mut stub, Choice::Missing).unwrap(), 0);
        for vcpu in &machine.vcpus {
            let registers = vcpu.registers();
            let values = ["rip", "efer", "cr8"].map(|name| registers.value(name));
            assert_eq!(values, [Some(RIP), Some(EFER), None]);
        }
    }
}

/// Each reply is that of its request, also where there are more than are sent at once.
#[test]
fn replies_come_in_the_order_of_requests() {
    let mut stub = stub(|request| Some(format!("{request}-reply")));
    let requests: Vec<String> = (0..1000).map(request).collect();
    let replies = stub.ask_all(&requests).unwrap();
    let expected: Vec<String> = requests.iter().map(|request| format!("{request}-reply")).collect();
    assert_eq!(replies, expected);
    assert_eq!(stub.ask("?").unwrap(), "?-reply");
}

#[test]
fn another_state_is_not_taken() {
    let mut machine = machine();
    let mut stub = stub(|request| {
        Some(match request {
            "p0" => "0100000000000000".to_owned(),
            "qfThreadInfo" => "m01,02".to_owned(),
            "qsThreadInfo" => "l".to_owned(),
            _ => usual(request, u64::to_le_bytes),
        })
    });
    assert_eq!(read(&mut machine, &mut stub, Choice::Missing).unwrap(), 2);
    assert_eq!(machine.vcpus[0].registers().value("efer"), None);
}

#[test]
fn a_stub_that_makes_no_sense_is_an_error() {
    type Answer = fn(&str) -> Option<String>;
    let cases: [(Answer, &str); 4] = [
        (|_| None, "before it answered `qSupported"),
        (|_| Some("E01".to_owned()), "0 threads, where the notes are of 2 vCPUs"),
        (|request| Some(if request.starts_with("Hg") { "E22" } else { "m1,2" }.to_owned()), "threads"),
        (|_| Some("*".to_owned()), "is not understood"),
    ];
    for (answer, message) in cases {
        let error = read(&mut machine(), &mut stub(answer), Choice::Missing).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_stub_that_somebody_uses_is_left_alone() {
    let server = fake::server(|mut peer| {
        peer.greet();
        let request = peer.request();
        assert_eq!(request["execute"], "query-chardev");
        let devices =
            serde_json::json!([{ "label": "gdb", "filename": "disconnected:tcp:127.0.0.1:1234,server=on" }]);
        peer.answer(&request, &devices);
        assert_eq!(peer.rest(), b"");
    });
    let mut qmp = Qmp::connect(&server.address).unwrap();
    let warning = add(&mut machine(), &mut qmp, Choice::Missing).unwrap().unwrap();
    assert!(warning.contains("its gdb stub is in use"), "{warning}");
}

/// Opens a stub, with which these events come, and closes it. What is asked behind that is for `then`.
fn opened(events: &'static [&str], then: impl FnOnce(&mut fake::Peer) + Send + 'static) {
    let server = fake::server(move |mut peer| {
        peer.greet();
        let request = peer.request();
        peer.answer(&request, &serde_json::json!([]));
        let (request, socket) = peer.request_with_fd();
        assert_eq!(request["execute"], "getfd");
        peer.answer(&request, &serde_json::json!({}));
        let request = peer.request();
        assert_eq!(request["arguments"]["backend"]["data"]["addr"]["data"]["str"], "vmcore-gdb");
        peer.answer(&request, &serde_json::json!({}));
        let request = peer.request();
        assert_eq!(request["arguments"]["command-line"], "gdbserver chardev:vmcore-gdb");
        // It ends before it has said a word.
        drop(socket);
        for (millis, event) in (0..).zip(events) {
            peer.event(event, millis, &serde_json::json!({}));
        }
        peer.answer(&request, &serde_json::json!(""));
        let request = peer.request();
        assert_eq!(request["arguments"]["command-line"], "gdbserver none");
        peer.answer(&request, &serde_json::json!("Disabled gdbserver\r\n"));
        then(&mut peer);
    });
    let mut qmp = Qmp::connect(&server.address).unwrap();
    let warning = add(&mut machine(), &mut qmp, Choice::Missing).unwrap().unwrap();
    assert!(warning.starts_with("registers that QEMU's notes lack are missing"), "{warning}");
}

#[test]
fn the_stub_is_opened_on_a_socket_that_is_passed_and_closed_again() {
    for events in [&[][..], &["STOP"], &["STOP", "RESUME"]] {
        opened(events, |peer| assert_eq!(peer.rest(), b""));
    }
}

#[test]
fn a_guest_that_the_stub_has_stopped_is_started() {
    opened(&["STOP", "RESUME", "STOP"], |peer| {
        let request = peer.request();
        assert_eq!(request["execute"], "cont");
        peer.answer(&request, &serde_json::json!({}));
    });
}
