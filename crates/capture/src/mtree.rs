//! Where QEMU's memory lies, from two commands of its human monitor: `info mtree -f` and `gpa2hva`.
//!
//! `info mtree -f` *predicts* the `PT_LOAD`s of a dump while the guest still runs, so that everything slow is done
//! before the pause. The dump itself is the authority: the map changes while a guest boots, and what a virtio-mem device
//! has plugged is not in the text at all.
//!
//! Source: `spec/live-capture.md` section 4; QEMU 7.2 `softmmu/memory.c` (`mtree_print_flatview`), `softmmu/memory_mapping.c`.

use std::collections::HashSet;
use std::ops::Range;
use vmcore_core::{Gpa, Region};

/// The most ranges that are taken from the text. A guest with every DIMM and device has some hundreds.
const MAX_RANGES: usize = 1 << 16;

/// What `info mtree -f` says of the memory that a dump will hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    /// The predicted segments of a dump, in ascending order.
    pub regions: Vec<Region>,
    /// Whether memory of an assigned (VFIO) device is mapped, which may write guest memory while vCPUs stand still.
    pub has_assigned_device: bool,
}

/// One line of a flat view.
struct Row<'a> {
    range: Range<u64>,
    kind: &'a str,
    name: &'a str,
    /// Offset of the range in the memory region `name`.
    offset: u64,
}

/// Predicts the segments of a dump from the text of `info mtree -f`; empty if it has no view of the memory.
#[must_use]
pub fn parse(text: &str) -> MemoryMap {
    let rows = rows_of_memory(text);
    // A read-only alias of a flash device prints as `rom` but is not dumped (QEMU 10.0, pflash before PAM is programmed).
    let devices: HashSet<&str> = rows.iter().filter(|row| row.kind == "romd").map(|row| row.name).collect();
    let is_dumped = |row: &&Row<'_>| match row.kind {
        // QEMU means to leave out non-volatile memory (an NVDIMM), but looks for the flag in the wrong place.
        "ram" | "nv-ram" => true,
        "rom" | "nv-rom" => !devices.contains(row.name),
        _ => false,
    };
    let mut map = MemoryMap {
        regions: Vec::new(),
        has_assigned_device: rows.iter().any(|row| row.kind.ends_with("ramd")),
    };
    let mut before: Option<&Row<'_>> = None;
    for row in rows.iter().filter(is_dumped) {
        let len = row.range.end - row.range.start;
        let continues = before.is_some_and(|before| {
            let before_len = before.range.end - before.range.start;
            before.range.end == row.range.start
                && before.name == row.name
                && before.offset.checked_add(before_len) == Some(row.offset)
        });
        match map.regions.last_mut() {
            Some(last) if continues => last.len += len,
            Some(last) if last.end().0 > row.range.start => continue,
            _ => map.regions.push(Region::ram(Gpa(row.range.start), len)),
        }
        before = Some(row);
    }
    map
}

/// The rows of the view that is the system's memory. Others, `cpu-smm-0` above all, hide a part of it.
fn rows_of_memory(text: &str) -> Vec<Row<'_>> {
    let mut is_memory = false;
    let mut rows = Vec::new();
    for line in text.lines() {
        if line.starts_with("FlatView ") {
            if !rows.is_empty() {
                break;
            }
            is_memory = false;
        }
        is_memory |= line.trim_end() == " AS \"memory\", root: system";
        if is_memory
            && rows.len() < MAX_RANGES
            && let Some(row) = row_of(line)
        {
            rows.push(row);
        }
    }
    rows
}

/// `  START-LAST (prio N, TYPE): NAME [@OFFSET] [KVM]`.
fn row_of(line: &str) -> Option<Row<'_>> {
    let (range, rest) = line.strip_prefix("  ")?.split_once(" (prio ")?;
    let (start, last) = range.split_once('-')?;
    let (start, last) = (hex16(start)?, hex16(last)?);
    // A range that ends at 2^64 has no length that fits, and no guest has memory there.
    let end = last.checked_add(1).filter(|end| *end > start)?;
    let (_, rest) = rest.split_once(", ")?;
    let (kind, name) = rest.split_once("): ")?;
    let name = name.trim_end();
    // Accelerators that track memory put their name behind. Names may contain spaces themselves.
    let name = name.strip_suffix(" KVM").unwrap_or(name);
    let with_offset = name.rsplit_once(" @").and_then(|(name, offset)| Some((name, hex16(offset)?)));
    let (name, offset) = with_offset.unwrap_or((name, 0));
    Some(Row { range: start..end, kind, name, offset })
}

fn hex16(text: &str) -> Option<u64> {
    if text.len() == 16 { hex(text) } else { None }
}

fn hex(text: &str) -> Option<u64> {
    // `from_str_radix` would take a sign.
    if text.starts_with('+') { None } else { u64::from_str_radix(text, 16).ok() }
}

