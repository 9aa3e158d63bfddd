//! Where the `struct page` of each page frame lies: the memory models of Linux.
//!
//! Source: `spec/filter.md` section 5; Linux `include/linux/mmzone.h`, `mm/sparse.c`.

use crate::keys::Keys;
use crate::walk::Walker;
use std::ops::Range;
use vmcore_core::{Error, Gva, Kernel, Vmcoreinfo};

/// What needs the keys of this file.
const WHAT: &str = "finding the guest's struct pages";
/// log2 of the page frames of a block where the memory model has no sections: as many as a section of x86_64 has.
const BLOCK_SHIFT: u32 = 15;
/// log2 of the page frames that a section may have: 4 MiB of 64 KiB pages, 4 GiB of 4 KiB pages.
const SECTION_SHIFTS: std::ops::RangeInclusive<u32> = 6..=20;
/// The most bytes of structs in a section, which are held in memory at once by each thread: those of kernels have up to 16 MiB.
const MAX_STRUCTS_LEN: u64 = 64 << 20;
/// The most blocks that are looked at: 128 TiB of x86_64.
const MAX_BLOCKS: u64 = 1 << 20;
/// The most page frames that are looked at: 16 TiB of 4 KiB pages.
const MAX_FRAMES: u64 = 1 << 32;
/// How many blocks are tried before a model is given up.
const TRIES: usize = 256;
/// The low bits of `section_mem_map` that are flags. makedumpfile 1.7.9 masks 5; kernels have 6 by now.
const SECTION_FLAGS: u64 = 0x3f;
const SECTION_MARKED_PRESENT: u64 = 1;
/// Bits of a node mask: more nodes than any kernel is built for.
const MAX_NODES: u64 = 1 << 12;

/// Page frames whose structs follow each other in virtual memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The page frames. They lie in one block of `1 << block_shift` frames.
    pub(crate) frames: Range<u64>,
    /// The struct of the first.
    pub(crate) structs: Gva,
}

/// The blocks of a guest, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) blocks: Vec<Block>,
    /// Sections that hold RAM but have no structs, or whose record cannot be read.
    pub(crate) absent: u64,
}

/// How the kernel finds the struct of a page frame.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    kind: Kind,
    /// log2 of the frames of a block.
    pub(crate) block_shift: u32,
    struct_len: u64,
    page_size: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// DISCONTIGMEM: an array for each node.
    Nodes(Nodes),
    /// SPARSEMEM: an array for each section.
    Sections(Sections),
    /// FLATMEM: `*mem_map` is the struct of this frame.
    Flat { mem_map: Gva, first: u64 },
    /// All structs in one virtual array, of which only some are mapped: SPARSEMEM_VMEMMAP.
    Vmemmap(Gva),
}

#[derive(Clone, Debug)]
struct Nodes {
    node_data: Gva,
    count: u64,
    online: Gva,
    online_len: u64,
    pgdat_len: u64,
    node_mem_map: u64,
    node_start_pfn: u64,
    node_spanned_pages: u64,
}

/// The array of sections. With SPARSEMEM_EXTREME it is one of pointers to roots, pages of sections.
#[derive(Clone, Copy, Debug)]
struct Sections {
    array: Gva,
    /// Whether `array` is the address of a pointer to the array.
    is_pointer: bool,
    /// Sections of a root; `None` if the array is of sections itself.
    per_root: Option<u64>,
    /// `SIZE(mem_section)`.
    len: u64,
    /// Offset of `section_mem_map`.
    mem_map: u64,
}

