//! Beginning anew.

use crate::error::Error;
use crate::wire;

/// What gdb's user has typed behind `run`: packet `vRun`.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'p> {
    /// In digits, `;` between them.
    list: &'p [u8],
}

impl<'p> Arguments<'p> {
    pub(crate) fn new(list: &'p [u8]) -> Self {
        Self { list }
    }

    /// Decodes the argument at `index` into the front of `buf`, and gives that front: 0 is the program, empty if the client leaves it to
    /// the target. `None` past the last, or if it is longer than `buf`.
    #[must_use]
    pub fn get<'b>(&self, index: usize, buf: &'b mut [u8]) -> Option<&'b [u8]> {
        let digits = self.list.split(|byte| *byte == b';').nth(index)?;
        wire::unhex(digits, buf).map(|argument| &*argument)
    }

    pub(crate) fn are_digits(&self) -> bool {
        let mut arguments = self.list.split(|byte| *byte == b';');
        arguments
            .all(|digits| digits.len() % 2 == 0 && digits.iter().all(|digit| wire::digit(*digit).is_some()))
    }
}

/// Beginning anew: gdb's `run` on a `target extended-remote`, packets `vRun` and `R`. A session with such a target goes on when it was killed
/// or has ended.
pub trait Restart {
    /// Begins anew, also if it was killed or has ended. Afterwards all threads stand still at their first instructions; breakpoints stay.
    ///
    /// # Errors
    /// Whatever stands against it.
    fn restart(&mut self, arguments: &Arguments<'_>) -> Result<(), Error>;
}
