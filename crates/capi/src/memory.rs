//! `vmcore_memory`: the map of guest memory, and how it is read.

use crate::boundary::{Code, Failure, without_panic};
use crate::guest::ReadFn;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::slice;
use std::sync::Mutex;
use vmcore::memory::{check_disjoint, read_by_region};
use vmcore::parallel::lock;
use vmcore::{Error, Gpa, PhysMemory, Region, Unreadable};

/// The map of guest memory, which a callback fills in. It is valid until that returns.
#[derive(Debug, Default)]
pub struct MemoryMap {
    pub(crate) blocks: Vec<Block>,
    /// The first mistake: the dump fails with it, whether or not the callback looks at codes.
    pub(crate) failure: Option<Failure>,
}

/// A region, and where it is mapped in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    region: Region,
    host: Option<NonNull<u8>>,
}

impl MemoryMap {
    fn add(&mut self, gpa: u64, len: u64, host: *const u8) -> Result<(), Failure> {
        let region = Region::ram(Gpa(gpa), len);
        // A slice of memory cannot be longer than `isize::MAX`.
        let is_mappable = host.is_null() || isize::try_from(len).is_ok();
        if check_disjoint(&[region]).is_err() || !is_mappable {
            return Err(Failure::argument(format!("{len:#x} bytes of memory at {gpa:#x} cannot be")));
        }
        self.blocks.push(Block { region, host: NonNull::new(host.cast_mut()) });
        Ok(())
    }
}

/// Adds a region of RAM, or of ROM: `len` bytes at the guest physical address `gpa`. Regions come in any order, and do not overlap.
///
/// Where the guest's memory is mapped in this process, `host` points to its bytes; they are read from there, by several threads,
/// and must stay valid and unchanged until the dump ends. Else `host` is null, and `vmcore_guest.read` reads the region.
/// Ranges that are not added, those of devices among them, are not in the dump.
///
/// A region that is impossible also makes the dump fail, with a message that names it: to look at the code is not necessary.
///
/// # Safety
/// `memory` is what the callback was given; `host` is null, or has `len` bytes as told above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_memory_add(
    memory: *mut MemoryMap,
    gpa: u64,
    len: u64,
    host: *const c_void,
) -> Code {
    // SAFETY: the caller vouches that it is null, or what the callback was given, which nobody else uses meanwhile.
    let Some(map) = (unsafe { memory.as_mut() }) else { return Code::Argument };
    match without_panic(|| map.add(gpa, len, host.cast())) {
        Ok(()) => Code::Ok,
        Err(failure) => {
            let code = failure.code;
            map.failure.get_or_insert(failure);
            code
        }
    }
}

/// Pages that cannot be read are found by steps of this many bytes: no architecture has smaller ones.
const STEP: usize = 4096;

/// The memory of a guest that is stopped.
pub(crate) struct GuestMemory {
    regions: Vec<Region>,
    hosts: Vec<Option<NonNull<u8>>>,
    read: Option<ReadFn>,
    /// The argument of `read`, which is called by one thread at a time.
    opaque: Mutex<*mut c_void>,
}

// SAFETY: `vmcore_memory_add` demands that mapped memory can be read by several threads; `vmcore_guest` demands that callbacks can
// be called from any thread, and the lock keeps `read` from being called by two at once.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// The memory that `map` describes.
    pub(crate) fn new(map: MemoryMap, read: Option<ReadFn>, opaque: *mut c_void) -> Result<Self, Failure> {
        if let Some(failure) = map.failure {
            return Err(failure);
        }
        let mut blocks = map.blocks;
        blocks.sort_by_key(|block| block.region.gpa);
        let regions: Vec<Region> = blocks.iter().map(|block| block.region).collect();
        check_disjoint(&regions).map_err(|error| Failure::argument(error.to_string()))?;
        if let Some(block) = blocks.iter().find(|block| block.host.is_none() && read.is_none()) {
            let gpa = block.region.gpa;
            return Err(Failure::argument(format!(
                "memory at {gpa} is not mapped, and there is no callback to read it"
            )));
        }
        let hosts = blocks.iter().map(|block| block.host).collect();
        Ok(Self { regions, hosts, read, opaque: Mutex::new(opaque) })
    }

    /// Bytes of a region that is mapped.
    fn mapped(&self, index: usize, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let (region, host) = (self.regions.get(index)?, (*self.hosts.get(index)?)?);
        let offset = gpa.offset_from(region.gpa)?;
        let end = offset.checked_add(len as u64)?;
        if end > region.len {
            return None;
        }
        // SAFETY: the offset is inside of the region, all of which is mapped, says the emulator.
        let start = unsafe { host.add(usize::try_from(offset).ok()?) };
        // SAFETY: the range is inside of the region. The emulator vouches that nobody writes to it before the dump ends, and nobody
        // reads it then: `Dumper` drops its machine with the dump.
        Some(unsafe { slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// Lets the emulator read; tells whether it could.
    fn call(&self, gpa: Gpa, buf: &mut [u8]) -> bool {
        let Some(read) = self.read else { return false };
        let opaque = lock(&self.opaque);
        // SAFETY: the emulator gave `read` to be called so; the buffer has that many bytes, and nobody else uses it.
        unsafe { read(*opaque, gpa.0, buf.as_mut_ptr(), buf.len()) == 0 }
    }

    /// Reads what lies in one region, and what cannot be read as zeros.
    fn read(&self, gpa: Gpa, buf: &mut [u8], unreadable: &mut Unreadable) {
        if self.call(gpa, buf) {
            return;
        }
        let mut at = gpa;
        let mut rest = buf;
        while !rest.is_empty() {
            let step =
                usize::try_from(at.0 % STEP as u64).map_or(STEP, |inside| STEP - inside).min(rest.len());
            let (page, tail) = rest.split_at_mut(step);
            if !self.call(at, page) {
                page.fill(0);
                unreadable.add(at, step as u64);
            }
            at = Gpa(at.0 + step as u64);
            rest = tail;
        }
    }
}

impl PhysMemory for GuestMemory {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        read_by_region(&self.regions, gpa, buf, |index, at, piece, unreadable| {
            match self.mapped(index, at, piece.len()) {
                Some(bytes) => piece.copy_from_slice(bytes),
                None => self.read(at, piece, unreadable),
            }
            Ok(())
        })
    }

    fn slice(&self, gpa: Gpa, len: usize) -> Option<&[u8]> {
        let index = self.regions.partition_point(|region| region.end() <= gpa);
        self.mapped(index, gpa, len)
    }
}
