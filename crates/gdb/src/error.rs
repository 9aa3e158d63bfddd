//! What a client is told when something does not work.

use core::fmt;

/// A failure as a client sees it: `E` and two digits, or a text if the client understands one.
///
/// The protocol gives the numbers no meaning; these are `errno`'s, in decimal, as QEMU's stub sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// 0 to 99.
    pub number: u8,
    /// For the user, if there is more to say than the number does; else empty. ASCII.
    pub text: &'static str,
}

impl Error {
    /// The client gets the empty reply, which means: no such packet here.
    pub const UNSUPPORTED: Self = Self { number: u8::MAX, text: "" };
    /// A document or a part of it that is not there (`E00`).
    pub const NO_DOCUMENT: Self = Self { number: 0, text: "" };
    /// This target does not do that (`E01`).
    pub const REFUSED: Self = Self { number: 1, text: "" };
    /// No room (`E12`, `ENOMEM`).
    pub const NO_ROOM: Self = Self { number: 12, text: "" };
    /// Memory or a register that is not there (`E14`, `EFAULT`).
    pub const FAULT: Self = Self { number: 14, text: "" };
    /// A packet or a parameter that makes no sense (`E22`, `EINVAL`).
    pub const INVALID: Self = Self { number: 22, text: "" };

    /// This target does not do that, and here is why.
    #[must_use]
    pub const fn refused(text: &'static str) -> Self {
        Self { text, ..Self::REFUSED }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.text) {
            (Self::UNSUPPORTED, _) => f.write_str("not supported"),
            (_, "") => write!(f, "error {}", self.number),
            (_, text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Error {}