/// The answer of `gpa2hva`: an address in QEMU's process, or QEMU's reason why there is none.
///
/// # Errors
/// The text itself, if it names no address.
pub fn parse_hva(text: &str) -> Result<u64, &str> {
    let text = text.trim();
    let hva = text.strip_prefix("Host virtual address for ").and_then(|rest| rest.rsplit_once(" is 0x"));
    hva.and_then(|(_, hva)| hex(hva)).filter(|hva| *hva != 0).ok_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const Q35: &str = include_str!("../tests/data/mtree-7.2-q35-vga.txt");

    fn check(text: &str, expected: &[(u64, u64)]) {
        let found: Vec<_> = parse(text).regions.iter().map(|region| (region.gpa.0, region.end().0)).collect();
        assert_eq!(found, expected, "{found:x?}");
    }

    /// A view with these rows.
    fn view(rows: &str) -> String {
        format!(
            "FlatView #0\r\n AS \"I/O\", root: io\r\n  0000000000000000-0000000000000fff (prio 0, ram): io\r\n\r\n\
             FlatView #1\r\n AS \"cpu-memory-0\", root: system\r\n AS \"memory\", root: system\r\n{rows}\r\n\
             FlatView #2\r\n AS \"cpu-smm-0\", root: memory\r\n  0000000000000000-00000000000bffff (prio 0, ram): pc.ram\r\n"
        )
    }

    #[test]
    fn a_booted_pc_of_qemu_7_2() {
        const MERGED: (u64, u64) = (0xc_0000, 0x2000_0000);
        check(Q35, &[(0, 0xa_0000), MERGED, (0xfd00_0000, 0xfe00_0000), (0xfffc_0000, 0x1_0000_0000)]);
        check(
            &Q35.replace('\n', "\r\n"),
            &[(0, 0xa_0000), MERGED, (0xfd00_0000, 0xfe00_0000), (0xfffc_0000, 0x1_0000_0000)],
        );
        assert!(!parse(Q35).has_assigned_device);
    }

    #[test]
    fn what_is_dumped_and_what_is_not() {
        // A read-only alias of a flash is no memory, a plain ROM is.
        check(
            &view(
                "  00000000000e0000-00000000000fffff (prio 1, rom): system.flash0 @00000000003e0000\r\n  \
                 00000000ffc00000-00000000ffffffff (prio 0, romd): system.flash0\r\n  \
                 0000000100000000-0000000107ffffff (prio 0, nv-ram): nv dimm KVM\r\n  \
                 0000000108000000-0000000108000fff (prio 0, rom): pc.rom @0000000000001000 KVM\r\n  \
                 0000000200000000-0000000200000fff (prio 0, ramd): vfio bar 0 mmaps[0]\r\n",
            ),
            &[(0x1_0000_0000, 0x1_0800_0000), (0x1_0800_0000, 0x1_0800_1000)],
        );
        let ramd =
            view("  0000000200000000-0000000200000fff (prio 0, ramd): 0000:01:00.0 BAR 0 mmaps[0]\r\n");
        assert!(parse(&ramd).has_assigned_device);
    }

    #[test]
    fn neighbors_merge_only_inside_one_memory_region() {
        check(
            &view(
                "  0000000000000000-0000000000000fff (prio 0, ram): a @0000000000001000\r\n  \
                 0000000000001000-0000000000001fff (prio 0, ram): a @0000000000002000\r\n  \
                 0000000000002000-0000000000002fff (prio 0, ram): a\r\n  \
                 0000000000003000-0000000000003fff (prio 0, ram): b @0000000000001000\r\n",
            ),
            &[(0, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000)],
        );
    }

    #[test]
    fn unaligned_ranges_stay_as_they_are() {
        check(
            &view("  000000003f003020-000000003f003fff (prio 0, ram): ram @000000003f003020\r\n"),
            &[(0x3f00_3020, 0x3f00_4000)],
        );
    }

    #[test]
    fn addresses_in_the_process() {
        let check = |text, expected| assert_eq!(parse_hva(text), expected);
        check("Host virtual address for 0x0 (pc.ram) is 0x7f754fe00000\r\n", Ok(0x7f75_4fe0_0000));
        check("Host virtual address for 0x0 (a) is 0x1) is 0x7f75\n", Ok(0x7f75));
        check("Memory at address 0xb0000000 is not RAM\r\n", Err("Memory at address 0xb0000000 is not RAM"));
        check("No memory is mapped at address 0x1", Err("No memory is mapped at address 0x1"));
        check("", Err(""));
    }

    proptest! {
        #[test]
        fn any_text_gives_regions_that_ascend(rows in "(  [0-9a-f]{16}-[0-9a-f]{16} \\(prio 0, (ram|rom|romd)\\): [ab@ ]{1,3}( @0{15}[0-9])?( KVM)?\n){0,8}", text: String) {
            let _ = parse_hva(&text);
            let _ = parse(&text);
            let map = parse(&view(&rows));
            prop_assert!(vmcore_core::memory::check_disjoint(&map.regions).is_ok());
        }
    }
}
