//! `vmcore gdb`: what gdb and LLDB see of what the command serves.

use super::consumers::missing;
use super::vmcore::{Vmcore, fails_with};
use super::{Context, Verdict, registers};
use crate::oracle::core_file::{EM_386, EM_X86_64};
use crate::run::{any_output, find, output};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long an answer over a socket may take on a machine that has much else to do.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of physical memory that gdb copies at once: of x86_64, and of the others.
const LARGE: (u64, u64) = (64 << 20, 8 << 20);
/// Bytes of virtual memory that are compared.
const SMALL: u64 = 256;

/// gdb sees the registers that `info` shows, and the memory that `read` gives, in every format.
pub(crate) fn dumps(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let dump = context.dump()?;
    inspect(&context.vmcore, &gdb, &dump, context.path("scratch").as_path())?;
    let machine = context.core()?.head.machine;
    let has_vbox = matches!(machine, EM_X86_64 | EM_386);
    let formats: &[&str] = if has_vbox { &["kdump", "vbox"] } else { &["kdump"] };
    for format in formats {
        let converted = context.path(format);
        let mut convert = context.vmcore.command(["convert", "--format", format, "-o"]);
        output(convert.arg(&converted).arg(&dump))?;
        inspect(&context.vmcore, &gdb, &converted, context.path("scratch").as_path())
            .with_context(|| (*format).to_owned())?;
        std::fs::remove_file(&converted)?;
    }
    Ok(Verdict::Passed)
}

fn inspect(vmcore: &Vmcore, gdb: &Path, dump: &Path, scratch: &Path) -> Result<()> {
    let info = vmcore.info(dump)?;
    let vcpus = info["vcpus"].as_array().context("info shows no vCPUs")?;
    let ram = info["regions"].as_array().context("info shows no memory")?;
    let ram = ram.iter().max_by_key(|region| region["len"].as_u64()).context("there is no memory")?;
    let machine = u16::try_from(info["elf_machine"].as_u64().unwrap_or_default())?;
    let most = if machine == EM_X86_64 { LARGE.0 } else { LARGE.1 };
    let (start, len) =
        (ram["gpa"].as_u64().context("a number")?, ram["len"].as_u64().context("a number")?.min(most));
    // Of a pipe gdb asks for each byte whether there is an error message, too: 64 MiB take it a minute.
    let server = Server::start(vmcore, dump, &["--once"])?;
    let mut script = Script::new(gdb, &info);
    script.run([format!("target remote {}", server.address), "info threads".to_owned()]);
    for index in 0..vcpus.len() {
        script.run([
            format!("thread {}", index + 1),
            format!("echo =={index}\\n"),
            "maint print raw-registers".to_owned(),
        ]);
    }
    // Virtual memory at the stack of each vCPU, in the kernel, and where it is physical memory as long as a guest has no page tables.
    let mut samples = vec![(0, start)];
    for (index, vcpu) in vcpus.iter().enumerate() {
        let stack = ["rsp", "esp", "sp", "r1", "r15"]
            .iter()
            .find_map(|name| hex(vcpu["registers"][name].as_str()?.strip_prefix("0x")?));
        let symbol = info["vmcoreinfo"]["SYMBOL(_stext)"].as_str().and_then(hex);
        samples.extend(stack.into_iter().chain(symbol).map(|gva| (index, gva)));
    }
    let file = |number: usize| scratch.with_extension(number.to_string());
    for (number, (index, gva)) in samples.iter().enumerate() {
        let end = gva.saturating_add(SMALL);
        script.run([
            format!("thread {}", index + 1),
            format!("dump binary memory {} {gva:#x} {end:#x}", file(number).display()),
        ]);
    }
    let mut needle = Needle::of(&info, |gva, len| vmcore.read(dump, gva, len, &["--virt", "--raw"]))?;
    if let Some(needle) = &mut needle {
        script.run([needle.command()]);
    }
    let physical = scratch.with_extension("physical");
    script.run([
        "maint packet Qqemu.PhyMemMode:1".to_owned(),
        format!("dump binary memory {} {start:#x} {:#x}", physical.display(), start + len),
    ]);
    let out = script.output()?;

    let threads = out.lines().filter(|line| line.contains("\"vCPU ")).count();
    ensure!(threads == vcpus.len(), "gdb shows {threads} threads, there are {} vCPUs:\n{out}", vcpus.len());
    for (index, vcpu) in vcpus.iter().enumerate() {
        let text = out.split(&format!("=={index}\n")).nth(1).context("gdb shows no registers")?;
        same_registers(machine, &vcpu["registers"], text).with_context(|| format!("vCPU {index}"))?;
    }
    let mut readable = 0;
    for (number, (index, gva)) in samples.iter().enumerate() {
        let mut read = vmcore.command(["read", "--raw", "--virt", "--cpu", &index.to_string()]);
        let ours = any_output(read.arg(dump).arg(format!("{gva:#x}")).arg(SMALL.to_string()))?;
        let theirs = std::fs::read(file(number)).ok();
        let ours = ours.status.success().then_some(ours.stdout);
        ensure!(ours == theirs, "memory of vCPU {index} at {gva:#x} differs from what `read --virt` gives");
        readable += usize::from(ours.is_some());
        std::fs::remove_file(file(number)).ok();
    }
    ensure!(readable > 0, "no virtual memory could be read:\n{out}");
    needle.map_or(Ok(()), |needle| needle.check(&out))?;
    let ours = vmcore.read(dump, start, usize::try_from(len)?, &["--raw"])?;
    ensure!(std::fs::read(&physical)? == ours, "physical memory differs");
    Ok(std::fs::remove_file(physical)?)
}

