//! Which pages of a mapping nobody has touched, by the kernel's page map of this process.
//!
//! Source: Linux `Documentation/admin-guide/mm/pagemap.rst`; `proc_pid_maps(5)`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use vmcore_core::{Run, RunState};

/// Bytes of an entry of the page map, one for each page.
const ENTRY_LEN: usize = 8;
/// The page is there, or in swap. An entry with neither bit is of a page that was never touched.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;
/// Entries that are read at once: a page of them.
const BATCH: usize = 512;
/// Fewer untouched pages than that are read with their neighbors: that takes less time than to ask where they end.
const SHORT: u64 = 16;

/// The page map, and the mappings that are private and anonymous: their untouched pages are zero. Those of files are not.
#[derive(Debug)]
pub(super) struct PageMap {
    pagemap: File,
    page_size: u64,
    /// Host virtual addresses, half-open and ascending.
    anonymous: Vec<(u64, u64)>,
}

impl PageMap {
    pub(super) fn open() -> io::Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(Self {
            pagemap: File::open("/proc/self/pagemap")?,
            page_size: rustix::param::page_size() as u64,
            anonymous: anonymous(&maps),
        })
    }

    /// What is known of `max` bytes from host address `hva` on.
    pub(super) fn run_at(&self, hva: u64, max: u64) -> Run {
        let index = self.anonymous.partition_point(|(_, end)| *end <= hva);
        let Some((_, end)) = self.anonymous.get(index).filter(|(start, _)| *start <= hva) else {
            return Run { len: max, state: RunState::Data };
        };
        let end = hva.saturating_add(max).min(*end);
        // What cannot be asked is to be read.
        self.run_in(hva, end).unwrap_or(Run { len: end - hva, state: RunState::Data })
    }

    /// Pages in one state from `hva` to `end`, at most.
    fn run_in(&self, hva: u64, end: u64) -> io::Result<Run> {
        let (first, behind) = (hva / self.page_size, end.div_ceil(self.page_size));
        let mut entries = [0; BATCH * ENTRY_LEN];
        let mut state = None;
        let mut page = first;
        let mut untouched = 0;
        while page < behind {
            let count = usize::try_from(behind - page).unwrap_or(BATCH).min(BATCH);
            let entries = &mut entries[..count * ENTRY_LEN];
            self.pagemap.read_exact_at(entries, page * ENTRY_LEN as u64)?;
            let (entries, _) = entries.as_chunks::<ENTRY_LEN>();
            for entry in entries {
                let is_touched = u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0;
                let found = if is_touched { RunState::Data } else { RunState::Zero };
                untouched = if is_touched { 0 } else { untouched + 1 };
                match *state.get_or_insert(found) {
                    RunState::Data if untouched == SHORT => {
                        return Ok(self.run(hva, end, page + 1 - SHORT, RunState::Data));
                    }
                    RunState::Zero if is_touched => return Ok(self.run(hva, end, page, RunState::Zero)),
                    _ => page += 1,
                }
            }
        }
        Ok(Run { len: end - hva, state: state.unwrap_or(RunState::Data) })
    }

    fn run(&self, hva: u64, end: u64, behind: u64, state: RunState) -> Run {
        Run { len: (behind * self.page_size).min(end) - hva, state }
    }
}

/// The mappings of `/proc/self/maps` that are private and of no file, neighbors joined.
fn anonymous(maps: &str) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(permissions)) = (words.next(), words.next()) else { continue };
        let (inode, name) = (words.nth(2), words.next());
        // A name in brackets is one that the process, or the kernel, gave it.
        let is_anonymous = inode == Some("0") && name.is_none_or(|name| name.starts_with('['));
        let hex = |word| u64::from_str_radix(word, 16).ok();
        let Some((Some(start), Some(end))) = range.split_once('-').map(|(start, end)| (hex(start), hex(end)))
        else {
            continue;
        };
        if !is_anonymous || !permissions.ends_with('p') {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => found.push((start, end)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_private_mappings_without_a_file_are_anonymous() {
        let maps = "\
55d0c0000000-55d0c0001000 r-xp 00000000 08:01 1234 /usr/bin/vmm
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
7f0000200000-7f0000400000 rw-p 00000000 00:00 0 [anon:guest memory]
7f0000400000-7f0000600000 rw-s 00000000 00:01 99 /memfd:ram (deleted)
7f0000600000-7f0000800000 rw-p 00000000 00:0f 7 /anon_hugepage (deleted)
7f0000800000-7f0000a00000 rw-s 00000000 00:00 0
";
        assert_eq!(super::anonymous(maps), [(0x7f00_0000_0000, 0x7f00_0040_0000)]);
    }
}
