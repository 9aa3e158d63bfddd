//! What a capture costs the host beside the dump: nothing that stays.

use super::{Context, Verdict};
use crate::guest::Backend;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Pages that QEMU and the guest itself take while we look, of an idle guest: some KiB were seen.
const NOISE: u64 = 8 << 20;

/// Memory of the guest's process and blocks of its file, in bytes.
#[derive(Debug)]
struct Usage {
    anonymous: u64,
    shared: u64,
    file_blocks: u64,
}

pub(crate) fn memory_does_not_grow(context: &mut Context) -> Result<Verdict> {
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    let before = usage(context)?;
    for options in [&[][..], &["--no-sparse"][..]] {
        context.vmcore.capture(&uri, &path, options)?;
        std::fs::remove_file(&path)?;
    }
    let after = usage(context)?;
    let grown = [
        after.anonymous.saturating_sub(before.anonymous),
        after.shared.saturating_sub(before.shared),
        after.file_blocks.saturating_sub(before.file_blocks),
    ];
    ensure!(grown.iter().all(|&grown| grown < NOISE), "QEMU grew: before {before:?}, after {after:?}");
    // Else the test could not have seen anything.
    let guest_len = context.guest().spec.mem << 20;
    let used = before.anonymous.max(before.shared).max(before.file_blocks);
    ensure!(used < guest_len - 8 * NOISE, "all of the guest's memory is used already: {before:?}");
    Ok(Verdict::Passed)
}

fn usage(context: &mut Context) -> Result<Usage> {
    let guest = context.guest();
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.pid()))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number =
            line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))?;
        Ok(number.parse::<u64>()? * 1024)
    };
    let file_blocks = backing_blocks(guest.pid(), &guest.backing_file())?;
    ensure!(
        (file_blocks > 0) == [Backend::File, Backend::Memfd].contains(&guest.spec.backend),
        "the files behind the guest's memory take {file_blocks} bytes"
    );
    // A file on disk is mapped shared: its pages are counted as file pages.
    Ok(Usage { anonymous: field("RssAnon")?, shared: field("RssShmem")? + field("RssFile")?, file_blocks })
}

/// Bytes of the files behind the guest's memory. Whoever maps them can make them grow, and QEMU's own size shows nothing.
fn backing_blocks(pid: u32, file: &Path) -> Result<u64> {
    let mut blocks = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path())?;
        let name = target.to_string_lossy();
        if name.starts_with("/memfd:memory-backend") || target == file {
            let metadata = std::fs::metadata(entry.path())?;
            blocks.insert(metadata.ino(), metadata.blocks() * 512);
        }
    }
    Ok(blocks.values().sum())
}
