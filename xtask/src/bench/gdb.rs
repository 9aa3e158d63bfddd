//! `cargo xtask bench gdb`: QEMU's stub and `vmcore gdb` show the same stopped guest to the same clients, in turns.

use super::Bench;
use super::measure::timed;
use super::report::Report;
use super::rsp::Client;
use crate::e2e::{GdbServer, Vmcore};
use crate::guest::Guest;
use crate::oracle::core_file::CoreFile;
use crate::oracle::qemu::settle;
use crate::run::{find, output, retry};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Bytes of memory that are read.
const LEN: u64 = 64 * MIB;
/// Questions after one word.
const QUESTIONS: usize = 4000;
const PEER: &str = "QEMU's stub";

pub(super) fn measure(bench: &Bench, guest: &mut Guest, report: &mut Report) -> Result<()> {
    let gdb = find("gdb-multiarch").context("gdb-multiarch is not installed")?;
    let vmcore = Vmcore::new(bench.vmcore.clone());
    let dump = bench.tmpfs.path().join("guest.vmcore");
    let memory = retry(10, "stopping the guest in its kernel", || {
        guest.cont()?;
        guest.ping()?;
        guest.stop()?;
        bench.capture(guest, &dump)?;
        Memory::of(&CoreFile::open(&dump)?, &vmcore.info(&dump)?, guest.spec.mem << 20)
    })?;
    let stub = start_stub(guest)?;
    let uri = guest.uri();
    for (what, served) in [("a dump", &*dump), ("the guest", Path::new(&uri))] {
        let server = GdbServer::start(&vmcore, served, &["--quiet"])?;
        let addresses = [&*stub, &server.address];
        read_memory(bench, addresses, &memory, what, report)?;
        ask_words(bench, addresses, &memory, what, report)?;
        let figure = bench.turns(
            || dump_memory(bench, &gdb, &stub, &memory),
            || dump_memory(bench, &gdb, &server.address, &memory),
        )?;
        report.add(figure.named(&format!("gdb-multiarch dumps 64 MiB, ours of {what}"), PEER, 2.0));
    }
    // QEMU refuses as long as it has not noticed that the server, whose view of it was a dump, is gone.
    settle(guest)?;
    guest.cont()?;
    Ok(std::fs::remove_file(dump)?)
}

/// The part of the guest's memory that is read.
struct Memory {
    gpa: u64,
    /// The same in the kernel's map of all memory.
    gva: u64,
    bytes: Vec<u8>,
}

impl Memory {
    /// The part with the least pages of zeros; `info` is what `vmcore info` says of the dump.
    fn of(core: &CoreFile, info: &serde_json::Value, ram_len: u64) -> Result<Self> {
        let mut mib = vec![0; usize::try_from(MIB)?];
        let mut used = Vec::new();
        // The first MiB has holes, and of the last one the kernel does not map what the firmware has left there.
        for gpa in (MIB..ram_len - MIB).step_by(mib.len()) {
            core.read_physical(gpa, &mut mib)?;
            used.push(mib.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)).count());
        }
        let parts = used.windows(usize::try_from(LEN / MIB)?).map(|part| part.iter().sum::<usize>());
        let (_, gpa) = parts.zip((MIB..).step_by(mib.len())).max().context("the guest is too small")?;
        let mut bytes = vec![0; usize::try_from(LEN)?];
        core.read_physical(gpa, &mut bytes)?;
        // KASLR moves the map by whole GiB, and the first CPU's variables lie in it.
        let variables = info["vcpus"][0]["registers"]["gs_base"].as_str().context("no gs_base")?;
        let variables = u64::from_str_radix(variables.trim_start_matches("0x"), 16)?;
        ensure!(variables >> 63 == 1, "the guest has stopped outside of its kernel");
        Ok(Self { gpa, gva: (variables & !((1 << 30) - 1)) + gpa, bytes })
    }
}

