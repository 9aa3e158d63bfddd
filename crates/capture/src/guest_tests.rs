//! The conversation with a scripted QEMU, whose process is this one and whose guest has a vector for RAM.

use super::*;
use crate::fake::{Peer, Server, server};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Class, DumpOptions, DumpState, Endianness, ExecuteOptions, Gpa, Identity, StreamSink, execute,
};
use vmcore_format_elf as _;

const RAM_LEN: usize = 8 << 20;

/// The guest's RAM, at address 0; the byte at each multiple of 64 KiB is the number of the multiple.
fn ram() -> &'static [u8] {
    let mut ram = vec![0; RAM_LEN];
    for (number, at) in (1..).zip((0..RAM_LEN).step_by(1 << 16)) {
        ram[at] = number;
    }
    ram.leak()
}

/// What QEMU would dump of a guest with RAM in these places.
fn core(regions: &[(u64, usize)]) -> Vec<u8> {
    let identity =
        Identity { elf_machine: 0xdead, class: Class::Elf64, endianness: Endianness::Little, elf_flags: 0 };
    let blocks = regions.iter().map(|(gpa, len)| (Gpa(*gpa), vec![0; *len])).collect();
    let machine = Machine::from_notes(identity, Arc::new(BlockMemory::new(blocks).unwrap()), Vec::new());
    let layout = format::by_name("elf").unwrap().plan(&machine, &DumpOptions::default()).unwrap();
    let mut bytes = Vec::new();
    let sink = StreamSink::new(&mut bytes);
    execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default()).unwrap();
    bytes
}

