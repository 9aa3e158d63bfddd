//! `vmcore_guest`: what an emulator tells of its guest, as callbacks.

use crate::boundary::{Failure, from_c};
use crate::memory::{GuestMemory, MemoryMap};
use crate::registers::Registers;
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::{fmt, io, ptr, slice};
use vmcore::dump::DumpCompleted;
use vmcore::parallel::lock;
use vmcore::vmcoreinfo::Device;
use vmcore::{Arch, Endianness, Error, Note, PhysMemory, RegisterFile};

/// [`Guest::read`].
pub(crate) type ReadFn =
    unsafe extern "C" fn(opaque: *mut c_void, gpa: u64, buffer: *mut u8, len: usize) -> c_int;

/// What an emulator tells of its guest.
///
/// Callbacks are called from the thread that calls `vmcore_dump_guest_memory` or from threads of a dump. They may call
/// `vmcore_query_dump`, `vmcore_dump_progress` and `vmcore_dump_cancel`, and no other function of a dumper. They must not throw
/// an exception nor `longjmp` out: that ends the process. Those that give an `int` give 0, or an errno value of either sign.
///
/// `memset` it to zero, set `size`, then what there is; what is marked as optional may be null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// `sizeof(struct vmcore_guest)`. Fields may be added at the end; a caller that does not know them goes on to work.
    pub size: usize,
    /// The first argument of each callback.
    pub opaque: *mut c_void,
    /// Its architecture, as in `x86_64`: a string that `vmcore_dumper_new` copies.
    pub arch: *const c_char,

    /// Stops all vCPUs and devices, and returns when they stand still and nobody writes to guest memory. Tells whether the guest ran
    /// in `was_running`. If it fails, the guest is as it was.
    pub stop: Option<unsafe extern "C" fn(opaque: *mut c_void, was_running: *mut bool) -> c_int>,
    /// Lets the guest go on. Called once for each `stop` that told that the guest ran, whatever becomes of the dump, and as the last
    /// of its calls.
    pub resume: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Describes the guest's memory with `vmcore_memory_add`. Called while the guest is stopped, for each dump anew.
    pub memory: Option<unsafe extern "C" fn(opaque: *mut c_void, memory: *mut MemoryMap) -> c_int>,
    /// How many vCPUs there are. Called while the guest is stopped.
    pub vcpu_count: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u32>,
    /// Tells the registers of one vCPU with `vmcore_registers_set_u64` and `vmcore_registers_set`. Called while the guest is stopped,
    /// for each vCPU in turn, from 0 on.
    pub registers: Option<
        unsafe extern "C" fn(opaque: *mut c_void, vcpu_index: u32, registers: *mut Registers) -> c_int,
    >,

    /// Optional, if all memory is mapped. Copies `len` bytes of guest memory at `gpa`, which lie in one region, to `buffer`, all or none.
    /// Where it fails it is asked for each page alone; pages that fail are zero in the dump, and counted. Called by one
    /// thread at a time, but not always the same.
    pub read:
        Option<unsafe extern "C" fn(opaque: *mut c_void, gpa: u64, buffer: *mut u8, len: usize) -> c_int>,
    /// Optional: the note of the guest's kernel, by which drgn, crash and makedumpfile find their way. Copies to `file` the 16 bytes
    /// that the guest wrote to the file `etc/vmcoreinfo` of its fw_cfg; fails if it wrote none. A note that is not good is left out.
    pub vmcoreinfo: Option<unsafe extern "C" fn(opaque: *mut c_void, file: *mut u8) -> c_int>,
    /// Optional: the file descriptor that is meant by `"protocol": "fd:NAME"`, or -1. The dump closes it when it ends.
    pub fd: Option<unsafe extern "C" fn(opaque: *mut c_void, name: *const c_char) -> c_int>,
    /// Optional: a dump has been written, or has failed on the way. `event` is the data of QMP's event `DUMP_COMPLETED` in JSON, valid
    /// during the call. The guest does not run yet.
    pub completed: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const c_char)>,
}

