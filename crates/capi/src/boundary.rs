//! What goes across the boundary: codes, messages, strings; and panics, which do not.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Code {
    /// As it should.
    Ok = 0,
    /// The caller's mistake: a null pointer, a string that is not UTF-8 or not JSON, an unknown name.
    Argument = 1,
    /// The dump was refused, it failed, or it was cancelled. Towards QMP this is an error of class `GenericError`, and the message
    /// its description.
    Failed = 2,
    /// A defect of this library. The guest runs again if it ran before.
    Panic = 3,
}

/// A call that ended otherwise.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failure {
    /// The caller's mistake.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { code: Code::Argument, message: message.into() }
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::argument(format!("{what} is NULL"))
    }
}

/// Does the work of a function, and tells how it ended; the message goes to `error`.
///
/// # Safety
/// `error` is null or may be written.
pub(crate) unsafe fn answer(error: *mut *mut c_char, work: impl FnOnce() -> Result<(), Failure>) -> Code {
    let (code, message) = match without_panic(work) {
        Ok(()) => (Code::Ok, ptr::null_mut()),
        // Nobody would free a message that nobody takes.
        Err(failure) if error.is_null() => (failure.code, ptr::null_mut()),
        Err(failure) => (failure.code, into_c(&failure.message)),
    };
    if !error.is_null() {
        // SAFETY: the caller vouches for a pointer that is not null.
        unsafe { error.write(message) };
    }
    code
}

/// Does `work`; a panic becomes a [`Failure`].
pub(crate) fn without_panic<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic leaves half done is behind locks of the facade, which go on with what they find, and the dump has failed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(Failure { code: Code::Panic, message: format!("a defect of libvmcore: {}", reason(payload)) })
    })
}

/// What a panic said.
fn reason(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => (*text).to_owned(),
            Err(payload) => {
                // To drop a value of an unknown type may panic again.
                std::mem::forget(payload);
                "it panicked".to_owned()
            }
        },
    }
}

/// A string for C, to be freed with [`vmcore_string_free`]. A NUL inside, which C cannot have, becomes `\0`.
pub(crate) fn into_c(text: &str) -> *mut c_char {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default().into_raw()
}

/// A string of C.
///
/// # Safety
/// `text` is null or points to a string that ends with NUL and lives as long as `'a`.
pub(crate) unsafe fn from_c<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: it is not null; the rest is what the caller vouches for.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// The version of the library, as in `0.1.0`. It is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmcore_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL"),
        };
    VERSION.as_ptr()
}

/// Frees a string that a function of this library gave. Null is fine.
///
/// # Safety
/// `text` came from this library and was not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller vouches that it is of `into_c`, and not freed yet.
        drop(unsafe { CString::from_raw(text) });
    }
}
