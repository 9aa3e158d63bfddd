//! The command as a user meets it, on the demo guest and on damaged files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use vmcore::{
    DumpOptions, DumpState, ExecuteOptions, FileSink, Gpa, Piece, PieceMemory, Place, execute, format,
};

const GREETING_AT: &str = "0xffffffff81000000";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmcore"));
    command.args(args);
    command
}

fn vmcore(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the command with a standard output that nobody reads, and gives its exit status and what it says.
fn unread(args: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(args).stdout(writer).output().unwrap();
    (output.status.code(), stderr(&output))
}

/// Runs a shell script in which `vmcore` is the command.
fn shell(script: &str) -> Output {
    let script = format!("vmcore() {{ '{}' \"$@\"; }}; {script}", env!("CARGO_BIN_EXE_vmcore"));
    Command::new("sh").args(["-c", &script]).output().unwrap()
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

/// Writes `new` over all that is `old` in the file.
fn patch(file: &str, old: &str, new: &str) {
    let mut bytes = fs::read(file).unwrap();
    let found = (0..bytes.len() - old.len()).filter(|at| bytes[*at..].starts_with(old.as_bytes()));
    let found: Vec<usize> = found.collect();
    assert!(!found.is_empty() && old.len() == new.len(), "{old} to {new}");
    for at in found {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn the_first_command_of_the_readme() {
    let (folder, dump) = demo();
    let text = String::from_utf8(succeed(&["info", &dump])).unwrap();
    assert!(text.contains("kernel    6.1.0-demo, pages of 4 KiB"), "{text}");
    assert!(
        String::from_utf8(succeed(&["verify", &dump]))
            .unwrap()
            .ends_with("sound; 31.6 MiB of guest memory read\n")
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
    for (name, number) in
        [("fd:7", 7), ("/dev/fd/7", 7), ("/proc/self/fd/7", 7), ("/dev/stdout", 1), ("-", 1), ("fd:1", 1)]
    {
        // A file is written from where it stands.
        let script =
            format!("exec {number}>{other}; printf before >&{number}; vmcore convert {dump} -o {name} -q");
        let output = shell(&script);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(fs::read(&other).unwrap() == [b"before", &bytes[..]].concat(), "{name}");
    }
}

#[test]
fn a_kdump_dump_down_a_pipe_is_flattened() {
    let folder = tempfile::tempdir().unwrap();
    let [file, stream, back] = ["a.kdump", "stream", "back.kdump"].map(|name| path(folder.path(), name));
    let options = ["--format", "kdump", "--compress", "zstd"];
    succeed(&[&["capture", "demo:x86_64", "-o", &file][..], &options[..]].concat());
    let output = vmcore(&[&["capture", "demo:x86_64", "-o", "-"][..], &options[..]].concat());
    assert!(output.status.success() && stderr(&output).contains("flattened"), "{}", stderr(&output));
    fs::write(&stream, output.stdout).unwrap();
    succeed(&["verify", &file]);
    succeed(&["verify", &stream]);
    succeed(&["convert", &stream, "--rearrange", "-o", &back]);
    assert!(fs::read(&file).unwrap() == fs::read(&back).unwrap());
    // QEMU's name for a stream, and a method that contradicts it.
    succeed(&["convert", &file, "--format", "kdump-zstd", "-o", &stream, "--force"]);
    assert!(fs::read(&stream).unwrap().starts_with(b"makedumpfile"));
    assert!(
        fail(&["convert", &file, "--format", "kdump-lzo", "--compress", "zlib", "-o", &back], 1)
            .contains("means lzo")
    );
    assert!(fail(&["convert", &file, "--compress", "zlib", "-o", &back], 1).contains("--format kdump"));
    assert!(
        fail(&["convert", &file, "--rearrange", "-o", &back, "--force"], 1).contains("no flattened stream")
    );
    // A page that is damaged is named.
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 9..].fill(0xaa);
    fs::write(&file, bytes).unwrap();
    let output = vmcore(&["verify", &file]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("is damaged: zstd") && said.contains("at offset 0x"), "{said}");
}

#[test]
fn a_dump_in_two_files_is_one_dump() {
    let folder = tempfile::tempdir().unwrap();
    let [dump, one, back] = ["split", "one", "back"].map(|name| path(folder.path(), name));
    let [first, second] = [1, 2].map(|number| format!("{dump}.{number}"));
    let kdump = ["--format", "kdump"];
    let report = succeed(
        &[&["capture", "demo:x86_64", "-o", &dump, "--split", "2", "--json"][..], &kdump[..]].concat(),
    );
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["output"], *dump);
    let mut len = 0;
    for (file, name) in report["files"].as_array().unwrap().iter().zip([&first, &second]) {
        assert_eq!(file["output"], **name);
        assert_eq!(file["file_len"], fs::metadata(name).unwrap().len());
        len += file["file_len"].as_u64().unwrap();
    }
    assert_eq!(report["file_len"], len);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    succeed(&[&["capture", "demo:x86_64", "-o", &one][..], &kdump[..]].concat());
    for inputs in [[&first, &second], [&second, &first]] {
        let [a, b] = inputs.map(String::as_str);
        let info = String::from_utf8(succeed(&["info", a, b])).unwrap();
        assert!(
            info.contains("format kdump, split in 2 files, ") && info.contains("level     1: "),
            "{info}"
        );
        assert!(String::from_utf8(succeed(&["verify", a, b])).unwrap().contains("sound; 31.6 MiB"));
        for address in ["0x1000000", GREETING_AT] {
            let virt = if address == GREETING_AT { &["--virt"][..] } else { &[] };
            assert_eq!(succeed(&[&["read", a, b, address, "5"][..], virt].concat()), b"Hello");
        }
        succeed(&[&["convert", a, b, "-o", &back, "--force"][..], &kdump[..]].concat());
        assert!(fs::read(&back).unwrap() == fs::read(&one).unwrap());
    }
    let info: serde_json::Value =
        serde_json::from_slice(&succeed(&["info", &first, &second, "--json"])).unwrap();
    assert_eq!(info["files"], serde_json::json!([first, second]));
    assert_eq!((&info["format"], &info["dump_level"]), (&"kdump".into(), &1.into()));
    assert_eq!(info["uts"]["release"], "6.1.0-demo");

    // The same bytes for any number of threads, and inside a wrapper.
    let again = path(folder.path(), "again");
    for threads in ["1", "2", "5"] {
        let options = ["--split", "2", "--force", "--threads", threads];
        succeed(&[&["convert", &one, "-o", &again][..], &kdump[..], &options[..]].concat());
        for (number, file) in [(1, &first), (2, &second)] {
            assert!(fs::read(format!("{again}.{number}")).unwrap() == fs::read(file).unwrap(), "{threads}");
        }
    }
    succeed(&["convert", &one, "-o", &again, "--format", "kdump-zlib", "--split", "2", "--force"]);
    succeed(&["convert", &format!("{again}.2"), "--rearrange", "-o", &back, "--force"]);
    assert!(fs::read(&back).unwrap() == fs::read(&second).unwrap());
}

/// A kdump dump of two pages, of which the second was left out, at `name`.
fn filtered(name: &str) {
    let mut machine = vmcore::synth::demo::machine("x86_64").unwrap();
    let piece = |gpa, place| Piece { gpa: Gpa(gpa), len: 0x1000, place, segment: 0 };
    let pieces = vec![piece(0x1000, Place::File(0)), piece(0x2000, Place::Excluded)];
    machine.memory = Arc::new(PieceMemory::new(Arc::new(vec![1_u8; 0x1000]), pieces));
    machine.header.dump_level = 31;
    let layout = format::by_name("kdump").unwrap().plan(&machine, &DumpOptions::default()).unwrap();
    let file = fs::File::create(name).unwrap();
    execute(&layout, &*machine.memory, &FileSink(&file), ExecuteOptions::default(), &DumpState::default())
        .unwrap();
}

#[test]
fn a_dump_level_is_a_sum_of_bits() {
    for level in ["32", "-1", "x"] {
        assert!(fail(&["convert", "dump", "-o", "out", "-d", level], 2).contains("0 to 31 is expected"));
    }
}

#[test]
fn pages_that_were_left_out_are_no_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, out) = (path(folder.path(), "dump"), path(folder.path(), "out"));
    filtered(&dump);
    assert_eq!(succeed(&["read", &dump, "0x1000", "2"]), [1, 1]);
    let said = fail(&["read", &dump, "0x2000", "2"], 1);
    assert!(said.contains("0x2000 is not available") && said.contains("left out (dump level 31)"), "{said}");
    for (format, is_said) in [("elf", false), ("kdump", false), ("lime", false), ("raw", true)] {
        let converted = vmcore(&["convert", &dump, "-f", "--format", format, "-o", &out]);
        assert!(converted.status.success());
        let said = stderr(&converted);
        assert_eq!(
            said.contains("pages that are left out read as zeros from raw"),
            is_said,
            "{format}: {said}"
        );
        if !is_said {
            assert!(fail(&["read", &out, "0x2000", "2"], 1).contains("is not available"), "{format}");
        }
    }
    // LiME does not tell whose memory it is.
    succeed(&["convert", &dump, "-f", "--format", "lime", "-o", &out]);
    let said = fail(&["dmesg", &out], 1);
    assert!(
        said.contains("needs to know the architecture: the dump does not state it")
            && said.contains("hint: --arch names"),
        "{said}"
    );
}

#[test]
fn a_part_of_a_split_dump_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let dump = path(folder.path(), "split");
    succeed(&["capture", "demo:x86_64", "-o", &dump, "--format", "kdump", "--split", "2"]);
    let [first, second] = [1, 2].map(|number| format!("{dump}.{number}"));
    let missing = "pages 0x1000 to 0x1fff lie in files that were not named";
    assert!(String::from_utf8(succeed(&["info", &first])).unwrap().contains(missing));
    let output = vmcore(&["verify", &first]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(3), 3), "{said}");
    assert!(said.contains(missing) && said.contains("guest memory 0x1000000-0x1ffffff is missing"), "{said}");
    assert!(
        said.ends_with("2 errors; 15.6 MiB of guest memory read, 4096 pages (16 MiB) missing\n"),
        "{said}"
    );
    let verdict: serde_json::Value =
        serde_json::from_slice(&vmcore(&["verify", &second, "--json"]).stdout).unwrap();
    let lens = ["read_len", "missing_len", "excluded_len", "damaged_len"].map(|key| &verdict[key]);
    assert_eq!(lens, [0x100_0000, 0xfa_0000, 0, 0]);
    let said = fail(&["read", &first, "0x1000000", "5"], 1);
    assert!(said.contains("page 0x1000 (at 0x1000000) is in a file that was not named"), "{said}");
    let out = path(folder.path(), "out");
    assert!(fail(&["convert", &second, "-o", &out], 3).contains("pages 0x0 to 0xfff lie in files"));
    assert!(fail(&["info", &first, &first], 1).contains("pages 0x0 to 0xfff in two of them"));
    assert!(fail(&["info", &first, "demo:x86_64"], 1).contains("cannot open demo:x86_64"));
}