/// The release of the guest's kernel, which gdb has to find in the kernel's own `uname`.
struct Needle {
    /// First address of the haystack, and its length.
    haystack: (u64, usize),
    release: String,
    /// Where it is.
    expected: Vec<u64>,
}

impl Needle {
    /// None if nobody tells where the kernel has it, or its memory cannot be read, as that of an image where only registers tell.
    fn of(info: &Value, read: impl Fn(u64, usize) -> Result<Vec<u8>>) -> Result<Option<Self>> {
        let known = &info["vmcoreinfo"];
        let (Some(uts), Some(release)) =
            (known["SYMBOL(init_uts_ns)"].as_str().and_then(hex), known["OSRELEASE"].as_str())
        else {
            return Ok(None);
        };
        let haystack = (uts, 512);
        let bytes = read(uts, haystack.1)?;
        let is_there = |(_, bytes): &(u64, &[u8])| *bytes == release.as_bytes();
        let expected: Vec<u64> =
            (uts..).zip(bytes.windows(release.len())).filter(is_there).map(|(gva, _)| gva).collect();
        ensure!(!expected.is_empty(), "the kernel's uname does not say {release}");
        Ok(Some(Self { haystack, release: release.to_owned(), expected }))
    }

    fn command(&self) -> String {
        let (start, len) = self.haystack;
        let letters: Vec<String> = self.release.bytes().map(|letter| letter.to_string()).collect();
        format!("find /b {start:#x}, +{len}, {}", letters.join(", "))
    }

    fn check(self, out: &str) -> Result<()> {
        let count = self.expected.len();
        let end = format!("{count} pattern{} found.", if count == 1 { "" } else { "s" });
        let (before, _) = out.split_once(&end).with_context(|| format!("gdb finds not {count}:\n{out}"))?;
        let found: Vec<u64> = before.lines().rev().map_while(|line| hex(line.strip_prefix("0x")?)).collect();
        ensure!(
            found.iter().rev().eq(&self.expected),
            "gdb finds {found:x?}, not {:x?}:\n{out}",
            self.expected
        );
        Ok(())
    }
}

