//! What VMCOREINFO says of `struct page`: the families of keys that kernels since 2.6.38 have had.
//!
//! A key decides, never a version, unless versions with the same key mean different things.
//!
//! Source: `spec/filter.md` section 3; Linux `kernel/vmcore_info.c`, before 6.9 `kernel/crash_core.c`.

use crate::classify::Rules;
use crate::fields::{Fields, Test, Word};
use crate::{Lack, Level};
use vmcore_core::{Endianness, Error, Vmcoreinfo};

/// What needs the keys without which nothing can be told.
const WHAT: &str = "telling a guest's pages apart";
/// `struct page` has 56 to 80 bytes; debug options add to it.
const STRUCT_LENS: std::ops::RangeInclusive<u64> = 32..=1024;

/// What VMCOREINFO says, as far as it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// log2 of the page size.
    pub(crate) page_shift: u32,
    pub(crate) fields: Fields,
    /// The rules at the level that the keys allow.
    pub(crate) rules: Rules,
    /// Whether the rules can match any page: at levels 0 and 1 only those that no bit keeps.
    pub(crate) is_needed: bool,
    /// What is missing, and what follows from it.
    pub(crate) lacks: Vec<Lack>,
}

/// The version of a kernel: `a.b.c` of its release.
type Version = (u32, u32, u32);

/// The version in a release such as `6.1.0-50-cloud-amd64`; one that cannot be read is taken for a new one.
fn version(release: Option<&str>) -> Version {
    let mut numbers = release.unwrap_or_default().split(|char: char| !char.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    match (next(), next(), next()) {
        (Some(a), Some(b), c) => (a, b, c.unwrap_or(0)),
        _ => (u32::MAX, 0, 0),
    }
}

/// Looks keys up and remembers which are not there.
struct Reader<'a> {
    info: &'a Vmcoreinfo,
    struct_len: u64,
    /// The level that was asked for.
    level: Level,
    lacks: Vec<Lack>,
}

impl Reader<'_> {
    /// `NUMBER(name)`, a value of `_mapcount`: its low 32 bits.
    fn mapcount(&self, name: &str) -> Option<u32> {
        let number = self.info.number(name)? & u64::from(u32::MAX);
        u32::try_from(number).ok()
    }

    /// The mask of the flag whose bit is `NUMBER(name)`.
    fn flag(&self, name: &str) -> Option<u64> {
        let bit = u32::try_from(self.info.number(name)?).ok()?;
        1_u64.checked_shl(bit)
    }

    /// `OFFSET(name)` less `base`, if a number of `len` bytes lies there within the struct.
    fn word(&self, name: &str, base: u64, len: usize) -> Option<Word> {
        let offset = self.info.value("OFFSET", name)?.checked_sub(base)?;
        let end = offset.checked_add(len as u64)?;
        let offset = usize::try_from(offset).ok()?;
        (end <= self.struct_len).then_some(Word { offset, len })
    }

    fn offset(&self, name: &str, len: usize) -> Option<usize> {
        Some(self.word(name, 0, len)?.offset)
    }

    fn needed_offset(&self, name: &str, len: usize) -> Result<usize, Error> {
        self.offset(name, len).ok_or_else(|| no_key(&format!("OFFSET({name})")))
    }

    /// Notes that `key` is missing, for which `bits` of the level are off, if any of them was asked for.
    fn lacks(&mut self, key: &str, bits: Level, effect: &'static str) {
        if self.level.has(bits) {
            self.lacks.push(Lack { key: key.to_owned(), bits, effect });
        }
    }

    /// Notes that `key` is missing, without which fewer pages go by `bits` of the level, if any of them was asked for.
    fn lacks_some(&mut self, key: &str, bits: Level, effect: &'static str) {
        if self.level.has(bits) {
            self.lacks.push(Lack { key: key.to_owned(), bits: Level::NONE, effect });
        }
    }
}

