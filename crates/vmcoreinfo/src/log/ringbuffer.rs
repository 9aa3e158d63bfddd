//! The ring buffer of Linux 5.10 and later: `struct printk_ringbuffer`.
//!
//! ```text
//!  prb ─► printk_ringbuffer
//!           desc_ring ──► descs: prb_desc    [2^count_bits]  state, and where the text lies
//!                    └──► infos: printk_info [2^count_bits]  number, time, level, length of the text
//!           text_data_ring ──► data          [2^size_bits]   blocks: the descriptor's id (a word), the text
//! ```
//!
//! Ids and positions in the text ring (`lpos`) count on for ever, modulo a word; their low bits are an index. The id of a descriptor
//! and its state share a word: the state has the two highest bits. Descriptors from `tail_id` to `head_id` are in use, but
//! those whose text has been overwritten already are *reusable*.
//!
//! A text is never torn apart: a block that would cross the end of the ring leaves the rest empty, and its text stands at the ring's
//! begin. `next` of a block is where the block behind it will begin. A block may end exactly at the end of the ring in newer kernels;
//! older ones move such a block to the begin, and it shows by `next` that they did.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::fields::{self, Field, Struct, WHAT, bytes_at, number_at, until_nul};
use super::{Caller, Damage, Record};
use vmcore_core::{Endianness, Error, Gva, Kernel};

// `enum desc_state`. A record is committed as soon as it can be read, and finalized when nothing more can be appended to it.
const RESERVED: u64 = 0;
const REUSABLE: u64 = 3;
/// Both positions of a record whose text found no room. The kernel does not show it either.
const FAILED_LPOS: u64 = 1;
/// Both positions of a record without a text: an empty line.
const EMPTY_LINE_LPOS: u64 = 3;

pub(super) struct RingBuffer {
    order: Endianness,
    /// Bytes of a word.
    word: usize,
    /// Bits of a state word that are the descriptor's id: all but the two highest.
    id_bits: u32,
    /// How many descriptors there are: a power of two.
    count: u64,
    size_bits: u32,
    tail_id: u64,
    /// How many descriptors are in use, from `tail_id` on.
    used: u64,
    descs: Table,
    infos: Table,
    data: Vec<u8>,
    desc: Desc,
    info: Info,
}

/// Equal entries one after another.
struct Table {
    bytes: Vec<u8>,
    entry_len: usize,
}

impl Table {
    fn read(kernel: &Kernel, gva: u64, entry_len: usize, count: u64) -> Result<Self, Error> {
        let bytes = bytes_at(kernel, Gva(gva), count.saturating_mul(entry_len as u64))?;
        Ok(Self { bytes, entry_len })
    }

    fn get(&self, index: u64) -> &[u8] {
        let entry =
            usize::try_from(index).ok().and_then(|index| self.bytes.chunks_exact(self.entry_len).nth(index));
        entry.unwrap_or_default()
    }
}

/// Fields of `prb_desc`.
struct Desc {
    state: Field,
    begin: Field,
    next: Field,
}

/// Fields of `printk_info`.
struct Info {
    sequence: Field,
    timestamp: Field,
    text_len: Field,
    facility: Field,
    level: Field,
    caller: Field,
    subsystem: Field,
    device: Field,
}

impl RingBuffer {
    pub(super) fn open(kernel: &Kernel) -> Result<Self, Error> {
        let word = fields::word_len(kernel)?;
        let order = kernel.endianness();
        let structure = |name| Struct::new(kernel, name);
        let (ring, desc_ring, data_ring) =
            (structure("printk_ringbuffer")?, structure("prb_desc_ring")?, structure("prb_data_ring")?);
        let at = number_at(kernel, kernel.symbol("prb", WHAT)?, word)?;
        let bytes = bytes_at(kernel, Gva(at), ring.len as u64)?;
        let number = |field: &Field| number(order, &bytes, field);

        let outer = ring.field("desc_ring", desc_ring.len)?;
        let field = |name, len| desc_ring.field_in(&outer, name, len);
        // An atomic_long_t is nothing but a word.
        let (tail_id, head_id) = (number(&field("tail_id", word)?), number(&field("head_id", word)?));
        let count =
            power(number(&field("count_bits", 4)?), "bits of a descriptor's index in the kernel's log")?;
        let (descs, infos) = (number(&field("descs", word)?), number(&field("infos", word)?));
        let outer = ring.field("text_data_ring", data_ring.len)?;
        let field = |name, len| data_ring.field_in(&outer, name, len);
        let len = power(number(&field("size_bits", 4)?), "bits of a position in the kernel's log")?;
        let data = number(&field("data", word)?);

        let id_bits = if word == 4 { 30 } else { 62 };
        let used = (head_id.wrapping_sub(tail_id) & mask(id_bits)).saturating_add(1);
        if used > count {
            return Err(Error::TooLarge { what: "records in the kernel's log", found: used, limit: count });
        }
        let (desc_len, desc) = Desc::of(kernel, word)?;
        let (info_len, info) = Info::of(kernel)?;
        Ok(Self {
            order,
            word,
            id_bits,
            count,
            size_bits: len.trailing_zeros(),
            tail_id,
            used,
            descs: Table::read(kernel, descs, desc_len, count)?,
            infos: Table::read(kernel, infos, info_len, count)?,
            data: bytes_at(kernel, Gva(data), len)?,
            desc,
            info,
        })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Damage>> + '_ {
        let mut room = self.data.len();
        self.ids().filter_map(move |id| {
            let record = self.record(id, &mut room);
            record.map_err(|what| Damage { place: id, what }).transpose()
        })
    }

