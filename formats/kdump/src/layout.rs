//! Where everything stands in the dump that we write.
//!
//! Source: `spec/kdump.md` sections 0 and 10.

use crate::codec::{Codec, flag_of};
use crate::header::{Form, INCOMPLETE, Main, PADDING_OF_END_PFN, Prefix, SIGNATURE, Sub, VERSION, main_len};
use crate::{COMPRESSIONS, share};
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::pages::{frames_of, present};
use vmcore_core::{
    Class, DumpInfo, DumpOptions, Endianness, Error, Fill, Layout, Machine, Note, PageStream, Record, Region,
    Share, note,
};
use zerocopy::byteorder::{BigEndian, LittleEndian};
use zerocopy::{ByteOrder, IntoBytes, U32};

/// Plans the dump of `machine`.
pub(crate) fn plan(machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
    if options.paging {
        let found = "the format has no place for them".to_owned();
        return Err(Error::Unsupported { what: "a list of virtual addresses", found });
    }
    let info = machine.dump_info();
    let page_size = info.page_size;
    let mut regions = options.select(machine)?;
    if !options.all_memory {
        drop_firmware(&mut regions, &info);
    }
    let exists = frames_of(&regions, page_size);
    let stored = present(&*machine.memory, &exists, page_size);
    // Readers tell forms apart by where the number of frames stands; none find it if it is 0.
    let max_mapnr = exists.last().map(|frames| frames.end).ok_or_else(|| Error::Unsupported {
        what: "a kdump dump without memory",
        found: "the guest has none".to_owned(),
    })?;
    let form = form_of(options.class.unwrap_or(info.class), &info, max_mapnr)?;
    let areas = Areas::new(machine, form, page_size)?;

    let compression = options.compression.unwrap_or(COMPRESSIONS[0]);
    let bitmap_len = max_mapnr.div_ceil(8).next_multiple_of(page_size);
    let incomplete = if machine.is_incomplete { INCOMPLETE } else { 0 };
    let main = Main {
        status: u64::from(flag_of(compression)) | incomplete,
        block_size: page_size,
        sub_hdr_size: areas.bytes.len() as u64 / page_size,
        bitmap_blocks: 2 * bitmap_len / page_size,
        max_mapnr: max_mapnr.min(u64::from(u32::MAX)),
        nr_cpus: machine.vcpus.len().max(1) as u64,
        ..Main::default()
    };
    let pages = options.share.map_or(Ok(0..max_mapnr), |share| share::pages_of(&stored, max_mapnr, share))?;
    let sub = Sub {
        phys_base: phys_base(&info, form),
        dump_level: dump_level(machine, options.share),
        split: u64::from(options.share.is_some()),
        start_pfn_64: options.share.map_or(0, |_| pages.start),
        end_pfn_64: options.share.map_or(0, |_| pages.end),
        max_mapnr_64: max_mapnr,
        ..areas.pointers
    };
    let endianness = machine.identity.endianness;
    let mut sub_bytes = encode(&sub, form, endianness, "sub header")?;
    if form == Form::Padded && sub.size_vmcoreinfo == 0 {
        sub_bytes[PADDING_OF_END_PFN].fill(0xff);
    }
    let mut bytes = areas.bytes;
    bytes[..sub_bytes.len()].copy_from_slice(&sub_bytes);

    let mut layout = Layout::default();
    let prefix = match endianness {
        Endianness::Little => prefix::<LittleEndian>(machine, &info),
        Endianness::Big => prefix::<BigEndian>(machine, &info),
    };
    layout.push_bytes("header", [prefix, encode(&main, form, endianness, "header")?].concat())?;
    layout.pad_to(page_size)?;
    layout.push_bytes("sub header and notes", bytes)?;
    layout.push("bitmap of what exists", bitmap_len, Fill::Bits(exists))?;
    let clip = |frames: &Range<u64>| frames.start.max(pages.start)..frames.end.min(pages.end);
    let ours = stored.iter().map(clip).filter(|frames| !frames.is_empty()).collect();
    let entries = stored.iter().map(|frames| frames.end - frames.start).sum();
    layout.push("bitmap of what is stored", bitmap_len, Fill::Bits(stored))?;
    let codec = Arc::new(Codec::new(compression, options.level, endianness)?);
    let page_size = u32::try_from(page_size).map_err(|_| Error::TooLarge {
        what: "page size",
        found: page_size,
        limit: 1 << 20,
    })?;
    // makedumpfile --reassemble looks for the zero page behind a table of all pages, in each file.
    layout.push_pages(PageStream { page_size, pages: ours, codec }, entries)?;
    Ok(layout)
}

/// Level 1 says that zero pages are stored once. They always are, and all of them are there, so that nobody needs to be
/// told, and crash would take the dump for a partial one. But makedumpfile --reassemble stores each of them by itself unless
/// it is told.
fn dump_level(machine: &Machine, share: Option<Share>) -> u64 {
    match (machine.header.dump_level.into(), share) {
        (level, Some(_)) => level | 1,
        (1, None) => 0,
        (level, None) => level,
    }
}