fn no_key(key: &str) -> Error {
    Error::NoKey { key: key.to_owned(), what: WHAT }
}

impl Keys {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`Error::NoKey`] if one is missing without which no page can be told from another.
    pub(crate) fn read(info: &Vmcoreinfo, endianness: Endianness, level: Level) -> Result<Self, Error> {
        let page_size = info.page_size().ok_or_else(|| no_key("PAGESIZE"))?;
        let struct_len = info.value("SIZE", "page").filter(|len| STRUCT_LENS.contains(len));
        let struct_len = struct_len.ok_or_else(|| no_key("SIZE(page)"))?;
        let version = version(info.release());
        let mut reader = Reader { info, struct_len, level, lacks: Vec::new() };
        let mapcount = reader.offset("page._mapcount", 4);
        let mut fields = Fields {
            len: usize::try_from(struct_len).map_err(|_| no_key("SIZE(page)"))?,
            endianness,
            flags: reader.needed_offset("page.flags", 8)?,
            mapping: reader.needed_offset("page.mapping", 8)?,
            private: reader.offset("page.private", 8),
            head: reader.offset("page.compound_info", 8).or_else(|| reader.offset("page.compound_head", 8)),
            mapcount,
            // Its name before 4.6 was `_count`.
            refcount: match reader.offset("page._count", 4) {
                Some(offset) => offset,
                None => reader.needed_offset("page._refcount", 4)?,
            },
            order: None,
            hugetlb: None,
        };
        let typed = |reader: &Reader<'_>, name: &str| mapcount.and_then(|_| reader.mapcount(name));
        let mut rules = Rules {
            level,
            lru: reader.flag("PG_lru").unwrap_or(0),
            private: reader.flag("PG_private").unwrap_or(0),
            slab_flag: reader.flag("PG_slab").unwrap_or(0),
            hwpoison: reader.flag("PG_hwpoison").unwrap_or(0),
            head: info.number("PG_head_mask").unwrap_or(0),
            swap_cache: swap_cache(&reader, version),
            buddy: typed(&reader, "PAGE_BUDDY_MAPCOUNT_VALUE").filter(|_| fields.private.is_some()),
            slab: typed(&reader, "PAGE_SLAB_MAPCOUNT_VALUE"),
            offline: typed(&reader, "PAGE_OFFLINE_MAPCOUNT_VALUE"),
            unaccepted: typed(&reader, "PAGE_UNACCEPTED_MAPCOUNT_VALUE"),
            hugetlb: typed(&reader, "PAGE_HUGETLB_MAPCOUNT_VALUE"),
            // Where the kernel does not tell, the section is the limit, which the caller knows.
            free_orders: info.value("LENGTH", "zone.free_area").unwrap_or(0),
        };
        compound(&reader, version, &mut fields, rules.hugetlb);
        reader.judge(&mut rules, &fields, version);
        // makedumpfile looks at the pages at all if the level or this key tells it to (section 2).
        let is_needed = level.needs_kernel() || rules.hwpoison != 0;
        Ok(Self { page_shift: page_size.trailing_zeros(), fields, rules, is_needed, lacks: reader.lacks })
    }
}

/// The flags that together mark a page of the swap cache.
fn swap_cache(reader: &Reader<'_>, version: Version) -> u64 {
    // Since 4.10 the bit of the swap cache has another meaning for pages that are not backed by swap (PG_owner_priv_1).
    match (reader.flag("PG_swapcache"), reader.flag("PG_swapbacked")) {
        (Some(cache), Some(backed)) => cache | backed,
        (Some(cache), None) if version < (4, 10, 0) => cache,
        _ => 0,
    }
}

