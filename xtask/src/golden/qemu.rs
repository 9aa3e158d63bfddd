//! A QEMU that runs one guest: started, stopped when the guest is ready, asked, and killed.
//!
//! Its three channels (QMP, the guest's debug port, gdb) are socket pairs handed over at start: nothing is
//! polled, and when QEMU dies the next read says so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::apt::{Apt, RELEASE};
use crate::qmp::Qmp;
use crate::run::output;

/// How long a guest may take until it is ready: it needs milliseconds.
const READY: Duration = Duration::from_secs(60);

/// The versions that fixtures are made with; the first is the one that others are compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V7_2,
    V10_0,
}

impl Version {
    pub(super) const ALL: [Self; 2] = [Self::V7_2, Self::V10_0];

    pub(super) fn number(self) -> &'static str {
        match self {
            Self::V7_2 => "7.2",
            Self::V10_0 => "10.0",
        }
    }

    /// How fixtures are named.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::V7_2 => "qemu7",
            Self::V10_0 => "qemu10",
        }
    }

    /// Its line in the list of tools.
    pub(super) fn tool(self) -> String {
        format!("qemu {}", self.number())
    }

    /// The folder with the `qemu-system-*` of this version: the system's, or one in the cache.
    ///
    /// # Errors
    /// There is none, with what to do about it.
    pub(super) fn folder(self) -> Result<PathBuf> {
        let system = PathBuf::from("/usr/bin");
        if self.is_in(&system) {
            return Ok(system);
        }
        let hint =
            format!("no QEMU {}: apt-get install qemu-system-x86 (Debian has 7.2 in 12)", self.number());
        ensure!(self == Self::V10_0, hint);
        // The same unpacked folder as the one of `xtask guest`.
        let packages = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
        let root = Apt::new(&format!("{RELEASE}-backports"), "amd64")?
            .unpacked("qemu-system-x86-10.0", |_| Ok(packages.map(str::to_owned).to_vec()))
            .context("no QEMU 10.0, and it cannot be fetched")?;
        let folder = root.join("usr/bin");
        ensure!(self.is_in(&folder), "no QEMU 10.0 in {}, or a library of it is missing", folder.display());
        Ok(folder)
    }

    fn is_in(self, folder: &Path) -> bool {
        identify(&folder.join(super::X86_64))
            .is_ok_and(|line| line.contains(&format!("version {}.", self.number())))
    }
}

/// The first line of `TOOL --version`.
pub(super) fn identify(tool: &Path) -> Result<String> {
    let text = output(Command::new(tool).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// A guest in a QEMU. Dropped: killed.
pub(super) struct Guest {
    child: Child,
    qmp: Qmp,
    gdb: BufReader<UnixStream>,
    gdb_is_served: bool,
}

impl Guest {
    /// Runs the guest until as many CPUs as `running` have written a byte to the debug port, and stops it.
    /// QEMU leaves its messages in `folder`.
    pub(super) fn ready(
        binary: &Path,
        arguments: &[&str],
        rom: &Path,
        running: usize,
        folder: &Path,
    ) -> Result<Self> {
        let stderr = folder.join("stderr");
        let explain = |error: Error| match fs::read_to_string(&stderr) {
            Ok(said) if !said.is_empty() => error.context(format!("QEMU said: {}", said.trim())),
            _ => error,
        };
        let (qmp, qmp_theirs) = UnixStream::pair()?;
        let (mut ready, ready_theirs) = UnixStream::pair()?;
        let (gdb, gdb_theirs) = UnixStream::pair()?;
        ready.set_read_timeout(Some(READY))?;
        gdb.set_read_timeout(Some(READY))?;

        // Not a `pre_exec`: that would be unsafe code.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary);
        command.args(["-nodefaults", "-no-user-config", "-vga", "none", "-display", "none", "-accel", "tcg"]);
        command.args(arguments).arg("-bios").arg(rom);
        for (id, theirs) in [("qmp", &qmp_theirs), ("ready", &ready_theirs), ("gdb", &gdb_theirs)] {
            fcntl_setfd(theirs, FdFlags::empty())?;
            command.arg("-chardev").arg(format!("socket,id={id},fd={}", theirs.as_raw_fd()));
        }
        command.args([
            "-mon",
            "chardev=qmp,mode=control",
            "-device",
            "isa-debugcon,iobase=0xe9,chardev=ready",
        ]);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr)?);
        let mut child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        // The other ends shall close with QEMU, so none may stay open here.
        drop((qmp_theirs, ready_theirs, gdb_theirs));

        let qmp = match Qmp::new(qmp) {
            Ok(qmp) => qmp,
            Err(error) => {
                end(&mut child);
                return Err(explain(error));
            }
        };
        let mut guest = Self { child, qmp, gdb: BufReader::new(gdb), gdb_is_served: false };
        if let Err(error) = ready.read_exact(&mut vec![0; running]) {
            let registers = guest.monitor("info registers -a", 0).unwrap_or_default();
            return Err(explain(anyhow!(error).context(format!("the guest is not ready: {registers}"))));
        }
        guest.command("stop", json!({}))?;
        Ok(guest)
    }

    /// One QMP command; its `return`.
    pub(super) fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(name, arguments)
    }

    /// How many CPUs the machine has.
    pub(super) fn cpu_count(&mut self) -> Result<usize> {
        let cpus = self.command("query-cpus-fast", json!({}))?;
        Ok(cpus.as_array().context("query-cpus-fast gives no list")?.len())
    }

    /// One command of the human monitor, asked of one CPU; lines end in `\n` alone.
    pub(super) fn monitor(&mut self, line: &str, cpu: usize) -> Result<String> {
        let arguments = json!({"command-line": line, "cpu-index": cpu});
        let text = self.command("human-monitor-command", arguments)?;
        Ok(text.as_str().with_context(|| format!("{line}: no text"))?.replace("\r\n", "\n"))
    }

    /// The `g` packet of one CPU: its registers in hex, in the order of QEMU's target description.
    pub(super) fn gdb_registers(&mut self, cpu: usize) -> Result<String> {
        if !self.gdb_is_served {
            self.monitor("gdbserver chardev:gdb", 0)?;
            self.gdb_is_served = true;
        }
        let reply = self.gdb_packet(&format!("Hg{:x}", cpu + 1))?;
        ensure!(reply == "OK", "the gdb stub does not know CPU {cpu}: {reply}");
        self.gdb_packet("g")
    }

    fn gdb_packet(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0, u8::wrapping_add);
        write!(self.gdb.get_mut(), "${packet}#{sum:02x}")?;
        let mut reply = Vec::new();
        self.gdb.read_until(b'#', &mut reply).context("reading from the gdb stub")?;
        self.gdb.read_exact(&mut [0; 2])?;
        self.gdb.get_mut().write_all(b"+")?;
        let reply = String::from_utf8(reply)?;
        let reply = reply.strip_prefix("+$").and_then(|reply| reply.strip_suffix('#'));
        Ok(reply.context("the gdb stub talks nonsense")?.to_owned())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(qemu: &mut Child) {
    // It may have ended already: then there is nothing to do.
    let _ = qemu.kill();
    let _ = qemu.wait();
}
