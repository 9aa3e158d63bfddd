//! Which page tables a vCPU uses, as its registers tell it.
//!
//! What is not done: the tables of a hypervisor (Hyp mode, `HCR.VM`), and the Fast Context Switch Extension of processors
//! before ARMv7, which moves the lowest 32 MiB. All are errors.
//!
//! Source: Arm ARM (DDI 0406), chapter B3 and the registers in B4; `spec/arch-notes.md` sections 1.2 and 7.3.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::paging::{Format, Space, Tables, low_mask};
use vmcore_core::{Endianness, Error, Gpa, RegisterFile};

const CPSR_MODE: u64 = 0x1f;
const MODE_MONITOR: u64 = 0x16;
const MODE_HYP: u64 = 0x1a;
const SCR_NS: u64 = 1 << 0;
const HCR_VM: u64 = 1 << 0;
const SCTLR_M: u64 = 1 << 0;
const SCTLR_EE: u64 = 1 << 25;
/// TTBCR: long descriptors (LPAE).
const TTBCR_EAE: u64 = 1 << 31;
/// Of the tables of each range: there are none. By format.
const SHORT_DISABLED: [u64; 2] = [1 << 4, 1 << 5];
const LONG_DISABLED: [u64; 2] = [1 << 7, 1 << 23];

/// What needs the registers.
const WALK: &str = "walking the page tables";

