//! The vmcoreinfo device: a file of fw_cfg in which a guest says where its note lies.
//!
//! ```text
//! 0            2             4     8        16    etc/vmcoreinfo, little-endian
//! host_format  guest_format  size  paddr
//! ```
//!
//! The emulator offers the file as one that the guest may write, which needs the DMA interface of fw_cfg; the rest is
//! here: bytes in, bytes out. At dump time [`Device::note`] gives the note, or says why there is none.
//!
//! Source: `spec/vmcoreinfo.md` section 3; QEMU `docs/specs/vmcoreinfo`; Linux `drivers/firmware/qemu_fw_cfg.c`.

use crate::note::{Refusal, Stated};
use vmcore_core::{Endianness, Error, Gpa, Note, PhysMemory};

/// The only format that there is: an ELF note. In both format fields.
pub const FORMAT_ELF: u16 = 1;
/// The guest has stated nothing. In `guest_format`.
pub const FORMAT_NONE: u16 = 0;

/// The vmcoreinfo device of an emulator.
///
/// ```
/// use vmcore_core::memory::BlockMemory;
/// use vmcore_core::{Endianness, Gpa, Note};
/// use vmcore_vmcoreinfo::Device;
///
/// // The emulator adds the file `Device::FILE_NAME` to its fw_cfg and hands accesses on.
/// let mut device = Device::new();
/// let mut formats = [0; 2];
/// device.read(0, &mut formats);
/// assert_eq!(formats, [1, 0], "the host knows ELF notes");
///
/// // A driver of the guest states a note of 64 bytes at 0x1000.
/// let mut memory = vec![0; 0x2000];
/// let mut note = Vec::new();
/// Note::new("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n".to_vec()).encode(Endianness::Little, &mut note)?;
/// memory[0x1000..][..note.len()].copy_from_slice(&note);
/// device.write(0, &[0, 0, 1, 0, 64, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0])?;
///
/// // A dump is taken.
/// let memory = BlockMemory::new(vec![(Gpa(0), memory)])?;
/// let note = device.note(&memory, Endianness::Little).expect("the guest has stated a good one");
/// assert!(note.is_vmcoreinfo());
/// // `machine.guest_note = Some(note)`; or `vmcore_vmcoreinfo::complete` searches for one.
/// # Ok::<(), vmcore_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The file, as the guest reads and writes it.
    file: [u8; Device::FILE_LEN],
    has_vmcoreinfo: bool,
}

