//! `vmcore_dumper`: the functions that an emulator calls.

use crate::boundary::{Code, Failure, answer, from_c, into_c, without_panic};
use crate::guest::{CGuest, Guest};
use std::ffi::c_char;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{fmt, ptr};
use vmcore::dump::{DumpGuestMemoryCapability, DumpRequest, DumpStatus, Dumper, QmpError};

/// Dumps one guest, one dump at a time. A process may have any number of them.
///
/// Its functions may be called from any thread, also at the same time; only `vmcore_dumper_free` must be the last one.
pub struct Handle {
    pub(crate) dumper: Dumper,
    /// The descriptors that requests name.
    pub(crate) fds: Box<FindFd>,
}

/// Gives the descriptor of a name.
type FindFd = dyn Fn(&str) -> Option<OwnedFd> + Send + Sync;

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("dumper", &self.dumper).finish_non_exhaustive()
    }
}

/// Where a dump stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There was no dump yet.
    None = 0,
    /// A dump is under way.
    Active = 1,
    /// The last dump is complete.
    Completed = 2,
    /// The last dump has failed, or was cancelled.
    Failed = 3,
}

/// How far a dump is, in numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// `sizeof(struct vmcore_progress)`, which the caller sets. Fields may be added at the end.
    pub size: usize,
    /// Where it stands.
    pub status: Status,
    /// Bytes of guest memory that are done, before compression.
    pub completed: u64,
    /// Bytes of guest memory that the dump holds.
    pub total: u64,
    /// Of the last dump, if it is complete: bytes of guest memory that could not be read. They are zero in the dump.
    pub unreadable: u64,
    /// Of the last dump, if it is complete: its length in bytes.
    pub file_len: u64,
}

/// A handle of the caller's.
///
/// # Safety
/// `dumper` is null or of `vmcore_dumper_new`, and not freed before `'a` ends.
unsafe fn handle<'a>(dumper: *const Handle) -> Result<&'a Handle, Failure> {
    // SAFETY: as the caller vouches.
    unsafe { dumper.as_ref() }.ok_or_else(|| Failure::null("dumper"))
}

/// An answer in JSON; null if there is none.
fn json<T: serde::Serialize>(work: impl FnOnce() -> Result<T, Failure>) -> *mut c_char {
    let text = without_panic(|| {
        let text = serde_json::to_string(&work()?);
        text.map_err(|error| Failure::argument(error.to_string()))
    });
    text.map_or(ptr::null_mut(), |text| into_c(&text))
}

/// Makes a dumper of a guest. `guest` is copied, with the name of its architecture; what its callbacks need must stay until
/// `vmcore_dumper_free` returns.
///
/// On success `*dumper` is set, else it becomes null, and `*error` is what is wrong, to be freed with `vmcore_string_free`. `error` may be
/// null; on success `*error` becomes null. So it is for all functions that have an `error`.
///
/// # Safety
/// `guest` is as `vmcore_guest` says; `dumper` may be written; `error` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dumper_new(
    guest: *const Guest,
    dumper: *mut *mut Handle,
    error: *mut *mut c_char,
) -> Code {
    let work = || {
        if dumper.is_null() {
            return Err(Failure::null("dumper"));
        }
        // SAFETY: it is not null, and the caller vouches for it.
        unsafe { dumper.write(ptr::null_mut()) };
        // SAFETY: as the caller vouches.
        let guest = Arc::new(unsafe { CGuest::new(guest) }?);
        let fds = Arc::clone(&guest);
        let handle = Handle { dumper: Dumper::new(guest), fds: Box::new(move |name| fds.fd(name)) };
        // SAFETY: as above.
        unsafe { dumper.write(Box::into_raw(Box::new(handle))) };
        Ok(())
    };
    // SAFETY: as the caller vouches.
    unsafe { answer(error, work) }
}

/// Frees a dumper. A dump under way is cancelled first, and waited for. Null is fine. Not to be called by a callback.
///
/// # Safety
/// `dumper` came from `vmcore_dumper_new`, was not freed yet, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dumper_free(dumper: *mut Handle) {
    if dumper.is_null() {
        return;
    }
    // SAFETY: the caller vouches that it is of `vmcore_dumper_new`, and not freed yet.
    let handle = unsafe { Box::from_raw(dumper) };
    // Who frees cannot be told of a defect.
    let _ = without_panic(move || {
        drop(handle);
        Ok(())
    });
}