/// Each register that gdb shows is that of `info`; what it does not know, nor does `info`.
fn same_registers(machine: u16, ours: &Value, text: &str) -> Result<()> {
    let ours = ours.as_object().context("a vCPU has no registers")?;
    let rows = text.lines().skip_while(|line| !line.contains("Raw value")).skip(1);
    let mut count = 0;
    for row in rows.take_while(|row| row.starts_with(' ')) {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let [name, _, _, _, len, .., value] = cells[..] else { continue };
        // gdb's own numbers have gaps.
        if name == "''" {
            continue;
        }
        let name = name.to_lowercase();
        let known =
            ours.iter().find(|(ours, _)| registers::stub_name(machine, ours) == name || **ours == name);
        let value = value.strip_prefix("0x").map(|digits| digits.trim_start_matches('0').to_owned());
        let digits = 2 * len.parse::<usize>()?;
        let expected = known.and_then(|(_, value)| value.as_str()?.strip_prefix("0x"));
        // gdb's register may be shorter than ours.
        let expected = expected
            .map(|value| value[value.len().saturating_sub(digits)..].trim_start_matches('0').to_owned());
        ensure!(value == expected, "gdb shows {name} as {value:?}, info as {expected:?}");
        count += usize::from(value.is_some());
    }
    ensure!(count > 16, "gdb shows {count} registers only:\n{text}");
    Ok(())
}

/// Pages that a dump level has left out are an error to gdb.
pub(crate) fn filtered(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let (dump, filtered) = (context.dump()?, context.path("filtered"));
    let mut convert = context.vmcore.command(["convert", "-d", "31", "--format", "kdump", "-o"]);
    output(convert.arg(&filtered).arg(&dump))?;
    let info = context.vmcore.info(&filtered)?;
    let ram = info["regions"].as_array().context("info shows no memory")?;
    let ram = ram.iter().max_by_key(|region| region["len"].as_u64()).context("there is no memory")?;
    let [start, len] = ["gpa", "len"].map(|key| ram[key].as_u64().unwrap_or_default());
    let is_left_out = |gpa: &u64| {
        let out =
            any_output(context.vmcore.command(["read"]).arg(&filtered).arg(format!("{gpa:#x}")).arg("8"));
        out.is_ok_and(|out| String::from_utf8_lossy(&out.stderr).contains("left out"))
    };
    let left_out = (start..start + len).step_by(1 << 20).find(is_left_out).context("no page was left out")?;
    let mut script = Script::new(&gdb, &info);
    script.serve(&context.vmcore, &filtered, &[]);
    script.run([
        "maint packet Qqemu.PhyMemMode:1".to_owned(),
        format!("x/8xb {left_out:#x}"),
        format!("set *(int*){start:#x} = 1"),
    ]);
    let out = script.output()?;
    let refusals = out.lines().filter(|line| line.contains("Cannot access memory at address")).count();
    ensure!(refusals == 2, "a page that was left out, and a write, are no errors:\n{out}");
    Ok(Verdict::Passed)
}

/// An image of memory alone is a thread without registers, and virtual memory that the kernel's VMCOREINFO leads to.
pub(crate) fn image(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let (dump, image) = (context.dump()?, context.path("image"));
    output(context.vmcore.command(["convert", "-q", "--format", "lime", "-o"]).arg(&image).arg(&dump))?;
    let info = context.vmcore.info(&dump)?;
    let arch = ["--arch", info["architecture"].as_str().context("an architecture")?];
    let text = info["vmcoreinfo"]["SYMBOL(_stext)"].as_str().and_then(hex).context("there is no _stext")?;
    let (memory, len) = (context.path("memory"), usize::try_from(SMALL)?);
    let expected = context.vmcore.read(&dump, text, len, &["--virt", "--raw"])?;
    let read = context.vmcore.read(&image, text, len, &[&["--virt", "--raw"], &arch[..]].concat())?;
    ensure!(read == expected, "`read --virt` of the image differs");
    let out = any_output(context.vmcore.command(["gdb", "--stdio"]).arg(&image).stdin(Stdio::null()))?;
    fails_with(&out, &["does not state it", "--arch"])?;
    let mut script = Script::new(&gdb, &info);
    script.serve(&context.vmcore, &image, &arch);
    script.run([
        "info threads".to_owned(),
        "info registers".to_owned(),
        format!("dump binary memory {} {text:#x} {:#x}", memory.display(), text + SMALL),
    ]);
    let out = script.output()?;
    let values = out.lines().filter(|line| line.contains("<unavailable>")).count();
    ensure!(out.contains("(the dump has no registers)") && values > 8, "gdb shows registers:\n{out}");
    ensure!(std::fs::read(&memory)? == expected, "virtual memory differs:\n{out}");
    Ok(Verdict::Passed)
}

