//! What an emulator says of its guest.

use super::request::DumpCompleted;
use std::sync::Arc;
use vmcore_core::{Arch, Error, Machine, Note, PhysMemory, RegisterFile};

/// A guest, as its emulator has it: all that a dump needs.
///
/// Methods are called from the thread that asks for the dump or, of a detached dump, from the dump's own.
pub trait Guest: Send + Sync {
    /// Its architecture, as in `vmcore::arch::by_name("x86_64")`.
    fn arch(&self) -> &'static dyn Arch;

    /// Its physical memory. It stays valid and unchanged while the guest is stopped.
    fn memory(&self) -> Arc<dyn PhysMemory>;

    /// The registers of its vCPUs, in their order. Called while the guest is stopped.
    ///
    /// # Errors
    /// What the emulator cannot help; the dump fails with it.
    fn registers(&self) -> Result<Vec<RegisterFile>, Error>;

    /// The note that the guest has stated, if the emulator has a device for it ([`crate::vmcoreinfo::Device`]).
    fn note(&self) -> Option<Note> {
        None
    }

    /// What stands in the way of a dump; asked before the guest is stopped. Emulators that cannot migrate have nothing to say.
    fn obstacle(&self) -> Option<Obstacle> {
        None
    }

    /// Stops all vCPUs and devices, and returns when they stand still. Tells whether the guest ran.
    ///
    /// # Errors
    /// What the emulator cannot help; the guest is then as it was.
    fn stop(&self) -> Result<bool, Error>;

    /// Lets the guest go on. Called once for each [`Guest::stop`] that told that it ran, whatever becomes of the dump.
    fn resume(&self);

    /// A dump has ended: QMP's event `DUMP_COMPLETED`. The guest does not run yet.
    fn completed(&self, event: &DumpCompleted) {
        let _ = event;
    }
}

/// Why a guest cannot be dumped at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// It waits for the state that another host sends.
    IncomingMigration,
    /// Its state is being sent to another host, or saved as a snapshot.
    Migration,
}

/// The guest, which is stopped, as a machine.
pub(super) fn machine(guest: &dyn Guest) -> Result<Machine, Error> {
    let mut machine = Machine::new(guest.arch(), guest.memory(), guest.registers()?);
    machine.guest_note = guest.note();
    // The note tells of the page size, and may tell of the byte order.
    let info = machine.dump_info();
    machine.identity.endianness = info.endianness;
    Ok(machine)
}
