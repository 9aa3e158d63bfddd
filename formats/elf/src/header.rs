//! The on-disk structures of an ELF core, in file order. Nothing here *does* anything but decode and encode.
//!
//! Each structure has a form for each class, generic over byte order, and a plain form with 64-bit fields
//! that the rest of the crate works with.
//!
//! Source: `spec/elf-layout.md` A2 and A3; ELF gABI; glibc `elf.h`.

#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derives make helper types without it; ours have it"
)]

use arrayvec::ArrayVec;
use vmcore_core::{Class, Endianness};
use zerocopy::byteorder::{BigEndian, LittleEndian};
use zerocopy::{ByteOrder, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, U64, Unaligned};

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

/// An encoded structure of either class.
pub type Encoded = ArrayVec<u8, 64>;

/// A structure that has a form in each class and byte order.
pub trait Record: Sized {
    /// Length of the on-disk form in bytes.
    fn encoded_len(class: Class) -> usize;
    /// Reads the form at the start of `bytes`; `None` if they are too few.
    fn decode(bytes: &[u8], class: Class, endianness: Endianness) -> Option<Self>;
    /// The on-disk form; `None` if a field does not fit.
    fn encode(&self, class: Class, endianness: Endianness) -> Option<Encoded>;
}

macro_rules! record {
    (
        $(#[$doc:meta])* $plain:ident { $($(#[$field_doc:meta])* $name:ident,)* }
        $disk32:ident($len32:literal) { $($name32:ident: $type32:ident,)* }
        $disk64:ident($len64:literal) { $($name64:ident: $type64:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $plain { $($(#[$field_doc])* pub $name: u64,)* }
        record!(@disk $plain, $disk32, $len32, { $($name32: $type32,)* });
        record!(@disk $plain, $disk64, $len64, { $($name64: $type64,)* });

        impl Record for $plain {
            fn encoded_len(class: Class) -> usize {
                match class {
                    Class::Elf32 => $len32,
                    Class::Elf64 => $len64,
                }
            }

            fn decode(bytes: &[u8], class: Class, endianness: Endianness) -> Option<Self> {
                match (class, endianness) {
                    (Class::Elf32, Endianness::Little) => $disk32::<LittleEndian>::plain(bytes),
                    (Class::Elf32, Endianness::Big) => $disk32::<BigEndian>::plain(bytes),
                    (Class::Elf64, Endianness::Little) => $disk64::<LittleEndian>::plain(bytes),
                    (Class::Elf64, Endianness::Big) => $disk64::<BigEndian>::plain(bytes),
                }
            }

            fn encode(&self, class: Class, endianness: Endianness) -> Option<Encoded> {
                match (class, endianness) {
                    (Class::Elf32, Endianness::Little) => $disk32::<LittleEndian>::disk(self),
                    (Class::Elf32, Endianness::Big) => $disk32::<BigEndian>::disk(self),
                    (Class::Elf64, Endianness::Little) => $disk64::<LittleEndian>::disk(self),
                    (Class::Elf64, Endianness::Big) => $disk64::<BigEndian>::disk(self),
                }
            }
        }
    };
    (@disk $plain:ident, $disk:ident, $len:literal, { $($name:ident: $type:ident,)* }) => {
        #[doc = concat!("On-disk form of [`", stringify!($plain), "`], ", $len, " bytes.")]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $disk<O: ByteOrder> {
            $(#[doc = concat!("See [`", stringify!($plain), "::", stringify!($name), "`].")] pub $name: $type<O>,)*
        }
        const _: () = assert!(size_of::<$disk<LittleEndian>>() == $len);

        impl<O: ByteOrder> $disk<O> {
            fn plain(bytes: &[u8]) -> Option<$plain> {
                let (disk, _) = Self::read_from_prefix(bytes).ok()?;
                Some($plain { $($name: disk.$name.get().into(),)* })
            }

            fn disk(plain: &$plain) -> Option<Encoded> {
                let disk = Self { $($name: $type::new(plain.$name.try_into().ok()?),)* };
                disk.as_bytes().try_into().ok()
            }
        }
    };
}

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
    Ehdr32(36) {
        e_type: U16, e_machine: U16, e_version: U32, e_entry: U32, e_phoff: U32, e_shoff: U32, e_flags: U32,
        e_ehsize: U16, e_phentsize: U16, e_phnum: U16, e_shentsize: U16, e_shnum: U16, e_shstrndx: U16,
    }
    Ehdr64(48) {
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
    Phdr32(32) {
        p_type: U32, p_offset: U32, p_vaddr: U32, p_paddr: U32, p_filesz: U32, p_memsz: U32, p_flags: U32, p_align: U32,
    }
    Phdr64(56) {
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
    Shdr32(40) {
        sh_name: U32, sh_type: U32, sh_flags: U32, sh_addr: U32, sh_offset: U32, sh_size: U32, sh_link: U32, sh_info: U32,
        sh_addralign: U32, sh_entsize: U32,
    }
    Shdr64(64) {
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
