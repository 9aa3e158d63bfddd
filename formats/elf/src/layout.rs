//! Where everything stands in the core that we write.
//!
//! Source: `spec/elf-layout.md` part A.

use crate::header::{
    EF_INCOMPLETE, ET_CORE, EV_CURRENT, Ehdr, PN_XNUM, PT_LOAD, PT_NOTE, Phdr, Shdr, header_len, ident,
    nowhere,
};
use crate::read::MAX_PROGRAM_HEADERS_LEN;
use vmcore_core::layout::align_like;
use vmcore_core::memory::without_excluded;
use vmcore_core::{
    Class, DumpInfo, DumpOptions, Endianness, Error, Fill, Gpa, Gva, Layout, Machine, Mapping, Record,
    Region, RegionKind, own_note,
};

/// makedumpfile reads 27 bytes from the start of every note, also of the last and shortest: notes must not be the end of
/// the file (`spec/elf-layout.md` A7).
const TAIL_BEHIND_NOTES: u64 = 32;

/// Plans the core of `machine`.
pub(crate) fn plan(machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
    if options.share.is_some() {
        let found = "an ELF core says nothing of the others".to_owned();
        return Err(Error::Unsupported { what: "a dump in several files", found });
    }
    let info = machine.dump_info();
    // An ELF core has no word for memory that was left out on purpose: it is in no segment.
    let mut regions = without_excluded(&*machine.memory, options.select(machine)?);
    if options.range.is_none() {
        // Known addresses without bytes: only a dump that had them brings them along.
        let mmio = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Mmio);
        regions.extend(mmio);
        regions.sort_by_key(|region| region.gpa);
    }
    let segments = segments(machine, options, &regions)?;
    let mut notes = Vec::new();
    let mut all = machine.encode_notes();
    // The guest's note stays the last.
    let place = all.len() - usize::from(machine.guest_note.is_some());
    all.splice(place..place, own_note::encode_header(&machine.header));
    for note in all {
        note.encode(machine.identity.endianness, &mut notes)?;
    }
    let incomplete = if machine.is_incomplete { EF_INCOMPLETE } else { 0 };
    let plan = Plan {
        elf_machine: machine.identity.elf_machine,
        e_flags: u64::from(info.elf_flags) | incomplete,
        endianness: machine.identity.endianness,
        alignment: info.page_size.max(0x1000),
        regions: &regions,
        segments: &segments,
        notes: &notes,
    };
    match options.class {
        Some(class) => plan.build(class),
        None => plan.build_smallest(&info),
    }
}

/// A `PT_LOAD` to be: a part of one region, at a virtual address.
struct Segment {
    region: usize,
    gpa: Gpa,
    gva: Gva,
    len: u64,
}

/// The `PT_LOAD`s, ascending by physical address.
fn segments(machine: &Machine, options: &DumpOptions, regions: &[Region]) -> Result<Vec<Segment>, Error> {
    let walked;
    let mappings = if options.paging {
        walked = machine.page_table_mappings()?;
        &walked
    } else {
        // A dump that has virtual addresses keeps them.
        &machine.mappings
    };
    let identity = |region: &Region| Mapping { gpa: region.gpa, gva: Gva(region.gpa.0), len: region.len };
    if mappings.is_empty() {
        let whole =
            regions.iter().enumerate().map(|(index, region)| segment(index, region, &identity(region)));
        return Ok(whole.flatten().collect());
    }
    let mut mappings = mappings.clone();
    mappings.sort_unstable();
    let mut segments: Vec<Segment> = Vec::new();
    let mut first = 0;
    for mapping in &mappings {
        // A mapping may cross regions: memory behind the border stands elsewhere in the file.
        first += regions[first..].partition_point(|region| region.end() <= mapping.gpa);
        let end = mapping.gpa.0.saturating_add(mapping.len);
        let touched = regions[first..].iter().take_while(|region| region.gpa.0 < end);
        segments.extend((first..).zip(touched).filter_map(|(index, region)| segment(index, region, mapping)));
        check_count(segments.len())?;
    }
    segments.sort_by_key(|segment| (segment.gpa, segment.gva));
    // Memory that nobody maps must still be in reach of those who read by physical address.
    let unmapped = unmapped(regions, &segments);
    segments.extend(unmapped.iter().filter_map(|(index, gap)| segment(*index, &regions[*index], gap)));
    segments.sort_by_key(|segment| (segment.gpa, segment.gva));
    Ok(segments)
}

