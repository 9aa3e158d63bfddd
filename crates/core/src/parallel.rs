//! Threads that work on one thing, and end together.

use crate::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The first failure of any thread. A thread that is to end looks here.
#[derive(Debug, Default)]
pub struct Failure(Mutex<Option<Error>>);

impl Failure {
    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// A failure; only the first is kept.
    pub fn set(&self, error: Error) {
        lock(&self.0).get_or_insert(error);
    }

    /// Ends work that has no sense any more. The first failure stays the one that is told.
    /// # Errors
    /// [`Error::Cancelled`] if there is one.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// # Errors
    /// The first failure.
    pub fn into_result(self) -> Result<(), Error> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Locks what a thread that panicked may have left behind: the panic itself is passed on by [`in_threads`].
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` for each number below `count`, each in a thread of its own, and 0 in this one.
pub fn in_threads<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..count).map(|number| scope.spawn(move || work(number))).collect();
        let mut results = vec![work(0)];
        for thread in others {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}
