//! Reading a dump: its headers, its notes, and where its pages are.
//!
//! Source: `spec/kdump.md` sections 1 to 4 and 7.

use crate::bitmap::Bitmap;
use crate::header::{
    DESCRIPTOR_LEN, Descriptor, Form, INCOMPLETE, MAIN_LEN, Main, OLD_SIGNATURE, Only, Prefix, SIGNATURE,
    Sub, VERSION, main_len,
};
use crate::memory::{KdumpMemory, Share};
use crate::table::Table;
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::machine::{Header, Uts};
use vmcore_core::read_at::read_vec;
use vmcore_core::{
    Endianness, Error, Finding, Gpa, Identity, Machine, Note, NoteIter, ReadAt, Record, Region, Severity,
    arch, execute::is_zero,
};
use zerocopy::{FromBytes, LittleEndian};

/// The most bytes of notes and of erase information that are read: 250 vCPUs have 150 KiB of notes.
const MAX_NOTES_LEN: u64 = 64 << 20;
/// The most regions: real guests have a handful, but each page can be one.
const MAX_REGIONS: usize = 1 << 20;
/// The sizes of a page: from the smallest that readers take to larger than any.
const PAGE_SIZES: Range<u64> = 1 << 10..(1 << 20) + 1;

/// Whether a file that begins with `head` is a kdump dump.
pub(crate) fn is_kdump(head: &[u8]) -> bool {
    head.starts_with(&SIGNATURE) || head.starts_with(&OLD_SIGNATURE)
}

/// Opens a dump that lies in these files together.
pub(crate) fn open(files: Vec<Arc<dyn ReadAt>>) -> Result<Machine, Error> {
    let mut parsed = files.into_iter().map(Headers::read).collect::<Result<Vec<_>, Error>>()?;
    parsed.sort_by_key(|headers| headers.pages().start);
    let findings = findings(&parsed)?;
    let Some(first) = parsed.first() else {
        return Err(Error::Unsupported { what: "a dump", found: "no file".to_owned() });
    };
    let mut reader = Reader { headers: first.clone(), findings };
    reader.machine(parsed)
}

/// What the headers of one file say.
#[derive(Clone)]
struct Headers {
    file: Arc<dyn ReadAt>,
    form: Form,
    endianness: Endianness,
    version: u32,
    uts: Uts,
    main: Main,
    sub: Sub,
}

impl Headers {
    fn read(file: Arc<dyn ReadAt>) -> Result<Self, Error> {
        let head = read_vec(&*file, 0, MAIN_LEN as u64, "the kdump header")?;
        let prefix = Prefix::<LittleEndian>::read_from_prefix(&head).ok();
        let truncated = Error::Truncated {
            what: "the kdump header",
            offset: 0,
            need: MAIN_LEN as u64,
            have: head.len() as u64,
        };
        let (prefix, _) = prefix.ok_or(truncated)?;
        if prefix.signature == OLD_SIGNATURE {
            return Err(Error::Unsupported {
                what: "the format before kdump",
                found: "a diskdump of 2006 or earlier".to_owned(),
            });
        }
        let stored = prefix.header_version.get();
        let is_version = |version: u32| (1..=VERSION).contains(&version);
        let endianness = match stored {
            version if is_version(version) => Endianness::Little,
            version if is_version(version.swap_bytes()) => Endianness::Big,
            version => {
                return Err(Error::Invalid {
                    what: "header_version",
                    offset: 8,
                    found: version.into(),
                    expected: "1 to 6",
                });
            }
        };
        let version = if endianness == Endianness::Little { stored } else { stored.swap_bytes() };
        let mut headers = Self {
            file,
            form: Form::Wide,
            endianness,
            version,
            uts: uts_of(&prefix.uts),
            main: Main::default(),
            sub: Sub::default(),
        };
        let candidates: Vec<Self> = [Form::Wide, Form::Packed, Form::Padded]
            .into_iter()
            .filter_map(|form| headers.in_form(form, &head))
            .collect();
        // Several may make sense: then that whose sub header does too.
        let best = candidates.iter().find(|candidate| candidate.is_sound()).or(candidates.first());
        if let Some(best) = best {
            return Ok(best.clone());
        }
        headers.main =
            Main::decode(head.get(402..).unwrap_or_default(), Form::Wide, endianness).unwrap_or_default();
        Err(Error::Invalid {
            what: "block_size, or the lengths that are counted in it,",
            offset: 428,
            found: headers.main.block_size,
            expected: "a power of two from 1 KiB to 1 MiB, and bitmaps that have a bit for each page",
        })
    }