/// The parts of the regions that no segment holds, with virtual = physical addresses. Segments ascend.
fn unmapped(regions: &[Region], segments: &[Segment]) -> Vec<(usize, Mapping)> {
    let mut gaps = Vec::new();
    let mut segments = segments.iter().peekable();
    for (index, region) in regions.iter().enumerate() {
        let mut covered = region.gpa;
        let mut gap = |start: Gpa, end: Gpa| {
            if let Some(len @ 1..) = end.offset_from(start) {
                gaps.push((index, Mapping { gpa: start, gva: Gva(start.0), len }));
            }
        };
        while let Some(segment) = segments.next_if(|segment| segment.region <= index) {
            gap(covered, segment.gpa);
            covered = covered.max(Gpa(segment.gpa.0.saturating_add(segment.len)));
        }
        gap(covered, region.end());
    }
    gaps
}

/// What we write we must be able to read: many mappings over many regions could be any number of segments.
fn check_count(segments: usize) -> Result<(), Error> {
    let limit = MAX_PROGRAM_HEADERS_LEN / Phdr::encoded_len(Class::Elf64) as u64 - 1;
    let found = segments as u64;
    if found > limit { Err(Error::TooLarge { what: "segments", found, limit }) } else { Ok(()) }
}

/// The part of `mapping` that lies in the region.
fn segment(index: usize, region: &Region, mapping: &Mapping) -> Option<Segment> {
    let start = mapping.gpa.max(region.gpa);
    let end = mapping.gpa.0.saturating_add(mapping.len).min(region.end().0);
    let len = end.checked_sub(start.0).filter(|len| *len > 0)?;
    let gva = Gva(mapping.gva.0.wrapping_add(start.0 - mapping.gpa.0));
    // Readers take p_vaddr 0 for "no address" (`spec/elf-layout.md` A4).
    let gva = if gva.0 == 0 { Gva(start.0) } else { gva };
    Some(Segment { region: index, gpa: start, gva, len })
}

struct Plan<'a> {
    elf_machine: u16,
    e_flags: u64,
    endianness: Endianness,
    alignment: u64,
    regions: &'a [Region],
    segments: &'a [Segment],
    notes: &'a [u8],
}