/// How the scripted QEMU differs from a good one.
#[derive(Clone)]
struct Script {
    ram: &'static [u8],
    /// State before, and afterwards if it is not the same.
    states: [&'static str; 2],
    /// State while the dump is written.
    held: &'static str,
    /// What is dumped.
    core: Vec<u8>,
    /// Whether it starts the guest when the dump ends.
    resumes: bool,
    /// Commands that are refused, with the reason.
    refused: &'static [(&'static str, &'static str)],
    /// What `qom-get` says of the guest.
    confidential: &'static str,
    /// Command or event at which the connection ends.
    ends_at: &'static str,
}

impl Script {
    fn good() -> Self {
        Self {
            ram: ram(),
            states: ["running", "running"],
            held: "save-vm",
            core: core(&[(0, RAM_LEN)]),
            resumes: true,
            refused: &[],
            confidential: "",
            ends_at: "",
        }
    }
}

/// What the scripted QEMU was asked, for assertions.
type Log = Arc<Mutex<Vec<String>>>;

fn qemu(script: Script) -> (Server, Log) {
    let log = Log::default();
    let log_of_server = Arc::clone(&log);
    (server(move |peer| serve(peer, &script, &log_of_server)), log)
}

fn serve(mut peer: Peer, script: &Script, log: &Log) {
    let running = Arc::new(Mutex::new(script.states[0]));
    let mut passed = None;
    peer.greet();
    while let Some((request, fd)) = peer.next_request() {
        let command = request["execute"].as_str().unwrap().to_owned();
        let arguments = &request["arguments"];
        log.lock().unwrap().push(command.clone());
        if command == script.ends_at {
            return;
        }
        if let Some((_, reason)) = script.refused.iter().find(|(refused, _)| *refused == command) {
            peer.refuse(&request, reason);
            continue;
        }
        let ok = serde_json::json!({});
        let state = *running.lock().unwrap();
        let answer = match command.as_str() {
            "query-status" => serde_json::json!({ "status": state, "running": state == "running" }),
            "query-target" => serde_json::json!({ "arch": "x86_64" }),
            "query-cpus-fast" => serde_json::json!([{ "thread-id": std::process::id() }]),
            "query-dump" => serde_json::json!({ "status": "none" }),
            "qom-get" => Value::from(script.confidential),
            "human-monitor-command" => human(script, arguments["command-line"].as_str().unwrap()),
            "getfd" => {
                passed = fd;
                ok
            }
            "cont" => {
                *running.lock().unwrap() = "running";
                ok
            }
            "closefd" => ok,
            "dump-guest-memory" => {
                let write_end = passed.take().unwrap();
                if state == "running" {
                    *running.lock().unwrap() = script.held;
                    peer.event("STOP", 10, &Value::Null);
                }
                peer.answer(&request, &ok);
                dump(peer.twin(), script.clone(), File::from(write_end), Arc::clone(&running));
                continue;
            }
            _ => {
                peer.refuse(&request, "no such command");
                continue;
            }
        };
        peer.answer(&request, &answer);
    }
}

fn dump(mut peer: Peer, script: Script, mut pipe: File, running: Arc<Mutex<&'static str>>) {
    std::thread::spawn(move || {
        let is_complete = pipe.write_all(&script.core).is_ok();
        drop(pipe);
        let data = serde_json::json!({ "error": if is_complete { "cut off" } else { "Broken pipe" } });
        peer.event("DUMP_COMPLETED", 30, &data);
        if script.ends_at == "RESUME" {
            return peer.close();
        }
        if script.states[0] == "running" && script.resumes {
            *running.lock().unwrap() = script.states[1];
            peer.event("RESUME", 35, &Value::Null);
        }
    });
}

fn human(script: &Script, line: &str) -> Value {
    let end = RAM_LEN - 1;
    let text = if line == "info mtree -f" {
        format!(
            "FlatView #0\r\n AS \"memory\", root: system\r\n  0000000000000000-{end:016x} (prio 0, ram): pc.ram\r\n"
        )
    } else if let Some(gpa) = line.strip_prefix("gpa2hva 0x") {
        let gpa = usize::from_str_radix(gpa, 16).unwrap();
        match script.ram.get(gpa) {
            Some(byte) => format!("Host virtual address for {gpa:#x} (pc.ram) is {:p}\r\n", &raw const *byte),
            None => format!("No memory is mapped at address {gpa:#x}\r\n"),
        }
    } else {
        format!("unknown command: '{line}'\r\n")
    };
    Value::from(text)
}

fn attach(server: &Server) -> Result<QemuGuest, CaptureError> {
    QemuGuest::attach(&server.address, &AttachOptions::default())
}

/// An error with its reasons.
fn text(error: &Error) -> String {
    crate::transport::chain(error)
}

fn count(log: &Log, command: &str) -> usize {
    log.lock().unwrap().iter().filter(|found| *found == command).count()
}

#[test]
fn a_running_guest_is_held_read_and_let_go() {
    let script = Script::good();
    let ram = script.ram;
    let (server, log) = qemu(script);
    let mut guest = attach(&server).unwrap();
    let description = guest.description();
    assert!(description.contains("x86_64, 1 vCPUs, 8 MiB of memory, running, process"), "{description}");
    assert_eq!(guest.estimate().ram_len(), RAM_LEN as u64);
    for _ in 0..2 {
        let machine = guest.hold().unwrap();
        assert_eq!(machine.memory.regions().len(), 1);
        let mut buf = vec![0; RAM_LEN];
        assert!(machine.memory.read_at(Gpa(0), &mut buf).unwrap().is_empty());
        assert!(buf == ram);
        let released = guest.release().unwrap();
        assert_eq!(released.pause, Some(Duration::from_millis(25)));
        assert_eq!((released.state.as_str(), released.is_expired), ("running", false));
        assert_eq!(released.warnings, [""; 0]);
        assert_eq!(guest.release().unwrap(), released, "the second time tells the same");
        // Memory may be read on: that is what who releases first wants.
        assert!(machine.memory.read_at(Gpa(0), &mut buf).is_ok());
    }
    drop(guest);
    assert_eq!((count(&log, "getfd"), count(&log, "closefd"), count(&log, "cont")), (2, 0, 0));
}

#[test]
fn a_guest_that_was_paused_stays_paused() {
    let (server, _) = qemu(Script { states: ["paused", "paused"], ..Script::good() });
    let mut guest = attach(&server).unwrap();
    guest.hold().unwrap();
    let released = guest.release().unwrap();
    assert_eq!((released.pause, released.state.as_str()), (None, "paused"));
    assert_eq!(released.warnings, [""; 0]);
}

#[test]
fn the_longest_pause_ends_the_hold() {
    let (server, _) = qemu(Script::good());
    let options = AttachOptions { max_pause: Some(Duration::from_millis(300)), ..AttachOptions::default() };
    let mut guest = QemuGuest::attach(&server.address, &options).unwrap();
    let machine = guest.hold().unwrap();
    // The monitor tells when the guest was let go; nothing here waits for a time of its own.
    assert!(guest.qmp.wait_for("RESUME", Instant::now() + Duration::from_secs(20)).unwrap());
    let error = machine.memory.read_at(Gpa(0), &mut [0]).unwrap_err();
    assert!(text(&error).contains("--max-pause"), "{}", text(&error));
    assert!(guest.release().unwrap().is_expired);
}

#[test]
fn a_map_that_changed_is_looked_up_again() {
    let regions = [(0, 0x10_0000), (0x20_0000, 0x10_0000)];
    let script = Script { core: core(&regions), ..Script::good() };
    let ram = script.ram;
    let (server, _) = qemu(script);
    let mut guest = attach(&server).unwrap();
    let machine = guest.hold().unwrap();
    let found: Vec<_> = machine.memory.regions().iter().map(|region| (region.gpa.0, region.len)).collect();
    assert_eq!(found, [(0, 0x10_0000), (0x20_0000, 0x10_0000)]);
    let mut buf = vec![0; 0x10_0000];
    machine.memory.read_at(Gpa(0x20_0000), &mut buf).unwrap();
    assert!(buf == ram[0x20_0000..0x30_0000]);
}

#[test]
fn memory_that_cannot_be_found_is_an_error_and_the_guest_runs_on() {
    let (server, log) = qemu(Script { core: core(&[(0, RAM_LEN), (1 << 32, 0x1000)]), ..Script::good() });
    let mut guest = attach(&server).unwrap();
    let error = text(&guest.hold().unwrap_err());
    assert!(error.contains("guest memory at 0x100000000, 0x1000 bytes"), "{error}");
    assert!(error.contains("No memory is mapped at address 0x100000000"), "{error}");
    let released = guest.release().unwrap();
    assert_eq!((released.state.as_str(), count(&log, "cont")), ("running", 0));
}

#[test]
fn a_dump_that_ends_too_early_says_why() {
    let (server, _) = qemu(Script { core: core(&[(0, RAM_LEN)])[..70].to_vec(), ..Script::good() });
    let mut guest = attach(&server).unwrap();
    let error = text(&guest.hold().unwrap_err());
    assert!(error.contains("before the headers were complete: cut off: program headers at"), "{error}");
    assert_eq!(guest.release().unwrap().state, "running");
}

#[test]
fn a_dump_that_is_no_core_is_refused() {
    let (server, _) = qemu(Script { core: vec![0x5a; 1 << 20], ..Script::good() });
    let error = text(&attach(&server).unwrap().hold().unwrap_err());
    assert!(error.contains("ELF identification"), "{error}");
}

#[test]
fn a_refused_dump_leaves_nothing_behind() {
    let refused = &[("dump-guest-memory", "this feature or command is not currently supported")];
    let (server, log) = qemu(Script { refused, ..Script::good() });
    let mut guest = attach(&server).unwrap();
    let error = text(&guest.hold().unwrap_err());
    assert!(error.contains("not currently supported"), "{error}");
    assert_eq!((guest.release().unwrap().state.as_str(), count(&log, "closefd")), ("running", 1));
}

#[test]
fn a_guest_that_qemu_does_not_start_is_started() {
    let (server, log) = qemu(Script { resumes: false, ..Script::good() });
    let mut guest = attach(&server).unwrap();
    guest.hold().unwrap();
    // Not the 15 seconds that a real guest is given.
    let mut hold = guest.hold.take().unwrap();
    hold.let_go();
    let released = hold.settle_within(&mut guest.qmp, None, Duration::from_millis(200)).unwrap();
    assert_eq!((released.state.as_str(), count(&log, "cont")), ("running", 1));
    assert!(released.warnings[0].contains("it was started by `cont`"), "{:?}", released.warnings);
}

#[test]
fn a_guest_whose_qemu_has_ended_is_gone() {
    let mut ended = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let process = Process::open(i32::try_from(ended.id()).unwrap()).unwrap();
    drop(ended.stdin.take());
    ended.wait().unwrap();
    for (process, state, said) in [
        (Some(&process), "gone", "QEMU has ended"),
        (None, "unknown", "whether the guest runs again was not seen"),
    ] {
        let (server, _) = qemu(Script { ends_at: "RESUME", ..Script::good() });
        let mut guest = attach(&server).unwrap();
        guest.hold().unwrap();
        let mut hold = guest.hold.take().unwrap();
        hold.let_go();
        let released = hold.settle_within(&mut guest.qmp, process, Duration::from_millis(200)).unwrap();
        assert_eq!(released.state, state);
        assert!(released.warnings[0].contains(said), "{:?}", released.warnings);
    }
}

#[test]
fn a_guest_that_stops_by_itself_is_left_alone() {
    let (server, log) = qemu(Script { states: ["running", "guest-panicked"], ..Script::good() });
    let mut guest = attach(&server).unwrap();
    guest.hold().unwrap();
    let released = guest.release().unwrap();
    assert_eq!((released.state.as_str(), count(&log, "cont")), ("guest-panicked", 0));
    assert_eq!(released.warnings.len(), 1);
}

#[test]
fn a_guest_that_somebody_else_stopped_is_left_alone() {
    // The state of every answer is that of the moment: it is `running` until the dump begins, and then not `save-vm`.
    let (server, log) =
        qemu(Script { held: "paused", resumes: false, states: ["running", "paused"], ..Script::good() });
    let mut guest = attach(&server).unwrap();
    guest.hold().unwrap();
    let released = guest.release().unwrap();
    assert_eq!((released.state.as_str(), count(&log, "cont")), ("paused", 0));
    assert_eq!(released.warnings, [""; 0]);
}

#[test]
fn a_monitor_that_goes_away_is_no_harm_once_the_pipe_is_closed() {
    let (server, _) = qemu(Script { ends_at: "human-monitor-command", ..Script::good() });
    assert!(matches!(attach(&server), Err(CaptureError::Closed { .. })));
    let (server, _) = qemu(Script { ends_at: "dump-guest-memory", ..Script::good() });
    let mut guest = attach(&server).unwrap();
    let error = text(&guest.hold().unwrap_err());
    assert!(error.contains("closed the connection before it answered `dump-guest-memory`"), "{error}");
}

#[test]
fn guests_that_cannot_be_dumped_are_refused_before_they_are_stopped() {
    let check = |script: Script, expected: &str| {
        let (server, log) = qemu(script);
        let error = attach(&server).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(count(&log, "dump-guest-memory"), 0);
    };
    check(Script { states: ["inmigrate"; 2], ..Script::good() }, "still arriving");
    check(Script { confidential: "/objects/sev0", ..Script::good() }, "/objects/sev0");
    check(Script { ram: &[], ..Script::good() }, "no memory that can be dumped");
}

#[test]
fn a_passed_pipe_that_is_refused_becomes_a_fifo() {
    let (server, _) = qemu(Script { refused: &[("getfd", "no")], ..Script::good() });
    let guest = attach(&server).unwrap();
    let protocol = guest.transport.as_ref().unwrap().protocol();
    let path = protocol.strip_prefix("file:").unwrap().to_owned();
    assert!(std::fs::exists(&path).unwrap());
    drop(guest);
    assert!(!std::fs::exists(&path).unwrap());
}

#[test]
fn dropping_a_guest_lets_it_go() {
    let (server, log) = qemu(Script::good());
    let mut guest = attach(&server).unwrap();
    let machine = guest.hold().unwrap();
    drop(guest);
    // The last question is whether it runs.
    assert_eq!(log.lock().unwrap().last().map(String::as_str), Some("query-status"));
    drop(machine);
}
