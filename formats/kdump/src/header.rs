//! The on-disk structures of a kdump dump, in file order. Nothing here *does* anything but decode and encode.
//!
//! Source: `spec/kdump.md` sections 1, 2 and 4; makedumpfile `diskdump_mod.h`.

use vmcore_core::{Class, Record, record};
use zerocopy::{ByteOrder, U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `signature`.
pub const SIGNATURE: [u8; 8] = *b"KDUMP   ";
/// `signature` of the older format, whose sub header is another.
pub const OLD_SIGNATURE: [u8; 8] = *b"DISKDUMP";
/// The newest `header_version`, which we write.
pub const VERSION: u32 = 6;
/// Offset of the sub header is one block; this much of the first block is used at the most.
pub const MAIN_LEN: usize = 464;
/// `status`: the dump is not finished.
pub const INCOMPLETE: u64 = 0x8;

/// Bits of a page's `flags`, and of `status`: how it is compressed. None: not at all.
pub mod flag {
    /// zlib.
    pub const ZLIB: u32 = 0x1;
    /// LZO1X.
    pub const LZO: u32 = 0x2;
    /// Snappy.
    pub const SNAPPY: u32 = 0x4;
    /// Zstandard.
    pub const ZSTD: u32 = 0x20;
}

/// Which of the layouts that exist in the wild: they differ in the width and alignment of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 64 bit.
    Wide,
    /// 32 bit without padding: i386, and whatever QEMU writes.
    Packed,
    /// 32 bit with 64-bit fields aligned to 8 bytes: ARM, MIPS, PowerPC.
    Padded,
}

impl Form {
    /// Its class.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Wide => Class::Elf64,
            Self::Packed | Self::Padded => Class::Elf32,
        }
    }
}

/// The start of the main header, the same in all forms.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Prefix<O: ByteOrder> {
    /// [`SIGNATURE`].
    pub signature: [u8; 8],
    /// 1 to [`VERSION`].
    pub header_version: U32<O>,
    /// What `uname` says in the guest: sysname, nodename, release, version, machine, domainname, each ended by a NUL.
    pub uts: [[u8; 65]; 6],
}
const _: () = assert!(size_of::<Prefix<zerocopy::LittleEndian>>() == 402);

/// Six bytes that align what follows them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct Padding<O: ByteOrder>(U16<O>, U32<O>);

impl<O: ByteOrder> Padding<O> {
    fn new(value: u16) -> Self {
        Self(U16::new(value), U32::ZERO)
    }

    fn get(self) -> u16 {
        self.0.get()
    }
}

record! {
    /// The rest of the main header.
    Main {
        /// Alignment.
        padding,
        /// When the dump was taken: seconds since 1970.
        tv_sec,
        /// Microseconds. 0: libkdumpfile takes other numbers for a block size (`spec/kdump.md` section 1.2).
        tv_usec,
        /// Compression and [`INCOMPLETE`].
        status,
        /// Bytes of a page and unit of the other lengths.
        block_size,
        /// Blocks of the sub header with its notes.
        sub_hdr_size,
        /// Blocks of both bitmaps.
        bitmap_blocks,
        /// One more than the highest page frame number; truncated.
        max_mapnr,
        /// 0.
        total_ram_blocks,
        /// 0.
        device_blocks,
        /// 0.
        written_blocks,
        /// 0.
        current_cpu,
        /// Number of vCPUs, at least 1.
        nr_cpus,
    }
    Form::Wide => MainWide(62) {
        padding: Padding, tv_sec: U64, tv_usec: U64, status: U32, block_size: U32, sub_hdr_size: U32,
        bitmap_blocks: U32, max_mapnr: U32, total_ram_blocks: U32, device_blocks: U32, written_blocks: U32,
        current_cpu: U32, nr_cpus: U32,
    }
    Form::Packed => MainPacked(50) {
        padding: U16, tv_sec: U32, tv_usec: U32, status: U32, block_size: U32, sub_hdr_size: U32, bitmap_blocks: U32,
        max_mapnr: U32, total_ram_blocks: U32, device_blocks: U32, written_blocks: U32, current_cpu: U32, nr_cpus: U32,
    }
    Form::Padded => MainPadded(50) {
        padding: U16, tv_sec: U32, tv_usec: U32, status: U32, block_size: U32, sub_hdr_size: U32, bitmap_blocks: U32,
        max_mapnr: U32, total_ram_blocks: U32, device_blocks: U32, written_blocks: U32, current_cpu: U32, nr_cpus: U32,
    }
}