#[test]
fn all_files_of_a_split_dump_get_their_names_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let dump = path(folder.path(), "split");
    let split = |output: &str, options: &[&str]| {
        let args = ["capture", "demo:x86_64", "-o", output, "--format", "kdump", "--split", "2"];
        fail(&[&args[..], options].concat(), 1)
    };
    let second = format!("{dump}.2");
    fs::write(&second, b"precious").unwrap();
    assert!(split(&dump, &[]).contains("split.2: the file exists"));
    let files =
        || -> Vec<_> { fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect() };
    assert_eq!(files(), [Path::new(&second)]);
    assert_eq!(fs::read(&second).unwrap(), b"precious");
    succeed(&["capture", "demo:x86_64", "-o", &dump, "--format", "kdump", "--split", "2", "--force"]);
    assert_eq!(files().len(), 2);

    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    for other in ["-", "fd:1", "/dev/null", folder.path().to_str().unwrap(), &dump] {
        let said = split(other, &["--force"]);
        assert!(said.contains("--split cannot write to") && said.contains("name a file with -o"), "{said}");
    }
    let elsewhere = path(folder.path(), "elsewhere");
    let elf = ["capture", "demo:x86_64", "-o", &elsewhere, "--split", "2"];
    assert!(fail(&elf, 1).contains("--format kdump can be split"));
    let many = ["capture", "demo:x86_64", "-o", &elsewhere, "--format", "kdump", "--split", "3"];
    assert!(
        fail(&many, 1).contains("number of files of a split dump: 3 is more than 2\n  hint: ask for fewer")
    );
    assert!(fail(&["capture", "demo:x86_64", "-o", &elsewhere, "--split", "1"], 2).contains("2..=256"));
}