impl Guest {
    /// Copies a struct of a caller that may know fewer fields, or more.
    ///
    /// # Safety
    /// `guest` is null or points to as many bytes as its `size` says.
    unsafe fn copy(guest: *const Self) -> Result<Self, Failure> {
        /// The fields of the first release.
        const LEAST: usize = offset_of!(Guest, completed) + size_of::<usize>();
        const KNOWN: usize = size_of::<Guest>();
        const { assert!(offset_of!(Guest, size) == 0) };
        if guest.is_null() {
            return Err(Failure::null("guest"));
        }
        // SAFETY: the caller vouches for the first field at least.
        let size = unsafe { guest.cast::<usize>().read() };
        // A size of megabytes is not one that somebody set.
        if !(LEAST..=0x1_0000).contains(&size) {
            return Err(Failure::argument(format!("guest.size is {size}, expected {KNOWN}")));
        }
        // SAFETY: the caller vouches for this many bytes.
        let bytes = unsafe { slice::from_raw_parts(guest.cast::<u8>(), size) };
        let (known, unknown) = bytes.split_at(size.min(KNOWN));
        if unknown.iter().any(|byte| *byte != 0) {
            return Err(Failure::argument("guest has fields that this version of libvmcore does not know"));
        }
        let mut copy = MaybeUninit::<Self>::zeroed();
        // SAFETY: both have that many bytes, and the copy is ours alone.
        unsafe { ptr::copy_nonoverlapping(known.as_ptr(), copy.as_mut_ptr().cast(), known.len()) };
        // SAFETY: each field may be zero: numbers, pointers, optional functions. Others came from a struct of the caller's.
        Ok(unsafe { copy.assume_init() })
    }
}

/// The guest of an emulator in C, for [`vmcore::dump`].
pub(crate) struct CGuest {
    arch: &'static dyn Arch,
    calls: Calls,
    /// Its memory as it was described at the last stop.
    memory: Mutex<Option<Arc<GuestMemory>>>,
}

/// The callbacks, none of which is missing that has to be there.
#[derive(Clone, Copy)]
struct Calls {
    opaque: *mut c_void,
    stop: unsafe extern "C" fn(*mut c_void, *mut bool) -> c_int,
    resume: unsafe extern "C" fn(*mut c_void),
    memory: unsafe extern "C" fn(*mut c_void, *mut MemoryMap) -> c_int,
    vcpu_count: unsafe extern "C" fn(*mut c_void) -> u32,
    registers: unsafe extern "C" fn(*mut c_void, u32, *mut Registers) -> c_int,
    optional: Guest,
}

// SAFETY: `Guest` demands that callbacks, with their argument, can be called from any thread. A `Dumper` runs one dump at a time, whose
// threads share only the memory.
unsafe impl Send for CGuest {}
// SAFETY: as above.
unsafe impl Sync for CGuest {}

impl fmt::Debug for CGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CGuest").field("arch", &self.arch.name()).finish_non_exhaustive()
    }
}

impl CGuest {
    /// The guest that the caller describes.
    ///
    /// # Safety
    /// `guest` is null, or is as the docs of [`Guest`] say; its callbacks stay so as long as the result.
    pub(crate) unsafe fn new(guest: *const Guest) -> Result<Self, Failure> {
        // SAFETY: as the caller vouches.
        let guest = unsafe { Guest::copy(guest) }?;
        // SAFETY: as the caller vouches.
        let arch = unsafe { from_c(guest.arch, "guest.arch") }?;
        let arch = vmcore::arch::by_name(arch).map_err(|error| Failure::argument(error.to_string()))?;
        let calls = Calls {
            opaque: guest.opaque,
            stop: guest.stop.ok_or_else(|| Failure::null("guest.stop"))?,
            resume: guest.resume.ok_or_else(|| Failure::null("guest.resume"))?,
            memory: guest.memory.ok_or_else(|| Failure::null("guest.memory"))?,
            vcpu_count: guest.vcpu_count.ok_or_else(|| Failure::null("guest.vcpu_count"))?,
            registers: guest.registers.ok_or_else(|| Failure::null("guest.registers"))?,
            // The caller's string need not outlive the call.
            optional: Guest { arch: ptr::null(), ..guest },
        };
        Ok(Self { arch, calls, memory: Mutex::default() })
    }

