//! Which translation a vCPU is in, and what its registers say about it.
//!
//! What is not done: the second stage (`HCR_EL2.VM`), by which a hypervisor inside the guest translates the addresses of its
//! own guests once more, and the tables of AArch32. Both are errors.
//!
//! Source: Arm ARM (DDI 0487), chapter D8 and the registers in D19; `spec/arch-notes.md` sections 1.2 and 7.2.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::paging::{Format, HighBits, Tables};
use vmcore_core::{Endianness, Error, Gva, RegisterFile};

/// The vCPU runs AArch32 code.
const PSTATE_NRW: u64 = 1 << 4;
const PSTATE_MODE: u64 = 0x1f;
/// AArch32 code of an application, which a 64-bit kernel may run.
const MODE32_USER: u64 = 0x10;

const HCR_VM: u64 = 1 << 0;
const HCR_DC: u64 = 1 << 12;
const HCR_TGE: u64 = 1 << 27;
const HCR_E2H: u64 = 1 << 34;
const SCTLR_M: u64 = 1 << 0;
const SCTLR_EE: u64 = 1 << 25;
const TCR2_D128: u64 = 1 << 5;

/// TCR's code of 52-bit physical addresses.
const PS_52_BITS: u64 = 6;
/// What needs the registers.
const WALK: &str = "walking the page tables";

/// The registers of a translation regime.
#[derive(Debug)]
struct Names {
    sctlr: &'static str,
    tcr: &'static str,
    ttbr0: &'static str,
    /// Where there is an upper range of addresses too.
    ttbr1: Option<&'static str>,
}

/// Kernels at EL1, and EL0.
static EL1: Names =
    Names { sctlr: "sctlr_el1", tcr: "tcr_el1", ttbr0: "ttbr0_el1", ttbr1: Some("ttbr1_el1") };
/// Kernels that are hosts at EL2 (`HCR_EL2.E2H`), and their EL0.
static EL2_HOST: Names =
    Names { sctlr: "sctlr_el2", tcr: "tcr_el2", ttbr0: "ttbr0_el2", ttbr1: Some("ttbr1_el2") };
/// Hypervisors at EL2.
static EL2: Names = Names { sctlr: "sctlr_el2", tcr: "tcr_el2", ttbr0: "ttbr0_el2", ttbr1: None };
/// Firmware.
static EL3: Names = Names { sctlr: "sctlr_el3", tcr: "tcr_el3", ttbr0: "ttbr0_el3", ttbr1: None };

/// The translation regime of a vCPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime<'a> {
    registers: &'a RegisterFile,
    names: &'static Names,
}

/// The two ranges of virtual addresses, by bit 55 of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// From 0 up: applications.
    Low,
    /// Up to 2^64: kernels.
    High,
}

/// A range of virtual addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Its first address.
    start: u64,
    /// Bits of an address in it.
    pub(crate) bits: u32,
    /// Whether the uppermost byte of an address is a tag and does not count.
    has_tags: bool,
    /// The tables that map it; `None` if TCR switches it off, or says what no processor understands.
    pub(crate) tables: Option<Tables>,
}

impl<'a> Regime<'a> {
    /// The regime that the vCPU is in. What is not known is as on a processor without EL2, with a kernel at EL1.
    ///
    /// # Errors
    /// [`Error::NoRegister`] at EL2 without `hcr_el2`, [`Error::Unsupported`] for what the module does not do.
    pub(crate) fn of(registers: &'a RegisterFile) -> Result<Self, Error> {
        let unsupported = |found| Err(Error::Unsupported { what: "address translation", found });
        let pstate = registers.value("pstate").unwrap_or(1 << 2);
        let level = match pstate & PSTATE_MODE {
            mode if mode & PSTATE_NRW == 0 => mode >> 2,
            MODE32_USER => 0,
            _ => return unsupported(format!("AArch32 code above EL0 (PSTATE {pstate:#x})")),
        };
        let hcr = match registers.value("hcr_el2") {
            None if level == 2 => return Err(Error::NoRegister { name: "hcr_el2", what: WALK }),
            hcr => hcr.unwrap_or(0),
        };
        let is_host = hcr & HCR_E2H != 0;
        let names = match level {
            3 => &EL3,
            2 if !is_host => &EL2,
            2 => &EL2_HOST,
            0 if is_host && hcr & HCR_TGE != 0 => &EL2_HOST,
            _ if hcr & (HCR_VM | HCR_DC) != 0 => {
                return unsupported(format!("a second stage at EL2 (HCR_EL2 {hcr:#x})"));
            }
            _ => &EL1,
        };
        if level < 2 && registers.value("tcr2_el1").is_some_and(|tcr2| tcr2 & TCR2_D128 != 0) {
            return unsupported("128-bit descriptors (TCR2_EL1.D128)".to_owned());
        }
        Ok(Self { registers, names })
    }

    /// The regime of the kernel that runs on the vCPU: that of EL1 if EL2 or EL3 are at work for it.
    pub(crate) fn of_kernel(registers: &'a RegisterFile) -> Self {
        let has_two_ranges = |regime: &Self| regime.names.ttbr1.is_some();
        Self::of(registers).ok().filter(has_two_ranges).unwrap_or(Self { registers, names: &EL1 })
    }

