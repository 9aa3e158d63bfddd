//! Addresses of the guest, and the two facts of a dump that decide how its words look: class and byte order.
//!
//! An address is a type of its own and has no `+`: a guest physical address added to a file offset does not
//! compile.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` past 2^64.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Bytes from `base` up to this address, or `None` if it lies below `base`.
            #[must_use]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// The address with the low bits of `alignment` (a power of two) cleared.
            #[must_use]
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment.wrapping_sub(1)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A guest physical address in bytes: what a dump and the `p_paddr` of a `PT_LOAD` speak of.
    Gpa
}
address! {
    /// A guest virtual address in bytes; it means something only together with a vCPU.
    Gva
}

/// A page frame number: a [`Gpa`] shifted right by the page shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

impl Gpa {
    /// The number of the page frame that holds this address, for pages of `1 << page_shift` bytes.
    #[must_use]
    pub const fn pfn(self, page_shift: u32) -> Pfn {
        Pfn(self.0 >> page_shift)
    }
}

/// Byte order of a dump's words, known only at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endianness {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endianness {
    /// Decodes an unsigned integer of at most 8 bytes.
    ///
    /// Longer input yields its low 8 bytes.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> u64 {
        let push = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, push),
            Self::Big => bytes.iter().fold(0, push),
        }
    }

    /// Encodes the low `out.len()` bytes of `value`; bytes past the eighth become 0.
    pub fn encode(self, value: u64, out: &mut [u8]) {
        let bytes = value.to_le_bytes();
        let len = out.len();
        for (i, byte) in out.iter_mut().enumerate() {
            let place = match self {
                Self::Little => i,
                Self::Big => len - 1 - i,
            };
            *byte = bytes.get(place).copied().unwrap_or(0);
        }
    }

    /// Decodes the `u32` at `offset`, or `None` past the end.
    #[must_use]
    pub fn u32_at(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let word = bytes.get(offset..offset.checked_add(4)?)?;
        u32::try_from(self.decode(word)).ok()
    }
}

impl fmt::Display for Endianness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        })
    }
}

/// Width of a dump's addresses, as ELF's `EI_CLASS` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 32-bit structures.
    Elf32,
    /// 64-bit structures.
    Elf64,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf32 => "32-bit",
            Self::Elf64 => "64-bit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_both_orders() {
        assert_eq!(Endianness::Little.decode(&[1, 2, 0]), 0x201);
        assert_eq!(Endianness::Big.decode(&[1, 2]), 0x102);
        let mut out = [0xff; 10];
        Endianness::Big.encode(0x1122, &mut out);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x22]);
        assert_eq!(Endianness::Little.u32_at(&[1, 0, 0, 0], 1), None);
    }

    #[test]
    fn addresses_do_not_wrap() {
        assert_eq!(Gpa(u64::MAX).checked_add(1), None);
        assert_eq!(Gpa(0x1234).align_down(0x1000), Gpa(0x1000));
        assert_eq!(Gpa(0x5000).pfn(12), Pfn(5));
        assert_eq!(Gva(1).offset_from(Gva(2)), None);
    }
}
