//! The on-disk structures of a kdump dump, in file order. Nothing here *does* anything but decode and encode.
//!
//! Source: `spec/kdump.md` sections 1, 2 and 4; makedumpfile `diskdump_mod.h`.

use vmcore_core::{Class, Record, record};
use zerocopy::{ByteOrder, U32};
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
    Form::Wide(62) {
        padding: u16 + 4, tv_sec: u64, tv_usec: u64, status: u32, block_size: u32, sub_hdr_size: u32,
        bitmap_blocks: u32, max_mapnr: u32, total_ram_blocks: u32, device_blocks: u32, written_blocks: u32,
        current_cpu: u32, nr_cpus: u32,
    }
    Form::Packed(50) {
        padding: u16, tv_sec: u32, tv_usec: u32, status: u32, block_size: u32, sub_hdr_size: u32, bitmap_blocks: u32,
        max_mapnr: u32, total_ram_blocks: u32, device_blocks: u32, written_blocks: u32, current_cpu: u32, nr_cpus: u32,
    }
    Form::Padded(50) {
        padding: u16, tv_sec: u32, tv_usec: u32, status: u32, block_size: u32, sub_hdr_size: u32, bitmap_blocks: u32,
        max_mapnr: u32, total_ram_blocks: u32, device_blocks: u32, written_blocks: u32, current_cpu: u32, nr_cpus: u32,
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
    Form::Wide(104) {
        phys_base: u64, dump_level: u32, split: u32, start_pfn: u64, end_pfn: u64, offset_vmcoreinfo: u64,
        size_vmcoreinfo: u64, offset_note: u64, size_note: u64, offset_eraseinfo: u64, size_eraseinfo: u64,
        start_pfn_64: u64, end_pfn_64: u64, max_mapnr_64: u64,
    }
    Form::Packed(80) {
        phys_base: u32, dump_level: u32, split: u32, start_pfn: u32, end_pfn: u32, offset_vmcoreinfo: u64,
        size_vmcoreinfo: u32, offset_note: u64, size_note: u32, offset_eraseinfo: u64, size_eraseinfo: u32,
        start_pfn_64: u64, end_pfn_64: u64, max_mapnr_64: u64,
    }
    Form::Padded(96) {
        phys_base: u32, dump_level: u32, split: u32, start_pfn: u32, end_pfn: u32 + 4, offset_vmcoreinfo: u64,
        size_vmcoreinfo: u32 + 4, offset_note: u64, size_note: u32 + 4, offset_eraseinfo: u64, size_eraseinfo: u32 + 4,
        start_pfn_64: u64, end_pfn_64: u64, max_mapnr_64: u64,
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
    Only::Form(24) { offset: u64, size: u32, flags: u32, page_flags: u64, }
}

/// Length of a [`Descriptor`].
pub const DESCRIPTOR_LEN: usize = 24;

/// Length of the main header in a form.
#[must_use]
pub fn main_len(form: Form) -> usize {
    size_of::<Prefix<zerocopy::LittleEndian>>() + Main::encoded_len(form)
}
