//! Where everything stands in the core that we write.
//!
//! As VirtualBox has it but for two things that nobody minds: `EI_VERSION` is 1, or elfutils and drgn would refuse the file,
//! and behind VirtualBox's notes stand those of QEMU's cores, so that gdb finds registers, and drgn and crash a kernel.
//!
//! Source: `spec/vbox-core.md` sections 2 and 5.

use crate::header::{
    EF_INCOMPLETE, EM_386, EM_X86_64, ET_CORE, EV_CURRENT, Ehdr, MAGIC, PF_R, PT_LOAD, PT_NOTE, Phdr,
};
use crate::notes;
use crate::release::{self, CURRENT};
use vmcore_core::memory::without_excluded;
use vmcore_core::{
    Class, DumpOptions, Endianness, Error, Fill, Layout, Machine, Region, RegionKind, own_note,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// The most ranges of memory: with the notes, one less than what other readers of ELF take for `PN_XNUM`.
const MAX_RANGES: usize = 0xfffd;

/// Plans the core of `machine`.
pub(crate) fn plan(machine: &Machine, options: &DumpOptions) -> Result<Layout, Error> {
    refuse(machine, options)?;
    // Memory that was left out on purpose is in no range.
    let mut regions = without_excluded(&*machine.memory, options.select(machine)?);
    if options.range.is_none() {
        regions.extend(machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Mmio));
        regions.sort_by_key(|region| region.gpa);
    }
    if regions.len() > MAX_RANGES {
        let (found, limit) = (regions.len() as u64, MAX_RANGES as u64);
        return Err(Error::TooLarge { what: "ranges of memory in a VirtualBox core", found, limit });
    }
    let notes = encode_notes(machine, options)?;
    let mut layout = Layout::default();
    layout.push_bytes("ELF header", header(machine, regions.len()).as_bytes().to_vec())?;
    layout.push_bytes("program headers", program_headers(&regions, notes.len() as u64)?)?;
    layout.push_bytes("notes", notes)?;
    for region in regions.iter().filter(|region| region.kind == RegionKind::Ram) {
        layout.push("memory", region.len, Fill::Memory(region.gpa))?;
    }
    Ok(layout)
}

/// What the format has no place for.
fn refuse(machine: &Machine, options: &DumpOptions) -> Result<(), Error> {
    let unsupported = |what, found: &str| Err(Error::Unsupported { what, found: found.to_owned() });
    let identity = machine.identity;
    if ![EM_X86_64, EM_386].contains(&identity.elf_machine) || identity.endianness != Endianness::Little {
        let name = machine.arch.map(|arch| arch.name().to_owned());
        let name = name.unwrap_or_else(|| format!("ELF machine {}", identity.elf_machine));
        return unsupported("a VirtualBox core of anything but x86", &format!("a guest of {name}"));
    }
    if options.paging {
        return unsupported("a list of virtual addresses", "a VirtualBox core has none");
    }
    if options.share.is_some() {
        return unsupported("a dump in several files", "a VirtualBox core says nothing of the others");
    }
    if options.class == Some(Class::Elf32) {
        return unsupported("a VirtualBox core of 32-bit structures", "they are 64-bit for every guest");
    }
    Ok(())
}

/// VirtualBox's notes, and all others behind them: those of the vCPUs, those that nobody understands, the guest's.
fn encode_notes(machine: &Machine, options: &DumpOptions) -> Result<Vec<u8>, Error> {
    let (carried, mut others) = notes::split(machine.encode_notes());
    let place = others.len() - usize::from(machine.guest_note.is_some());
    others.splice(place..place, own_note::encode_header(&machine.header));
    let ours = match options.variant.and_then(release::by_name) {
        Some(release) => notes::new(machine, release),
        None if carried.is_empty() => notes::new(machine, CURRENT),
        None => notes::renewed(machine, carried),
    };
    let mut bytes = Vec::new();
    for note in ours.iter().chain(&others) {
        note.encode(Endianness::Little, &mut bytes)?;
    }
    Ok(bytes)
}

fn header(machine: &Machine, ranges: usize) -> Ehdr {
    Ehdr {
        magic: MAGIC,
        ident_version: EV_CURRENT,
        padding: [0; 9],
        e_type: U16::new(ET_CORE),
        // The machine of the notes behind VirtualBox's.
        e_machine: U16::new(machine.identity.elf_machine),
        e_version: U32::new(EV_CURRENT.into()),
        e_entry: U64::ZERO,
        e_phoff: U64::new(size_of::<Ehdr>() as u64),
        e_shoff: U64::ZERO,
        e_flags: U32::new(if machine.is_incomplete { EF_INCOMPLETE } else { 0 }),
        e_ehsize: U16::new(64),
        e_phentsize: U16::new(56),
        e_phnum: U16::new(u16::try_from(1 + ranges).unwrap_or(u16::MAX)),
        e_shentsize: U16::new(64),
        e_shnum: U16::ZERO,
        e_shstrndx: U16::ZERO,
    }
}

fn program_headers(regions: &[Region], notes_len: u64) -> Result<Vec<u8>, Error> {
    let notes_offset = (size_of::<Ehdr>() + size_of::<Phdr>() * (1 + regions.len())) as u64;
    let phdr = |p_type, p_offset, p_paddr, p_filesz, p_memsz| Phdr {
        p_type: U32::new(p_type),
        p_flags: U32::new(PF_R),
        p_offset: U64::new(p_offset),
        p_vaddr: U64::ZERO,
        p_paddr: U64::new(p_paddr),
        p_filesz: U64::new(p_filesz),
        p_memsz: U64::new(p_memsz),
        p_align: U64::ZERO,
    };
    let mut bytes = phdr(PT_NOTE, notes_offset, 0, notes_len, notes_len).as_bytes().to_vec();
    let mut offset = notes_offset + notes_len;
    for region in regions {
        let stored = if region.kind == RegionKind::Ram { region.len } else { 0 };
        bytes.extend(phdr(PT_LOAD, offset, region.gpa.0, stored, region.len).as_bytes());
        offset =
            offset.checked_add(stored).ok_or(Error::Range { what: "memory", start: offset, len: stored })?;
    }
    Ok(bytes)
}
