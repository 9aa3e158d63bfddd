//! x86 page tables, 4-level, written entry by entry.
//!
//! Source: Intel SDM volume 3, section 4.5; by its own constants, not those of the walker that it tests.

use std::collections::BTreeMap;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const TABLE_LEN: u64 = 0x1000;

/// Page tables that are being built in guest memory, from `root` on, a table after the other.
#[derive(Clone, Debug)]
pub struct PageTables {
    root: u64,
    next_table: u64,
    entries: BTreeMap<u64, u64>,
}

impl PageTables {
    /// Tables whose root lies at `root`, a multiple of 4096: the value of CR3.
    #[must_use]
    pub fn new(root: u64) -> Self {
        Self { root, next_table: root + TABLE_LEN, entries: BTreeMap::new() }
    }

    /// Address of the root.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// One past the last table.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.next_table
    }

    /// Maps a page of 4 KiB, 2 MiB or 1 GiB (`shift` 12, 21, 30).
    #[must_use]
    pub fn map(mut self, gva: u64, gpa: u64, shift: u32) -> Self {
        let mut table = self.root;
        let mut level_shift = 39;
        while level_shift > shift {
            let entry = self.entry(table, gva, level_shift);
            if !self.entries.contains_key(&entry) {
                self.entries.insert(entry, self.next_table | PRESENT_WRITABLE);
                self.next_table += TABLE_LEN;
            }
            table = self.entries[&entry] & !0xfff;
            level_shift -= 9;
        }
        let large = if shift > 12 { LARGE } else { 0 };
        let leaf = self.entry(table, gva, shift);
        self.entries.insert(leaf, gpa | large | PRESENT_WRITABLE);
        self
    }

    #[expect(clippy::unused_self, reason = "reads as a property of the tables")]
    fn entry(&self, table: u64, gva: u64, shift: u32) -> u64 {
        table + (gva >> shift & 0x1ff) * 8
    }

    /// Address and value of each entry.
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(|(gpa, entry)| (*gpa, *entry))
    }
}
