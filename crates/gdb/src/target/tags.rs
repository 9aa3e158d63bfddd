//! Tags of memory.

use crate::error::Error;
use crate::thread::ThreadId;

/// Tags of memory, as those of aarch64's MTE: gdb's `memory-tag`, packets `qMemTags`, `QMemTags` and `qIsAddressTagged`.
///
/// How many bytes a tag is for (a granule), and how tags are packed, is said by the architecture and the kind: of MTE's allocation tags, kind 1,
/// there is a byte for each 16 bytes of memory.
pub trait MemoryTags {
    /// Whether there can be tags at a virtual address.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    fn is_tagged(&mut self, thread: ThreadId, address: u64) -> Result<bool, Error>;

    /// Puts the tags of all granules that `len` bytes at a virtual address touch into `tags`, and tells how many bytes these are.
    ///
    /// # Errors
    /// [`Error::FAULT`] if there are no tags; [`Error::NO_ROOM`] if they are more than fit.
    fn read_tags(
        &mut self,
        thread: ThreadId,
        address: u64,
        len: u64,
        kind: u32,
        tags: &mut [u8],
    ) -> Result<usize, Error>;

    /// Sets the tags of all granules that `len` bytes at a virtual address touch. Fewer tags than granules are used again from the first on.
    ///
    /// # Errors
    /// [`Error::FAULT`] if there are no tags; [`Error::REFUSED`] if they cannot be set, which is the default.
    fn write_tags(
        &mut self,
        thread: ThreadId,
        address: u64,
        len: u64,
        kind: u32,
        tags: &[u8],
    ) -> Result<(), Error> {
        let _ = (thread, address, len, kind, tags);
        Err(Error::refused("the tags of this target cannot be set"))
    }
}
