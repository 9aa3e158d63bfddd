//! The headers and the notes of a VirtualBox core, in file order. Nothing here *does* anything.
//!
//! All of it is little-endian and of 64-bit class, whatever host and guest are.
//!
//! Source: `spec/vbox-core.md` section 2; VirtualBox `include/VBox/vmm/dbgfcorefmt.h` and `DBGFCoreWrite.cpp`; ELF gABI.

use std::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of [`Ehdr`]: ELF, 64 bit, little-endian.
pub const MAGIC: [u8; 6] = *b"\x7fELF\x02\x01";
/// `e_version`, and `e_ident[EI_VERSION]`: VirtualBox forgets the latter, and elfutils and drgn then refuse the file.
pub const EV_CURRENT: u8 = 1;
/// `e_type` of a core.
pub const ET_CORE: u16 = 4;
/// `e_machine` of x86_64.
pub const EM_X86_64: u16 = 62;
/// `e_machine` of i386.
pub const EM_386: u16 = 3;
/// Bit of `e_flags`: the dump is not finished. VirtualBox knows no such thing; crash and makedumpfile read it so.
pub const EF_INCOMPLETE: u32 = 1;
/// `p_type` of memory.
pub const PT_LOAD: u32 = 1;
/// `p_type` of notes.
pub const PT_NOTE: u32 = 4;
/// `p_flags` of all segments: readable.
pub const PF_R: u32 = 4;

/// The ELF header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ehdr {
    /// [`MAGIC`].
    pub magic: [u8; 6],
    /// `e_ident[EI_VERSION]`: 0 from VirtualBox, [`EV_CURRENT`] from us.
    pub ident_version: u8,
    /// 0.
    pub padding: [u8; 9],
    /// [`ET_CORE`].
    pub e_type: U16,
    /// [`EM_X86_64`], or [`EM_386`] where VirtualBox itself was a 32-bit program: from it, this says nothing of the guest.
    pub e_machine: U16,
    /// [`EV_CURRENT`].
    pub e_version: U32,
    /// 0.
    pub e_entry: U64,
    /// Offset of the program headers: 64.
    pub e_phoff: U64,
    /// 0: there are no sections.
    pub e_shoff: U64,
    /// 0, or [`EF_INCOMPLETE`] from us.
    pub e_flags: U32,
    /// Length of this header: 64.
    pub e_ehsize: U16,
    /// Length of a program header: 56.
    pub e_phentsize: U16,
    /// Number of program headers. 65,535 means just that, not `PN_XNUM`: VirtualBox leaves out the ranges behind.
    pub e_phnum: U16,
    /// 64, although there is no section.
    pub e_shentsize: U16,
    /// 0.
    pub e_shnum: U16,
    /// 0.
    pub e_shstrndx: U16,
}
const _: () = assert!(size_of::<Ehdr>() == 64 && offset_of!(Ehdr, e_phnum) == 56);

/// A program header: first that of the notes, then one for each range of the guest's memory, by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Phdr {
    /// [`PT_NOTE`] or [`PT_LOAD`].
    pub p_type: U32,
    /// [`PF_R`].
    pub p_flags: U32,
    /// Where the bytes stand in the file; for MMIO, where the next range's do.
    pub p_offset: U64,
    /// 0.
    pub p_vaddr: U64,
    /// Guest physical address.
    pub p_paddr: U64,
    /// Bytes in the file: 0 for MMIO.
    pub p_filesz: U64,
    /// Bytes in the guest.
    pub p_memsz: U64,
    /// 0.
    pub p_align: U64,
}
const _: () = assert!(size_of::<Phdr>() == 56 && offset_of!(Phdr, p_filesz) == 32);

/// Type of the note that holds the [`CoreDescriptor`].
pub const NT_VBOXCORE: u32 = 0xb00;
/// Type of the notes that hold a CPU record each ([`crate::record`]).
pub const NT_VBOXCPU: u32 = 0xb01;
/// Type of the notes that hold a [`RevenCpu`] each.
pub const NT_REVENCPU: u32 = 0xbeef;

/// What the owners of the notes are called, and whether the NUL behind the name is counted, as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Of the core descriptor; the name field as it stands, its NUL included where it is counted.
    pub core: &'static [u8],
    /// Of the CPU records.
    pub cpu: &'static [u8],
}

/// In September 2010, before the format was released.
pub const OWNERS_2010: Owners = Owners { core: b"VBOXCORE\0", cpu: b"VBOXCPU\0" };
/// Ever since. The NUL is written, as padding.
pub const OWNERS: Owners = Owners { core: b"VBCORE", cpu: b"VBCPU" };

/// [`CoreDescriptor::magic`].
pub const CORE_MAGIC: u32 = 0xc01a_c0de;
/// Upper half of every [`CoreDescriptor::format_version`].
pub const FORMAT_MAJOR: u32 = 0x0001_0000;

/// The first note: who wrote the core, and how (`DBGFCOREDESCRIPTOR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CoreDescriptor {
    /// [`CORE_MAGIC`].
    pub magic: U32,
    /// Version of the format.
    pub format_version: U32,
    /// Length of this structure.
    pub len: U32,
    /// Version of VirtualBox: major, minor and build in 8, 8 and 16 bits. Releases before 4.1.8 have the minor number as build.
    pub vbox_version: U32,
    /// Its revision in Subversion.
    pub revision: U32,
    /// Number of vCPUs.
    pub cpu_count: U32,
}
const _: () = assert!(size_of::<CoreDescriptor>() == 24);

/// The core descriptor of 6 to 9 September 2010, which has no version of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EarlyDescriptor {
    /// [`CORE_MAGIC`].
    pub magic: U32,
    /// 0, where later descriptors have the version of the format.
    pub padding: U32,
    /// Version of VirtualBox.
    pub vbox_version: U64,
    /// Its revision in Subversion.
    pub revision: U64,
    /// Number of vCPUs.
    pub cpu_count: U32,
    /// 0.
    pub tail: U32,
}
const _: () = assert!(size_of::<EarlyDescriptor>() == 32 && offset_of!(EarlyDescriptor, cpu_count) == 24);

/// [`RevenCpu::magic`].
pub const REVEN_MAGIC: u64 = 0x6264_7570_634e_5652;

/// What the VirtualBox of reven, a debugger, tells of a vCPU beside its CPU record.
///
/// Source: the project rvncorevirtualbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RevenCpu {
    /// [`REVEN_MAGIC`].
    pub magic: U64,
    /// Length of this structure.
    pub len: U64,
    /// The register.
    pub cr8: U64,
}
const _: () = assert!(size_of::<RevenCpu>() == 24);