/// `dump-guest-memory`: stops the guest, writes its dump, and lets it go on if it ran.
///
/// `arguments` are those of the QMP command in JSON, as in
/// `{"paging": false, "protocol": "file:/tmp/guest.vmcore", "format": "kdump-zlib", "detach": true}`. A dump that is detached is written in
/// a thread of its own: what then goes wrong is told by `vmcore_guest.completed` and `vmcore_query_dump`.
///
/// # Safety
/// `dumper` is null or a dumper; `arguments` is a string that ends with NUL; `error` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dump_guest_memory(
    dumper: *const Handle,
    arguments: *const c_char,
    error: *mut *mut c_char,
) -> Code {
    let failed = |error: QmpError| Failure { code: Code::Failed, message: error.desc };
    let work = || {
        // SAFETY: as the caller vouches.
        let handle = unsafe { handle(dumper) }?;
        // SAFETY: as the caller vouches.
        let arguments = unsafe { from_c(arguments, "arguments") }?;
        let arguments = serde_json::from_str(arguments)
            .map_err(|error| Failure::argument(format!("arguments are not JSON: {error}")))?;
        let request = DumpRequest::from_json(&arguments).map_err(failed)?;
        handle.dumper.dump(&request, &*handle.fds).map_err(failed)
    };
    // SAFETY: as the caller vouches.
    unsafe { answer(error, work) }
}

/// `query-dump`: its answer in JSON, to be freed with `vmcore_string_free`; null if `dumper` is.
///
/// # Safety
/// `dumper` is null or a dumper.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_query_dump(dumper: *const Handle) -> *mut c_char {
    // SAFETY: as the caller vouches.
    json(|| Ok(unsafe { handle(dumper) }?.dumper.query()))
}

/// `query-dump-guest-memory-capability`: its answer in JSON, to be freed with `vmcore_string_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmcore_query_dump_guest_memory_capability() -> *mut c_char {
    json(|| Ok(DumpGuestMemoryCapability::of_this_program()))
}

/// How far the dump is, in numbers.
///
/// # Safety
/// `dumper` is null or a dumper; `progress` is null or points to as many bytes as its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dump_progress(dumper: *const Handle, progress: *mut Progress) -> Code {
    /// The fields of the first release.
    const LEAST: usize = size_of::<Progress>();
    const { assert!(offset_of!(Progress, size) == 0) };
    let work = || {
        // SAFETY: as the caller vouches.
        let dumper = &unsafe { handle(dumper) }?.dumper;
        if progress.is_null() {
            return Err(Failure::null("progress"));
        }
        // SAFETY: the caller vouches for the first field at least.
        let size = unsafe { progress.cast::<usize>().read() };
        if size < LEAST {
            return Err(Failure::argument(format!("progress.size is {size}, expected {LEAST}")));
        }
        let (query, report) = (dumper.query(), dumper.report());
        let answer = Progress {
            size,
            completed: query.completed,
            total: query.total,
            unreadable: report.as_ref().map_or(0, |report| report.unreadable.byte_len()),
            file_len: report.as_ref().map_or(0, |report| report.file_len),
            status: match query.status {
                DumpStatus::None => Status::None,
                DumpStatus::Active => Status::Active,
                DumpStatus::Completed => Status::Completed,
                DumpStatus::Failed => Status::Failed,
            },
        };
        // SAFETY: the caller vouches for `size` bytes, and these are not more. Fields behind, of a newer header, stay as they are.
        unsafe { progress.write(answer) };
        Ok(())
    };
    // SAFETY: nobody takes the message.
    unsafe { answer(ptr::null_mut(), work) }
}

/// Lets the dump that is under way fail soon. Null is fine.
///
/// # Safety
/// `dumper` is null or a dumper.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dump_cancel(dumper: *const Handle) {
    // Who cancels nothing learns nothing.
    let _ = without_panic(|| {
        // SAFETY: as the caller vouches.
        unsafe { handle(dumper) }?.dumper.cancel();
        Ok(())
    });
}

/// Waits for the end of a detached dump, when the guest runs again. Null is fine. Not to be called by a callback.
///
/// # Safety
/// `dumper` is null or a dumper.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_dump_wait(dumper: *const Handle) {
    // Who waits for nothing learns nothing.
    let _ = without_panic(|| {
        // SAFETY: as the caller vouches.
        unsafe { handle(dumper) }?.dumper.wait();
        Ok(())
    });
}
