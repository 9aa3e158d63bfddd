//! Live guests: how a source finds one, stops it, and lets it run again.

use crate::registry::{registry, unknown};
use crate::{Arch, Error, Machine, PhysMemory, Region};
use std::sync::Arc;
use std::time::Duration;

/// How a source is to treat the guest.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The longest that the guest may stand still; then it is released, whatever happens to the dump.
    pub max_pause: Option<Duration>,
    /// Also ask for registers that the source's first answer lacks.
    pub extra_registers: bool,
    /// Take memory from the source's own stream, where it has one, not from the memory of its process.
    pub stream_memory: bool,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self { max_pause: None, extra_registers: true, stream_memory: false }
    }
}

/// How large a dump of the guest will be; known before it is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Its memory map, as far as it is known now: it can change until the guest stands still.
    pub regions: Vec<Region>,
    /// Bytes of it that the guest has used: the most that a sparse dump holds.
    pub used_len: u64,
}

impl Estimate {
    /// Bytes of RAM.
    #[must_use]
    pub fn ram_len(&self) -> u64 {
        self.regions.iter().map(|region| region.len).sum()
    }
}

/// A guest while it runs: what can be found out before it is stopped. All of it changes at any time.
#[derive(Clone)]
pub struct Preview {
    /// Its architecture, if it is linked in.
    pub arch: Option<&'static dyn Arch>,
    /// Its memory.
    pub memory: Arc<dyn PhysMemory>,
}

impl std::fmt::Debug for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preview").field("arch", &self.arch.map(Arch::name)).finish_non_exhaustive()
    }
}

/// Lets a guest go from any thread, at once and without waiting: what a signal calls for.
pub type LetGo = Arc<dyn Fn() + Send + Sync>;

/// What became of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How long it stood still; `None` if it was not running before.
    pub pause: Option<Duration>,
    /// Its state afterwards, in the source's words, as in `running`.
    pub state: String,
    /// Whether it was released before [`Attached::release`], by [`AttachOptions::max_pause`] or [`LetGo`].
    pub is_expired: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A guest that a source is connected to.
///
/// When it is dropped, the guest is released.
pub trait Attached: Send {
    /// What was found, in a line: emulator, version, architecture, vCPUs.
    fn description(&self) -> String;

    /// What the user should know before the guest is stopped.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// How large a dump will be.
    fn estimate(&self) -> Estimate;

    /// The guest while it runs, if the source can read its memory then.
    fn preview(&self) -> Option<Preview> {
        None
    }

    /// Stops the guest and gives it as a machine, whose memory is the guest's own until `release`.
    ///
    /// # Errors
    /// [`Error::Source`]; the guest is released.
    fn hold(&mut self) -> Result<Machine, Error>;

    /// What lets the guest go while this thread is busy, also in a later hold. Reading its memory then fails.
    fn let_go(&self) -> LetGo;

    /// Lets the guest go on, if it ran before. Safe to call twice.
    ///
    /// # Errors
    /// [`Error::Source`] if the guest does not go on.
    fn release(&mut self) -> Result<Released, Error>;
}

/// A kind of live guest, named by the scheme of a URI.
pub trait Source: Send + Sync {
    /// The scheme, as in `qemu`.
    fn scheme(&self) -> &'static str;

    /// What stands behind the colon, as in `PATH | HOST:PORT`.
    fn syntax(&self) -> &'static str;

    /// What it is, in a line.
    fn description(&self) -> &'static str;

    /// Connects to a guest, which goes on running.
    ///
    /// # Errors
    /// [`Error::Source`].
    fn attach(&self, address: &str, options: &AttachOptions) -> Result<Box<dyn Attached>, Error>;
}

registry! {
    /// The registration of a source.
    SourcePlugin of Source by scheme, "The sources that are linked in, by scheme."
}

/// The source of a URI, and the address behind its scheme; `None` if it begins with the scheme of no source.
#[must_use]
pub fn of_uri(uri: &str) -> Option<(&'static dyn Source, &str)> {
    let (scheme, address) = uri.split_once(':')?;
    let source = all().iter().copied().find(|source| source.scheme() == scheme)?;
    Some((source, address))
}

/// The source of a URI, and the address behind its scheme.
///
/// # Errors
/// [`Error::Unknown`] with the schemes that there are.
pub fn by_uri(uri: &str) -> Result<(&'static dyn Source, &str), Error> {
    of_uri(uri).ok_or_else(|| unknown("source", uri, all().iter().map(|source| source.scheme())))
}
