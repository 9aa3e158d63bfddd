//! The mappings of a process: `/proc/PID/maps`.
//!
//! Source: `spec/live-capture.md` section 5.1; Linux `Documentation/filesystems/proc.rst`, section 1.1.

use std::ops::Range;

/// One mapping of a process: a row of its `maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Its addresses in the process.
    pub range: Range<u64>,
    /// Whether the process can read it.
    pub is_readable: bool,
    /// Whether other processes see what is written: `s` in place of `p`.
    pub is_shared: bool,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file; 0 if there is none.
    pub inode: u64,
    /// The file's path when it was opened, or a name in brackets, or nothing.
    pub path: String,
}

/// Parses `/proc/PID/maps`. Rows that make no sense are left out; the rest ascends without overlap.
#[must_use]
pub fn parse(text: &str) -> Vec<Vma> {
    let mut vmas: Vec<Vma> = Vec::new();
    for vma in text.lines().filter_map(row_of) {
        if vmas.last().is_none_or(|last| last.range.end <= vma.range.start) {
            vmas.push(vma);
        }
    }
    vmas
}

/// `7f6c9f400000-7f6cbf400000 rw-s 00000000 00:1c 2    /dev/shm/ram`.
fn row_of(line: &str) -> Option<Vma> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let mode = fields.next()?.as_bytes();
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    Some(Vma {
        range: (start < end).then_some(start..end)?,
        is_readable: *mode.first()? == b'r',
        is_shared: *mode.get(3)? == b's',
        offset,
        device: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
        inode,
        path: fields.next().unwrap_or_default().trim_start().to_owned(),
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The mappings that hold `[start, start + len)`, each with the part of the range that lies in it; `None` if they leave
/// a hole.
#[must_use]
pub fn cover(vmas: &[Vma], start: u64, len: u64) -> Option<Vec<(&Vma, Range<u64>)>> {
    let end = start.checked_add(len)?;
    let first = vmas.partition_point(|vma| vma.range.end <= start);
    let mut at = start;
    let mut parts = Vec::new();
    for vma in vmas.get(first..)?.iter().take_while(|vma| vma.range.start < end) {
        if vma.range.start > at {
            return None;
        }
        let stop = vma.range.end.min(end);
        parts.push((vma, at..stop));
        at = stop;
    }
    (at == end).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAPS: &str = "\
5631a51e9000-5631a55f0000 r--p 00000000 fe:00 10199053                   /usr/bin/qemu-system-x86_64
7f754fe00000-7f756fe00000 rw-p 00000000 00:00 0 
7f756fe00000-7f756fe01000 ---p 00000000 00:00 0 
7f7570000000-7f7580000000 rw-s 10000000 00:1c 1029                       /memfd:a name (deleted)
nonsense
7f7000000000-7f7000001000 rw-p 00000000 00:00 0 
";

    #[test]
    fn rows_are_read() {
        let vmas = parse(MAPS);
        assert_eq!(vmas.len(), 4, "nonsense and a row out of order are left out");
        let shared = &vmas[3];
        assert_eq!((shared.is_shared, shared.is_readable, shared.offset), (true, true, 0x1000_0000));
        assert_eq!((shared.device, shared.inode), ((0, 0x1c), 1029));
        assert_eq!(shared.path, "/memfd:a name (deleted)");
        assert!(!vmas[2].is_readable);
    }

    #[test]
    fn a_range_is_covered_or_not() {
        let vmas = parse(MAPS);
        let parts = cover(&vmas, 0x7f75_6fdf_f000, 0x1800).unwrap();
        let ranges: Vec<_> = parts.iter().map(|(_, part)| part.clone()).collect();
        assert_eq!(ranges, [0x7f75_6fdf_f000..0x7f75_6fe0_0000, 0x7f75_6fe0_0000..0x7f75_6fe0_0800]);
        let parts = cover(&vmas, 0x7f75_7000_1000, 0x1000).unwrap();
        assert_eq!(parts, [(&vmas[3], 0x7f75_7000_1000..0x7f75_7000_2000)]);
        assert_eq!(cover(&vmas, 0x7f75_6fe0_0000, 0x20_0000), None);
        assert_eq!(cover(&vmas, u64::MAX, 2), None);
    }

    proptest! {
        #[test]
        fn any_text_gives_mappings_that_ascend(text: String, rows in "([0-9a-f]{1,4}-[0-9a-f]{1,4} r[w-]-[ps] [0-9a-f]{1,3} 0:1 [0-9]{1,20} {1,3}x?\n){0,6}", at: u64, len: u64) {
            let _ = parse(&text);
            let vmas = parse(&rows);
            prop_assert!(vmas.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
            for (at, len) in [(at, len), (at % 0x1_0000, len % 0x1_0000)] {
                let sum = cover(&vmas, at, len)
                    .map(|parts| parts.iter().map(|(_, part)| part.end - part.start).sum::<u64>());
                prop_assert!(sum.is_none_or(|sum| sum == len));
            }
        }
    }
}