/// The registers of a world.
struct Names {
    sctlr: &'static str,
    ttbcr: &'static str,
    /// TTBR0 and TTBR1.
    ttbr: [&'static str; 2],
    /// The same, where they have 32 bits.
    short_ttbr: [&'static str; 2],
}

static NON_SECURE: Names = Names {
    sctlr: "sctlr",
    ttbcr: "ttbcr",
    ttbr: ["ttbr0", "ttbr1"],
    short_ttbr: ["ttbr0_el1", "ttbr1_el1"],
};
static SECURE: Names = Names {
    sctlr: "sctlr_s",
    ttbcr: "ttbcr_s",
    ttbr: ["ttbr0_s", "ttbr1_s"],
    short_ttbr: ["ttbr0_el1_s", "ttbr1_el1_s"],
};

/// The byte order of data of the kernel: that of its page tables too. Kernels are not secure, where there are two worlds.
pub(crate) fn endianness_of_kernel(registers: &RegisterFile) -> Option<Endianness> {
    registers.value(NON_SECURE.sctlr).map(endianness)
}

const fn endianness(sctlr: u64) -> Endianness {
    if sctlr & SCTLR_EE != 0 { Endianness::Big } else { Endianness::Little }
}

/// The ranges of virtual addresses that the vCPU has; `None` where virtual addresses are physical ones.
///
/// What is not known is as on a processor that has neither a hypervisor's mode nor secure code.
///
/// # Errors
/// [`Error::NoRegister`], and [`Error::Unsupported`] for what the module does not do.
pub(crate) fn spaces(registers: &RegisterFile) -> Result<Option<[Space; 2]>, Error> {
    let unsupported = |found| Err(Error::Unsupported { what: "address translation", found });
    let register = |name| registers.value(name).ok_or(Error::NoRegister { name, what: WALK });
    let mode = registers.value("cpsr").map(|cpsr| cpsr & CPSR_MODE);
    let is_secure = registers.value("scr").is_some_and(|scr| scr & SCR_NS == 0 || mode == Some(MODE_MONITOR));
    let names = if is_secure { &SECURE } else { &NON_SECURE };
    if mode == Some(MODE_HYP) {
        return unsupported("a hypervisor (Hyp mode)".to_owned());
    }
    if let Some(hcr) = registers.value("hcr").filter(|hcr| !is_secure && hcr & HCR_VM != 0) {
        return unsupported(format!("a second stage (HCR {hcr:#x})"));
    }
    let sctlr = register(names.sctlr)?;
    if sctlr & SCTLR_M == 0 {
        return Ok(None);
    }
    if let Some(fcseidr) = registers.value("fcseidr").filter(|fcseidr| *fcseidr != 0) {
        return unsupported(format!("the Fast Context Switch Extension (FCSEIDR {fcseidr:#x})"));
    }
    let ttbcr = register(names.ttbcr)?;
    let ttbr = |side: usize| {
        let name = |names: [&'static str; 2]| names.get(side).copied().unwrap_or_default();
        let long = registers.value(name(names.ttbr));
        // The one that is missing is the one that processors have.
        match long.or_else(|| registers.value(name(names.short_ttbr))) {
            None => register(name(if ttbcr & TTBCR_EAE != 0 { names.ttbr } else { names.short_ttbr })),
            Some(value) => Ok(value),
        }
    };
    let layout = Layout::of(ttbcr);
    let space = |side: usize| {
        let Some(range) = layout.ranges.get(side).filter(|range| range.start < range.end) else {
            return Ok(Space { range: 0..0, tables: None });
        };
        let disabled = if layout.format == Format::Short { SHORT_DISABLED } else { LONG_DISABLED };
        if disabled.get(side).is_none_or(|bit| ttbcr & bit != 0) {
            return Ok(Space { range: range.clone(), tables: None });
        }
        let bits = layout.bits.get(side).copied().unwrap_or(32);
        let (format, shift) = (layout.format, layout.format.first_shift(bits));
        // A table is aligned to its length. Above its address are the ASID, below it attributes.
        let len = low_mask(bits.saturating_sub(shift).saturating_add(format.entry_shift()));
        let root = Gpa(ttbr(side)? & low_mask(format.physical_bits()) & !len);
        let kind = layout.kind(side, endianness(sctlr));
        Ok(Space {
            range: range.clone(),
            tables: Some(Tables { root, bits, format, endianness: endianness(sctlr), kind }),
        })
    };
    Ok(Some([space(0)?, space(1)?]))
}

/// What TTBCR says of the two ranges.
struct Layout {
    format: Format,
    /// Addresses that TTBR0 and TTBR1 are for.
    ranges: [std::ops::Range<u64>; 2],
    /// Bits of an address that the tables of each count.
    bits: [u32; 2],
    /// The fields of TTBCR that this comes from.
    sizes: u16,
}

impl Layout {
    fn of(ttbcr: u64) -> Self {
        const END: u64 = 1 << 32;
        let size = |shift: u32| u32::try_from(ttbcr >> shift & 7).unwrap_or(0);
        let bits = |size: u32| 32_u32.saturating_sub(size);
        let (low, high) = (size(0), size(16));
        if ttbcr & TTBCR_EAE == 0 {
            let middle = 1 << bits(low);
            let sizes = u16::try_from(low).unwrap_or(0);
            return Self {
                format: Format::Short,
                ranges: [0..middle, middle..END],
                bits: [bits(low), 32],
                sizes,
            };
        }
        let high_start = END.saturating_sub(1 << bits(high));
        let ranges = match (low, high) {
            (0, 0) => [0..END, END..END],
            (0, _) => [0..high_start, high_start..END],
            (_, 0) => [0..1 << bits(low), 1 << bits(low)..END],
            // Between them nothing is mapped.
            (_, _) => [0..1 << bits(low), high_start..END],
        };
        let sizes = u16::try_from(low | high << 3).unwrap_or(0);
        Self { format: Format::Long, ranges, bits: [bits(low), bits(high)], sizes }
    }

    /// What tells these tables from those that another vCPU, or the other range, reads in another way.
    fn kind(&self, side: usize, endianness: Endianness) -> u16 {
        let flag = |is_set: bool, bit: u32| u16::from(is_set) << bit;
        let format = flag(self.format == Format::Long, 6);
        self.sizes | format | flag(side == 1, 7) | flag(endianness == Endianness::Big, 8)
    }
}
