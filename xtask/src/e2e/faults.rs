//! Captures that go wrong: the guest runs again, and no unfinished file has a dump's name.

use super::vmcore::fails_with;
use super::{Context, Verdict, files_in, proxy};
use crate::qmp::event_time;
use crate::run::{any_output, is_root};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::hash_map::RandomState;
use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(120);
const ROUNDS: u64 = 10;
/// A user without rights.
const NOBODY: &str = "65534";

/// What a signal at a random moment did.
struct Ending {
    status: ExitStatus,
    /// What is in the folder of the output.
    files: Vec<String>,
}

pub(crate) fn sigint(context: &mut Context) -> Result<Verdict> {
    let mut interrupted = 0;
    signals(context, Signal::INT, |context, ending| {
        if ending.status.success() {
            // It was done before the signal came.
            return complete(context, &ending.files);
        }
        let status = ending.status;
        ensure!(status.code() == Some(130) || status.signal() == Some(2), "it ended with {status}");
        ensure!(ending.files.is_empty(), "it left {:?} behind", ending.files);
        interrupted += 1;
        Ok(())
    })?;
    ensure!(interrupted >= ROUNDS / 2, "only {interrupted} of {ROUNDS} captures were interrupted");
    Ok(Verdict::Passed)
}

pub(crate) fn sigkill(context: &mut Context) -> Result<Verdict> {
    let mut killed = 0;
    signals(context, Signal::KILL, |context, ending| {
        if ending.files.iter().any(|name| name == "guest.vmcore") {
            return complete(context, &ending.files);
        }
        ensure!(ending.status.signal() == Some(9), "it ended with {}", ending.status);
        killed += 1;
        Ok(())
    })?;
    ensure!(killed >= ROUNDS / 2, "only {killed} of {ROUNDS} captures were killed");
    Ok(Verdict::Passed)
}

/// The one file is a complete dump.
fn complete(context: &mut Context, files: &[String]) -> Result<()> {
    ensure!(files == ["guest.vmcore"], "a complete capture left {files:?}");
    context.vmcore.verify(&context.path("out").join("guest.vmcore"))
}

