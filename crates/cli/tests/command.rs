//! The command as a user meets it, on the demo guest and on damaged files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const GREETING_AT: &str = "0xffffffff81000000";

fn vmcore(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmcore")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the command, which must succeed, and gives its standard output.
fn succeed(args: &[&str]) -> Vec<u8> {
    let output = vmcore(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    output.stdout
}

/// Runs the command, which must fail with this exit status, and gives what it says.
fn fail(args: &[&str], status: i32) -> String {
    let output = vmcore(args);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", stderr(&output));
    stderr(&output)
}

/// A folder with a dump of the demo guest in it, and the dump's path.
fn demo() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let dump = path(folder.path(), "demo.vmcore");
    succeed(&["capture", "demo:x86_64", "-o", &dump]);
    (folder, dump)
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_first_command_of_the_readme() {
    let (folder, dump) = demo();
    let text = String::from_utf8(succeed(&["info", &dump])).unwrap();
    assert!(text.contains("kernel    6.1.0-demo, pages of 4 KiB"), "{text}");
    assert!(
        String::from_utf8(succeed(&["verify", &dump]))
            .unwrap()
            .contains("sound; 31.6 MiB of guest memory read")
    );
    let greeting = b"Hello from a guest";
    assert_eq!(succeed(&["read", &dump, "0x1000000", "18"]), greeting);
    assert_eq!(succeed(&["read", &dump, GREETING_AT, "18", "--virt", "--cpu", "1"]), greeting);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["demo.vmcore"], "no temporary file is left");
}

#[test]
fn the_same_bytes_down_a_pipe_as_into_a_file() {
    let (folder, dump) = demo();
    let bytes = fs::read(&dump).unwrap();
    assert!(succeed(&["capture", "demo:x86_64", "-o", "-", "-q"]) == bytes);
    let other = path(folder.path(), "other");
    succeed(&["convert", &dump, "-o", &other, "--no-sparse", "--threads", "3"]);
    assert!(fs::read(&other).unwrap() == bytes);
    let script = format!("exec 7>{other}.fd; {} convert {dump} -o fd:7", env!("CARGO_BIN_EXE_vmcore"));
    assert!(Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success());
    assert!(fs::read(format!("{other}.fd")).unwrap() == bytes);
}

#[test]
fn json_reports() {
    let (folder, dump) = demo();
    let report =
        succeed(&["convert", &dump, "-o", &path(folder.path(), "b"), "--json", "--range", "0x1000000:1M"]);
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["format"], &report["unreadable"]), (&"elf".into(), &serde_json::json!([])));
    assert!(report["bytes_written"].as_u64().unwrap() < 0x2_0000);
    let info: serde_json::Value =
        serde_json::from_slice(&succeed(&["info", &path(folder.path(), "b"), "--json"])).unwrap();
    assert_eq!(info["regions"], serde_json::json!([{ "gpa": 0x100_0000, "len": 0x10_0000, "kind": "ram" }]));
    assert_eq!(info["vcpus"][0]["registers"]["rax"], "0x00000000deadbeef");
    let verdict: serde_json::Value = serde_json::from_slice(&succeed(&["verify", &dump, "--json"])).unwrap();
    assert_eq!(verdict["is_sound"], true);
}

#[test]
fn errors_say_what_and_what_to_do() {
    let (folder, dump) = demo();
    let check = |args: &[&str], status: i32, expected: &[&str]| {
        let said = fail(args, status);
        for text in expected {
            assert!(said.contains(text), "{args:?}: {said}");
        }
    };
    let out = path(folder.path(), "out");
    check(&["capture", "demo:x86_64", "-o", &dump], 1, &["the file exists", "hint: --force"]);
    check(&["capture", "demo:vax", "-o", &out], 1, &["cannot attach to demo:vax", "not supported"]);
    check(&["capture", "quemu:/x", "-o", &out], 1, &["unknown source `quemu:/x`", "demo, qemu"]);
    check(&["capture", "qemu:/nonexistent/qmp.sock", "-o", &out], 1, &["/nonexistent/qmp.sock"]);
    check(&["capture", "demo:x86_64", "-o", "/nonexistent/x"], 1, &["cannot write into /nonexistent"]);
    check(&["capture", "demo:x86_64", "-o", "fd:99"], 1, &["fd:99"]);
    check(&["capture", "demo:x86_64", "-o", &out, "--format", "tape"], 1, &["unknown format `tape`"]);
    check(
        &["capture", "demo:x86_64", "-o", &out, "--range", "0xf0000000:1M"],
        1,
        &["holds no guest memory", "memory map"],
    );
    check(&["capture", "demo:x86_64", "-o", &out, "--range", "5"], 2, &["BEGIN:LENGTH"]);
    check(&["info", "/nonexistent"], 1, &["cannot open /nonexistent", "No such file"]);
    check(&["info", folder.path().to_str().unwrap()], 1, &["is a directory"]);
    check(&["read", &dump, "0xf0000000", "1"], 1, &["guest memory at 0xf0000000 is not available"]);
    check(&["read", &dump, "0x5000", "1", "--virt"], 1, &["0x5000 is not mapped", "--cpu N"]);
    check(&["read", &dump, "0x5000", "1", "--virt", "--cpu", "7"], 1, &["vCPU index"]);
    fs::write(&out, b"This is not a dump").unwrap();
    check(&["info", &out], 1, &["no known dump format (it begins 54 68 69 73", "elf"]);
    fs::write(&out, b"").unwrap();
    check(&["verify", &out], 1, &["it is empty"]);
}

#[test]
fn a_dump_that_is_cut_off_is_used_as_far_as_it_goes() {
    let (folder, dump) = demo();
    let file = fs::File::options().write(true).open(&dump).unwrap();
    file.set_len(file.metadata().unwrap().len() - 0x10_0000).unwrap();
    let damaged = vmcore(&["verify", &dump]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("the dump is cut off"));
    assert_eq!(succeed(&["read", &dump, "0x1000000", "5"]), b"Hello");
    let out = path(folder.path(), "out");
    let said = fail(&["convert", &dump, "-o", &out], 3);
    assert!(said.contains("1 MiB of guest memory in 1 range could not be read"), "{said}");
    assert!(fs::exists(&out).unwrap(), "what is there was saved");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let script = format!("{} list --json | head -c 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_vmcore"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn help_completions_and_man_pages() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("help", String::from_utf8(succeed(&["--help"])).unwrap());
    for command in ["capture", "convert", "info", "verify", "read", "list"] {
        insta::assert_snapshot!(
            format!("help_{command}"),
            String::from_utf8(succeed(&[command, "--help"])).unwrap()
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            String::from_utf8(succeed(&["completions", shell])).unwrap().contains("no-extra-registers"),
            "{shell}"
        );
    }
    let pages = folder.path().join("share/man1");
    succeed(&["man", pages.to_str().unwrap()]);
    assert!(fs::read_to_string(pages.join("vmcore-capture.1")).unwrap().contains("max\\-pause"));
}
