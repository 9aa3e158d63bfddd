//! `vmcore gdb` as its clients meet it, on the demo guest.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::{fs, iter, thread};
use vmcore::{DumpOptions, DumpState, ExecuteOptions, FileSink, execute, format};

/// A packet that asks why the target stands still.
const WHY: &[u8] = b"$?#3f";

fn vmcore() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmcore"))
}

fn demo(folder: &Path) -> String {
    let dump = folder.join("demo.vmcore").display().to_string();
    assert!(vmcore().args(["capture", "demo:x86_64", "-q", "-o", &dump]).status().unwrap().success());
    dump
}

/// Starts a server and gives the address that it tells gdb, and what else it says.
fn serve(command: &mut Command) -> (Child, String, BufReader<ChildStderr>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut says = BufReader::new(child.stderr.take().unwrap());
    let place = says
        .by_ref()
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("target remote ").map(|(_, address)| address.to_owned()));
    match place {
        Some(address) => (child, address, says),
        None => panic!("it does not listen: {}", child.wait().unwrap()),
    }
}

/// Asks for the stop reply, and reads to its beginning.
fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(WHY).unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).unwrap();
    String::from_utf8(reply.to_vec()).unwrap()
}

#[test]
fn clients_for_whom_there_is_no_room_do_not_end_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let dump = demo(folder.path());
    let mut shell = Command::new("sh");
    // A client needs two files.
    shell.args(["-c", "ulimit -n 24; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_vmcore")]);
    let (mut server, address, says) = serve(shell.args(["gdb", &dump, "--listen", "127.0.0.1:0"]));
    let crowd: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut lines = says.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("cannot be served: Too many open files")));
    drop(crowd);
    let reader = thread::spawn(move || lines.for_each(drop));
    assert_eq!(ask(TcpStream::connect(&address).unwrap()), "+$T05");
    server.kill().unwrap();
    server.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_socket_goes_with_its_server_and_the_second_client_of_one_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let dump = demo(folder.path());
    let path = folder.path().join("gdb.sock");
    let listen = format!("unix:{}", path.display());
    let (mut server, address, _says) = serve(vmcore().args(["gdb", &dump, "--once", "--listen", &listen]));
    assert_eq!(Path::new(&address), path);
    let stream = UnixStream::connect(&path).unwrap();
    assert_eq!(ask(&stream), "+$T05");
    assert!(UnixStream::connect(&path).is_err(), "nobody will ever serve this client");
    drop(stream);
    assert!(server.wait().unwrap().success());
    assert!(!path.exists());

    let (mut server, ..) = serve(vmcore().args(["gdb", &dump, "--listen", &listen]));
    let id = server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(server.wait().unwrap().code(), Some(130), "as all that is interrupted");
    assert!(!path.exists());
}

/// Serves standard input, in which there is `input`.
fn on_stdio(args: &[&str], input: &[u8]) -> Output {
    let mut command = vmcore();
    let command = command.args(["gdb", "--stdio"]).args(args).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_user_is_told_the_byte_order_that_gdb_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let guest = vmcore::synth::guest("s390x").unwrap().ram(0..0x1000).vcpu(|_| ());
    let machine = guest.build().unwrap();
    let layout = format::by_name("elf").unwrap().plan(&machine, &DumpOptions::default()).unwrap();
    let (file, options) = (fs::File::create(&dump).unwrap(), ExecuteOptions::default());
    execute(&layout, &*machine.memory, &FileSink(&file), options, &DumpState::default()).unwrap();
    let said = on_stdio(&[dump.to_str().unwrap()], WHY);
    assert!(said.status.success() && said.stdout.starts_with(b"+$T05"));
    assert!(String::from_utf8(said.stderr).unwrap().contains("`set endian big`"));
}

#[test]
fn an_image_of_memory_is_a_thread_without_registers() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, image) = (demo(folder.path()), folder.path().join("image").display().to_string());
    let convert = ["convert", &dump, "-q", "--format", "lime", "-o", &image];
    assert!(vmcore().args(convert).status().unwrap().success());
    let said = on_stdio(&[&image], b"");
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8(said.stderr).unwrap().contains("hint: --arch names"));
    // The demo's VMCOREINFO is a note of its dump alone.
    let note = folder.path().join("vmcoreinfo");
    fs::write(&note, vmcore::synth::demo::machine("x86_64").unwrap().guest_note.unwrap().desc).unwrap();
    let with_note = ["--arch", "x86_64", "--vmcoreinfo", note.to_str().unwrap(), &image];
    let said = on_stdio(&with_note, b"$mffffffff81000000,5#87");
    let replies = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && replies.contains("$48656c6c6f#"), "{replies}");
    let run = |args: &[&str]| vmcore().args(args).args(with_note).output().unwrap();
    let text = run(&["bt"]);
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8(text.stderr).unwrap().contains("it has no registers"));
    let mut read = vmcore();
    read.args(["read", "--raw", "--virt"]).args(with_note).args(["0xffffffff81000000", "5"]);
    assert_eq!(read.output().unwrap().stdout, b"Hello");
}

