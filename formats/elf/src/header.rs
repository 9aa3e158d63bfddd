//! The on-disk structures of an ELF core, in file order. Nothing here *does* anything but decode and encode.
//!
//! Each structure has a form for each class, in either byte order, and is a plain one with 64-bit fields
//! for the rest of the crate.
//!
//! Source: `spec/elf-layout.md` A2 and A3; ELF gABI; glibc `elf.h`.

use vmcore_core::{Class, Endianness, Record, record};

/// `e_ident[0..4]`.
pub const MAGIC: [u8; 4] = *b"\x7fELF";
/// `e_ident[EI_CLASS]` of 32-bit files.
pub const ELFCLASS32: u8 = 1;
/// `e_ident[EI_CLASS]` of 64-bit files.
pub const ELFCLASS64: u8 = 2;
/// `e_ident[EI_DATA]` of little-endian files.
pub const ELFDATA2LSB: u8 = 1;
/// `e_ident[EI_DATA]` of big-endian files.
pub const ELFDATA2MSB: u8 = 2;
/// `e_ident[EI_VERSION]` and `e_version`.
pub const EV_CURRENT: u8 = 1;
/// `e_type` of a core.
pub const ET_CORE: u64 = 4;
/// `e_phnum` when the number of program headers stands in `sh_info` of section header 0.
pub const PN_XNUM: u64 = 0xffff;
/// `p_type` of memory.
pub const PT_LOAD: u64 = 1;
/// `p_type` of notes.
pub const PT_NOTE: u64 = 4;
/// Bit of `e_flags`: the dump is not finished. crash and makedumpfile read it so (`DUMP_ELF_INCOMPLETE`).
pub const EF_INCOMPLETE: u64 = 1;

/// Length of `e_ident`, the bytes that tell how to read the rest.
pub const EI_NIDENT: usize = 16;

/// `e_ident`; what it does not say here is 0.
#[must_use]
pub fn ident(class: Class, endianness: Endianness) -> [u8; EI_NIDENT] {
    let mut ident = [0; EI_NIDENT];
    let data = match endianness {
        Endianness::Little => ELFDATA2LSB,
        Endianness::Big => ELFDATA2MSB,
    };
    let class = match class {
        Class::Elf32 => ELFCLASS32,
        Class::Elf64 => ELFCLASS64,
    };
    ident[..4].copy_from_slice(&MAGIC);
    [ident[4], ident[5], ident[6]] = [class, data, EV_CURRENT];
    ident
}

/// What the `e_ident` at the start of `head` says; `None` if it is none of an ELF file.
#[must_use]
pub fn read_ident(head: &[u8]) -> Option<(Class, Endianness)> {
    let ident: &[u8; EI_NIDENT] = head.first_chunk()?;
    let class = match ident[4] {
        ELFCLASS32 => Class::Elf32,
        ELFCLASS64 => Class::Elf64,
        _ => return None,
    };
    let endianness = match ident[5] {
        ELFDATA2LSB => Endianness::Little,
        ELFDATA2MSB => Endianness::Big,
        _ => return None,
    };
    ident.starts_with(&MAGIC).then_some((class, endianness))
}

record! {
    /// The ELF header, behind its [`ident`].
    Ehdr {
        /// Type of the file: [`ET_CORE`].
        e_type,
        /// Architecture, as in `EM_X86_64`.
        e_machine,
        /// [`EV_CURRENT`].
        e_version,
        /// 0.
        e_entry,
        /// Offset of the program headers.
        e_phoff,
        /// Offset of the section headers, or 0.
        e_shoff,
        /// [`EF_INCOMPLETE`] and what the architecture wants.
        e_flags,
        /// Length of the ELF header with its ident. QEMU 7.2 to 10.0 write 8; we ignore it.
        e_ehsize,
        /// Length of a program header.
        e_phentsize,
        /// Number of program headers, or [`PN_XNUM`].
        e_phnum,
        /// Length of a section header.
        e_shentsize,
        /// Number of section headers.
        e_shnum,
        /// Section of the section names.
        e_shstrndx,
    }
    Class::Elf32(36) {
        e_type: u16, e_machine: u16, e_version: u32, e_entry: u32, e_phoff: u32, e_shoff: u32, e_flags: u32,
        e_ehsize: u16, e_phentsize: u16, e_phnum: u16, e_shentsize: u16, e_shnum: u16, e_shstrndx: u16,
    }
    Class::Elf64(48) {
        e_type: u16, e_machine: u16, e_version: u32, e_entry: u64, e_phoff: u64, e_shoff: u64, e_flags: u32,
        e_ehsize: u16, e_phentsize: u16, e_phnum: u16, e_shentsize: u16, e_shnum: u16, e_shstrndx: u16,
    }
}

record! {
    /// A program header: one segment of memory or notes.
    Phdr {
        /// [`PT_LOAD`], [`PT_NOTE`] or something else.
        p_type,
        /// Access rights; 0 in dumps.
        p_flags,
        /// Where the segment's bytes stand in the file. All-ones from QEMU: nowhere.
        p_offset,
        /// Guest virtual address, or the physical one again.
        p_vaddr,
        /// Guest physical address.
        p_paddr,
        /// Bytes in the file.
        p_filesz,
        /// Bytes in the guest; those behind `p_filesz` are zero.
        p_memsz,
        /// 0. crash 8.0 refuses dumps with anything else here and page-aligned offsets.
        p_align,
    }
    Class::Elf32(32) {
        p_type: u32, p_offset: u32, p_vaddr: u32, p_paddr: u32, p_filesz: u32, p_memsz: u32, p_flags: u32, p_align: u32,
    }
    Class::Elf64(56) {
        p_type: u32, p_flags: u32, p_offset: u64, p_vaddr: u64, p_paddr: u64, p_filesz: u64, p_memsz: u64, p_align: u64,
    }
}

record! {
    /// A section header; a dump has at most one, for [`PN_XNUM`].
    Shdr {
        /// Offset of the name.
        sh_name,
        /// Type.
        sh_type,
        /// Flags.
        sh_flags,
        /// Address.
        sh_addr,
        /// Offset of the bytes.
        sh_offset,
        /// Their length.
        sh_size,
        /// Section that belongs to it.
        sh_link,
        /// Number of program headers.
        sh_info,
        /// Alignment.
        sh_addralign,
        /// Length of an entry.
        sh_entsize,
    }
    Class::Elf32(40) {
        sh_name: u32, sh_type: u32, sh_flags: u32, sh_addr: u32, sh_offset: u32, sh_size: u32, sh_link: u32, sh_info: u32,
        sh_addralign: u32, sh_entsize: u32,
    }
    Class::Elf64(64) {
        sh_name: u32, sh_type: u32, sh_flags: u64, sh_addr: u64, sh_offset: u64, sh_size: u64, sh_link: u32, sh_info: u32,
        sh_addralign: u64, sh_entsize: u64,
    }
}

/// Length of [`ident`] and [`Ehdr`] together: where our program headers begin.
#[must_use]
pub fn header_len(class: Class) -> usize {
    EI_NIDENT + Ehdr::encoded_len(class)
}

/// What stands in an offset or address that is not known: all-ones (`spec/elf-layout.md` A4, A6).
#[must_use]
pub fn nowhere(class: Class) -> u64 {
    match class {
        Class::Elf32 => u64::from(u32::MAX),
        Class::Elf64 => u64::MAX,
    }
}