impl Model {
    /// Finds the kernel's memory model, and tries that it leads to structs of `ram`.
    ///
    /// # Errors
    /// [`Error::NoKey`] and [`Error::Unsupported`] if there is none, and what [`Model::blocks`] returns.
    pub(crate) fn find(
        kernel: &Kernel,
        keys: &Keys,
        walker: &mut Walker<'_>,
        ram: &[Range<u64>],
    ) -> Result<Self, Error> {
        let info = kernel.info();
        let (page_size, struct_len) = (1 << keys.page_shift, keys.fields.len as u64);
        let section_shift = section_shift(kernel, keys.page_shift, struct_len);
        let block_shift = *section_shift.as_ref().unwrap_or(&BLOCK_SHIFT);
        let model = |kind: Kind| {
            let block_shift = match kind {
                Kind::Sections(_) | Kind::Vmemmap(_) => block_shift,
                Kind::Nodes(_) | Kind::Flat { .. } => BLOCK_SHIFT,
            };
            Self { kind, block_shift, struct_len, page_size }
        };
        let mut kinds = Vec::new();
        let mut lack = None;
        if let Some(nodes) = Nodes::of(kernel) {
            kinds.push(Kind::Nodes(nodes));
        } else {
            match section_shift
                .and_then(|shift| Sections::candidates(kernel, page_size, shift, keys.page_shift))
            {
                Ok(sections) => kinds.extend(sections.into_iter().map(Kind::Sections)),
                Err(error) => lack = Some(error),
            }
            if let Ok(mem_map) = kernel.symbol("mem_map", WHAT) {
                let first = info.number("phys_ram_base").unwrap_or(0) >> keys.page_shift;
                kinds.push(Kind::Flat { mem_map, first });
            }
            if let Ok(vmemmap) = kernel.symbol("vmemmap", WHAT) {
                kinds.push(Kind::Vmemmap(vmemmap));
            }
        }
        for model in kinds.into_iter().map(model) {
            if model.leads_to_structs(walker, ram)? {
                return Ok(model);
            }
        }
        Err(lack.unwrap_or_else(|| Error::Unsupported {
            what: "telling a guest's pages apart",
            found: "VMCOREINFO leads to no struct page that is there".to_owned(),
        }))
    }