#[test]
fn a_user_is_told_what_is_wrong_with_a_dump() {
    let folder = tempfile::tempdir().unwrap();
    let dump = demo(folder.path());
    let whole = fs::read(&dump).unwrap();
    let said = on_stdio(&[&dump], WHY);
    assert!(said.status.success() && said.stdout.starts_with(b"+$T05"));
    assert!(!String::from_utf8(said.stderr).unwrap().contains("warning"));
    fs::write(&dump, &whole[..whole.len() / 2]).unwrap();
    let said = on_stdio(&[&dump], WHY);
    assert!(said.status.success() && said.stdout.starts_with(b"+$T05"));
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("vmcore: warning: ") && text.contains("the dump is cut off"), "{text}");
    let said = vmcore().args(["bt", &dump, "--json"]).output().unwrap();
    assert!(String::from_utf8(said.stderr).unwrap().contains("the dump is cut off"));
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert!(json["warnings"][0].as_str().unwrap().contains("the dump is cut off"), "{json}");
}

/// What `monitor` says, in digits.
fn monitor(dump: &str, command: &str) -> String {
    let digits = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let body = format!("qRcmd,{}", digits(command));
    let sum = body.bytes().fold(0_u8, u8::wrapping_add);
    // The last vCPU is the one that gdb has asked for last, as `info threads` does.
    let said = on_stdio(&[dump], format!("$Hgp1.2#53${body}#{sum:02x}").as_bytes());
    assert!(said.status.success());
    let text = String::from_utf8(said.stdout).unwrap();
    let outputs = text.split('$').filter_map(|packet| packet.strip_prefix('O')?.split_once('#'));
    let mut found = String::new();
    for char in outputs.flat_map(|(digits, _)| digits.chars()).filter(|char| *char != 'K') {
        // A run: `*` stands behind its first digit, and before how many more there are, counted from a space on by 3.
        let last = found.pop();
        match last {
            Some('*') => {
                let digit = found.pop().unwrap();
                found.extend(iter::repeat_n(digit, char as usize - 28));
            }
            _ => found.extend(last.into_iter().chain([char])),
        }
    }
    let byte = |at: usize| u8::from_str_radix(&found[at..at + 2], 16).unwrap();
    (0..found.len()).step_by(2).map(|at| char::from(byte(at))).collect()
}

#[test]
fn backtraces_are_of_all_vcpus_or_of_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dump = demo(folder.path());
    let all = monitor(&dump, "bt");
    assert!(all.starts_with("vCPU 0\n") && all.contains("\n\nvCPU 1\n"), "{all}");
    let one = monitor(&dump, "bt 0");
    assert!(all.starts_with(&one) && !one.contains("vCPU 1"), "{one}");
    for wrong in ["bt 2", "bt -1", "bt all"] {
        assert_eq!(monitor(&dump, wrong), "usage: bt [VCPU], a number below 2\n", "{wrong}");
    }
}

#[test]
fn what_is_no_vmlinux_of_the_guest_is_refused_before_gdb_comes() {
    let folder = tempfile::tempdir().unwrap();
    let dump = demo(folder.path());
    let refused = |vmlinux: &str, why: &str| {
        for command in ["bt", "gdb"] {
            let said = vmcore().args([command, &dump, "--force", "--vmlinux", vmlinux]).output().unwrap();
            let text = String::from_utf8(said.stderr).unwrap();
            assert!(said.status.code() == Some(1) && text.contains(why), "{text}");
        }
    };
    refused(&dump, "is a core");
    let file = folder.path().join("vmlinuz");
    fs::write(&file, "MZ: packed").unwrap();
    refused(file.to_str().unwrap(), "extract-vmlinux");
    // An executable of another machine: the headers of one are all that matters.
    let mut header = fs::read(env!("CARGO_BIN_EXE_vmcore")).unwrap();
    header[0x12..0x14].copy_from_slice(&243_u16.to_le_bytes());
    fs::write(&file, header).unwrap();
    refused(file.to_str().unwrap(), "is of machine 243");
}
