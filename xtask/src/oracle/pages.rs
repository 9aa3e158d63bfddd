//! What the pages of a guest are, by their page structs: an oracle where makedumpfile cannot be one.
//!
//! Of kernels since 6.12, which state where the array of all structs lies, and have a page's type in its `_mapcount`.
//!
//! Source: `spec/filter.md` sections 3 to 5.

use super::bitmap::Bitmap;
use super::core_file::{Head, Order};
use anyhow::Result;

/// `PG_waiters` since Linux 6.10: no kernel tells.
pub(crate) const WAITERS: u64 = 1 << 7;

/// Fields of a `struct page`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) flags: u64,
    pub(crate) mapping: u64,
    pub(crate) private: u64,
    /// `compound_head` or `compound_info`: bit 0 is set in tail pages.
    pub(crate) head: u64,
    /// `_mapcount`, or the page's type.
    pub(crate) mapcount: u32,
}

impl Page {
    pub(crate) fn is_tail(&self) -> bool {
        self.head & 1 == 1
    }
}

/// Layout of a `struct page`, and what its flags and types mean.
pub(crate) struct Pages {
    order: Order,
    /// The virtual address of the struct of page 0.
    vmemmap: u64,
    /// Bytes of a struct.
    pub(crate) len: u64,
    /// Offsets of flags, mapping, private, head, mapcount.
    pub(crate) fields: [usize; 5],
    pub(crate) lru: u64,
    private: u64,
    pub(crate) head: u64,
    swap_cache: u64,
    pub(crate) buddy: u32,
    slab: u32,
}

impl Pages {
    pub(crate) fn new(head: &Head) -> Result<Self> {
        let number = |key: &str| -> Result<i64> { Ok(head.vmcoreinfo(key)?.parse()?) };
        let offset =
            |name: &str| Ok::<_, anyhow::Error>(usize::try_from(number(&format!("OFFSET(page.{name})"))?)?);
        let flag = |name: &str| Ok::<_, anyhow::Error>(1 << number(&format!("NUMBER(PG_{name})"))?);
        // A type is a negative `int`.
        let kind = |name: &str| {
            let value = number(&format!("NUMBER(PAGE_{name}_MAPCOUNT_VALUE)"))?;
            Ok::<_, anyhow::Error>(i32::try_from(value)?.cast_unsigned())
        };
        let compound = offset("compound_info").or_else(|_| offset("compound_head"))?;
        Ok(Self {
            order: head.order,
            vmemmap: head.symbol("vmemmap")?,
            len: number("SIZE(page)")?.cast_unsigned(),
            fields: [
                offset("flags")?,
                offset("mapping")?,
                offset("private")?,
                compound,
                offset("_mapcount")?,
            ],
            lru: flag("lru")?,
            private: flag("private")?,
            head: number("NUMBER(PG_head_mask)")?.cast_unsigned(),
            swap_cache: flag("swapcache")? | flag("swapbacked")?,
            buddy: kind("BUDDY")?,
            slab: kind("SLAB")?,
        })
    }

    /// The virtual address of a page's struct.
    pub(crate) fn address(&self, pfn: u64) -> u64 {
        self.vmemmap.wrapping_add(pfn * self.len)
    }

    /// Decodes a struct.
    pub(crate) fn page(&self, bytes: &[u8]) -> Page {
        let [flags, mapping, private, head, mapcount] = self.fields;
        let word = |at| self.order.u64(bytes, at);
        Page {
            flags: word(flags),
            mapping: word(mapping),
            private: word(private),
            head: word(head),
            mapcount: self.order.u32(bytes, mapcount),
        }
    }

    /// The pages that stay at a dump level, given the structs of those from `first` on. Neither huge pages of hugetlbfs nor
    /// broken or offline ones are known here: the guest must have none.
    pub(crate) fn kept(&self, level: u32, first: u64, structs: &[u8]) -> Result<Bitmap> {
        let structs: Vec<&[u8]> = structs.chunks_exact(usize::try_from(self.len)?).collect();
        let max_mapnr = first + structs.len() as u64;
        let mut kept = Bitmap { max_mapnr, bytes: vec![0; usize::try_from(max_mapnr.div_ceil(8))?] };
        let mut at = 0;
        while at < structs.len() {
            let page = self.page(structs[at]);
            let tail = structs.get(at + 1).filter(|_| page.flags & self.head != 0);
            // The second struct of a compound page says how many there are, in the lowest byte of its flags.
            let order = tail.map_or(0, |tail| self.page(tail).flags & 0xff);
            if let Some(order) = self.left_out(level, &page, order) {
                at += 1 << order;
                continue;
            }
            let pfn = first + at as u64;
            kept.bytes[usize::try_from(pfn / 8)?] |= 1 << (pfn % 8);
            at += 1;
        }
        Ok(kept)
    }

    /// log2 of the number of pages that go with this one, if it goes.
    fn left_out(&self, level: u32, page: &Page, order: u64) -> Option<u64> {
        let has = |bit: u32| level & bit != 0;
        let is_anonymous = page.mapping & 1 != 0 && page.mapcount != self.slab;
        let is_cached = page.flags & self.lru != 0 || page.flags & self.swap_cache == self.swap_cache;
        let is_private = page.flags & self.private != 0;
        if page.is_tail() {
            None
        } else if page.mapcount == self.buddy {
            has(16).then_some(page.private)
        } else if is_anonymous {
            has(8).then_some(order)
        } else {
            (is_cached && (has(4) || has(2) && !is_private)).then_some(order)
        }
    }
}