    /// The headers as this form has them, if they make sense so.
    fn in_form(&self, form: Form, head: &[u8]) -> Option<Self> {
        let rest = head.get(main_len(form) - Main::encoded_len(form)..)?;
        let main = Main::decode(rest, form, self.endianness)?;
        let bits = main.bitmap_blocks.saturating_mul(main.block_size).saturating_mul(8);
        let fits = main.block_size.is_power_of_two()
            && PAGE_SIZES.contains(&main.block_size)
            && main.sub_hdr_size >= 1
            && bits >= main.max_mapnr;
        if !fits {
            return None;
        }
        let mut bytes = vec![0; Sub::encoded_len(form)];
        // Older files may end right behind it.
        self.file.read_at(main.block_size, &mut bytes).ok()?;
        let sub = Sub::decode(&bytes, form, self.endianness)?;
        Some(Self { form, main, sub, ..self.clone() })
    }

    /// Whether what the sub header points at lies in the file, behind the headers.
    fn is_sound(&self) -> bool {
        let areas = [
            (3, self.sub.offset_vmcoreinfo, self.sub.size_vmcoreinfo),
            (4, self.sub.offset_note, self.sub.size_note),
            (5, self.sub.offset_eraseinfo, self.sub.size_eraseinfo),
        ];
        let is_inside = |offset: u64, size: u64| {
            size == 0 && offset == 0
                || offset > self.main.block_size
                    && offset.checked_add(size).is_some_and(|end| end <= self.file.byte_len())
        };
        let areas_fit =
            areas.iter().all(|(since, offset, size)| self.version < *since || is_inside(*offset, *size));
        let max = self.max_mapnr();
        let bits = self.bitmap_blocks().saturating_mul(self.main.block_size).saturating_mul(8);
        areas_fit
            && max > 0
            && max <= bits
            && (self.version < 6
                || max & 0xffff_ffff == self.main.max_mapnr
                || self.main.max_mapnr == 0xffff_ffff)
    }

    fn bitmap_blocks(&self) -> u64 {
        self.main.bitmap_blocks
    }

    fn max_mapnr(&self) -> u64 {
        if self.version >= 6 && self.sub.max_mapnr_64 > 0 {
            self.sub.max_mapnr_64
        } else {
            self.main.max_mapnr
        }
    }

    fn is_split(&self) -> bool {
        self.version >= 2 && self.sub.split != 0
    }

    /// The pages that this file holds.
    fn pages(&self) -> Range<u64> {
        match (self.is_split(), self.version >= 6) {
            (false, _) => 0..self.max_mapnr(),
            (true, true) => self.sub.start_pfn_64..self.sub.end_pfn_64,
            (true, false) => self.sub.start_pfn..self.sub.end_pfn,
        }
    }

    /// Where block `number` begins.
    fn block(&self, number: u64) -> u64 {
        number.saturating_mul(self.main.block_size)
    }

    fn bitmap_offset(&self) -> u64 {
        self.block(self.main.sub_hdr_size.saturating_add(1))
    }

    fn table_offset(&self) -> u64 {
        self.bitmap_offset().saturating_add(self.block(self.bitmap_blocks()))
    }
}

fn uts_of(fields: &[[u8; 65]; 6]) -> Uts {
    let mut uts = Uts::default();
    for ((_, field), bytes) in uts.fields_mut().into_iter().zip(fields) {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        *field = String::from_utf8_lossy(&bytes[..end]).into_owned();
    }
    uts
}

