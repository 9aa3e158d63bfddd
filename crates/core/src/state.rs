//! The running job: what QMP's `query-dump` asks for.

use crate::Error;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Where a job stands; the words of QMP's `DumpStatus`, and cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Never begun.
    None = 0,
    /// Under way.
    Active = 1,
    /// All written.
    Completed = 2,
    /// Ended by an error.
    Failed = 3,
    /// Ended by [`DumpState::cancel`].
    Cancelled = 4,
}

/// Progress and end of one dump, shared by the threads that write it and those that watch.
#[derive(Debug, Default)]
pub struct DumpState {
    status: AtomicU8,
    completed: AtomicU64,
    total: AtomicU64,
    is_cancelled: AtomicBool,
}

impl DumpState {
    /// Where the job stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.status.load(Ordering::Acquire) {
            1 => Status::Active,
            2 => Status::Completed,
            3 => Status::Failed,
            4 => Status::Cancelled,
            _ => Status::None,
        }
    }

    /// Bytes of guest memory that are done, zeros included; equal to `total` after success.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Bytes of guest memory that the dump holds, before compression.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Asks the job to end soon; it fails with [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
    }

    /// Begins the job, of `total` bytes.
    pub fn begin(&self, total: u64) {
        self.completed.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.status.store(Status::Active as u8, Ordering::Release);
    }

    /// Counts `len` bytes as done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the job is to end.
    pub fn advance(&self, len: u64) -> Result<(), Error> {
        self.completed.fetch_add(len, Ordering::Relaxed);
        self.check()
    }

    /// Whether the job may go on.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it is to end.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled.load(Ordering::Acquire) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Ends the job.
    pub fn end<T>(&self, result: &Result<T, Error>) {
        let status = match result {
            Ok(_) => Status::Completed,
            Err(Error::Cancelled) => Status::Cancelled,
            Err(_) => Status::Failed,
        };
        self.status.store(status as u8, Ordering::Release);
    }
}