/// What the device holds, as numbers: for an emulator that keeps its state in a form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether the last write of the guest stated a note.
    pub has_vmcoreinfo: bool,
    /// What the guest left of the field; [`FORMAT_ELF`] after a reset. Linux writes 0.
    pub host_format: u16,
    /// [`FORMAT_NONE`], [`FORMAT_ELF`], or anything else that the guest wrote.
    pub guest_format: u16,
    /// Bytes that the guest has for the note; more than it takes.
    pub size: u32,
    /// Where its header begins.
    pub paddr: u64,
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Device {
    /// Its file in fw_cfg.
    pub const FILE_NAME: &str = "etc/vmcoreinfo";
    /// Length of the file in bytes.
    pub const FILE_LEN: usize = 16;
    /// Length of the state in QEMU's migration stream in bytes.
    pub const SAVED_LEN: usize = 17;

    /// The device as a reset leaves it.
    #[must_use]
    pub fn new() -> Self {
        let mut file = [0; Self::FILE_LEN];
        file[..2].copy_from_slice(&FORMAT_ELF.to_le_bytes());
        Self { file, has_vmcoreinfo: false }
    }

    /// The guest reads from `offset` on. What lies behind the file is zero, as fw_cfg has it.
    pub fn read(&self, offset: usize, buf: &mut [u8]) {
        let rest = self.file.get(offset..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        buf[len..].fill(0);
    }

    /// The guest writes `bytes` from `offset` on.
    ///
    /// Only a write of the whole file at once states a note, and any other write withdraws the one that was stated. Nothing
    /// else is looked at before a dump is taken. A write of no bytes is none.
    ///
    /// # Errors
    /// [`Error::Range`] if the write passes the end of the file. Nothing is changed then; fw_cfg tells the guest of an error.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len());
        let target = end.and_then(|end| self.file.get_mut(offset..end)).ok_or(Error::Range {
            what: Self::FILE_NAME,
            start: offset as u64,
            len: bytes.len() as u64,
        })?;
        target.copy_from_slice(bytes);
        self.has_vmcoreinfo = bytes.len() == Self::FILE_LEN && self.state().guest_format != FORMAT_NONE;
        Ok(())
    }

    /// The machine is reset. The note usually stays in memory, but nobody vouches for it any more.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// What it holds.
    #[must_use]
    pub fn state(&self) -> State {
        let [h0, h1, g0, g1, s0, s1, s2, s3, paddr @ ..] = self.file;
        State {
            has_vmcoreinfo: self.has_vmcoreinfo,
            host_format: u16::from_le_bytes([h0, h1]),
            guest_format: u16::from_le_bytes([g0, g1]),
            size: u32::from_le_bytes([s0, s1, s2, s3]),
            paddr: u64::from_le_bytes(paddr),
        }
    }

    /// The state in the order of QEMU's migration stream: section `vmcoreinfo`, version 1.
    ///
    /// A byte for `has_vmcoreinfo`, then the four fields, big-endian, as QEMU on a little-endian host writes them. (QEMU does
    /// not convert the file's little-endian fields: those of a big-endian host stand there in the other order.)
    #[must_use]
    pub fn save(&self) -> [u8; Self::SAVED_LEN] {
        let State { has_vmcoreinfo, host_format, guest_format, size, paddr } = self.state();
        let mut saved = [0; Self::SAVED_LEN];
        saved[0] = has_vmcoreinfo.into();
        saved[1..3].copy_from_slice(&host_format.to_be_bytes());
        saved[3..5].copy_from_slice(&guest_format.to_be_bytes());
        saved[5..9].copy_from_slice(&size.to_be_bytes());
        saved[9..].copy_from_slice(&paddr.to_be_bytes());
        saved
    }

    /// The device in a state that [`Device::save`] has given.
    #[must_use]
    pub fn load(saved: [u8; Self::SAVED_LEN]) -> Self {
        let [has_vmcoreinfo, h0, h1, g0, g1, s0, s1, s2, s3, paddr @ ..] = saved;
        State {
            has_vmcoreinfo: has_vmcoreinfo != 0,
            host_format: u16::from_be_bytes([h0, h1]),
            guest_format: u16::from_be_bytes([g0, g1]),
            size: u32::from_be_bytes([s0, s1, s2, s3]),
            paddr: u64::from_be_bytes(paddr),
        }
        .into()
    }

    /// The note that the guest has stated.
    ///
    /// # Errors
    /// A [`Refusal`], which is a warning for the user: a dump never fails for it.
    pub fn note(&self, memory: &dyn PhysMemory, endianness: Endianness) -> Result<Note, Refusal> {
        let State { has_vmcoreinfo, guest_format, size, paddr, .. } = self.state();
        if !has_vmcoreinfo {
            return Err(Refusal::NotStated);
        }
        Stated { guest_format, gpa: Gpa(paddr), len: size }.read(memory, endianness)
    }
}

