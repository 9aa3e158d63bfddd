//! Which process QEMU is.

use crate::error::CaptureError;
use crate::process::Process;
use rustix::fs::Stat;

/// Finds QEMU's process.
///
/// Candidates are the process of a vCPU's thread (a number in QEMU's pid namespace, which may not be ours) and the one
/// that made the monitor's socket (libvirt, perhaps). The proof is the pipe that was passed to QEMU: its process has it
/// open. If no candidate has it, all processes are looked at. Where no pipe was passed the first candidate must do, and
/// the FIFO proves it later.
pub(crate) fn process(
    threads: &[Option<i32>],
    peer: Option<i32>,
    passed: Option<&Stat>,
) -> Result<Process, CaptureError> {
    let of_threads = threads.iter().flatten().take(1).map(|tid| Process::of_thread(*tid));
    let candidates = of_threads.chain(peer.map(Process::open)).filter_map(Result::ok);
    let Some(pipe) = passed else {
        let mut candidates = candidates;
        let reason = "its vCPU threads are not on this host".to_owned();
        return candidates.next().ok_or(CaptureError::NoProcess { reason });
    };
    let mut denied = None;
    for process in candidates {
        match process.has_open(pipe) {
            Ok(true) => return Ok(process),
            Ok(false) => {}
            Err(error) => denied = denied.or(Some((process, error))),
        }
    }
    if let Some(process) = search(pipe) {
        return Ok(process);
    }
    match denied {
        Some((process, error)) => Err(process.denied("the memory", error)),
        None => Err(CaptureError::NoProcess { reason: "no process that we can see has the pipe".to_owned() }),
    }
}

/// The process that has a pipe open, of all but this one.
fn search(pipe: &Stat) -> Option<Process> {
    let own = i32::try_from(std::process::id()).ok();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| Some(*pid) != own)
        .filter_map(|pid| Process::open(pid).ok())
        .find(|process| process.has_open(pipe).is_ok_and(|is_it: bool| is_it))
}
