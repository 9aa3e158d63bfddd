//! The on-disk structures of an ELF core, in file order. Nothing here *does* anything but decode and encode.
//!
//! Each structure has a form for each class, generic over byte order, and a plain form with 64-bit fields
//! that the rest of the crate works with.
//!
//! Source: `spec/elf-layout.md` A2 and A3; ELF gABI; glibc `elf.h`.

use vmcore_core::{Class, Record, record};
use zerocopy::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// The first 16 bytes: they tell how to read the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ident {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// [`ELFCLASS32`] or [`ELFCLASS64`].
    pub class: u8,
    /// [`ELFDATA2LSB`] or [`ELFDATA2MSB`].
    pub data: u8,
    /// [`EV_CURRENT`].
    pub version: u8,
    /// 0.
    pub os_abi: u8,
    /// 0.
    pub padding: [u8; 8],
}
const _: () = assert!(size_of::<Ident>() == 16);

record! {
    /// The ELF header, behind its [`Ident`].
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
    Class::Elf32 => Ehdr32(36) {
        e_type: U16, e_machine: U16, e_version: U32, e_entry: U32, e_phoff: U32, e_shoff: U32, e_flags: U32,
        e_ehsize: U16, e_phentsize: U16, e_phnum: U16, e_shentsize: U16, e_shnum: U16, e_shstrndx: U16,
    }
    Class::Elf64 => Ehdr64(48) {
        e_type: U16, e_machine: U16, e_version: U32, e_entry: U64, e_phoff: U64, e_shoff: U64, e_flags: U32,
        e_ehsize: U16, e_phentsize: U16, e_phnum: U16, e_shentsize: U16, e_shnum: U16, e_shstrndx: U16,
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
    Class::Elf32 => Phdr32(32) {
        p_type: U32, p_offset: U32, p_vaddr: U32, p_paddr: U32, p_filesz: U32, p_memsz: U32, p_flags: U32, p_align: U32,
    }
    Class::Elf64 => Phdr64(56) {
        p_type: U32, p_flags: U32, p_offset: U64, p_vaddr: U64, p_paddr: U64, p_filesz: U64, p_memsz: U64, p_align: U64,
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
    Class::Elf32 => Shdr32(40) {
        sh_name: U32, sh_type: U32, sh_flags: U32, sh_addr: U32, sh_offset: U32, sh_size: U32, sh_link: U32, sh_info: U32,
        sh_addralign: U32, sh_entsize: U32,
    }
    Class::Elf64 => Shdr64(64) {
        sh_name: U32, sh_type: U32, sh_flags: U64, sh_addr: U64, sh_offset: U64, sh_size: U64, sh_link: U32, sh_info: U32,
        sh_addralign: U64, sh_entsize: U64,
    }
}

/// Length of [`Ident`] and [`Ehdr`] together: where our program headers begin.
#[must_use]
pub fn header_len(class: Class) -> usize {
    size_of::<Ident>() + Ehdr::encoded_len(class)
}

/// What stands in an offset or address that is not known: all-ones (`spec/elf-layout.md` A4, A6).
#[must_use]
pub fn nowhere(class: Class) -> u64 {
    match class {
        Class::Elf32 => u64::from(u32::MAX),
        Class::Elf64 => u64::MAX,
    }
}
