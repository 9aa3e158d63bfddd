//! The buffer of Linux 3.5 to 5.9: records one after another.
//!
//! ```text
//!  log_buf ─► printk_log │ text │ dictionary │ padding   printk_log │ ...    printk_log with len = 0: go on at the begin
//!             └ log_first_idx: the oldest              └ log_next_idx: behind the newest
//! ```
//!
//! `len` is that of the whole record. The dictionary is `KEY=value` texts with a NUL between them; the kernel itself writes
//! `SUBSYSTEM` and `DEVICE`. The structure was called `log` before Linux 3.11. Its numbers count from `log_first_seq`, which
//! VMCOREINFO does not name.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::fields::{self, Field, Struct, WHAT, bytes_at, number_at};
use super::{Caller, Damage, Record};
use vmcore_core::{Endianness, Error, Gva, Kernel};

pub(super) struct RecordBuffer {
    order: Endianness,
    bytes: Vec<u8>,
    first: usize,
    /// Where the next record will stand.
    end: usize,
    header: Header,
}

/// Fields of `printk_log`, and its length.
struct Header {
    struct_len: usize,
    timestamp: Field,
    len: Field,
    text_len: Field,
    dict_len: Field,
    facility: Field,
    level: Field,
    /// There with `CONFIG_PRINTK_CALLER`, from Linux 5.1 on.
    caller: Option<Field>,
}

impl Header {
    fn of(kernel: &Kernel) -> Result<Self, Error> {
        let name = if kernel.info().value("SIZE", "printk_log").is_some() { "printk_log" } else { "log" };
        let header = Struct::new(kernel, name)?;
        let dict_len = header.field("dict_len", 2)?;
        // VMCOREINFO names neither of the two; they stand behind the lengths in every kernel that states lengths.
        let facility = header.behind(&dict_len, 1)?;
        Ok(Self {
            struct_len: header.len,
            timestamp: header.field("ts_nsec", 8)?,
            len: header.field("len", 2)?,
            text_len: header.field("text_len", 2)?,
            level: header.behind(&facility, 1)?,
            facility,
            dict_len,
            caller: header.field("caller_id", 4).ok(),
        })
    }
}

/// Where a walk through the buffer is.
struct Walk {
    at: usize,
    /// Whether it has gone on at the begin.
    is_second_lap: bool,
}

impl RecordBuffer {
    pub(super) fn open(kernel: &Kernel) -> Result<Self, Error> {
        let word = fields::word_len(kernel)?;
        let variable = |name, len| number_at(kernel, kernel.symbol(name, WHAT)?, len);
        let len = variable("log_buf_len", 4)?;
        let index = |name| {
            let found = variable(name, 4)?;
            let index = usize::try_from(found).ok().filter(|_| found <= len);
            index.ok_or(Error::TooLarge { what: "index into the kernel's log", found, limit: len })
        };
        Ok(Self {
            order: kernel.endianness(),
            first: index("log_first_idx")?,
            end: index("log_next_idx")?,
            header: Header::of(kernel)?,
            bytes: bytes_at(kernel, Gva(variable("log_buf", word)?), len)?,
        })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Damage>> + '_ {
        let mut walk = Some(Walk { at: self.first, is_second_lap: false });
        // Nothing can be found behind a record whose length is wrong.
        std::iter::from_fn(move || self.next(walk.as_mut()?).inspect_err(|_| walk = None).transpose())
    }

    /// The next record; each step goes forward, and round at most once.
    fn next(&self, walk: &mut Walk) -> Result<Option<Record<'_>>, Damage> {
        if walk.at == self.end {
            return Ok(None);
        }
        let head = self.head(walk.at);
        if self.number(head, &self.header.len) == 0 && !walk.is_second_lap && self.end < walk.at {
            *walk = Walk { at: 0, is_second_lap: true };
            return self.next(walk);
        }
        let damage = |what| Damage { place: walk.at as u64, what };
        let length = |field: &Field| usize::try_from(self.number(head, field)).unwrap_or(usize::MAX);
        let len = length(&self.header.len);
        let is_inside = |end: &usize| *end <= self.bytes.len() && (walk.at >= self.end || *end <= self.end);
        let end = walk.at.checked_add(len).filter(is_inside).filter(|_| len >= self.header.struct_len);
        let end = end.ok_or_else(|| damage("its length is wrong; it and those behind it are left out"))?;
        let body = self.bytes.get(walk.at..end).and_then(|record| record.get(self.header.struct_len..));
        let body = body.unwrap_or_default();
        let texts = body.split_at_checked(length(&self.header.text_len));
        let texts = texts.and_then(|(text, rest)| Some((text, rest.get(..length(&self.header.dict_len))?)));
        let (text, dictionary) = texts
            .ok_or_else(|| damage("its texts are longer than it is; it and those behind it are left out"))?;
        walk.at = end;
        let value = |key: &str| {
            let pairs = dictionary.split(|byte| *byte == 0);
            pairs.filter_map(|pair| pair.strip_prefix(key.as_bytes())).next().unwrap_or_default()
        };
        let caller =
            self.header.caller.as_ref().and_then(|field| u32::try_from(self.number(head, field)).ok());
        Ok(Some(Record {
            sequence: None,
            timestamp_ns: Some(self.number(head, &self.header.timestamp)),
            facility: u8::try_from(self.number(head, &self.header.facility)).unwrap_or(u8::MAX),
            level: fields::level(self.number(head, &self.header.level), self.order),
            caller: caller.map(Caller::of_id),
            text,
            subsystem: value("SUBSYSTEM="),
            device: value("DEVICE="),
        }))
    }

    /// The header at `at`; empty if there is none, so that all its numbers are 0.
    fn head(&self, at: usize) -> &[u8] {
        let end = at.saturating_add(self.header.struct_len);
        self.bytes.get(at..end).unwrap_or_default()
    }

    fn number(&self, head: &[u8], field: &Field) -> u64 {
        self.order.decode(head.get(field.clone()).unwrap_or_default())
    }
}