/// Where the second struct of a compound page says how long it is, and whether it is of hugetlbfs.
fn compound(reader: &Reader<'_>, version: Version, fields: &mut Fields, hugetlb_type: Option<u32>) {
    let value = |word: Option<Word>, value: Option<u64>| {
        word.zip(value).map(|(word, value)| Test { word, mask: u64::MAX, value })
    };
    let dtor = reader.info.number("HUGETLB_PAGE_DTOR");
    let flags = Word { offset: fields.flags, len: 8 };
    let is_listed = |name: &str| reader.info.value("OFFSET", name).is_some();
    if hugetlb_type.is_some() {
        // 6.9 and later, and stable kernels of 6.6: the head's type tells hugetlbfs.
        fields.order = Some((flags, 0xff));
    } else if let Some(mask) = reader.flag("PG_hugetlb") {
        // 6.6 to 6.8.
        fields.order = Some((flags, 0xff));
        fields.hugetlb = Some(Test { word: flags, mask, value: mask });
    } else if is_listed("folio._folio_order") {
        // 6.3 to 6.5: a folio overlays two structs.
        fields.order = reader.word("folio._folio_order", reader.struct_len, 1).map(|word| (word, u64::MAX));
        fields.hugetlb = value(reader.word("folio._folio_dtor", reader.struct_len, 1), dtor);
    } else if is_listed("page.compound_order") {
        let len = if version < (4, 16, 0) { 2 } else { 1 };
        fields.order = reader.word("page.compound_order", 0, len).map(|word| (word, u64::MAX));
        fields.hugetlb = value(reader.word("page.compound_dtor", 0, len), dtor);
    } else if version < (4, 4, 0) {
        // The struct's list links hold the order and the function that frees the page.
        let at = |member: &str, len: usize| {
            let start = reader.word("page.lru", 0, 8)?.offset as u64;
            let offset = start.checked_add(reader.info.value("OFFSET", member)?)?;
            let end = offset.checked_add(len as u64)?;
            let offset = usize::try_from(offset).ok()?;
            (end <= reader.struct_len).then_some(Word { offset, len })
        };
        fields.order = at("list_head.prev", 2).map(|word| (word, u64::MAX));
        fields.hugetlb = value(at("list_head.next", 8), reader.info.symbol("free_huge_page"));
    }
}

impl Reader<'_> {
    /// Turns off what cannot be told without the keys that are missing (section 3.2).
    fn judge(&mut self, rules: &mut Rules, fields: &Fields, version: Version) {
        let cache = Level::CACHE.with(Level::PRIVATE_CACHE);
        for name in ["PG_lru", "PG_private", "PG_swapcache"] {
            if self.flag(name).is_none() {
                self.lacks(&format!("NUMBER({name})"), cache, "the page cache is kept");
            }
        }
        if rules.slab_flag == 0 && rules.slab.is_none() {
            // Fields of the struct that slab lends would be taken for marks of other kinds.
            rules.offline = None;
            if version >= (2, 6, 39) {
                let bits = Level::USER.with(Level::FREE);
                self.lacks("NUMBER(PG_slab)", bits, "user and free pages are kept: some may be slab");
            }
        }
        let keys = [
            ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", self.mapcount("PAGE_BUDDY_MAPCOUNT_VALUE").is_some()),
            ("OFFSET(page._mapcount)", fields.mapcount.is_some()),
            ("OFFSET(page.private)", fields.private.is_some()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_there)| !is_there) {
            self.lacks(key, Level::FREE, "free pages are kept");
        }
        let first_only = "of large pages all but the first page is kept";
        if rules.head == 0 {
            self.lacks_some("NUMBER(PG_head_mask)", cache.with(Level::USER), first_only);
        } else if fields.order.is_none() {
            self.lacks_some("OFFSET(page.compound_order)", cache.with(Level::USER), first_only);
        }
        if rules.hugetlb.is_none() && fields.hugetlb.is_none() {
            let key = "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)";
            self.lacks_some(key, Level::USER, "pages of hugetlbfs are kept");
        }
        let off = self.lacks.iter().fold(Level::NONE, |off, lack| off.with(lack.bits));
        rules.level = rules.level.without(off);
    }
}
