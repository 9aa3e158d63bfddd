//! Whether the guest's memory still is that of the moment at which it was stopped.

use crate::error::CaptureError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Closes once, when the guest was let go before the dump was done.
///
/// A release that was *asked for* does not close it: who releases the guest and reads on wants just that.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_expired: AtomicBool,
    max_pause: Option<Duration>,
}

impl Gate {
    pub(crate) fn new(max_pause: Option<Duration>) -> Self {
        Self { is_expired: AtomicBool::new(false), max_pause }
    }

    /// Says that the longest pause has passed. Must come before the guest is let go.
    pub(crate) fn expire(&self) {
        self.is_expired.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.is_expired.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`CaptureError::Expired`].
    pub(crate) fn check(&self) -> Result<(), CaptureError> {
        if self.is_expired() {
            return Err(CaptureError::Expired { max_pause: self.max_pause.unwrap_or_default() });
        }
        Ok(())
    }
}
