//! Test guests: a Debian kernel in QEMU, booted without KVM, or a machine in the state of a reset.
//!
//! A [`Guest`] never outlives its test: dropping it kills QEMU, and QEMU dies with the thread that started it.

mod arch;
mod console;
mod deterministic;
mod initrd;
mod kernel;
mod qemu;

pub(crate) use arch::GuestArch;
pub(crate) use deterministic::sha256;
pub(crate) use kernel::KernelVersion;

use crate::qmp::Qmp;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use console::Console;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

/// How long a boot may take on a slow and busy machine.
const BOOT: Duration = Duration::from_secs(240);
/// How long a guest may take to answer.
const ANSWER: Duration = Duration::from_secs(120);
/// The guest's init prints it when memory is filled and the processes run.
const READY: &str = "GUEST-READY";
/// Text that fills a guest's memory, a line each.
pub(crate) const KNOWN_TEXT: &str = "VMCORE-KNOWN-TEXT";

/// What is behind the guest's memory on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Plain `-m`
    None,
    /// memory-backend-file, shared, on a disk
    File,
    /// memory-backend-memfd, shared
    Memfd,
    /// Two NUMA nodes with a private backend each
    Numa,
    /// Plain `-m` and a DIMM that is plugged in when the guest is up
    Dimm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QemuVersion {
    #[value(name = "7.2")]
    V7,
    #[value(name = "10.0")]
    V10,
}

/// Which guest.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Spec {
    pub(crate) arch: GuestArch,
    /// Memory in MiB
    #[arg(long, default_value_t = 512)]
    pub(crate) mem: u64,
    #[arg(long, default_value_t = 2)]
    pub(crate) cpus: u32,
    /// QEMU's machine [default: the usual one of the architecture]
    #[arg(long)]
    pub(crate) machine: Option<String>,
    /// QEMU's model of the vCPUs [default: a usual one of the architecture; x86_64: `max` without 5-level paging]
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// Debian's kernel [default: 6.1; riscv64, which is left at reset: none]
    #[arg(long, value_enum)]
    pub(crate) kernel: Option<KernelVersion>,
    /// Further parameters of the kernel's command line
    #[arg(long)]
    pub(crate) append: Option<String>,
    /// A disk with an ext4 file system, a balloon, huge pages, some of them transparent
    #[arg(long)]
    pub(crate) features: bool,
    /// Memory is the same in each boot: pinned packages, one vCPU that counts instructions. It halts when it is filled
    #[arg(long, conflicts_with_all = ["append", "features", "cpu", "machine", "backend"])]
    pub(crate) deterministic: bool,
    #[arg(long, value_enum, default_value_t = Backend::None)]
    pub(crate) backend: Backend,
    /// The file of `--backend file`, with what an earlier guest has left in it [default: in a folder of the guest's own]
    #[arg(long)]
    pub(crate) memory: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = QemuVersion::V7)]
    pub(crate) qemu: QemuVersion,
    /// Let the kernel give QEMU its VMCOREINFO note
    #[arg(long)]
    pub(crate) vmcoreinfo: bool,
    /// MiB of memory that the guest fills with known text
    #[arg(long, default_value_t = 16)]
    pub(crate) fill: u64,
    /// MiB of the kernel's own drivers that the guest unpacks into its memory: contents as real guests have them
    #[arg(long, default_value_t = 0)]
    pub(crate) drivers: u64,
    /// Where the QMP socket is made [default: in a folder of the guest's own]
    #[arg(long)]
    pub(crate) socket: Option<PathBuf>,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |value: &dyn fmt::Debug| format!("{value:?}").to_lowercase();
        let qemu = if self.qemu == QemuVersion::V7 { "7.2" } else { "10.0" };
        write!(
            f,
            "{}, {}, {}, {} MiB, backend {}, QEMU {qemu}",
            name(&self.arch),
            self.machine(),
            self.cpu(),
            self.mem,
            name(&self.backend),
        )
    }
}

impl Spec {
    /// A guest with nothing special.
    pub(crate) fn new(arch: GuestArch) -> Self {
        Self {
            arch,
            mem: 512,
            cpus: 2,
            machine: None,
            cpu: None,
            kernel: None,
            append: None,
            features: false,
            deterministic: false,
            backend: Backend::None,
            memory: None,
            qemu: QemuVersion::V7,
            vmcoreinfo: false,
            fill: 16,
            drivers: 0,
            socket: None,
        }
    }

    /// One whose memory is the same in each boot.
    pub(crate) fn deterministic(arch: GuestArch, kernel: KernelVersion) -> Self {
        Self {
            mem: 384,
            cpus: 1,
            kernel: Some(kernel),
            deterministic: true,
            backend: Backend::File,
            qemu: QemuVersion::V10,
            ..Self::new(arch)
        }
    }

    /// The kernel that is booted.
    pub(crate) fn kernel(&self) -> Option<KernelVersion> {
        self.kernel.or(self.arch.target().kernel)
    }

    /// `-machine` of QEMU.
    pub(crate) fn machine(&self) -> &str {
        self.machine.as_deref().unwrap_or(self.arch.target().machine)
    }

