//! Dump levels: which classes of pages a dump leaves out.

use std::fmt;
use std::str::FromStr;
use vmcore_core::Error;

/// A dump level, as makedumpfile's `-d` has it: a sum of bits, 0 to 31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Level(u32);

impl Level {
    /// Nothing is left out.
    pub const NONE: Self = Self(0);
    /// Pages of zeros. They take no space in any dump that is written here, with or without this bit.
    pub const ZERO: Self = Self(1);
    /// The page cache, but for pages that a file system keeps data of its own at.
    pub const CACHE: Self = Self(2);
    /// The page cache with those pages: this bit implies [`Level::CACHE`].
    pub const PRIVATE_CACHE: Self = Self(4);
    /// Memory of programs: anonymous pages and hugetlb pages.
    pub const USER: Self = Self(8);
    /// Pages that the kernel's allocator has to give away.
    pub const FREE: Self = Self(16);
    /// All bits.
    pub const ALL: Self = Self(31);

    /// The bits with their names, lowest first.
    pub const BITS: [(Self, &'static str); 5] = [
        (Self::ZERO, "zero"),
        (Self::CACHE, "cache"),
        (Self::PRIVATE_CACHE, "private cache"),
        (Self::USER, "user"),
        (Self::FREE, "free"),
    ];

    /// The level of this number.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above 31.
    pub fn new(number: u32) -> Result<Self, Error> {
        let limit = u64::from(Self::ALL.0);
        let too_large = Error::TooLarge { what: "dump level", found: u64::from(number), limit };
        if number > Self::ALL.0 { Err(too_large) } else { Ok(Self(number)) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether any of these bits is set.
    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    /// Without these bits.
    #[must_use]
    pub const fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }

    /// Whether the kernel's own records are needed to tell the pages apart; zeros show by themselves.
    #[must_use]
    pub const fn needs_kernel(self) -> bool {
        self.without(Self::ZERO).0 != 0
    }

    /// The names of the bits that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::BITS.into_iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, name)| name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().and_then(|number| Self::new(number).ok());
        number.ok_or_else(|| {
            "0 to 31 is expected: the sum of 1 (zero), 2 (cache), 4 (private cache), 8 (user) and 16 (free)"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_sum_of_bits() {
        let level: Level = "19".parse().unwrap();
        assert_eq!(level, Level::ZERO.with(Level::CACHE).with(Level::FREE));
        assert_eq!(level.names().collect::<Vec<_>>(), ["zero", "cache", "free"]);
        assert!(level.needs_kernel() && !Level::ZERO.needs_kernel());
        for bad in ["32", "-1", "", "0x1f", "all"] {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
        assert_eq!(Level::new(31).unwrap(), Level::ALL);
        assert_eq!(Level::new(32).unwrap_err().to_string(), "dump level: 32 is more than 31");
    }
}
