//! Software breakpoints: `int3` in memory, which nobody but the vCPU sees.

use crate::Ram;
use std::collections::BTreeMap;
use vm_memory::{Bytes, GuestAddress};
use vmcore::gdb::Error;

const INT3: u8 = 0xcc;

/// Instructions that begin with an `int3` in place of their first byte.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    /// By virtual address: where the byte lies, and which one it is.
    patches: BTreeMap<u64, (u64, u8)>,
}

impl Patches {
    pub(crate) fn insert(&mut self, ram: &Ram, address: u64, gpa: u64) -> Result<(), Error> {
        if self.is_at(address) {
            return Ok(());
        }
        let byte = self.byte_at(ram, gpa)?;
        ram.write_obj(INT3, GuestAddress(gpa)).map_err(|_| Error::FAULT)?;
        self.patches.insert(address, (gpa, byte));
        Ok(())
    }

    /// The guest's byte: another virtual address may lead to one that is replaced already.
    fn byte_at(&self, ram: &Ram, gpa: u64) -> Result<u8, Error> {
        let mut byte = [ram.read_obj(GuestAddress(gpa)).map_err(|_| Error::FAULT)?];
        self.hide(gpa, &mut byte);
        Ok(byte[0])
    }

    pub(crate) fn remove(&mut self, ram: &Ram, address: u64) -> Result<(), Error> {
        let (gpa, byte) = self.patches.remove(&address).ok_or(Error::INVALID)?;
        if self.patches.values().any(|(other, _)| *other == gpa) {
            return Ok(());
        }
        ram.write_obj(byte, GuestAddress(gpa)).map_err(|_| Error::FAULT)
    }

    /// Puts all bytes back.
    pub(crate) fn clear(&mut self, ram: &Ram) {
        for (gpa, byte) in std::mem::take(&mut self.patches).into_values() {
            // It was written before: the memory is there.
            ram.write_obj(byte, GuestAddress(gpa)).unwrap_or_default();
        }
    }

    /// Whether there is one at a virtual address.
    pub(crate) fn is_at(&self, address: u64) -> bool {
        self.patches.contains_key(&address)
    }

    /// Puts the guest's bytes into what was read at `gpa`.
    pub(crate) fn hide(&self, gpa: u64, bytes: &mut [u8]) {
        for (at, byte) in self.patches.values() {
            if let Some(place) = place_in(bytes, gpa, *at) {
                bytes[place] = *byte;
            }
        }
    }

    /// Takes the guest's bytes out of what is to be written at `gpa`: an `int3` stays in their place.
    pub(crate) fn keep(&mut self, gpa: u64, bytes: &mut [u8]) {
        let wanted = bytes.to_vec();
        for (at, byte) in self.patches.values_mut() {
            if let Some(place) = place_in(bytes, gpa, *at) {
                *byte = wanted[place];
                bytes[place] = INT3;
            }
        }
    }
}

/// The place of the byte at `at` among `bytes`, which lie at `gpa`.
fn place_in(bytes: &[u8], gpa: u64, at: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(gpa)?).ok().filter(|place| *place < bytes.len())
}
