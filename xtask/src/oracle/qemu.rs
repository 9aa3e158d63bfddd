//! QEMU's own dump of a guest, through a pipe: nothing is written to disk unless somebody asks for a file.

use super::core_file::Head;
use crate::guest::Guest;
use anyhow::{Context, Result, bail, ensure};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than QEMU takes for any test guest.
const DUMP: Duration = Duration::from_secs(300);
const FD_NAME: &str = "oracle";

/// A dump that QEMU is writing into a pipe.
pub(crate) struct QemuDump {
    pub(crate) head: Head,
    pipe: File,
}

impl QemuDump {
    /// Starts a dump and reads its head.
    pub(crate) fn start(guest: &mut Guest, paging: bool) -> Result<Self> {
        settle(guest)?;
        guest.qmp.forget_events()?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        guest.qmp.execute_with_fd("getfd", json!({ "fdname": FD_NAME }), Some(writer.as_fd()))?;
        drop(writer);
        let protocol = format!("fd:{FD_NAME}");
        let arguments = json!({ "paging": paging, "protocol": protocol, "format": "elf", "detach": true });
        guest.qmp.execute("dump-guest-memory", arguments)?;
        let mut pipe = File::from(reader);
        let head = Head::read(&mut pipe).context("QEMU's dump")?;
        Ok(Self { head, pipe })
    }

    /// The bytes behind the head.
    pub(crate) fn stream(&mut self) -> &mut impl Read {
        &mut self.pipe
    }

    /// Reads the rest and waits until QEMU is done.
    pub(crate) fn finish(mut self, guest: &mut Guest) -> Result<()> {
        std::io::copy(&mut self.pipe, &mut std::io::sink())?;
        let event = guest.qmp.wait_event("DUMP_COMPLETED", DUMP)?;
        if event["data"]["result"]["status"] != json!("completed") {
            bail!("QEMU's dump ended with {event}");
        }
        settle(guest)
    }

    /// Gives up the memory: only the head is wanted.
    pub(crate) fn head_only(self, guest: &mut Guest) -> Result<Head> {
        drop(self.pipe);
        guest.qmp.wait_event("DUMP_COMPLETED", DUMP)?;
        settle(guest)?;
        Ok(self.head)
    }
}

/// QEMU's dump in a file; a running guest runs again when it is done.
pub(crate) fn dump_to_file(guest: &mut Guest, path: &Path, format: &str) -> Result<()> {
    settle(guest)?;
    let was_running = guest.qmp.status()? == "running";
    guest.qmp.forget_events()?;
    let protocol = format!("file:{}", path.display());
    let arguments = json!({ "paging": false, "protocol": protocol, "format": format, "detach": true });
    guest.qmp.execute("dump-guest-memory", arguments)?;
    let event = guest.qmp.wait_event("DUMP_COMPLETED", DUMP)?;
    if event["data"]["result"]["status"] != json!("completed") {
        bail!("QEMU's dump ended with {event}");
    }
    if was_running {
        guest.qmp.wait_event("RESUME", DUMP)?;
    }
    settle(guest)
}

/// Waits until QEMU has cleaned up behind its last dump, whoever asked for it.
///
/// A dump is over for `query-dump` and the event before its thread has closed its descriptor, and a dump that begins in
/// between has *its* descriptor closed: seen with 7.2 on a busy host (an end of file in the header, and an assertion of
/// GLib). The last thing of the clean-up is that migration is allowed again, and that can be asked.
pub(crate) fn settle(guest: &mut Guest) -> Result<()> {
    let deadline = Instant::now() + DUMP;
    loop {
        let reply = guest.qmp.execute("query-migrate", json!({}))?;
        let blocked = reply["blocked-reasons"].as_array().is_some_and(|reasons| {
            reasons
                .iter()
                .any(|reason| reason.as_str().is_some_and(|reason| reason.contains("dump-guest-memory")))
        });
        if !blocked {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "QEMU does not clean up behind its dump");
    }
}