    /// The ids in use, from the oldest on.
    fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.used).map(|step| self.tail_id.wrapping_add(step) & mask(self.id_bits))
    }

    fn index(&self, id: u64) -> u64 {
        id & self.count.wrapping_sub(1)
    }

    fn number(&self, bytes: &[u8], field: &Field) -> u64 {
        number(self.order, bytes, field)
    }

    /// The record of a descriptor, if it has one that can be read; else what is wrong with it.
    ///
    /// `room` is how much of the text ring no record has claimed yet: blocks that overlap cannot make a log longer than it is.
    fn record(&self, id: u64, room: &mut usize) -> Result<Option<Record<'_>>, &'static str> {
        let desc = self.descs.get(self.index(id));
        let state_var = self.number(desc, &self.desc.state);
        let (state, owner) = (state_var >> self.id_bits, state_var & mask(self.id_bits));
        // A descriptor that was never used is all zero. One that is being taken is reusable, and still has its former id.
        if state == REUSABLE || state_var == 0 {
            return Ok(None);
        }
        if owner != id {
            return Err("its descriptor is that of another record");
        }
        if state == RESERVED {
            return Ok(None);
        }
        let info = self.infos.get(self.index(id));
        let text = match (self.number(desc, &self.desc.begin), self.number(desc, &self.desc.next)) {
            (FAILED_LPOS, FAILED_LPOS) => return Ok(None),
            (EMPTY_LINE_LPOS, EMPTY_LINE_LPOS) => &[],
            (begin, next) => {
                let block = self.block(begin, next).ok_or("the place of its text is none")?;
                let (owner, text) = block.split_at_checked(self.word).unwrap_or_default();
                if self.order.decode(owner) != id {
                    return Err("its text is that of another record");
                }
                *room = room.checked_sub(block.len()).ok_or("its text overlaps that of another record")?;
                let len = usize::try_from(self.number(info, &self.info.text_len)).ok();
                len.and_then(|len| text.get(..len)).ok_or("its text is longer than the place for it")?
            }
        };
        let caller = u32::try_from(self.number(info, &self.info.caller)).ok();
        Ok(Some(Record {
            sequence: Some(self.number(info, &self.info.sequence)),
            timestamp_ns: Some(self.number(info, &self.info.timestamp)),
            facility: u8::try_from(self.number(info, &self.info.facility)).unwrap_or(u8::MAX),
            level: fields::level(self.number(info, &self.info.level), self.order),
            caller: caller.map(Caller::of_id),
            text,
            subsystem: until_nul(info.get(self.info.subsystem.clone()).unwrap_or_default()),
            device: until_nul(info.get(self.info.device.clone()).unwrap_or_default()),
        }))
    }

    /// The block of the text ring that begins at position `begin` and ends before `next`.
    fn block(&self, begin: u64, next: u64) -> Option<&[u8]> {
        let is_aligned = |lpos: u64| lpos.is_multiple_of(self.word as u64);
        if !is_aligned(begin) || !is_aligned(next) {
            return None;
        }
        let lap = |lpos: u64| (lpos & mask(self.id_bits.saturating_add(2))) >> self.size_bits;
        let index = |lpos: u64| usize::try_from(lpos & mask(self.size_bits)).ok();
        let last = next.wrapping_sub(1);
        let start = if lap(begin) == lap(last) {
            index(begin)?
        } else if lap(begin.wrapping_add(1 << self.size_bits)) == lap(last) {
            0
        } else {
            return None;
        };
        self.data.get(start..index(last)?.checked_add(1)?)
    }
}

impl Desc {
    /// The length of a descriptor, and its fields.
    fn of(kernel: &Kernel, word: usize) -> Result<(usize, Self), Error> {
        let (desc, lpos) = (Struct::new(kernel, "prb_desc")?, Struct::new(kernel, "prb_data_blk_lpos")?);
        let outer = desc.field("text_blk_lpos", lpos.len)?;
        let fields = Self {
            state: desc.field("state_var", word)?,
            begin: lpos.field_in(&outer, "begin", word)?,
            next: lpos.field_in(&outer, "next", word)?,
        };
        Ok((desc.len, fields))
    }
}

impl Info {
    /// The length of a `printk_info`, and its fields.
    fn of(kernel: &Kernel) -> Result<(usize, Self), Error> {
        let (info, dev) = (Struct::new(kernel, "printk_info")?, Struct::new(kernel, "dev_printk_info")?);
        let outer = info.field("dev_info", dev.len)?;
        let text_len = info.field("text_len", 2)?;
        // VMCOREINFO names neither of the two; they stand behind the length in every kernel.
        let facility = info.behind(&text_len, 1)?;
        let fields = Self {
            sequence: info.field("seq", 8)?,
            timestamp: info.field("ts_nsec", 8)?,
            level: info.behind(&facility, 1)?,
            facility,
            text_len,
            caller: info.field("caller_id", 4)?,
            subsystem: dev.field_in(&outer, "subsystem", fields::length(kernel, "printk_info_subsystem")?)?,
            device: dev.field_in(&outer, "device", fields::length(kernel, "printk_info_device")?)?,
        };
        Ok((info.len, fields))
    }
}

fn number(order: Endianness, bytes: &[u8], field: &Field) -> u64 {
    order.decode(bytes.get(field.clone()).unwrap_or_default())
}

/// 2^`bits`, if that can be the length of something.
fn power(bits: u64, what: &'static str) -> Result<u64, Error> {
    const MAX: u64 = 31;
    if bits > MAX { Err(Error::TooLarge { what, found: bits, limit: MAX }) } else { Ok(1 << bits) }
}

/// The low `bits` bits, of which there are at most 64.
fn mask(bits: u32) -> u64 {
    u64::MAX.checked_shr(64_u32.saturating_sub(bits)).unwrap_or(0)
}