/// Sends a signal at random moments, most of them while the guest stands still, and looks at the guest each time.
fn signals(
    context: &mut Context,
    signal: Signal,
    mut check: impl FnMut(&mut Context, &Ending) -> Result<()>,
) -> Result<()> {
    let uri = context.guest().uri();
    // The fastest of some: a busy machine takes several times as long now and then.
    let (mut whole, mut pause) = (Duration::MAX, Duration::MAX);
    for _ in 0..4 {
        let start = Instant::now();
        let report =
            context.vmcore.capture(&uri, &context.path("whole.vmcore"), &["--no-sparse", "--force"])?;
        whole = whole.min(start.elapsed());
        let reported = report["pause_ms"].as_f64().context("no pause_ms in the report")?;
        pause = pause.min(Duration::from_secs_f64(reported / 1e3));
    }
    for round in 0..ROUNDS {
        let folder = context.path("out");
        fs::create_dir(&folder)?;
        context.guest().qmp.forget_events()?;
        let capture = context.vmcore.capture_command(&uri, &folder.join("guest.vmcore"), &["--no-sparse"]);
        // A shell's background jobs ignore SIGINT, and a command that was started so goes on ignoring it.
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(capture.get_program()).args(capture.get_args());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let (mut stops, delay) = if round < ROUNDS / 3 {
            (0, random_part(whole))
        } else {
            context.guest().qmp.wait_event("STOP", SOON)?;
            // The event takes its time to come here: the later half of the pause is over then.
            (1, random_part(pause / 2))
        };
        // This is the moment that the test is about, not a wait for something to happen.
        std::thread::sleep(delay);
        kill_process(Pid::from_child(&child), signal)?;
        let status = child.wait()?;
        let when =
            format!("round {round}, {delay:?} after the {}", if stops == 0 { "start" } else { "stop" });
        let guest = context.guest();
        let events = guest.qmp.events()?;
        let count = |name: &str| events.iter().filter(|event| *event == name).count();
        stops += count("STOP");
        if stops > count("RESUME") {
            guest
                .qmp
                .wait_event("RESUME", SOON)
                .with_context(|| format!("{when}: the guest stays stopped"))?;
        }
        guest.ping().with_context(|| when.clone())?;
        let ending = Ending { status, files: files_in(&folder)? };
        check(context, &ending).with_context(|| when.clone())?;
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn random_part(of: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    of.mul_f64(f64::from(u16::try_from(random & 0xffff).unwrap_or(0)) / 65536.0)
}

pub(crate) fn max_pause(context: &mut Context) -> Result<Verdict> {
    let uri = context.guest().uri();
    let mut command = context.vmcore.command(["capture", &uri, "-o", "-", "--max-pause", "1"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Nobody reads the pipe until the guest runs.
    let qmp = &mut context.guest().qmp;
    let stop = event_time(&qmp.wait_event("STOP", SOON)?).context("no time in STOP")?;
    let resume = event_time(&qmp.wait_event("RESUME", SOON)?).context("no time in RESUME")?;
    // The second counts from just before the guest stops.
    ensure!((900_000..10_000_000).contains(&(resume - stop)), "the pause was {} us", resume - stop);
    let mut stdout = child.stdout.take().context("no pipe")?;
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    fails_with(&child.wait_with_output()?, &["--max-pause"])?;
    Ok(Verdict::Passed)
}

pub(crate) fn stalled(context: &mut Context) -> Result<Verdict> {
    let uri = context.guest().uri();
    let mut command = context.vmcore.command(["capture", &uri, "-o", "-", "--max-pause", "0"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Nobody ever reads the pipe: the writer cannot go on, and cannot notice that it is cancelled.
    context.guest().qmp.wait_event("STOP", SOON)?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    context.guest().qmp.wait_event("RESUME", SOON)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(130), "the capture ended with {status}");
    Ok(Verdict::Passed)
}

pub(crate) fn cut_monitor(context: &mut Context) -> Result<Verdict> {
    let qemu = context.guest().socket.clone();
    let (said, status) = cut(context, &qemu, usize::MAX)?;
    ensure!(status.success(), "through a proxy the capture ended with {status}");
    let mut failed = 0;
    for part in 0..12 {
        let bytes = said * part / 12;
        let (_, status) =
            cut(context, &qemu, bytes).with_context(|| format!("cut after {bytes} bytes of {said}"))?;
        failed += u32::from(!status.success());
    }
    ensure!(failed >= 6, "only {failed} captures noticed");
    Ok(Verdict::Passed)
}

fn cut(context: &mut Context, qemu: &Path, bytes: usize) -> Result<(usize, ExitStatus)> {
    let (socket, folder) = (context.path("proxy.sock"), context.path("out"));
    fs::create_dir(&folder)?;
    let proxy = proxy::cut_after(bytes, &socket, qemu)?;
    let uri = format!("qemu:{}", socket.display());
    context.guest().qmp.forget_events()?;
    let out = any_output(&mut context.vmcore.capture_command(&uri, &folder.join("guest.vmcore"), &[]))?;
    let said = proxy.join().ok().context("the proxy panicked")??;
    let events = context.guest().qmp.events()?;
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    if count("STOP") > count("RESUME") {
        context.guest().qmp.wait_event("RESUME", SOON).context("the guest stays stopped")?;
    }
    context.guest().ping()?;
    if out.status.success() {
        complete(context, &files_in(&folder)?)?;
    } else {
        fails_with(&out, &[])?;
        ensure!(files_in(&folder)?.is_empty(), "it left {:?} behind", files_in(&folder)?);
    }
    fs::remove_dir_all(&folder)?;
    fs::remove_file(&socket)?;
    Ok((said, out.status))
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, bytes: u64) -> Result<Self> {
        fs::create_dir(&path)?;
        let options = std::ffi::CString::new(format!("size={bytes}"))?;
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), options.as_c_str())
            .context("cannot mount a tmpfs")?;
        Ok(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // The folder cannot be removed then, and says so.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

pub(crate) fn disk_full(context: &mut Context) -> Result<Verdict> {
    if !is_root() {
        return Ok(Verdict::Skipped("root, to mount a small disk,".to_owned()));
    }
    let disk = Tmpfs::mount(context.path("small"), 8 << 20)?;
    refused_before_the_pause(context, &disk.0, &["left", "hint"])
}

pub(crate) fn read_only(context: &mut Context) -> Result<Verdict> {
    if !is_root() {
        return Ok(Verdict::Skipped("root, to mount a read-only disk,".to_owned()));
    }
    let disk = Tmpfs::mount(context.path("read-only"), 1 << 30)?;
    mount_remount(&disk.0, MountFlags::RDONLY, "")?;
    refused_before_the_pause(context, &disk.0, &["read-only"])
}

fn refused_before_the_pause(context: &mut Context, folder: &Path, words: &[&str]) -> Result<Verdict> {
    let uri = context.guest().uri();
    let out = any_output(&mut context.vmcore.capture_command(&uri, &folder.join("guest.vmcore"), &[]))?;
    fails_with(&out, words)?;
    let events = context.guest().qmp.events()?;
    ensure!(!events.iter().any(|name| name == "STOP"), "the guest was stopped for nothing");
    ensure!(files_in(folder)?.is_empty(), "it left {:?} behind", files_in(folder)?);
    Ok(Verdict::Passed)
}

pub(crate) fn disk_fills_up(context: &mut Context) -> Result<Verdict> {
    if !is_root() {
        return Ok(Verdict::Skipped("root, to mount a small disk,".to_owned()));
    }
    let memory: u64 = context.core()?.head.segments.iter().map(|segment| segment.memsz).sum();
    // Room for the dump and a little more when free space is checked.
    let disk = Tmpfs::mount(context.path("small"), memory + (24 << 20))?;
    let uri = context.guest().uri();
    context.guest().qmp.forget_events()?;
    let options = ["--no-sparse", "--threads", "1"];
    let mut command = context.vmcore.capture_command(&uri, &disk.0.join("guest.vmcore"), &options);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    context.guest().qmp.wait_event("STOP", SOON)?;
    let ballast = fill(&disk.0.join("ballast"))?;
    let out = child.wait_with_output()?;
    fails_with(&out, &["no space left", "hint"])?;
    context.guest().qmp.wait_event("RESUME", SOON)?;
    context.guest().ping()?;
    ensure!(
        files_in(&disk.0)? == ["ballast"],
        "it left {:?} behind ({ballast} bytes of ballast)",
        files_in(&disk.0)?
    );
    Ok(Verdict::Passed)
}

/// Writes until the disk is full.
fn fill(path: &Path) -> Result<u64> {
    let mut file = File::create(path)?;
    let chunk = vec![0xaa; 4 << 20];
    loop {
        match file.write_all(&chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                return Ok(file.metadata()?.len());
            }
            Err(error) => bail!("writing ballast: {error}"),
        }
    }
}

pub(crate) fn unprivileged(context: &mut Context) -> Result<Verdict> {
    if !is_root() {
        return Ok(Verdict::Skipped("root, to become another user,".to_owned()));
    }
    // They may use the monitor, and a program and a folder of their own; but not QEMU's process.
    let folder = tempfile::Builder::new().prefix("vmcore-nobody-").tempdir()?;
    let program = folder.path().join("vmcore");
    fs::copy(&context.vmcore.program, &program)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
    fs::set_permissions(context.guest().folder.path(), Permissions::from_mode(0o755))?;
    fs::set_permissions(&context.guest().socket, Permissions::from_mode(0o777))?;
    let uri = context.guest().uri();
    let capture = |out: &Path, options: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&program);
        any_output(command.args(["capture", &uri, "-o"]).arg(out).args(options))
    };
    let dump = folder.path().join("guest.vmcore");
    context.guest().qmp.forget_events()?;
    let out = capture(&dump, &[])?;
    fails_with(&out, &["permission", "CAP_SYS_PTRACE", "--memory stream"])?;
    ensure!(!dump.exists(), "it made a dump");
    ensure!(files_in(folder.path())? == ["vmcore"], "it left {:?} behind", files_in(folder.path())?);
    context.guest().ping()?;
    let out = capture(&dump, &["--memory", "stream"])?;
    ensure!(out.status.success(), "--memory stream: {}", String::from_utf8_lossy(&out.stderr));
    context.vmcore.verify(&dump)?;
    Ok(Verdict::Passed)
}