/// A running guest stands still while it is served.
pub(crate) fn live(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let dump = context.dump()?;
    let info = context.vmcore.info(&dump)?;
    // Nobody has renamed it since the dump.
    let needle = Needle::of(&info, |gva, len| context.vmcore.read(&dump, gva, len, &["--virt", "--raw"]))?;
    let needle = needle.context("the kernel does not tell where its uname is")?;
    let uri = context.guest().uri();
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    let mut script = Script::new(&gdb, &info);
    script.serve(&context.vmcore, Path::new(&uri), &["--writable"]);
    // What is written is written to a copy: the guest runs on as if nothing had been.
    script.run([
        "monitor vmcoreinfo".to_owned(),
        "monitor dmesg".to_owned(),
        needle.command(),
        "maint packet Qqemu.PhyMemMode:1".to_owned(),
        "set *(int*)0x100000 = 0x1badcafe".to_owned(),
        "output/x *(int*)0x100000".to_owned(),
    ]);
    let out = script.output()?;
    for word in [format!("OSRELEASE={release}"), format!("Linux version {release}"), "0x1badcafe".to_owned()]
    {
        ensure!(out.contains(&word), "gdb does not show {word}:\n{out}");
    }
    needle.check(&out)?;
    let status = context.guest().qmp.status()?;
    ensure!(status == "running", "the guest is {status}");
    Ok(Verdict::Passed)
}

/// gdb begins with the vCPU on which the kernel has panicked, as the kernel's log tells.
pub(crate) fn shows_crash(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let log = String::from_utf8(context.vmcore.run([OsStr::new("dmesg"), dump.as_os_str()])?)?;
    let (_, behind) = log.split_once("Kernel panic - not syncing").context("the log tells of no panic")?;
    let (_, cpu) = behind.split_once("] CPU: ").context("the log does not tell where it was")?;
    let cpu = cpu.split(' ').next().unwrap_or_default();
    let mut script = Script::new(&gdb, &context.vmcore.info(dump)?);
    script.serve(&context.vmcore, dump, &[]);
    script.run(["info threads".to_owned()]);
    let out = script.output()?;
    let current = out.lines().find(|line| line.starts_with("* ")).context("gdb shows no current thread")?;
    ensure!(
        current.contains(&format!("(CPU#{cpu} [crashed])")),
        "CPU {cpu} has panicked, gdb begins elsewhere:\n{out}"
    );
    Ok(Verdict::Passed)
}

/// gdb takes the kernel's symbols where KASLR has put them, by what `vmcore gdb` tells it of the vmlinux that both have.
pub(crate) fn symbols(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let dump = context.dump()?;
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    let vmlinux = PathBuf::from(format!("/usr/lib/debug/boot/vmlinux-{release}"));
    if !vmlinux.is_file() {
        return missing(&format!("{} for symbols", vmlinux.display()));
    }
    let info = context.vmcore.info(&dump)?;
    let mut script = Script::new(&gdb, &info);
    let vmlinux = vmlinux.display().to_string();
    script.run([format!("file {vmlinux}")]);
    script.serve(&context.vmcore, &dump, &["--vmlinux", &vmlinux]);
    script.run(["output init_uts_ns.name.release".to_owned(), "bt".to_owned(), "monitor symbols".to_owned()]);
    let out = script.output()?;
    for word in [
        format!("\"{release}\""),
        " in cpu_startup_entry (".to_owned(),
        format!("symbol-file -o 0x{}", info["vmcoreinfo"]["KERNELOFFSET"].as_str().context("KASLR")?),
    ] {
        ensure!(out.contains(&word), "gdb does not show {word}:\n{out}");
    }
    Ok(Verdict::Passed)
}