#[test]
fn a_descriptor_is_one_that_was_handed_over_for_writing() {
    let check = |script: &str, expected: &str| {
        let output = shell(script);
        assert_eq!(output.status.code(), Some(1), "{script}");
        assert!(stderr(&output).contains(expected), "{script}: {}", stderr(&output));
    };
    check("vmcore capture demo:x86_64 -o fd:7 7</dev/null", "descriptor 7 is not open for writing");
    // The command gets this number for a file of its own.
    check("vmcore capture demo:x86_64 -o fd:3 3>&-", "no descriptor 3 was handed over");
    check("vmcore capture demo:x86_64 -o fd:x", "a number is expected");
}

#[test]
fn a_symbolic_link_stays_one() {
    let (folder, dump) = demo();
    let bytes = fs::read(&dump).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let [link, target] = ["link", "sub/target"].map(|name| path(folder.path(), name));
    std::os::unix::fs::symlink("sub/target", &link).unwrap();
    for force in ["--quiet", "--force"] {
        succeed(&["convert", &dump, "-o", &link, force]);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("sub/target"));
        assert!(fs::read(&target).unwrap() == bytes);
    }
    let ring = path(folder.path(), "ring");
    std::os::unix::fs::symlink("ring", &ring).unwrap();
    assert!(fail(&["convert", &dump, "-o", &ring], 1).contains("symbolic links"));
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
fn the_log_of_the_kernel() {
    let (folder, dump) = demo();
    let text = |args: &[&str]| String::from_utf8(succeed(&[&["dmesg"], args].concat())).unwrap();
    insta::assert_snapshot!("dmesg", text(&[&dump]));
    assert_eq!(text(&["demo:x86_64"]), text(&[&dump]), "of the guest itself");
    assert_eq!(text(&["-l", "warn,notice", "-x", &dump]).lines().count(), 2);
    let report: serde_json::Value =
        serde_json::from_slice(&succeed(&["dmesg", "--json", "--level=info", &dump])).unwrap();
    assert_eq!(report["records"].as_array().unwrap().len(), 5);
    assert_eq!(report["records"][3]["device"], "+pci:0000:00:01.0");
    assert!(fail(&["dmesg", "-l", "loud", &dump], 2).contains("one of emerg, alert"));

    // The number of a record in front of its text, which makes it that of another.
    let damaged = path(folder.path(), "damaged.vmcore");
    fs::copy(&dump, &damaged).unwrap();
    patch(&damaged, "\x04\0\0\0\0\0\0\0pci 0000", "\x09\0\0\0\0\0\0\0pci \x1b000");
    let (output, intact) = (vmcore(&["dmesg", &damaged]), text(&[&dump]));
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("1 damaged record of the log left out") && said.contains("record 0x4: its text"),
        "{said}"
    );
    let left: Vec<&str> = intact.lines().filter(|line| !line.contains("pci")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), left);

    // A text that means something to a terminal; then a kernel that does not tell of its log, and none at all.
    patch(&damaged, "\x09\0\0\0\0\0\0\0pci \x1b000", "\x04\0\0\0\0\0\0\0pci \x1b000");
    assert!(text(&[&damaged]).contains(r"] pci \u{1b}000:00:01.0"));
    patch(&damaged, "SYMBOL(prb)", "SYMBOL(bad)");
    assert!(
        fail(&["dmesg", &damaged], 1)
            .contains("VMCOREINFO has no usable SYMBOL(prb), reading the kernel's log needs it")
    );
    let image = path(folder.path(), "image");
    succeed(&["convert", &dump, "-q", "--format", "raw", "-o", &image]);
    let said = fail(&["dmesg", "--input-format", "raw", "--arch", "x86_64", &image], 1);
    assert!(
        said.contains("needs the guest's VMCOREINFO, which is not known") && said.contains("hint: "),
        "{said}"
    );
    let note = path(folder.path(), "note");
    fs::write(&note, "OSRELEASE=6.1\n").unwrap();
    for subject in [dump.as_str(), "demo:x86_64"] {
        let said = fail(&["dmesg", "--vmcoreinfo", &note, subject], 1);
        assert!(said.contains("no usable NUMBER(phys_base)"), "{said}");
    }
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
    check(&["capture", "demo:x86_64", "-o", ""], 2, &["a value is required for '--output"]);
    for stdout in ["-", "fd:1", "/dev/stdout"] {
        check(&["capture", "demo:vax", "--json", "-o", stdout], 1, &["--json", "name a file with -o"]);
    }
    check(&["capture", "demo:x86_64", "-o", &out, "--format", "tape"], 1, &["unknown format `tape`"]);
    check(
        &["capture", "demo:x86_64", "-o", &out, "--range", "0xf0000000:1M"],
        1,
        &["holds no guest memory", "memory map"],
    );
    check(&["capture", "demo:x86_64", "-o", &out, "--range", "5"], 2, &["BEGIN:LENGTH"]);
    check(&["read", &dump, "0x100z", "4"], 2, &["<ADDR>: `0x100z` is not a number"]);
    check(
        &["read", &dump, "4"],
        2,
        &["3 values required", "Usage: vmcore read [OPTIONS] <DUMP>... <ADDR> <LEN>"],
    );
    check(&["info", "/nonexistent"], 1, &["cannot open /nonexistent", "No such file"]);
    check(&["info", folder.path().to_str().unwrap()], 1, &["is a directory"]);
    check(&["read", &dump, "0xf0000000", "1"], 1, &["guest memory at 0xf0000000 is not available"]);
    check(&["read", &dump, "0x5000", "1", "--virt"], 1, &["0x5000 is not mapped", "--cpu N"]);
    check(
        &["read", &dump, "0x5000", "1", "--virt", "--cpu", "7"],
        1,
        &["there is no vCPU 7: the last one is 1"],
    );
    succeed(&["convert", &dump, "-o", &out, "--range", "0x1000000:1M"]);
    check(
        &["convert", &out, "--paging", "-o", &path(folder.path(), "paged")],
        1,
        &["is not available", "leave --paging away"],
    );
    fs::write(&out, b"This is not a dump").unwrap();
    check(&["info", &out], 1, &["no known dump format (it begins 54 68 69 73", "elf"]);
    fs::write(&out, b"").unwrap();
    check(&["verify", &out], 1, &["the file is empty"]);
    let fifo = path(folder.path(), "fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    check(&["info", &fifo], 1, &["it is a pipe; dumps are read from files"]);
}