/// Starts QEMU's stub, and gives its address.
fn start_stub(guest: &mut Guest) -> Result<String> {
    // A port that was free just now.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let arguments = json!({ "command-line": format!("gdbserver tcp:{address}") });
    let answer = guest.qmp.execute("human-monitor-command", arguments)?;
    let answer = answer.as_str().unwrap_or_default();
    ensure!(answer.starts_with("Waiting for gdb connection"), "QEMU's stub does not start: {answer}");
    Ok(address)
}

/// Reads by packets that are as long as the servers take them, of physical and of virtual memory.
fn read_memory(
    bench: &Bench,
    [theirs, ours]: [&str; 2],
    memory: &Memory,
    what: &str,
    report: &mut Report,
) -> Result<()> {
    let (mut theirs, mut ours) = (Client::connect(theirs)?, Client::connect(ours)?);
    for (space, start) in [("physical", memory.gpa), ("virtual", memory.gva)] {
        for client in [&mut theirs, &mut ours] {
            client.set_physical(start == memory.gpa)?;
        }
        for letter in ['m', 'x'] {
            let read = |client: &mut Client, letter| {
                let time = timed(|| client.read_memory(letter, start, LEN))?;
                ensure!(
                    client.memory(letter)? == memory.bytes,
                    "`{letter}` reads other bytes than are in the dump"
                );
                Ok(time)
            };
            // Its stub has no other letter.
            let figure = bench.turns(|| read(&mut theirs, 'm'), || read(&mut ours, letter))?;
            report.add(figure.named(&format!("64 MiB {space} by `{letter}`, ours of {what}"), PEER, 5.0));
        }
    }
    Ok(())
}

/// Asks again and again after a register, and after a word of memory.
fn ask_words(
    bench: &Bench,
    [theirs, ours]: [&str; 2],
    memory: &Memory,
    what: &str,
    report: &mut Report,
) -> Result<()> {
    let (mut theirs, mut ours) = (Client::connect(theirs)?, Client::connect(ours)?);
    // The stub has its mode from the client before.
    theirs.set_physical(false)?;
    for (name, packet) in
        [("`p` of rip", "p10".to_owned()), ("`m` of 8 bytes", format!("m{:x},8", memory.gva))]
    {
        let (expected, answer) = (theirs.ask(&packet)?, ours.ask(&packet)?);
        ensure!(
            expected.len() == 16 && answer == expected,
            "{name}: we say {}, QEMU {}",
            answer.escape_ascii(),
            expected.escape_ascii()
        );
        let ask = |client: &mut Client| timed(|| (0..QUESTIONS).try_for_each(|_| client.exchange(&packet)));
        let figure = bench.turns(|| ask(&mut theirs), || ask(&mut ours))?;
        report.add(figure.named(&format!("{QUESTIONS} times {name}, ours of {what}"), PEER, 1.0));
    }
    Ok(())
}

/// Milliseconds of gdb's command `dump memory`.
fn dump_memory(bench: &Bench, gdb: &Path, address: &str, memory: &Memory) -> Result<f64> {
    let file = bench.tmpfs.path().join("memory");
    let (start, end) = (memory.gpa, memory.gpa + LEN);
    let mut command = Command::new(gdb);
    command.args(["-nx", "-batch"]);
    for line in [
        &format!("target remote {address}"),
        "maint packet Qqemu.PhyMemMode:1",
        "shell date +%s%N",
        &format!("dump binary memory {} {start:#x} {end:#x}", file.display()),
        "shell date +%s%N",
        // The guest shall not run on.
        "disconnect",
    ] {
        command.args(["-ex", line]);
    }
    let out = output(&mut command)?;
    let times: Vec<u64> = out.lines().filter_map(|line| line.parse().ok()).collect();
    let [before, after] = times[..] else { bail!("gdb tells no times:\n{out}") };
    ensure!(std::fs::read(&file)? == memory.bytes, "gdb dumps other bytes than are in the dump");
    std::fs::remove_file(file)?;
    Ok(super::measure::milliseconds(std::time::Duration::from_nanos(after - before)))
}