    /// `-cpu` of QEMU.
    pub(crate) fn cpu(&self) -> &str {
        let usual = self.pinned().map_or(self.arch.target().cpu, |pinned| pinned.cpu);
        self.cpu.as_deref().unwrap_or(usual)
    }

    /// Whether a kernel runs in the guest; else its vCPUs stand where a reset put them.
    pub(crate) fn is_booted(&self) -> bool {
        self.linux().is_some()
    }
}

/// What `uname -r` and `/sys/kernel/vmcoreinfo` say in a guest.
#[derive(Debug)]
pub(crate) struct RunningKernel {
    pub(crate) release: String,
    /// Physical address of its VMCOREINFO note.
    pub(crate) note: u64,
}

/// A guest that is up.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) spec: Spec,
    /// The tests' own monitor.
    pub(crate) qmp: Qmp,
    /// The monitor of the program that is tested.
    pub(crate) socket: PathBuf,
    /// Holds the socket and the backing file.
    pub(crate) folder: tempfile::TempDir,
    qemu: Child,
    console: Console<ChildStdin>,
}

impl Guest {
    /// Boots a guest and waits until it is ready. A boot that fails is tried again: a check never is.
    ///
    /// A guest that boots nothing is ready at once.
    pub(crate) fn boot(spec: &Spec) -> Result<Self> {
        // Downloads have their own retries.
        if let Some((linux, version)) = spec.linux() {
            kernel::kernel(linux, version, spec.pinned())?;
        }
        qemu::program(spec)?;
        crate::run::retry(3, &format!("booting {spec}"), || Self::boot_once(spec))
    }

    fn boot_once(spec: &Spec) -> Result<Self> {
        let folder = folder()?;
        let socket = spec.socket.clone().unwrap_or_else(|| folder.path().join("qmp.sock"));
        let control = folder.path().join("control.sock");
        let listener = UnixListener::bind(&control)?;
        let mut command = qemu::command(spec, folder.path(), &socket, &control)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu =
            command.spawn().with_context(|| format!("cannot run {}", crate::run::text(&command)))?;
        let (stdin, stdout) = qemu.stdin.take().zip(qemu.stdout.take()).context("QEMU has no console")?;
        // From here on dropping the guest ends QEMU. QEMU connects or ends: one of both wakes `accept`.
        let stream = accept_or_end(&listener, &control, &mut qemu)?;
        let console = Console::new(stdin, stdout);
        let qmp = match Qmp::new(stream) {
            Ok(qmp) => qmp,
            Err(error) => {
                end(&mut qemu);
                return Err(error);
            }
        };
        let mut guest = Self { spec: spec.clone(), qmp, socket, folder, qemu, console };
        if spec.deterministic {
            guest.wait_halted()?;
        } else if spec.is_booted() {
            guest.console.wait(READY, BOOT)?;
        }
        if spec.backend == Backend::Dimm {
            guest.plug_dimm(128)?;
        }
        Ok(guest)
    }

    /// QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// The address that `vmcore` is given.
    pub(crate) fn uri(&self) -> String {
        format!("qemu:{}", self.socket.display())
    }

    /// The file behind the memory of [`Backend::File`].
    pub(crate) fn backing_file(&self) -> PathBuf {
        qemu::backing_file(&self.spec, self.folder.path())
    }

    /// Whether a guest whose memory is the same in each boot is that of the specification, as far as QEMU, kernel and initrd
    /// go.
    pub(crate) fn is_as_specified(&mut self) -> Result<bool> {
        let pinned = self.spec.pinned().context("its memory is not the same in each boot")?;
        let (linux, version) = self.spec.linux().context("it boots nothing")?;
        let kernel = kernel::kernel(linux, version, Some(pinned))?;
        let qemu = self.qmp.execute("query-version", json!({}))?["qemu"].clone();
        let qemu = ["major", "minor", "micro"].map(|part| qemu[part].as_u64().unwrap_or_default());
        Ok(qemu == deterministic::QEMU
            && pinned.is_booted_from(&qemu::initrd_file(self.folder.path()), &kernel)?)
    }

    /// Asks the guest's init for an answer: it comes only if the guest runs.
    pub(crate) fn ping(&mut self) -> Result<()> {
        self.console.ask("", ANSWER).map(drop)
    }

    /// The log of the guest's kernel as `dmesg` in the guest prints it, without spaces at the ends of lines.
    pub(crate) fn dmesg(&mut self) -> Result<Vec<String>> {
        let mut lines = self.console.ask("dmesg", ANSWER)?;
        lines.retain(|line| line.starts_with('['));
        Ok(lines)
    }

    /// What the guest itself says of its kernel.
    pub(crate) fn kernel(&mut self) -> Result<RunningKernel> {
        let lines = self.console.ask("kernel", ANSWER)?;
        let words =
            lines.iter().rev().find_map(|line| line.strip_prefix("kernel ")).context("it says nothing")?;
        let [release, note, _] = words.split(' ').collect::<Vec<_>>()[..] else { bail!("it says {words}") };
        let note = u64::from_str_radix(note.trim_start_matches("0x"), 16)?;
        Ok(RunningKernel { release: release.to_owned(), note })
    }

