//! The ioctl `PAGEMAP_SCAN` of `/proc/PID/pagemap`: the one piece of unsafe code of this crate.
//!
//! Why safe code will not do: reading `pagemap` itself is safe, and takes 8 ms for an untouched guest of 16 GiB where the
//! ioctl takes 0.02 ms; it also cannot tell the shared zero page from others. No crate wraps this ioctl.
//!
//! Source: Linux 6.7 `include/uapi/linux/fs.h` (`struct pm_scan_arg`), `Documentation/admin-guide/mm/pagemap.rst`.

#![expect(unsafe_code, reason = "no crate wraps PAGEMAP_SCAN")]

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::io;
use std::ops::Range;

/// The page is of a file, or of shared memory.
pub(crate) const PAGE_IS_FILE: u64 = 1 << 2;
/// The page is in memory.
pub(crate) const PAGE_IS_PRESENT: u64 = 1 << 3;
/// The page is in swap.
pub(crate) const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// The page is the shared page of zeros.
pub(crate) const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// Ranges that one call can return.
const MAX_RANGES: usize = 1024;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGEMAP_SCAN: Opcode = opcode::read_write::<PmScanArg>(b'f', 16);
const _: () = assert!(size_of::<PmScanArg>() == 96 && size_of::<PageRegion>() == 24);

/// Calls `found` with the ranges of pages in `range` that are in memory or swap and not of the category `except`.
///
/// `pagemap` is `/proc/PID/pagemap`; `range` is a range of page-aligned addresses in that process. Ranges come in
/// ascending order; neighbors may touch.
///
/// # Errors
/// Those of the operating system: `ENOTTY` before Linux 6.7.
pub(crate) fn scan(
    pagemap: &File,
    range: Range<u64>,
    except: u64,
    mut found: impl FnMut(Range<u64>),
) -> io::Result<()> {
    let mut regions = vec![PageRegion::default(); MAX_RANGES];
    let mut start = range.start;
    while start < range.end {
        let mut arg = PmScanArg {
            size: size_of::<PmScanArg>() as u64,
            start,
            end: range.end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_inverted: except,
            category_mask: except,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..PmScanArg::default()
        };
        // SAFETY: the opcode is that of PAGEMAP_SCAN, whose argument is a `PmScanArg` (its size is asserted above and
        // stands in its first field).
        let call = unsafe { Updater::<PAGEMAP_SCAN, _>::new(&mut arg) };
        // SAFETY: the kernel writes `arg`, and at most `vec_len` regions at `vec`: that is `regions`, which this function
        // owns and nobody else looks at during the call. A file that is no pagemap refuses the opcode (ENOTTY); no other
        // ioctl has this number for files of /proc, the only ones that callers pass.
        let done = unsafe { ioctl(pagemap, call) };
        done?;
        // The number of regions is the result of the call, which `Updater` drops: a region that was not written is empty.
        for region in regions.iter_mut().take_while(|region| region.start < region.end) {
            found(region.start.max(range.start)..region.end.min(range.end));
            *region = PageRegion::default();
        }
        // It stops early only when the list is full. A kernel that does not move on must not hold us.
        start = if arg.walk_end > start { arg.walk_end } else { range.end };
    }
    Ok(())
}
