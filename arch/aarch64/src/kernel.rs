//! The address space of Linux on aarch64, by its VMCOREINFO.
//!
//! Source: `spec/vmcoreinfo.md` section 5.3, `spec/filter.md` section 6.2; Linux `arch/arm64/kernel/vmcore_info.c`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::paging::{Format, HighBits, Tables};
use crate::regime::{Regime, Side};
use vmcore_core::{
    Endianness, Error, Gpa, Gva, KernelSpace, PhysMemory, RegisterFile, Translation, Vmcoreinfo,
};

/// What needs the keys.
const WALK: &str = "walking the kernel's page tables";
/// Names that kernels have given to TCR's T1SZ.
const T1SZ: [&str; 2] = ["TCR_EL1_T1SZ", "tcr_el1_t1sz"];
/// Bits of a physical address with which descriptors have their other form.
const LARGE_PHYSICAL_BITS: u64 = 52;
/// How far before the kernel's first table that of page-table isolation stands: a page, and one more that is empty where the
/// kernel has one to keep itself from programs' memory.
const TRAMPOLINE_PAGES: std::ops::RangeInclusive<u64> = 1..=2;

pub(crate) struct Space {
    /// What is taken from an address of the image, modulo 2^64.
    image_offset: u64,
    /// Bits of a virtual address.
    bits: u32,
    page_size: u64,
    tables: Tables,
    /// An address of the image that every kernel states.
    landmark: Option<Gva>,
}

impl Space {
    pub(crate) fn new(info: &Vmcoreinfo, endianness: Endianness) -> Result<Self, Error> {
        let unusable = |key: &str| Error::NoKey { key: key.to_owned(), what: WALK };
        let image_offset = info.need("NUMBER", "kimage_voffset", WALK)?;
        let root = info.need_symbol("swapper_pg_dir", WALK)?.0.wrapping_sub(image_offset);
        let page_size = info.page_size().ok_or_else(|| unusable("PAGESIZE"))?;
        let page_shift = page_size.ilog2();
        if page_shift & 1 != 0 {
            return Err(unusable("PAGESIZE"));
        }
        let configured = info.need("NUMBER", "VA_BITS", WALK)?;
        // Before Linux 5.9 all processors did as the kernel was configured.
        let actual = T1SZ.into_iter().find_map(|name| info.number(name));
        let actual = actual.map_or(configured, |t1sz| 64_u64.saturating_sub(t1sz));
        // Granules of 64 KiB have bits 15:12 for nothing else, also where the kernel does not use them.
        let high_bits = match (page_shift, info.number("MAX_PHYSMEM_BITS")) {
            (16, None | Some(LARGE_PHYSICAL_BITS)) => HighBits::At12,
            (_, Some(LARGE_PHYSICAL_BITS)) => HighBits::At8,
            _ => HighBits::None,
        };
        let format = Format { page_shift, high_bits, endianness };
        let tables = |bits: u64| Tables::at(format, u32::try_from(bits).ok()?, Gpa(root));
        // A kernel configured for 52 bits lays out its first table for them. A processor with fewer is shown its end, if that
        // saves no level; the table begins with entries that no address has.
        let laid_out = tables(configured).ok_or_else(|| unusable("NUMBER(VA_BITS)"))?;
        let walked = tables(actual).ok_or_else(|| unusable("NUMBER(TCR_EL1_T1SZ)"))?;
        let tables = if laid_out.start_shift() == walked.start_shift() { laid_out } else { walked };
        Ok(Self {
            image_offset,
            bits: walked.bits(),
            page_size,
            tables,
            landmark: info.symbol("init_uts_ns").map(Gva),
        })
    }

    /// Whether these tables map the landmark to where it is.
    fn is_mapped_by(&self, tables: &Tables, memory: &dyn PhysMemory) -> Option<bool> {
        let landmark = self.landmark?;
        Translation::leads_to(&tables.translate(memory, landmark), self.image(landmark)?)
    }
}

impl KernelSpace for Space {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(Gpa(gva.0.wrapping_sub(self.image_offset)))
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        if gva.0.leading_ones() < 64_u32.saturating_sub(self.bits) {
            return Err(Error::NotCanonical { gva, bits: self.bits });
        }
        self.tables.translate(memory, gva)
    }

    /// While a vCPU runs a program under page-table isolation, its TTBR1 names a table that maps the kernel's entry and nothing
    /// else: it is known by where it stands.
    fn is_used_by(&self, registers: &RegisterFile, memory: &dyn PhysMemory) -> Option<bool> {
        let regime = Regime::of_kernel(registers);
        let tables =
            regime.is_on().ok().filter(|is_on| *is_on).and_then(|_| regime.space(Side::High).ok())?.tables?;
        let distance = self.tables.root().0.wrapping_sub(tables.root().0);
        let is_trampoline =
            TRAMPOLINE_PAGES.map(|pages| pages.wrapping_mul(self.page_size)).any(|len| len == distance);
        Some(
            self.is_mapped_by(&tables, memory)?
                || is_trampoline && self.is_mapped_by(&self.tables, memory)?,
        )
    }

    fn section_size_bits(&self) -> Option<u32> {
        Some(30)
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