/// What is odd about the files as a set.
fn findings(parsed: &[Headers]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let Some(first) = parsed.first() else { return Ok(findings) };
    if parsed.iter().any(|headers| parsed.len() > 1 && !headers.is_split()) {
        return Err(Error::Unsupported {
            what: "a dump in several files",
            found: "one that is not split".to_owned(),
        });
    }
    if parsed.iter().any(|headers| (headers.main, headers.max_mapnr()) != (first.main, first.max_mapnr())) {
        return Err(Error::Unsupported {
            what: "a dump in several files",
            found: "files of different dumps".to_owned(),
        });
    }
    let mut at = 0;
    let ends = parsed.iter().map(Headers::pages).chain([first.max_mapnr()..first.max_mapnr()]);
    for pages in ends {
        if pages.start < at.min(pages.end) {
            let last = at.min(pages.end) - 1;
            return Err(Error::Unsupported {
                what: "a dump in several files",
                found: format!("pages {:#x} to {last:#x} in two of them", pages.start),
            });
        }
        if pages.start > at {
            let text = format!(
                "pages {at:#x} to {:#x} lie in files that were not named: name all files of the split dump",
                pages.start - 1
            );
            findings.push(Finding { severity: Severity::Error, offset: None, text });
        }
        at = at.max(pages.end);
    }
    Ok(findings)
}

struct Reader {
    /// Those of the first file.
    headers: Headers,
    findings: Vec<Finding>,
}

impl Reader {
    fn machine(&mut self, parsed: Vec<Headers>) -> Result<Machine, Error> {
        let (exists, stored) = self.bitmaps()?;
        let page_size = self.headers.main.block_size;
        let frames = exists.union(&stored, MAX_REGIONS)?;
        let last = frames.last().map_or(0, |frames| frames.end);
        if last.checked_mul(page_size).is_none() {
            return Err(Error::Range { what: "page frames", start: last, len: page_size });
        }
        let region = |frames: &Range<u64>| {
            Region::ram(Gpa(frames.start * page_size), (frames.end - frames.start) * page_size)
        };
        let share = |headers: Headers| Share {
            pages: headers.pages(),
            table: Table::new(headers.file.clone(), headers.table_offset(), headers.endianness),
            first: stored.rank(headers.pages().start),
            zero_page: zero_page(&headers, &stored),
            file: headers.file,
        };
        let shares: Vec<Share> = parsed.into_iter().map(share).collect();
        for share in &shares {
            let count = stored.rank(share.pages.end).saturating_sub(share.first);
            let end = share.table.offset_of(count);
            if end > share.file.byte_len() {
                let text = format!(
                    "the dump is cut off: {count} page descriptors end at {end:#x}, the file at {:#x}",
                    share.file.byte_len()
                );
                self.error(Some(share.table.offset), text);
            }
        }
        let notes = self.notes()?;
        let Headers { form, endianness, ref uts, ref sub, ref main, .. } = self.headers;
        let class = form.class();
        let arch = arch::of_notes(&notes, &uts.machine, class, endianness);
        let elf_machine = arch.map_or(0, arch::Arch::elf_machine);
        let identity = Identity { elf_machine, class, endianness, elf_flags: 0 };
        let regions = frames.iter().map(region).collect();
        let memory = KdumpMemory::new(shares, page_size, regions, exists, stored);
        let has_uts = uts.fields().iter().any(|(_, value)| !value.is_empty());
        let header = Header {
            dump_level: u32::try_from(sub.dump_level).unwrap_or(0),
            uts: has_uts.then(|| uts.clone()),
        };
        let is_incomplete = main.status & INCOMPLETE != 0;
        let mut machine = Machine::from_notes(identity, Arc::new(memory), notes);
        machine.header = header;
        machine.is_incomplete = is_incomplete;
        machine.findings.splice(0..0, self.findings.drain(..));
        Ok(machine)
    }

    fn error(&mut self, offset: Option<u64>, text: String) {
        self.findings.push(Finding { severity: Severity::Error, offset, text });
    }