/// A 32-bit number and the padding that aligns what follows it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct Aligned<O: ByteOrder> {
    value: U32<O>,
    padding: U32<O>,
}

impl<O: ByteOrder> Aligned<O> {
    fn new(value: u32) -> Self {
        Self { value: U32::new(value), padding: U32::ZERO }
    }

    fn get(self) -> u32 {
        self.value.get()
    }
}

record! {
    /// The sub header. Fields that are newer than the file's version are not to be looked at.
    Sub {
        /// Where the kernel lies, as the architecture defines it; 64 bits of two's complement.
        phys_base,
        /// Which pages were left out: bits 1 to 16.
        dump_level,
        /// 1 if the dump lies in several files. Version 2.
        split,
        /// First page of this file, before version 6.
        start_pfn,
        /// One more than its last page, before version 6.
        end_pfn,
        /// Where the text of the VMCOREINFO note stands. Version 3.
        offset_vmcoreinfo,
        /// Its length.
        size_vmcoreinfo,
        /// Where the notes stand. Version 4.
        offset_note,
        /// Their length.
        size_note,
        /// Where the list of erased data stands. Version 5.
        offset_eraseinfo,
        /// Its length.
        size_eraseinfo,
        /// First page of this file. Version 6.
        start_pfn_64,
        /// One more than its last page.
        end_pfn_64,
        /// One more than the highest page frame number.
        max_mapnr_64,
    }
    Form::Wide => SubWide(104) {
        phys_base: U64, dump_level: U32, split: U32, start_pfn: U64, end_pfn: U64, offset_vmcoreinfo: U64,
        size_vmcoreinfo: U64, offset_note: U64, size_note: U64, offset_eraseinfo: U64, size_eraseinfo: U64,
        start_pfn_64: U64, end_pfn_64: U64, max_mapnr_64: U64,
    }
    Form::Packed => SubPacked(80) {
        phys_base: U32, dump_level: U32, split: U32, start_pfn: U32, end_pfn: U32, offset_vmcoreinfo: U64,
        size_vmcoreinfo: U32, offset_note: U64, size_note: U32, offset_eraseinfo: U64, size_eraseinfo: U32,
        start_pfn_64: U64, end_pfn_64: U64, max_mapnr_64: U64,
    }
    Form::Padded => SubPadded(96) {
        phys_base: U32, dump_level: U32, split: U32, start_pfn: U32, end_pfn: Aligned, offset_vmcoreinfo: U64,
        size_vmcoreinfo: Aligned, offset_note: U64, size_note: Aligned, offset_eraseinfo: U64, size_eraseinfo: Aligned,
        start_pfn_64: U64, end_pfn_64: U64, max_mapnr_64: U64,
    }
}

/// Where the padding behind `end_pfn` stands in the padded form. libkdumpfile takes the form for the packed one if a dump
/// without vmcoreinfo has zeros there (`spec/kdump.md` section 2).
pub const PADDING_OF_END_PFN: std::ops::Range<usize> = 20..24;

/// How all forms look: a page descriptor is the same in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// The one form.
    Form,
}

record! {
    /// A page descriptor: where the page is.
    Descriptor {
        /// Where in the file; 0 if the page is missing.
        offset,
        /// Bytes there.
        size,
        /// How it is compressed: [`flag`].
        flags,
        /// 0.
        page_flags,
    }
    Only::Form => DescriptorDisk(24) { offset: U64, size: U32, flags: U32, page_flags: U64, }
}

/// Length of a [`Descriptor`].
pub const DESCRIPTOR_LEN: usize = 24;

/// Length of the main header in a form.
#[must_use]
pub fn main_len(form: Form) -> usize {
    size_of::<Prefix<zerocopy::LittleEndian>>() + Main::encoded_len(form)
}
