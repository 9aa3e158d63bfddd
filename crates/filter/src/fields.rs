//! Where the fields of `struct page` lie.

use vmcore_core::Endianness;

/// An unsigned number in a `struct page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Bytes from the start of the struct.
    pub(crate) offset: usize,
    /// Its length in bytes: 1, 2, 4 or 8.
    pub(crate) len: usize,
}

/// A number of which some bits must have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) word: Word,
    pub(crate) mask: u64,
    pub(crate) value: u64,
}

/// The layout of `struct page`. All words lie within [`Fields::len`].
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    /// `SIZE(page)` in bytes.
    pub(crate) len: usize,
    pub(crate) endianness: Endianness,
    /// Offsets of u64.
    pub(crate) flags: usize,
    pub(crate) mapping: usize,
    pub(crate) private: Option<usize>,
    pub(crate) head: Option<usize>,
    /// Offsets of u32.
    pub(crate) mapcount: Option<usize>,
    pub(crate) refcount: usize,
    /// In the second struct of a compound page: log2 of its length in pages, in the low bits that the mask tells.
    pub(crate) order: Option<(Word, u64)>,
    /// In the second struct of a compound page: whether it is of hugetlbfs.
    pub(crate) hugetlb: Option<Test>,
}

/// What `struct page` says of a page. Fields that the kernel does not tell are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// `flags`.
    pub(crate) flags: u64,
    /// `_mapcount`, which is also the page's type.
    pub(crate) mapcount: u32,
    /// `mapping`.
    pub(crate) mapping: u64,
    /// `private`: of a free block its order.
    pub(crate) private: u64,
    /// `compound_head`; bit 0 says that the page belongs to the compound page that begins there.
    pub(crate) head: u64,
}

/// What the second struct says of a compound page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// log2 of its length in pages.
    pub(crate) order: u64,
    /// Whether it is of hugetlbfs, where that stands here.
    pub(crate) is_hugetlb: bool,
}

impl Fields {
    /// Decodes a struct of [`Fields::len`] bytes.
    #[inline]
    pub(crate) fn page(&self, bytes: &[u8]) -> Page {
        Page {
            flags: self.u64_at(bytes, self.flags),
            mapcount: self.mapcount.map_or(0, |offset| self.u32_at(bytes, offset)),
            mapping: self.u64_at(bytes, self.mapping),
            private: self.private.map_or(0, |offset| self.u64_at(bytes, offset)),
            head: self.head.map_or(0, |offset| self.u64_at(bytes, offset)),
        }
    }

    /// Decodes the second struct of a compound page.
    pub(crate) fn second(&self, bytes: &[u8]) -> Second {
        let word = |word: Word| self.endianness.decode(&bytes[word.offset..][..word.len]);
        Second {
            order: self.order.map_or(0, |(at, mask)| word(at) & mask),
            is_hugetlb: self.hugetlb.is_some_and(|test| word(test.word) & test.mask == test.value),
        }
    }

    /// `_refcount`.
    pub(crate) fn refcount(&self, bytes: &[u8]) -> u32 {
        self.u32_at(bytes, self.refcount)
    }

    #[inline]
    fn u64_at(&self, bytes: &[u8], offset: usize) -> u64 {
        let word = bytes[offset..][..8].try_into().expect("8 bytes");
        match self.endianness {
            Endianness::Little => u64::from_le_bytes(word),
            Endianness::Big => u64::from_be_bytes(word),
        }
    }

    #[inline]
    fn u32_at(&self, bytes: &[u8], offset: usize) -> u32 {
        let word = bytes[offset..][..4].try_into().expect("4 bytes");
        match self.endianness {
            Endianness::Little => u32::from_le_bytes(word),
            Endianness::Big => u32::from_be_bytes(word),
        }
    }
}