impl From<State> for Device {
    fn from(state: State) -> Self {
        let mut file = [0; Self::FILE_LEN];
        file[..2].copy_from_slice(&state.host_format.to_le_bytes());
        file[2..4].copy_from_slice(&state.guest_format.to_le_bytes());
        file[4..8].copy_from_slice(&state.size.to_le_bytes());
        file[8..].copy_from_slice(&state.paddr.to_le_bytes());
        Self { file, has_vmcoreinfo: state.has_vmcoreinfo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What Linux writes: {0, 1, 36 + 4096, paddr}.
    const LINUX: [u8; 16] = [0, 0, 1, 0, 0x24, 0x10, 0, 0, 0x00, 0xe0, 0x1d, 0x01, 0, 0, 0, 0];
    const AT_RESET: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// What the guest reads after these writes, and whether a note counts as stated.
    #[track_caller]
    fn check(writes: &[(usize, &[u8])], expected: [u8; 16], has_vmcoreinfo: bool) {
        let mut device = Device::new();
        for (offset, bytes) in writes {
            // A refused write changes nothing, which is what the row expects.
            let _ = device.write(*offset, bytes);
        }
        let mut file = [0xff; 16];
        device.read(0, &mut file);
        assert_eq!(file, expected);
        assert_eq!(device.state().has_vmcoreinfo, has_vmcoreinfo);
    }

    #[test]
    fn each_write_of_the_guest() {
        let with = |offset: usize, byte: u8| {
            let mut file = LINUX;
            file[offset] = byte;
            file
        };
        // Nothing, or as good as nothing.
        check(&[], AT_RESET, false);
        check(&[(0, &[])], AT_RESET, false);
        // The whole file states a note, whatever is in it.
        check(&[(0, &LINUX)], LINUX, true);
        check(&[(0, &with(0, 7))], with(0, 7), true);
        check(&[(0, &with(2, 9))], with(2, 9), true);
        check(&[(0, &[0xff; 16])], [0xff; 16], true);
        // But not without a format: that withdraws what was stated.
        check(&[(0, &with(2, 0))], with(2, 0), false);
        check(&[(0, &LINUX), (0, &AT_RESET)], AT_RESET, false);
        // Nor in parts, which withdraw too, also where they change nothing.
        check(&[(0, &LINUX[..8]), (8, &LINUX[8..])], LINUX, false);
        check(&[(0, &LINUX), (2, &[1])], LINUX, false);
        check(&[(0, &LINUX), (0, &LINUX[..15])], LINUX, false);
        check(&[(0, &LINUX), (15, &[9])], with(15, 9), false);
        check(&[(0, &LINUX), (15, &[9]), (0, &LINUX)], LINUX, true);
        // What passes the end does not happen.
        check(&[(0, &LINUX), (1, &LINUX)], LINUX, true);
        check(&[(0, &LINUX), (0, &[0; 17])], LINUX, true);
        check(&[(0, &LINUX), (16, &[0]), (usize::MAX, &[0])], LINUX, true);
        check(&[(0, &LINUX), (0, &[])], LINUX, true);
    }

    #[test]
    fn a_reset_forgets() {
        let mut device = Device::new();
        device.write(0, &LINUX).unwrap();
        device.reset();
        assert_eq!(device, Device::default());
        let at_reset = State { has_vmcoreinfo: false, host_format: 1, guest_format: 0, size: 0, paddr: 0 };
        assert_eq!(device.state(), at_reset);
    }

    #[test]
    fn a_read_passes_the_end_with_zeros() {
        let mut device = Device::new();
        device.write(0, &LINUX).unwrap();
        for (offset, expected) in [(8, [0x00, 0xe0, 0x1d]), (14, [0; 3]), (99, [0; 3])] {
            let mut buf = [0xff; 3];
            device.read(offset, &mut buf);
            assert_eq!(buf, expected, "{offset}");
        }
    }

    #[test]
    fn the_migration_stream() {
        let mut device = Device::new();
        device.write(0, &LINUX).unwrap();
        let saved = device.save();
        assert_eq!(saved, [1, 0, 0, 0, 1, 0, 0, 0x10, 0x24, 0, 0, 0, 0, 0x01, 0x1d, 0xe0, 0x00]);
        assert_eq!(Device::load(saved), device);
    }

    proptest! {
        #[test]
        fn any_state_comes_back(writes in prop::collection::vec((0..20usize, prop::collection::vec(any::<u8>(), 0..20)), 0..4)) {
            let mut device = Device::new();
            for (offset, bytes) in writes {
                let before = device.clone();
                if device.write(offset, &bytes).is_err() {
                    prop_assert_eq!(&device, &before);
                }
            }
            prop_assert_eq!(&Device::load(device.save()), &device);
            prop_assert_eq!(&Device::from(device.state()), &device);
        }
    }
}
