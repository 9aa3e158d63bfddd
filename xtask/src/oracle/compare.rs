//! Our dump against QEMU's dump of the same stopped guest.

use super::core_file::{CoreFile, Head, Order};
use super::qemu::QemuDump;
use crate::guest::Guest;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::{Read, sink};

const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;

/// Compares everything: segments, notes, and each byte of memory. The guest must be stopped.
pub(crate) fn same_as_qemu(guest: &mut Guest, ours: &CoreFile) -> Result<()> {
    let mut theirs = QemuDump::start(guest, false)?;
    let head = theirs.head.clone();
    same_segments(&head, &ours.head)?;
    same_notes(&head, &ours.head)?;
    same_memory(&head, theirs.stream(), ours)?;
    theirs.finish(guest)
}

/// The ranges of guest memory must be the same, one by one.
pub(crate) fn same_segments(theirs: &Head, ours: &Head) -> Result<()> {
    let ranges = |head: &Head| -> Vec<(u64, u64)> {
        let ranges: BTreeSet<_> =
            head.segments.iter().map(|segment| (segment.paddr, segment.memsz)).collect();
        ranges.into_iter().collect()
    };
    let (theirs, ours) = (ranges(theirs), ranges(ours));
    ensure!(theirs == ours, "segments (paddr, memsz):\n  QEMU {theirs:x?}\n  ours {ours:x?}");
    Ok(())
}

/// `pr_pid` of a 64-bit `NT_PRSTATUS`: QEMU 7.2 writes that of s390x in the host's byte order and leaves that of ppc64
/// zero, though readers find a vCPU by it (`spec/arch-notes.md` section 3.1).
const PR_PID: std::ops::Range<usize> = 32..36;
const EM_PPC64: u16 = 21;
const EM_S390: u16 = 22;

/// Each kind of note that QEMU wrote is in our dump as often, in that order, with the same bytes. We may have more kinds.
pub(crate) fn same_notes(theirs: &Head, ours: &Head) -> Result<()> {
    ensure!(theirs.machine == ours.machine, "ELF machine: QEMU {}, ours {}", theirs.machine, ours.machine);
    let has_wrong_pid = [EM_PPC64, EM_S390].contains(&theirs.machine) && theirs.order == Order::Big;
    let kinds: BTreeSet<_> = theirs.notes.iter().map(|note| (note.owner.as_str(), note.note_type)).collect();
    for (owner, note_type) in kinds {
        let (their_notes, our_notes) = (theirs.notes_of(owner, note_type), ours.notes_of(owner, note_type));
        ensure!(
            their_notes.len() == our_notes.len(),
            "notes {owner}/{note_type}: QEMU has {}, we {}",
            their_notes.len(),
            our_notes.len()
        );
        for (index, (note, ours)) in their_notes.into_iter().zip(our_notes).enumerate() {
            let mut theirs = note.to_vec();
            if has_wrong_pid && (owner, note_type) == ("CORE", 1) {
                let number = u32::try_from(index + 1)?;
                theirs[PR_PID].copy_from_slice(&number.to_be_bytes());
            }
            let what = format!("note {owner}/{note_type} number {index}");
            ensure!(theirs.len() == ours.len(), "{what}: QEMU has {} bytes, we {}", theirs.len(), ours.len());
            if let Some(at) = (0..theirs.len()).find(|&at| theirs[at] != ours[at]) {
                let end = theirs.len().min(at + 16);
                bail!("{what} at {at}: QEMU {:02x?}, ours {:02x?}", &theirs[at..end], &ours[at..end]);
            }
        }
    }
    Ok(())
}

/// Each byte of QEMU's stream behind its head is in our dump at the same physical address.
pub(crate) fn same_memory(theirs: &Head, stream: &mut impl Read, ours: &CoreFile) -> Result<()> {
    let mut segments = theirs.segments.clone();
    segments.sort_by_key(|segment| segment.offset);
    let mut position = theirs.len;
    let (mut expected, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut pages, mut first) = (0_u64, None);
    for segment in segments {
        let gap = segment.offset.checked_sub(position).context("QEMU's segments overlap in the file")?;
        std::io::copy(&mut stream.take(gap), &mut sink())?;
        let mut done = 0;
        while done < segment.filesz {
            let len = usize::try_from((segment.filesz - done).min(CHUNK as u64))?;
            let (expected, found) = (&mut expected[..len], &mut found[..len]);
            stream.read_exact(expected).context("QEMU's dump ends early")?;
            ours.read_physical(segment.paddr + done, found)?;
            if expected != found {
                for (index, (a, b)) in expected.chunks(PAGE).zip(found.chunks(PAGE)).enumerate() {
                    if a != b {
                        pages += 1;
                        first.get_or_insert(segment.paddr + done + (index * PAGE) as u64);
                    }
                }
            }
            done += len as u64;
        }
        position = segment.offset + segment.filesz;
    }
    match first {
        Some(first) => bail!("{pages} pages differ from QEMU's, the first at {first:#x}"),
        None => Ok(()),
    }
}
