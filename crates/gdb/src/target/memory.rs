//! Memory beside the virtual memory of a thread.

use crate::error::Error;
use crate::thread::ThreadId;

/// Physical memory: QEMU's packet `Qqemu.PhyMemMode`, after which a client's addresses are physical ones.
pub trait PhysicalMemory {
    /// Reads at a guest physical address, and tells how many bytes from the first on could be read: at least one.
    ///
    /// # Errors
    /// [`Error::FAULT`] if the first byte cannot be read: a hole, a page that was left out, a device.
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<usize, Error>;

    /// Writes at a guest physical address: all of `bytes`, or nothing.
    ///
    /// # Errors
    /// [`Error::FAULT`] if there is no memory; [`Error::REFUSED`] if nothing can be written, which is the default.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        let _ = (gpa, bytes);
        Err(Error::refused("the memory of this target cannot be written"))
    }
}

/// What memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// It can be read and written.
    Ram,
    /// It can be read; a client sets hardware breakpoints there.
    Rom,
    /// It can be written in blocks of so many bytes: by [`Flash`].
    Flash {
        /// Bytes that are erased together.
        block_size: u64,
    },
}

/// One region of a [`MemoryMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is.
    pub kind: RegionKind,
}

/// All memory that a client may touch: `qXfer:memory-map:read`.
///
/// gdb does not even ask for what is not in the map. So this is for targets whose addresses are physical only; one
/// with virtual memory gives no map.
pub trait MemoryMap {
    /// The region at `index`, in the order of addresses, or `None` past the last.
    fn region(&self, index: usize) -> Option<Region>;
}

/// Flash memory: gdb's `load` into a region that the [`MemoryMap`] calls so, packets `vFlashErase`, `vFlashWrite` and `vFlashDone`.
pub trait Flash {
    /// Erases whole blocks.
    ///
    /// # Errors
    /// [`Error::INVALID`] if these are no blocks; [`Error::FAULT`] if there is no such memory.
    fn erase_flash(&mut self, address: u64, len: u64) -> Result<(), Error>;

    /// Takes bytes for memory that was erased before; there is at least one.
    ///
    /// # Errors
    /// [`Error::FAULT`] if there is no such memory.
    fn write_flash(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error>;

    /// All has been sent: what was kept back is written now.
    ///
    /// # Errors
    /// Whatever keeps it from being written.
    fn finish_flash(&mut self) -> Result<(), Error>;
}

/// Addresses that are alike: mapped with the same permissions, or not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Whether it can be read, written and executed; `None` if it is a hole.
    pub permissions: Option<[bool; 3]>,
}

/// What is mapped where: LLDB's `qMemoryRegionInfo`.
pub trait MemoryRegions {
    /// The area around a virtual address as `thread` sees it.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    fn area(&mut self, thread: ThreadId, address: u64) -> Result<Area, Error>;
}