#[test]
fn a_dump_that_is_cut_off_is_used_as_far_as_it_goes() {
    let (folder, dump) = demo();
    let file = fs::File::options().write(true).open(&dump).unwrap();
    file.set_len(file.metadata().unwrap().len() - 0x10_0000).unwrap();
    let damaged = vmcore(&["verify", &dump]);
    assert_eq!(damaged.status.code(), Some(3));
    assert_eq!(unread(&["verify", &dump]), (Some(3), String::new()), "the verdict stands if nobody reads it");
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("the dump is cut off"));
    assert_eq!(succeed(&["read", &dump, "0x1000000", "5"]), b"Hello");
    let out = path(folder.path(), "out");
    let said = fail(&["convert", &dump, "-o", &out], 3);
    assert!(said.contains("1 MiB of guest memory in 1 range could not be read"), "{said}");
    assert!(fs::exists(&out).unwrap(), "what is there was saved");
    let report = vmcore(&["convert", &dump, "-o", &out, "--force", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["findings"][0]["severity"], "error");
}

#[test]
fn images_of_memory_alone_are_written_and_read() {
    let (folder, dump) = demo();
    let (raw, lime) = (path(folder.path(), "raw"), path(folder.path(), "lime"));
    for (format, image) in [("raw", &raw), ("lime", &lime)] {
        let converted = vmcore(&["convert", &dump, "--format", format, "-o", image]);
        assert!(converted.status.success());
        let said = stderr(&converted);
        assert!(said.contains("holds memory alone: registers and notes are left out"), "{said}");
    }
    assert_eq!(fs::read(&raw).unwrap()[0x100_0000..][..5], *b"Hello");
    assert_eq!(succeed(&["read", &lime, "0x1000000", "5"]), b"Hello");
    assert!(fail(&["info", &raw], 1).contains("--input-format raw"));
    assert_eq!(succeed(&["read", "--input-format", "raw", &raw, "0x1000000", "5"]), b"Hello");
    // The architecture is what it lacks to be an ELF core that others open.
    let back = path(folder.path(), "back");
    succeed(&["convert", &lime, "--arch", "x86_64", "-o", &back]);
    let info: serde_json::Value = serde_json::from_slice(&succeed(&["info", "--json", &back])).unwrap();
    assert_eq!(info["architecture"], "x86_64", "{info}");
    assert!(fail(&["info", &dump, "--arch", "s390x"], 1).contains("the dump is of x86_64"));
    assert!(fail(&["info", &dump, "--arch", "z80"], 1).contains("unknown architecture `z80`"));
    assert!(fail(&["info", &dump, "--input-format", "lime"], 1).contains("LiME's magic"));
}

