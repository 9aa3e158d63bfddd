//! The on-disk structures of a flattened stream, in its order. Nothing here *does* anything.
//!
//! All integers are big-endian, whatever the byte order of the dump inside. makedumpfile's are signed; here they are
//! not, and nothing ends beyond [`MAX_FILE_LEN`].
//!
//! Source: `spec/kdump.md` 8; makedumpfile 1.7.9 `makedumpfile.h` (`makedumpfile_header`, `makedumpfile_data_header`).

use zerocopy::big_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// [`FileHeader::signature`].
pub const SIGNATURE: [u8; 16] = *b"makedumpfile\0\0\0\0";
/// [`FileHeader::type`]: the only type there is.
pub const TYPE_FLAT_HEADER: u64 = 1;
/// [`FileHeader::version`]: the only version there is.
pub const VERSION_FLAT_HEADER: u64 = 1;
/// Room of the file header in bytes; what [`FileHeader`] leaves of it is zero. The first record follows.
pub const FILE_HEADER_LEN: usize = 4096;
/// [`RecordHeader::offset`] of the end marker, and as written its [`RecordHeader::buf_size`] too: -1.
pub const END_FLAG_FLAT_HEADER: u64 = u64::MAX;
/// The most bytes of the file inside: what an `off_t` holds.
pub const MAX_FILE_LEN: u64 = i64::MAX.cast_unsigned();

/// The fields of the file header: the first 32 of its [`FILE_HEADER_LEN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileHeader {
    /// [`SIGNATURE`].
    pub signature: [u8; 16],
    /// [`TYPE_FLAT_HEADER`].
    pub r#type: U64,
    /// [`VERSION_FLAT_HEADER`].
    pub version: U64,
}
const _: () = assert!(size_of::<FileHeader>() == 32);

/// What stands before the bytes of each record; alone, it is the end marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// Where the bytes belong in the file inside, or [`END_FLAG_FLAT_HEADER`].
    pub offset: U64,
    /// How many bytes follow.
    pub buf_size: U64,
}
const _: () = assert!(size_of::<RecordHeader>() == 16);
