//! LLDB on what `vmcore gdb` serves, and on emulators that serve it themselves.

use super::consumers::missing;
use super::gdb::Server;
use super::{Context, Verdict};
use crate::oracle::core_file::EM_AARCH64;
use crate::run::{any_output, built_with, find};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// An emulator, and where its program begins. The other one is of riscv64, of which LLDB 14 does not know the program counter.
const EMULATOR: (&str, u64) = ("armv4t", 0);
/// What LLDB 14 shows in each byte of a register that is unavailable.
const UNAVAILABLE: &str = "cccccccc";
/// Registers that gdb insists on, though neither QEMU nor a vCPU's notes have them.
const NEEDED_BY_GDB: [&str; 2] = ["fiseg", "foseg"];

/// LLDB connects, and shows threads, registers and memory.
pub(crate) fn dump(context: &mut Context) -> Result<Verdict> {
    let Some(lldb) = find("lldb") else { return missing("lldb") };
    let dump = context.dump()?;
    let info = context.vmcore.info(&dump)?;
    let vcpus = info["vcpus"].as_array().context("info shows no vCPUs")?;
    let text = info["vmcoreinfo"]["SYMBOL(_stext)"].as_str().context("there is no _stext")?;
    let text = u64::from_str_radix(text, 16)?;
    let names: &[&str] = match context.core()?.head.machine {
        EM_AARCH64 => &["pc", "sp", "x19"],
        _ => &["rip", "rsp", "cr3"],
    };
    let server = Server::start(&context.vmcore, &dump, &["--once"])?;
    // Who steps by mistake does not lose the session.
    let out = script(
        &lldb,
        &server,
        &[
            "thread step-inst",
            "thread list",
            &format!("register read {}", names.join(" ")),
            "register read --all",
            &format!("memory read --format x --size 8 --count 2 {text:#x}"),
            &format!("memory region {text:#x}"),
        ],
    )?;
    let threads = out.lines().filter(|line| line.contains("tid = ")).count();
    ensure!(threads == vcpus.len(), "LLDB shows {threads} threads:\n{out}");
    for name in names {
        let value = vcpus[0]["registers"][name].as_str().context("a register")?;
        ensure!(out.contains(&format!("{name} = {value}")), "LLDB does not show {name} as {value}:\n{out}");
    }
    let is_made_up =
        |line: &&str| line.contains(UNAVAILABLE) && !NEEDED_BY_GDB.iter().any(|name| line.contains(name));
    let made_up = out.lines().find(is_made_up);
    ensure!(made_up.is_none(), "the dump does not have {made_up:?}:\n{out}");
    let region = out.lines().find(|line| line.starts_with(&format!("[{text:#018x}-")));
    ensure!(region.is_some_and(|line| line.contains(" r-x")), "the kernel's text is not code:\n{out}");
    let bytes = context.vmcore.read(&dump, text, 16, &["--virt", "--raw"])?;
    let words: Vec<String> =
        bytes.as_chunks::<8>().0.iter().map(|word| format!("{:#018x}", u64::from_le_bytes(*word))).collect();
    ensure!(out.contains(&words.join(" ")), "LLDB does not show {words:?}:\n{out}");
    Ok(Verdict::Passed)
}

/// LLDB sees where an emulator's program begins, and its first instruction.
pub(crate) fn emulator(_: &mut Context) -> Result<Verdict> {
    let Some(lldb) = find("lldb") else { return missing("lldb") };
    let examples = built_with("dev", &["--package", "vmcore-examples", "--examples"], "examples")?;
    let (name, entry) = EMULATOR;
    let mut command = Command::new(examples.join(name));
    command.args(["--gdb", "127.0.0.1:0"]).stdout(Stdio::null());
    let server = Server::of(command)?;
    let memory = format!("memory read --format x --size 4 --count 1 {entry:#x}");
    let out = script(&lldb, &server, &["register read pc", &memory])?;
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let is_entry = |line: &str| {
        let value = line.trim().strip_prefix("pc = 0x");
        value.and_then(|value| number(value.split(' ').next()?)) == Some(entry)
    };
    ensure!(out.lines().any(is_entry), "LLDB does not see where the program begins:\n{out}");
    // An address has as many digits as those of the architecture.
    let is_memory = |line: &str| {
        let (address, value) = line.split_once(": 0x").unwrap_or_default();
        address.strip_prefix("0x").and_then(number) == Some(entry)
            && number(value).is_some_and(|value| value != 0)
    };
    ensure!(out.lines().any(is_memory), "LLDB does not see the first instruction:\n{out}");
    Ok(Verdict::Passed)
}

/// All that LLDB says when it connects and carries out these commands.
fn script(lldb: &Path, server: &Server, commands: &[&str]) -> Result<String> {
    let mut command = Command::new(lldb);
    command.args(["--no-lldbinit", "--batch", "-o"]).arg(format!("gdb-remote {}", server.address));
    for step in commands {
        command.args(["-o", step]);
    }
    let out = any_output(command.stdin(Stdio::null()))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}
