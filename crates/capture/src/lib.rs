//! Captures running guests: QEMU over QMP.
//!
//! The scheme is `qemu:`, followed by the path of a monitor's UNIX socket or by HOST:PORT. QEMU is never asked to write
//! the guest's memory. One dump into a pipe that is not read to its end stops the guest and tells its registers and its
//! memory map; the memory is copied from QEMU's process, or from the files behind it, and the guest runs again as soon as
//! the pipe is closed, whoever closes it.
//!
//! ```text
//! qmp ─ json, socket, address     the monitor
//! query, mtree, registers, stub   what it says
//! find ─ process, maps, pagemap   the process on this host
//! locate, backing ─► memory       where each byte of the guest is, and how it is read
//! transport ─► pipe ─► hold       what keeps the guest stopped
//! guest                           the conversation: `Attached`
//! ```
//!
//! This crate knows no dump format: the beginning of QEMU's dump is read by the format plugin `elf`, which must be linked
//! in. Facts and measurements: `spec/live-capture.md`.
//!
//! What it deliberately does not do: stop a guest that QEMU cannot dump (`stop` and `cont` need a process that stands
//! guard, for a program that is killed in between); read guests on other hosts.

pub mod address;
mod backing;
pub mod error;
#[cfg(test)]
mod fake;
mod find;
mod gate;
mod guest;
mod hold;
pub mod json;
mod locate;
pub mod maps;
mod memory;
pub mod mtree;
mod pagemap;
mod pagemap_scan;
mod pipe;
pub mod process;
pub mod qmp;
mod query;
pub mod registers;
mod socket;
mod stub;
mod transport;

pub use address::Address;
pub use error::CaptureError;
pub use qmp::{Event, Qmp};

use guest::QemuGuest;
use vmcore_core::{AttachOptions, Attached, Error, Source, SourcePlugin};

/// The scheme of the URIs.
pub(crate) const SCHEME: &str = "qemu";

/// QEMU over QMP.
#[derive(Debug)]
struct Qemu;

impl Source for Qemu {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn syntax(&self) -> &'static str {
        "PATH | HOST:PORT"
    }

    fn description(&self) -> &'static str {
        "a guest of QEMU, by the UNIX socket or TCP address of a QMP monitor"
    }

    fn attach(&self, address: &str, options: &AttachOptions) -> Result<Box<dyn Attached>, Error> {
        let address = Address::parse(address)?;
        Ok(Box::new(QemuGuest::attach(&address, options)?))
    }
}

inventory::submit! { SourcePlugin(&Qemu) }
