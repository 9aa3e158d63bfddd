//! Files that wrap a dump of any format, and the registry of those that are linked in.

use crate::format::head_of;
use crate::registry::{registry, unknown};
use crate::{Error, Finding, ReadAt, Sink};
use std::io::Write;
use std::sync::Arc;

/// A file around a file: dumps are read and written through it, whatever their format.
pub trait Wrapper: Send + Sync {
    /// Its name, as in "flat".
    fn name(&self) -> &'static str;

    /// What it is, in a line.
    fn description(&self) -> &'static str;

    /// Whether a file that begins with `head` (at most [`crate::format::HEAD_LEN`] bytes) is one. Never fails.
    fn probe(&self, head: &[u8]) -> bool;

    /// The file inside, and what is odd about the one around it. A file that is cut off gives what arrived.
    ///
    /// # Errors
    /// [`Error::Invalid`] and so on where there is no sense in going on; [`Error::Io`].
    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Unwrapped, Error>;

    /// A sink that takes offsets in any order, and writes to a stream that cannot go back.
    fn sink<'a>(&self, stream: Box<dyn Write + Send + 'a>) -> Box<dyn Sink + 'a>;
}

/// What is inside a wrapper.
#[derive(Clone)]
pub struct Unwrapped {
    /// The file inside.
    pub file: Arc<dyn ReadAt>,
    /// What is odd about the one around it.
    pub findings: Vec<Finding>,
}

impl std::fmt::Debug for Unwrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwrapped").field("findings", &self.findings).finish_non_exhaustive()
    }
}

registry! {
    /// The registration of a wrapper.
    WrapperPlugin of Wrapper by name, "The wrappers that are linked in, by name."
}

/// The file inside a wrapper, and the wrapper's name; `None` if there is none around it.
///
/// # Errors
/// [`Error::Io`], and what [`Wrapper::open`] returns.
pub fn open(file: &Arc<dyn ReadAt>) -> Result<Option<(&'static str, Unwrapped)>, Error> {
    let head = head_of(&**file)?;
    let found = all().iter().copied().find(|wrapper| wrapper.probe(&head));
    found.map(|wrapper| Ok((wrapper.name(), wrapper.open(Arc::clone(file))?))).transpose()
}

/// The wrapper with this name.
///
/// # Errors
/// [`Error::Unknown`] with the names that there are.
pub fn by_name(name: &str) -> Result<&'static dyn Wrapper, Error> {
    let found = all().iter().copied().find(|wrapper| wrapper.name() == name);
    found.ok_or_else(|| unknown("wrapper", name, all().iter().map(|wrapper| wrapper.name())))
}
