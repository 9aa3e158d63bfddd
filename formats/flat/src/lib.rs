//! makedumpfile's flattened stream: a file as records of offset, length and bytes, so that a dump whose parts are not
//! written in order can go down a pipe. `makedumpfile -R` rearranges it into the file; crash and drgn read it as it is.
//!
//! ```text
//! 0             4096                                                                 always big-endian
//! ┌─────────────┬──────────────────┬───────┬──────────────────┬───────┬─────┬────────┐
//! │ file header │ offset, buf_size │ bytes │ offset, buf_size │ bytes │ ... │ -1, -1 │
//! └─────────────┴──────────────────┴───────┴──────────────────┴───────┴─────┴────────┘
//!               ╰── record ───────────────╯                                  end marker
//! ```
//!
//! Records come in any order. What no record covers is zero; of two that overlap the later one counts; the file ends
//! where the furthest record ends.
//!
//! What it deliberately does not do: look into the file inside, or read a stream from a pipe.

#![forbid(unsafe_code)]

mod file;
mod read;
pub mod record;
mod write;

pub use file::FlatFile;
pub use write::FlatSink;

use std::io::Write;
use std::sync::Arc;
use vmcore_core::{Error, ReadAt, Sink, Unwrapped, Wrapper, WrapperPlugin};

/// The wrapper plugin.
#[derive(Debug)]
pub struct Flat;

vmcore_core::inventory::submit! { WrapperPlugin(&Flat) }

impl Wrapper for Flat {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn description(&self) -> &'static str {
        "makedumpfile's flattened stream: any dump, down a pipe"
    }

    fn probe(&self, head: &[u8]) -> bool {
        read::is_flat(head)
    }

    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Unwrapped, Error> {
        let (file, findings) = FlatFile::open(file)?;
        Ok(Unwrapped { file: Arc::new(file), findings })
    }

    fn sink<'a>(&self, stream: Box<dyn Write + Send + 'a>) -> Box<dyn Sink + 'a> {
        Box::new(FlatSink::new(stream))
    }
}