/// Clients that come together, vanish or do not listen do not disturb each other. A made-up guest will do.
pub(crate) fn clients(context: &mut Context) -> Result<Verdict> {
    let dump = context.path("demo");
    context.vmcore.capture("demo:x86_64", &dump, &[])?;
    let server = Server::start(&context.vmcore, &dump, &[])?;
    let connect = || server.connect();
    // One that is gone in the middle of a packet.
    connect()?.write_all(b"$mffffffff8100")?;
    // One that asks for much and does not read: more than the sockets of both sides hold.
    let mut deaf = connect()?;
    deaf.set_nonblocking(true)?;
    let request = packet("mffff888000000000,10000");
    while deaf.write(&request.repeat(16)).is_ok_and(|len| len > 0) {}
    let (mut one, mut two) = (connect()?, connect()?);
    for stream in [&mut one, &mut two, &mut connect()?] {
        ensure!(ask(stream, "?")?.starts_with("T05"), "a client is not served");
    }
    // Each has its own state.
    ensure!(
        ask(&mut one, "Hg2")? == "OK" && ask(&mut one, "qC")? != ask(&mut two, "qC")?,
        "clients share a thread"
    );
    ensure!(ask(&mut one, "D")? == "OK" && ask(&mut two, "qC")?.starts_with("QC"), "one ends the other");
    // What is no packet is passed over.
    two.write_all(b"GET / HTTP/1.1\r\n\r\n\0\xff$zz#00")?;
    ensure!(ask(&mut two, "qC")?.starts_with("QC"), "noise ends a session");
    Ok(Verdict::Passed)
}

/// A session of gdb under construction.
pub(super) struct Script(Command);

impl Script {
    pub(super) fn new(gdb: &Path, info: &Value) -> Self {
        let mut command = Command::new(gdb);
        command.args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off"]);
        command.arg("-ex").arg(format!("set endian {}", info["endianness"].as_str().unwrap_or("auto")));
        Self(command)
    }

    pub(super) fn serve(&mut self, vmcore: &Vmcore, what: &Path, options: &[&str]) {
        let (program, what, options) = (vmcore.program.display(), what.display(), options.join(" "));
        self.run([format!("target remote | {program} gdb {what} --stdio {options}")]);
    }

    pub(super) fn run<const N: usize>(&mut self, commands: [String; N]) {
        for command in commands {
            self.0.arg("-ex").arg(command);
        }
    }

    /// All that gdb says.
    pub(super) fn output(mut self) -> Result<String> {
        let out = any_output(self.0.stdin(Stdio::null()))?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    }
}

/// A server of gdb that says on its standard error where it listens; ended when dropped.
pub(crate) struct Server {
    pub(super) child: Child,
    pub(crate) address: String,
}

impl Server {
    /// `vmcore gdb` on a port of its own choice.
    pub(crate) fn start(vmcore: &Vmcore, dump: &Path, options: &[&str]) -> Result<Self> {
        let mut command = vmcore.command(["gdb", "--listen", "127.0.0.1:0"]);
        command.args(options).arg(dump);
        Self::of(command)
    }

    pub(super) fn of(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("standard error")?).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.rsplit_once("target remote ")?.1.to_owned()));
        // Nobody is to wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        match address {
            Some(address) => Ok(Self { child, address }),
            None => bail!("the server does not say where it listens: {}", child.wait()?),
        }
    }

    /// A connection on which an answer is not waited for without end.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(super) fn packet(body: &str) -> Vec<u8> {
    format!("${body}#{:02x}", body.bytes().fold(0, u8::wrapping_add)).into_bytes()
}

/// Sends a packet and gives the body of the answer.
pub(super) fn ask(stream: &mut TcpStream, body: &str) -> Result<String> {
    stream.write_all(&packet(body))?;
    let answer = read_packet(stream)?;
    stream.write_all(b"+")?;
    Ok(answer)
}

pub(super) fn read_packet(stream: &mut TcpStream) -> Result<String> {
    let mut byte = [0];
    while byte != *b"$" {
        stream.read_exact(&mut byte)?;
    }
    let mut body = Vec::new();
    loop {
        stream.read_exact(&mut byte)?;
        if byte == *b"#" {
            break;
        }
        body.push(byte[0]);
    }
    stream.read_exact(&mut [0; 2])?;
    Ok(String::from_utf8(body)?)
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}