/// Drops memory behind the last RAM that belongs to the firmware and to devices.
///
/// makedumpfile looks for the second bitmap where it would be if RAM were the last memory, and finds no page of a dump that
/// has more (`spec/kdump.md` section 11.3).
fn drop_firmware(regions: &mut Vec<Region>, info: &DumpInfo) {
    let window = &info.device_window;
    if regions.last().is_some_and(|last| last.end().0 > window.end) {
        return;
    }
    while let [.., before, last] = &regions[..]
        && window.contains(&last.gpa.0)
        && before.end() < last.gpa
    {
        regions.pop();
    }
}

/// The smallest structures that can hold the dump.
fn form_of(class: Class, info: &DumpInfo, max_mapnr: u64) -> Result<Form, Error> {
    match class {
        Class::Elf64 => Ok(Form::Wide),
        Class::Elf32 if max_mapnr > u64::from(u32::MAX) => Err(Error::TooLarge {
            what: "page frames of 32-bit structures",
            found: max_mapnr,
            limit: u32::MAX.into(),
        }),
        // Only i386 aligns 64-bit fields to 4 bytes.
        Class::Elf32 if info.uts_machine.ends_with("86") => Ok(Form::Packed),
        Class::Elf32 => Ok(Form::Padded),
    }
}

fn phys_base(info: &DumpInfo, form: Form) -> u64 {
    let wide = info.phys_base.cast_unsigned();
    if form == Form::Wide { wide } else { wide & u64::from(u32::MAX) }
}

/// The sub header's blocks but for the sub header itself: notes and what else it points at.
struct Areas {
    /// Whole blocks, with zeros where the sub header will stand.
    bytes: Vec<u8>,
    /// The fields that point.
    pointers: Sub,
}

impl Areas {
    fn new(machine: &Machine, form: Form, page_size: u64) -> Result<Self, Error> {
        let mut pointers = Sub::default();
        let mut bytes = vec![0; Sub::encoded_len(form)];
        pointers.offset_note = page_size + bytes.len() as u64;
        let mut notes = machine.encode_notes();
        // The format has room for one list of erased data; further ones, and empty ones, stay notes.
        let is_erased = |note: &Note| note.is("ERASEINFO", 0) && !note.desc.is_empty();
        let erased = notes.iter().rposition(is_erased).map(|at| notes.remove(at));
        for note in &notes {
            if note.is_vmcoreinfo() {
                let start = bytes.len() + note::HEADER_LEN + note.name.len().next_multiple_of(4);
                pointers.offset_vmcoreinfo = page_size + start as u64;
                pointers.size_vmcoreinfo = note.desc.len() as u64;
            }
            note.encode(machine.identity.endianness, &mut bytes)?;
        }
        pointers.size_note = page_size + bytes.len() as u64 - pointers.offset_note;
        if let Some(erased) = erased {
            pointers.offset_eraseinfo = page_size + bytes.len() as u64;
            pointers.size_eraseinfo = erased.desc.len() as u64;
            bytes.extend(erased.desc);
        }
        let len = (bytes.len() as u64).next_multiple_of(page_size);
        bytes.resize(usize::try_from(len).unwrap_or(bytes.len()), 0);
        Ok(Self { bytes, pointers })
    }
}

/// Signature, version, and what `uname` says: libkdumpfile knows the architecture by it only, and only if it is complete.
fn prefix<O: ByteOrder>(machine: &Machine, info: &DumpInfo) -> Vec<u8> {
    let known = machine.header.uts.clone().unwrap_or_default();
    let release = machine.vmcoreinfo().and_then(|info| info.release().map(str::to_owned)).unwrap_or_default();
    let first =
        |values: [&str; 3]| values.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_owned();
    let fields = [
        "Linux".to_owned(),
        first([&known.nodename, "(none)", ""]),
        first([&release, &known.release, "0.0.0"]),
        first([&known.version, "#1", ""]),
        first([info.uts_machine, &known.machine, ""]),
        first([&known.domainname, "(none)", ""]),
    ];
    let mut prefix =
        Prefix::<O> { signature: SIGNATURE, header_version: U32::new(VERSION), uts: [[0; 65]; 6] };
    for (slot, field) in prefix.uts.iter_mut().zip(fields) {
        // The last byte stays a NUL.
        let len = field.len().min(slot.len() - 1);
        slot[..len].copy_from_slice(&field.as_bytes()[..len]);
    }
    prefix.as_bytes().to_vec()
}

fn encode(
    record: &impl Record<Form = Form>,
    form: Form,
    endianness: Endianness,
    what: &'static str,
) -> Result<Vec<u8>, Error> {
    let encoded = record.encode(form, endianness).ok_or(Error::TooLarge {
        what,
        found: u64::MAX,
        limit: u32::MAX.into(),
    })?;
    debug_assert!(main_len(form) > encoded.len());
    Ok(encoded.to_vec())
}
