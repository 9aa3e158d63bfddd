//! Registers that are asked for one by one.
//!
//! Source: Linux `Documentation/virt/kvm/api.rst`, `KVM_SET_ONE_REG`.

use vmcore_core::RegisterFile;

/// Bits of an id that say the size: its logarithm.
const SIZE_SHIFT: u32 = 52;
/// The longest register: a vector of SVE.
const MAX_LEN: usize = 256;

/// A register and its id for `KVM_GET_ONE_REG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneReg {
    /// Its name in the register table.
    pub name: &'static str,
    /// KVM's id; it tells the size, too.
    pub id: u64,
}

impl OneReg {
    /// How many bytes the register has.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        1 << (self.id >> SIZE_SHIFT & 0xf)
    }
}

/// The bits of an id that say a size in bytes, which is a power of two.
pub(super) const fn size(bytes: u64) -> u64 {
    (bytes.trailing_zeros() as u64) << SIZE_SHIFT
}

/// Sets each register that `get` knows: it fills the bytes of an id, or says that the vCPU has no such register.
///
/// With kvm-ioctls, `get` is `|id, bytes| vcpu.get_one_reg(id, bytes).is_ok()`. Values are in the byte order of the host, which is
/// little-endian. Of several rows of one register the last one counts that is known.
pub fn copy_one_regs(
    rows: impl IntoIterator<Item = OneReg>,
    registers: &mut RegisterFile,
    mut get: impl FnMut(u64, &mut [u8]) -> bool,
) {
    for row in rows {
        let mut bytes = [0; MAX_LEN];
        let Some(bytes) = bytes.get_mut(..row.byte_len()) else { continue };
        if let Some(id) = registers.table().find(row.name)
            && get(row.id, bytes)
        {
            registers.set(id, bytes);
        }
    }
}