#[test]
fn a_dump_that_says_it_is_not_finished_is_not_sound() {
    let (folder, dump) = demo();
    let file = fs::File::options().write(true).open(&dump).unwrap();
    // EF_INCOMPLETE in e_flags.
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 0x30).unwrap();
    let out = path(folder.path(), "out");
    assert!(fail(&["convert", &dump, "-o", &out], 3).contains("not finished"));
    assert_eq!(vmcore(&["verify", &out]).status.code(), Some(3), "a copy is no better");
}

#[test]
fn a_dump_does_not_steer_the_terminal() {
    let (folder, dump) = demo();
    patch(&dump, "6.1.0-demo", "6.1\x1b[2J\r-d");
    patch(&dump, "QEMU\0", "Q\x1b[m\0");
    patch(&dump, "OFFSET(uts_namespace.name)=0", "OSRELEASE=a later one: void.");
    let evil = path(folder.path(), "a\x1b[2Jb\n");
    fs::rename(&dump, &evil).unwrap();
    let text = String::from_utf8(succeed(&["info", &evil])).unwrap();
    assert!(text.contains(r"a\u{1b}[2Jb\n: format elf"), "{text}");
    assert!(text.contains(r"kernel    6.1\u{1b}[2J\r-d, "), "{text}");
    let checked =
        String::from_utf8(succeed(&["verify", &evil])).unwrap() + &fail(&["convert", &evil, "-o", &evil], 1);
    assert!((text + &checked).chars().all(|char| char == '\n' || !char.is_control()), "{checked}");
    let info: serde_json::Value = serde_json::from_slice(&succeed(&["info", &evil, "--json"])).unwrap();
    assert_eq!(info["vmcoreinfo"]["OSRELEASE"], "6.1\x1b[2J\r-d", "the first of two counts");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (folder, dump) = demo();
    let out = path(folder.path(), "out");
    let commands: [&[&str]; 7] = [
        &["list", "--json"],
        &["info", &dump],
        &["info", &dump, "--json"],
        &["read", &dump, "0x1000000", "16M"],
        &["convert", &dump, "-o", &out, "--json"],
        &["completions", "bash"],
        &["--help"],
    ];
    for args in commands {
        assert_eq!(unread(args), (Some(0), String::new()), "{args:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command(&["convert", &dump, "-o", &out, "--force"]).stderr(writer).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn help_completions_and_man_pages() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("help", String::from_utf8(succeed(&["--help"])).unwrap());
    for command in ["capture", "convert", "info", "dmesg", "bt", "verify", "read", "gdb", "list"] {
        insta::assert_snapshot!(
            format!("help_{command}"),
            String::from_utf8(succeed(&[command, "--help"])).unwrap()
        );
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            String::from_utf8(succeed(&["completions", shell])).unwrap().contains("no-extra-registers"),
            "{shell}"
        );
    }
    let pages = folder.path().join("share/man1");
    succeed(&["man", pages.to_str().unwrap()]);
    assert!(fs::read_to_string(pages.join("vmcore-capture.1")).unwrap().contains("max\\-pause"));
}