    /// Whether virtual addresses are translated.
    ///
    /// # Errors
    /// [`Error::NoRegister`].
    pub(crate) fn is_on(&self) -> Result<bool, Error> {
        Ok(self.register(self.names.sctlr)? & SCTLR_M != 0)
    }

    /// The byte order of data, of descriptors too.
    pub(crate) fn endianness(&self) -> Option<Endianness> {
        let sctlr = self.registers.value(self.names.sctlr)?;
        Some(if sctlr & SCTLR_EE != 0 { Endianness::Big } else { Endianness::Little })
    }

    /// Size of a page of the kernel in bytes.
    pub(crate) fn kernel_page_size(&self) -> Option<u64> {
        let tcr = self.registers.value(self.names.tcr)?;
        Control::high(tcr).page_shift.map(|shift| 1 << shift)
    }

    /// The range of addresses that have `side` in bit 55.
    ///
    /// # Errors
    /// [`Error::NoRegister`].
    pub(crate) fn space(&self, side: Side) -> Result<Space, Error> {
        let tcr = self.register(self.names.tcr)?;
        let (control, ttbr) = match (self.names.ttbr1, side) {
            (Some(_), Side::Low) => (Control::low(tcr), Some(self.names.ttbr0)),
            (Some(ttbr1), Side::High) => (Control::high(tcr), Some(ttbr1)),
            (None, Side::Low) => (Control::single(tcr), Some(self.names.ttbr0)),
            (None, Side::High) => (Control::single(tcr), None),
        };
        let format = control.format(self.endianness().unwrap_or(Endianness::Little));
        let tables = match (format, ttbr) {
            (Some(format), Some(ttbr)) => Some(Tables::new(format, control.bits, self.register(ttbr)?)),
            _ => None,
        };
        let start = match side {
            Side::Low => 0,
            Side::High => u64::MAX.checked_shl(control.bits).unwrap_or(0),
        };
        Ok(Space { start, bits: control.bits, has_tags: control.has_tags, tables })
    }

    fn register(&self, name: &'static str) -> Result<u64, Error> {
        self.registers.value(name).ok_or(Error::NoRegister { name, what: WALK })
    }
}

impl Side {
    pub(crate) const fn of(gva: Gva) -> Self {
        if gva.0 >> 55 & 1 == 0 { Self::Low } else { Self::High }
    }
}

impl Space {
    /// Its first address.
    pub(crate) const fn start(&self) -> Gva {
        Gva(self.start)
    }

    /// Whether the address lies in it.
    pub(crate) fn contains(&self, gva: Gva) -> bool {
        let checked = if self.has_tags { u64::MAX >> 8 } else { u64::MAX };
        let above = u64::MAX.checked_shl(self.bits).unwrap_or(0);
        (gva.0 ^ self.start) & above & checked == 0
    }
}

/// What TCR says of one range.
#[derive(Clone, Copy, Debug)]
struct Control {
    /// Bits of an address: 64 - TxSZ.
    bits: u32,
    /// log2 of the granule; `None` for a reserved code.
    page_shift: Option<u32>,
    /// EPDx: no walks.
    is_off: bool,
    /// TBIx.
    has_tags: bool,
    /// IPS or PS: bits of a physical address, as a code.
    physical: u64,
    /// DS: 52-bit addresses with small granules.
    has_ds: bool,
}

impl Control {
    const fn low(tcr: u64) -> Self {
        Self {
            bits: bits(tcr),
            page_shift: page_shift_low(tcr),
            is_off: tcr >> 7 & 1 == 1,
            has_tags: tcr >> 37 & 1 == 1,
            physical: tcr >> 32 & 7,
            has_ds: tcr >> 59 & 1 == 1,
        }
    }

    const fn high(tcr: u64) -> Self {
        // Not the codes of the lower range.
        let page_shift = match tcr >> 30 & 3 {
            1 => Some(14),
            2 => Some(12),
            3 => Some(16),
            _ => None,
        };
        Self {
            bits: bits(tcr >> 16),
            page_shift,
            is_off: tcr >> 23 & 1 == 1,
            has_tags: tcr >> 38 & 1 == 1,
            ..Self::low(tcr)
        }
    }

    /// The TCR of EL2 and EL3 that have one range.
    const fn single(tcr: u64) -> Self {
        Self {
            bits: bits(tcr),
            page_shift: page_shift_low(tcr),
            is_off: false,
            has_tags: tcr >> 20 & 1 == 1,
            physical: tcr >> 16 & 7,
            has_ds: tcr >> 32 & 1 == 1,
        }
    }

    /// How the tables are read, if there are any.
    fn format(&self, endianness: Endianness) -> Option<Format> {
        let page_shift = self.page_shift.filter(|_| !self.is_off)?;
        let high_bits = match page_shift {
            16 if self.physical == PS_52_BITS => HighBits::At12,
            12 | 14 if self.has_ds => HighBits::At8,
            _ => HighBits::None,
        };
        let format = Format { page_shift, high_bits, endianness };
        let largest = if page_shift == 16 || self.has_ds { 52 } else { 48 };
        (format.smallest_range()..=largest).contains(&self.bits).then_some(format)
    }
}

const fn bits(tcr: u64) -> u32 {
    64_u32.saturating_sub((tcr & 0x3f) as u32)
}

const fn page_shift_low(tcr: u64) -> Option<u32> {
    match tcr >> 14 & 3 {
        0 => Some(12),
        1 => Some(16),
        2 => Some(14),
        _ => None,
    }
}