impl Plan<'_> {
    /// 32-bit structures for a 32-bit guest, if everything fits; makedumpfile and crash do not read `PN_XNUM` in them.
    fn build_smallest(&self, info: &DumpInfo) -> Result<Layout, Error> {
        if info.class == Class::Elf32 && !self.is_extended() {
            match self.build(Class::Elf32) {
                Err(Error::TooLarge { .. }) => {}
                result => return result,
            }
        }
        self.build(Class::Elf64)
    }

    /// Number of program headers: `PT_NOTE`, then a `PT_LOAD` each segment.
    fn header_count(&self) -> u64 {
        1 + self.segments.len() as u64
    }

    fn is_extended(&self) -> bool {
        self.header_count() >= PN_XNUM
    }

    fn build(&self, class: Class) -> Result<Layout, Error> {
        let phoff = header_len(class) as u64;
        check_count(self.segments.len())?;
        let shoff = phoff + self.header_count() * Phdr::encoded_len(class) as u64;
        let shdr_len = if self.is_extended() { Shdr::encoded_len(class) as u64 } else { 0 };
        let notes_offset = shoff + shdr_len;
        let notes_end = notes_offset + self.notes.len() as u64;

        let (memory, file_len) = self.place_memory(notes_end)?;
        if class == Class::Elf32 && file_len > u64::from(u32::MAX) {
            return Err(Error::TooLarge {
                what: "bytes of a 32-bit ELF core",
                found: file_len,
                limit: u64::from(u32::MAX),
            });
        }
        let mut layout = Layout::default();
        layout.push_bytes("ELF header", self.header(class, shoff)?)?;
        layout.push_bytes("program headers", self.program_headers(class, notes_offset, &memory)?)?;
        if self.is_extended() {
            // Beside the number of headers everything is zero.
            let shdr = Shdr { sh_info: self.header_count(), ..Shdr::default() };
            layout.push_bytes("section header 0", self.encode(&shdr, class, "section header")?)?;
        }
        layout.push_bytes("notes", self.notes.to_vec())?;
        for (region, offset) in self.regions.iter().zip(&memory) {
            if let Some(offset) = offset {
                layout.pad_to(*offset)?;
                layout.push("memory", region.len, Fill::Memory(region.gpa))?;
            }
        }
        layout.pad_to(file_len)?;
        Ok(layout)
    }

    /// Offset of each region's bytes if it has any, and the length of the file.
    ///
    /// Offsets are congruent to addresses modulo the page size: makedumpfile then maps the file instead of reading it
    /// page by page, and file systems can share blocks.
    fn place_memory(&self, notes_end: u64) -> Result<(Vec<Option<u64>>, u64), Error> {
        let mut end = notes_end;
        let mut offsets = Vec::with_capacity(self.regions.len());
        for region in self.regions {
            if region.kind == RegionKind::Mmio {
                offsets.push(None);
                continue;
            }
            let offset = align_like(end, region.gpa.0, self.alignment)?;
            end = offset.checked_add(region.len).ok_or(Error::Range {
                what: "memory",
                start: offset,
                len: region.len,
            })?;
            offsets.push(Some(offset));
        }
        Ok((offsets, end.max(notes_end + TAIL_BEHIND_NOTES)))
    }

    fn header(&self, class: Class, shoff: u64) -> Result<Vec<u8>, Error> {
        let extended = self.is_extended();
        let header = Ehdr {
            e_type: ET_CORE,
            e_machine: u64::from(self.elf_machine),
            e_version: u64::from(EV_CURRENT),
            e_phoff: header_len(class) as u64,
            e_shoff: if extended { shoff } else { 0 },
            e_flags: self.e_flags,
            e_ehsize: header_len(class) as u64,
            e_phentsize: Phdr::encoded_len(class) as u64,
            e_phnum: self.header_count().min(PN_XNUM),
            e_shentsize: if extended { Shdr::encoded_len(class) as u64 } else { 0 },
            e_shnum: u64::from(extended),
            ..Ehdr::default()
        };
        Ok([&ident(class, self.endianness)[..], &self.encode(&header, class, "ELF header")?].concat())
    }

    fn program_headers(
        &self,
        class: Class,
        notes_offset: u64,
        memory: &[Option<u64>],
    ) -> Result<Vec<u8>, Error> {
        let notes_len = self.notes.len() as u64;
        let note = Phdr {
            p_type: PT_NOTE,
            p_offset: notes_offset,
            p_filesz: notes_len,
            p_memsz: notes_len,
            ..Phdr::default()
        };
        let mut bytes = self.encode(&note, class, "program header")?;
        for segment in self.segments {
            let region = self.regions[segment.region];
            let is_stored = region.kind == RegionKind::Ram;
            // QEMU's mark for addresses without bytes; with a true offset they would read as zeros.
            let offset = memory[segment.region]
                .map_or(nowhere(class), |offset| offset + (segment.gpa.0 - region.gpa.0));
            let load = Phdr {
                p_type: PT_LOAD,
                p_offset: offset,
                p_vaddr: segment.gva.0,
                p_paddr: segment.gpa.0,
                p_filesz: if is_stored { segment.len } else { 0 },
                p_memsz: segment.len,
                ..Phdr::default()
            };
            if class == Class::Elf32 && segment.gpa.0 + (segment.len - 1) > u64::from(u32::MAX) {
                // The start alone may fit; the last byte must have an address too.
                let found = segment.gpa.0 + (segment.len - 1);
                return Err(Error::TooLarge {
                    what: "address of a 32-bit ELF core",
                    found,
                    limit: u64::from(u32::MAX),
                });
            }
            bytes.extend(self.encode(&load, class, "program header")?);
        }
        Ok(bytes)
    }

    fn encode(
        &self,
        record: &impl Record<Form = Class>,
        class: Class,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let encoded = record.encode(class, self.endianness);
        // The only fields that can be too large are addresses, offsets and lengths in 32-bit structures.
        let encoded = encoded.ok_or(Error::TooLarge { what, found: u64::MAX, limit: u64::from(u32::MAX) })?;
        Ok(encoded.to_vec())
    }
}