    /// Which pages exist, and which are stored.
    fn bitmaps(&mut self) -> Result<(Bitmap, Bitmap), Error> {
        let headers = self.headers.clone();
        let (file, max) = (&*headers.file, headers.max_mapnr());
        let block_size = headers.main.block_size;
        let each = max.div_ceil(8).div_ceil(block_size);
        let offset = headers.bitmap_offset();
        // Old dumps have one bitmap for both.
        let is_one = headers.bitmap_blocks() < each.saturating_mul(2);
        let len = if is_one {
            headers.block(headers.bitmap_blocks())
        } else {
            headers.block(headers.bitmap_blocks()) / 2
        };
        let second = if is_one { offset } else { offset.saturating_add(len) };
        let wanted = len.min(max.div_ceil(8));
        let (exists, _) = Bitmap::read(file, offset, wanted, max)?;
        let (stored, have) = Bitmap::read(file, second, wanted, max)?;
        if have < wanted {
            self.error(
                Some(second),
                format!(
                    "the dump is cut off in its bitmap: {wanted:#x} bytes are needed, {have:#x} are left"
                ),
            );
        }
        Ok((exists, stored))
    }

    fn notes(&mut self) -> Result<Vec<Note>, Error> {
        let Headers { file, endianness, version, sub, .. } = self.headers.clone();
        let mut notes = Vec::new();
        if version >= 4 && sub.size_note > 0 {
            let bytes = self.area(&*file, sub.offset_note, sub.size_note, "notes")?;
            for note in NoteIter::new(&bytes, sub.offset_note, endianness, 4) {
                match note {
                    Ok(note) => notes.push(note),
                    Err(error) => self.error(Some(sub.offset_note), format!("damaged notes: {error}")),
                }
            }
        }
        if version >= 5 && sub.size_eraseinfo > 0 {
            let bytes = self.area(&*file, sub.offset_eraseinfo, sub.size_eraseinfo, "erase information")?;
            notes.push(Note::new("ERASEINFO", 0, bytes));
        }
        if version >= 3 && sub.size_vmcoreinfo > 0 && !notes.iter().any(Note::is_vmcoreinfo) {
            let bytes = self.area(&*file, sub.offset_vmcoreinfo, sub.size_vmcoreinfo, "vmcoreinfo")?;
            notes.push(Note::new("VMCOREINFO", 0, bytes));
        }
        Ok(notes)
    }

    /// Bytes that the sub header points at; what the file lacks of them is left away.
    fn area(
        &mut self,
        file: &dyn ReadAt,
        offset: u64,
        size: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        if size > MAX_NOTES_LEN {
            return Err(Error::TooLarge { what, found: size, limit: MAX_NOTES_LEN });
        }
        let have = size.min(file.byte_len().saturating_sub(offset));
        if have < size {
            self.error(
                Some(offset),
                format!("the dump is cut off in its {what}: {size:#x} bytes are needed, {have:#x} are left"),
            );
        }
        read_vec(file, offset, have, what)
    }
}

/// Where the page stands that all zero pages share: makedumpfile, QEMU and we store it before all others.
fn zero_page(headers: &Headers, stored: &Bitmap) -> Option<u64> {
    let count = stored.rank(headers.pages().end).saturating_sub(stored.rank(headers.pages().start));
    let offset = headers.table_offset().checked_add(count.checked_mul(DESCRIPTOR_LEN as u64)?)?;
    // makedumpfile reserves the whole table in each file of a split dump.
    let whole = headers.table_offset().checked_add(stored.count().checked_mul(DESCRIPTOR_LEN as u64)?)?;
    [offset, whole].into_iter().find(|offset| {
        let page = read_vec(&*headers.file, *offset, headers.main.block_size, "the zero page");
        page.is_ok_and(|page| is_zero(&page)) && has_entry(headers, *offset, count)
    })
}

/// Whether one of the first descriptors points there as at a whole page: that tells it from data that happens to be zero.
fn has_entry(headers: &Headers, offset: u64, count: u64) -> bool {
    let len = count.min(1 << 16) * DESCRIPTOR_LEN as u64;
    let table = read_vec(&*headers.file, headers.table_offset(), len, "page descriptors").unwrap_or_default();
    let mut entries = table
        .chunks_exact(DESCRIPTOR_LEN)
        .filter_map(|entry| Descriptor::decode(entry, Only::Form, headers.endianness));
    entries.any(|entry| entry.offset == offset && entry.flags == 0 && entry.size == headers.main.block_size)
}