    /// The descriptor of a name.
    pub(crate) fn fd(&self, name: &str) -> Option<OwnedFd> {
        let call = self.calls.optional.fd?;
        let name = CString::new(name).ok()?;
        // SAFETY: the emulator gave it to be called so.
        let fd = unsafe { call(self.calls.opaque, name.as_ptr()) };
        // SAFETY: the emulator hands an open descriptor over.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Asks for the map of memory of the guest, which is stopped.
    fn map(&self) -> Result<GuestMemory, Error> {
        let mut map = MemoryMap::default();
        // SAFETY: the emulator gave it to be called so; the map lives until it returns.
        let code = unsafe { (self.calls.memory)(self.calls.opaque, &raw mut map) };
        check("memory", code)?;
        GuestMemory::new(map, self.calls.optional.read, self.calls.opaque)
            .map_err(|failure| of(failure.message))
    }
}

/// An error of the emulator.
fn of(message: String) -> Error {
    Error::Source { scheme: "emulator", source: message.into() }
}

/// What a callback has returned.
fn check(what: &str, code: c_int) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let code = i32::try_from(code.unsigned_abs()).unwrap_or(i32::MAX);
    Err(of(format!("{what}: {}", io::Error::from_raw_os_error(code))))
}

impl vmcore::dump::Guest for CGuest {
    fn arch(&self) -> &'static dyn Arch {
        self.arch
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        let memory = lock(&self.memory);
        Arc::clone(memory.as_ref().expect("a dump stops the guest before it asks for its memory")) as _
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
        // SAFETY: the emulator gave it to be called so.
        let count = unsafe { (self.calls.vcpu_count)(self.calls.opaque) };
        let one = |index: u32| {
            let mut registers = Registers::new(self.arch.registers());
            // SAFETY: the emulator gave it to be called so; the registers live until it returns.
            let code = unsafe { (self.calls.registers)(self.calls.opaque, index, &raw mut registers) };
            check(&format!("registers of vCPU {index}"), code)?;
            match registers.failure {
                None => Ok(registers.file),
                Some(failure) => Err(of(format!("vCPU {index}: {}", failure.message))),
            }
        };
        (0..count).map(one).collect()
    }

    fn note(&self) -> Option<Note> {
        let call = self.calls.optional.vmcoreinfo?;
        let mut file = [0; Device::FILE_LEN];
        // SAFETY: the emulator gave it to be called so; the file has the length that its docs tell.
        if unsafe { call(self.calls.opaque, file.as_mut_ptr()) } != 0 {
            return None;
        }
        let mut device = Device::new();
        device.write(0, &file).ok()?;
        let memory = self.memory();
        // The note is in the guest's byte order; in the other one it makes no sense.
        [Endianness::Little, Endianness::Big].into_iter().find_map(|order| device.note(&*memory, order).ok())
    }

    fn stop(&self) -> Result<bool, Error> {
        let mut was_running = false;
        // SAFETY: the emulator gave it to be called so.
        check("stop", unsafe { (self.calls.stop)(self.calls.opaque, &raw mut was_running) })?;
        match self.map() {
            Ok(memory) => {
                *lock(&self.memory) = Some(Arc::new(memory));
                Ok(was_running)
            }
            Err(error) => {
                if was_running {
                    self.resume();
                }
                Err(error)
            }
        }
    }

    fn resume(&self) {
        // SAFETY: the emulator gave it to be called so.
        unsafe { (self.calls.resume)(self.calls.opaque) };
    }

    fn completed(&self, event: &DumpCompleted) {
        let Some(call) = self.calls.optional.completed else { return };
        let event = serde_json::to_string(event).expect("numbers and strings");
        let event = CString::new(event).expect("JSON escapes NUL");
        // SAFETY: the emulator gave it to be called so; the text lives until it returns.
        unsafe { call(self.calls.opaque, event.as_ptr()) };
    }
}
