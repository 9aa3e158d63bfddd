//! `capture --snapshot`: the guest stands still only while its memory is copied.

use crate::args::CaptureArgs;
use crate::text;
use vmcore::{Estimate, PhysMemory, Region, SnapshotBuffer, snapshot};

/// A guest that runs uses more memory until it is stopped: room for an eighth more than it uses now, and this.
const MARGIN: u64 = 16 << 20;

/// Room for a copy of what `wanted` holds of the guest, made before the guest is stopped.
///
/// `None`, and a warning that says why, if that is more than may be taken: the dump is then written while the guest stands
/// still.
pub(crate) fn prepare(
    args: &CaptureArgs,
    memory: Option<&dyn PhysMemory>,
    wanted: &[Region],
    estimate: &Estimate,
) -> Option<SnapshotBuffer> {
    let selected: u64 = wanted.iter().map(|region| region.len).sum();
    // A stream does not tell which of its bytes are zero.
    let needed =
        memory.map_or(estimate.ram_len().min(selected), |memory| snapshot::needed_len(memory, wanted));
    let (limit, origin) = match args.max_buffer {
        Some(limit) => (limit, "--max-buffer"),
        None => (available() / 2, "half of the memory that is available here"),
    };
    if needed > limit {
        refuse(&format!("its memory takes {}, and {origin} is {}", text::size(needed), text::size(limit)));
        return None;
    }
    let len = needed.saturating_add(needed / 8).saturating_add(MARGIN).min(limit).min(selected);
    let buffer = SnapshotBuffer::new(len);
    buffer.inspect_err(|error| refuse(&format!("there is no room for a copy of its memory: {error}"))).ok()
}

/// Says that the guest must stand still until its dump is written.
pub(crate) fn refuse(why: &str) {
    text::say(&format!(
        "vmcore: warning: no snapshot is taken, so that the guest stands still until the dump is written: {why}"
    ));
}

/// How much memory this system can give, in bytes; all of it if it does not tell.
fn available() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    parse_available(&meminfo).unwrap_or(u64::MAX)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(parse_available("MemTotal:  8 kB\nMemAvailable:    16 kB\n"), Some(16 << 10));
        assert_eq!(parse_available("MemTotal:  8 kB\n"), None);
    }
}