    /// Where the guest's kernel itself says that these functions begin: name and address of each, also of those that share a name.
    pub(crate) fn functions(&mut self, names: &BTreeSet<&str>) -> Result<BTreeSet<(String, u64)>> {
        let names: Vec<String> = names.iter().map(|name| name.replace('.', "[.]")).collect();
        let lines = self.console.ask(&format!("kallsyms  ({})$", names.join("|")), ANSWER)?;
        // ffffffff81000000 T _text
        let functions = lines.iter().filter_map(|line| {
            let [address, _, name] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
            Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
        });
        Ok(functions.collect())
    }

    /// Lets the guest's kernel panic, and waits until QEMU has stopped it.
    pub(crate) fn panic(&mut self) -> Result<()> {
        self.qmp.forget_events()?;
        self.console.send("panic")?;
        self.qmp.wait_event("GUEST_PANICKED", ANSWER)?;
        self.qmp.wait_event("STOP", ANSWER).map(drop)
    }

    /// Plugs in a DIMM of `len_mib` and waits until the guest's kernel has taken it.
    pub(crate) fn plug_dimm(&mut self, len_mib: u64) -> Result<()> {
        self.qmp.forget_events()?;
        let backend = json!({ "qom-type": "memory-backend-ram", "id": "dimm-memory", "size": len_mib << 20 });
        self.qmp.execute("object-add", backend)?;
        self.qmp
            .execute("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "dimm-memory" }))?;
        let event = self.qmp.wait_event("ACPI_DEVICE_OST", ANSWER)?;
        if event["data"]["info"]["status"] != json!(0) {
            bail!("the guest refuses the DIMM: {event}");
        }
        Ok(())
    }

    /// Stops the guest for as long as it takes to look at it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.qmp.execute("stop", json!({})).map(drop)
    }

    pub(crate) fn cont(&mut self) -> Result<()> {
        self.qmp.execute("cont", json!({})).map(drop)
    }

    /// Whether QEMU still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.qemu.try_wait(), Ok(None))
    }

    /// Waits for QEMU's end.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let status = self.qemu.wait()?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }

    /// Waits until a guest that halts itself has done so, and stops it.
    ///
    /// Its clock is that of its instructions and jumps ahead when there are none, so that it never waits: when its registers
    /// stay as they are, it has come to its end. Some machines then are shut down.
    fn wait_halted(&mut self) -> Result<()> {
        const SAME: usize = 4;
        let mut seen = Vec::new();
        while self.qmp.status()? == "running" {
            let arguments = json!({ "command-line": "info registers" });
            seen.push(self.qmp.execute("human-monitor-command", arguments)?);
            let last = seen.rchunks(SAME).next().unwrap_or_default();
            if last.len() == SAME && last.iter().all(|one| one == &last[0]) {
                return self.stop();
            }
            if seen.len() as u64 > BOOT.as_secs() {
                bail!("the guest does not halt");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }
}

/// A folder in the one for temporary files: the path of a UNIX socket must be short.
///
/// Its name has our process in it, so that those of runs that were killed are known and removed.
fn folder() -> Result<tempfile::TempDir> {
    const PREFIX: &str = "vmcore-guest-";
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let owner = owner.and_then(|owner| owner.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Another run may be removing it, too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir()?)
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.qemu);
    }
}

fn end(qemu: &mut Child) {
    // It may have ended already: then there is nothing to do.
    let _ = qemu.kill();
    let _ = qemu.wait();
}

/// Waits until QEMU has connected, or has ended.
fn accept_or_end(
    listener: &UnixListener,
    control: &Path,
    qemu: &mut Child,
) -> Result<std::os::unix::net::UnixStream> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = rustix::process::Pid::from_child(qemu);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
    let time = Timespec { tv_sec: 120, tv_nsec: 0 };
    poll(&mut fds, Some(&time))?;
    if fds[0].revents().contains(PollFlags::IN) {
        return Ok(listener.accept()?.0);
    }
    end(qemu);
    bail!("QEMU did not connect to {}: its message is above", control.display());
}

/// `cargo xtask guest`: boots, prints the socket, and stays until QEMU or the caller ends.
pub(crate) fn guest(spec: &Spec) -> Result<()> {
    let mut spec = spec.clone();
    if spec.deterministic {
        let kernel = spec.kernel().context("--kernel says which")?;
        spec = Spec { socket: spec.socket, ..Spec::deterministic(spec.arch, kernel) };
    }
    let mut guest = Guest::boot(&spec)?;
    if let Some(pinned) = spec.pinned() {
        let same = if guest.is_as_specified()? { "is that of" } else { "is not that of" };
        eprintln!("it {same} the specification: {}", pinned.name);
    }
    println!("{}", guest.socket.display());
    eprintln!("{spec}: process {}, up until you press Ctrl-C", guest.pid());
    eprintln!("next: `vmcore capture {} -o guest.vmcore`", guest.uri());
    guest.wait()
}