    /// Its name, as the kernel's configuration calls it.
    pub(crate) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Nodes(_) => "DISCONTIGMEM",
            Kind::Sections(Sections { per_root: None, .. }) => "SPARSEMEM",
            Kind::Sections(_) => "SPARSEMEM_EXTREME",
            Kind::Flat { .. } => "FLATMEM",
            Kind::Vmemmap(_) => "SPARSEMEM_VMEMMAP",
        }
    }

    fn leads_to_structs(&self, walker: &mut Walker<'_>, ram: &[Range<u64>]) -> Result<bool, Error> {
        let blocks = self.blocks(walker, ram)?.blocks;
        for block in blocks.iter().take(TRIES) {
            for range in clip(ram, &block.frames) {
                if walker.is_mapped(self.struct_of(block, range.start))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The address of the struct of a page frame of `block`.
    pub(crate) fn struct_of(&self, block: &Block, pfn: u64) -> Gva {
        Gva(block.structs.0.wrapping_add((pfn - block.frames.start).wrapping_mul(self.struct_len)))
    }

    /// The blocks that `ram`, which ascends, lies in. What has no structs is left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more memory than any guest has, and errors of a source that is gone.
    pub(crate) fn blocks(&self, walker: &mut Walker<'_>, ram: &[Range<u64>]) -> Result<Blocks, Error> {
        let frames = ram.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
        if frames > MAX_FRAMES {
            return Err(Error::TooLarge {
                what: "page frames of the guest",
                found: frames,
                limit: MAX_FRAMES,
            });
        }
        let numbers = block_numbers(ram, self.block_shift)?;
        let mut blocks = Blocks::default();
        let frames_of = |number: u64| number << self.block_shift..(number + 1) << self.block_shift;
        match &self.kind {
            Kind::Nodes(nodes) => nodes.blocks(walker, &numbers, self, &mut blocks)?,
            Kind::Sections(sections) => sections.blocks(walker, &numbers, self, &mut blocks)?,
            Kind::Flat { mem_map, first } => {
                let Some(array) = walker.number(*mem_map)? else { return Ok(blocks) };
                for frames in numbers.iter().cloned().flatten().map(frames_of) {
                    let frames = frames.start.max(*first)..frames.end.max(*first);
                    let offset = (frames.start - first).wrapping_mul(self.struct_len);
                    if !frames.is_empty() {
                        blocks.blocks.push(Block { frames, structs: Gva(array.wrapping_add(offset)) });
                    }
                }
            }
            Kind::Vmemmap(array) => {
                for frames in numbers.iter().cloned().flatten().map(frames_of) {
                    let offset = frames.start.wrapping_mul(self.struct_len);
                    blocks.blocks.push(Block { frames, structs: Gva(array.0.wrapping_add(offset)) });
                }
            }
        }
        Ok(blocks)
    }
}

/// The parts of `ranges`, which ascend, that lie in `within`.
pub(crate) fn clip<'a>(
    ranges: &'a [Range<u64>],
    within: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let within = within.clone();
    let first = ranges.partition_point(|range| range.end <= within.start);
    let parts =
        ranges[first..].iter().map(move |range| range.start.max(within.start)..range.end.min(within.end));
    parts.take_while(|part| !part.is_empty())
}

/// The numbers of the blocks of `1 << shift` frames that `ram` lies in: ascending and disjoint.
fn block_numbers(ram: &[Range<u64>], shift: u32) -> Result<Vec<Range<u64>>, Error> {
    let mut numbers = Vec::new();
    for range in ram.iter().filter(|range| !range.is_empty()) {
        vmcore_core::pages::push_merged(&mut numbers, range.start >> shift..((range.end - 1) >> shift) + 1);
    }
    let count = numbers.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
    if count > MAX_BLOCKS {
        return Err(Error::TooLarge {
            what: "memory sections of the guest",
            found: count,
            limit: MAX_BLOCKS,
        });
    }
    Ok(numbers)
}

/// log2 of the page frames of a section.
fn section_shift(kernel: &Kernel, page_shift: u32, struct_len: u64) -> Result<u32, Error> {
    let bits =
        kernel.info().number("SECTION_SIZE_BITS").or(kernel.space().section_size_bits().map(u64::from));
    let shift = bits.and_then(|bits| u32::try_from(bits).ok()?.checked_sub(page_shift));
    shift
        .filter(|shift| SECTION_SHIFTS.contains(shift) && struct_len << shift <= MAX_STRUCTS_LEN)
        .ok_or_else(|| Error::NoKey { key: "NUMBER(SECTION_SIZE_BITS)".to_owned(), what: WHAT })
}

impl Nodes {
    /// `None` if it is not a kernel with DISCONTIGMEM: those keys are exported by no other.
    fn of(kernel: &Kernel) -> Option<Self> {
        let info = kernel.info();
        let offset = |name: &str| info.value("OFFSET", &format!("pglist_data.{name}"));
        Some(Self {
            node_data: kernel.symbol("node_data", WHAT).ok()?,
            count: info.value("LENGTH", "node_data")?.min(MAX_NODES),
            online: kernel.symbol("node_online_map", WHAT).ok()?,
            online_len: info.value("SIZE", "nodemask_t")?.min(MAX_NODES / 8),
            pgdat_len: info.value("SIZE", "pglist_data")?,
            node_mem_map: offset("node_mem_map")?,
            node_start_pfn: offset("node_start_pfn")?,
            node_spanned_pages: offset("node_spanned_pages")?,
        })
    }

    fn blocks(
        &self,
        walker: &mut Walker<'_>,
        numbers: &[Range<u64>],
        model: &Model,
        out: &mut Blocks,
    ) -> Result<(), Error> {
        // A mask is an array of unsigned long.
        let mut online = Vec::new();
        for word in 0..self.online_len.div_ceil(8) {
            online.push(walker.number(Gva(self.online.0.wrapping_add(word * 8)))?.unwrap_or(0));
        }
        let is_online = |node: u64| {
            let word = usize::try_from(node / 64).ok().and_then(|word| online.get(word));
            word.is_some_and(|word| word >> (node % 64) & 1 != 0)
        };
        let mut nodes = Vec::new();
        for node in (0..self.count).filter(|node| is_online(*node)) {
            let pgdat = walker.number(Gva(self.node_data.0.wrapping_add(node * 8)))?;
            let Some(pgdat) = pgdat.filter(|pgdat| *pgdat != 0) else { continue };
            let mut field = |offset: u64| match offset {
                offset if offset.saturating_add(8) > self.pgdat_len => Ok(None),
                offset => walker.number(Gva(pgdat.wrapping_add(offset))),
            };
            let (array, first) = (field(self.node_mem_map)?, field(self.node_start_pfn)?);
            let count = field(self.node_spanned_pages)?.filter(|count| *count != 0);
            if let (Some(array), Some(first), Some(count)) = (array, first, count) {
                nodes.push((first..first.saturating_add(count), array));
            }
        }
        // Of hostile nodes that overlap, the first has the frames.
        nodes.sort_by_key(|(frames, _)| frames.start);
        let mut end = 0;
        for (frames, array) in nodes {
            if frames.start < end {
                continue;
            }
            end = frames.end;
            let within = frames.start >> model.block_shift..((frames.end - 1) >> model.block_shift) + 1;
            for number in clip(numbers, &within).flatten() {
                let start = (number << model.block_shift).max(frames.start);
                let stop = ((number + 1) << model.block_shift).min(frames.end);
                let offset = (start - frames.start).wrapping_mul(model.struct_len);
                out.blocks.push(Block { frames: start..stop, structs: Gva(array.wrapping_add(offset)) });
            }
        }
        Ok(())
    }
}

impl Sections {
    /// What the keys may mean, the likeliest first.
    fn candidates(kernel: &Kernel, page_size: u64, shift: u32, page_shift: u32) -> Result<Vec<Self>, Error> {
        let array = kernel.symbol("mem_section", WHAT)?;
        let len = kernel.value("SIZE", "mem_section", WHAT)?;
        let mem_map = kernel.value("OFFSET", "mem_section.section_mem_map", WHAT)?;
        if !(8..=page_size).contains(&len) || mem_map > len - 8 {
            return Err(Error::NoKey { key: "SIZE(mem_section)".to_owned(), what: WHAT });
        }
        let per_root = page_size / len;
        let flat = Self { array, is_pointer: false, per_root: None, len, mem_map };
        let extreme = Self { per_root: Some(per_root), ..flat };
        // A VMCOREINFO that was made by hand from the kernel's symbols has the address of the pointer.
        let pointer = Self { is_pointer: true, ..extreme };
        Ok(match is_extreme(kernel.info(), per_root, shift + page_shift) {
            Some(true) => vec![extreme, pointer],
            Some(false) => vec![flat],
            None => vec![extreme, flat, pointer],
        })
    }

    fn blocks(
        self,
        walker: &mut Walker<'_>,
        numbers: &[Range<u64>],
        model: &Model,
        out: &mut Blocks,
    ) -> Result<(), Error> {
        let array = if self.is_pointer { walker.number(self.array)? } else { Some(self.array.0) };
        let Some(array) = array else { return Ok(()) };
        // Of a flat array a page is read at once, as if it were a root.
        let per_read = self.per_root.unwrap_or(model.page_size / self.len);
        let mut sections = vec![0; usize::try_from(per_read * self.len).unwrap_or(0)];
        let mut read = None;
        let mut is_read = false;
        for number in numbers.iter().cloned().flatten() {
            let root = number / per_read;
            if read != Some(root) {
                read = Some(root);
                let at = match self.per_root {
                    None => Some(array.wrapping_add(root.wrapping_mul(per_read * self.len))),
                    Some(_) => walker.number(Gva(array.wrapping_add(root.wrapping_mul(8))))?,
                };
                is_read = match at {
                    Some(0) | None => false,
                    Some(at) => walker.read(Gva(at), &mut sections)?,
                };
            }
            let offset = usize::try_from(number % per_read * self.len + self.mem_map).unwrap_or(usize::MAX);
            let word = sections.get(offset..).and_then(|word| word.get(..8)).filter(|_| is_read);
            let coded = word.map_or(0, |word| walker.endianness().decode(word));
            if coded & SECTION_MARKED_PRESENT == 0 {
                out.absent += 1;
                continue;
            }
            let first = number << model.block_shift;
            let structs = (coded & !SECTION_FLAGS).wrapping_add(first.wrapping_mul(model.struct_len));
            out.blocks.push(Block { frames: first..first + (1 << model.block_shift), structs: Gva(structs) });
        }
        Ok(())
    }
}

/// Whether `mem_section` is an array of roots; `None` if the kernel does not tell.
fn is_extreme(info: &Vmcoreinfo, per_root: u64, section_bits: u32) -> Option<bool> {
    let Some(len) = info.value("LENGTH", "mem_section") else { return Some(true) };
    let bits = u32::try_from(info.number("MAX_PHYSMEM_BITS")?).ok()?;
    let sections = 1_u64.checked_shl(bits.checked_sub(section_bits)?)?;
    Some(len == sections.div_ceil(per_root))
}
