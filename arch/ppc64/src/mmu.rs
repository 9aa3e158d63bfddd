//! How a vCPU translates addresses: not at all, or by the radix trees of its process and of the kernel.
//!
//! ```text
//! PTCR ─► partition table ─► process table ─► root of a radix tree
//!         one for each LPID  one for each PID
//! ```
//!
//! The upper two bits of an address, its quadrant, say whose tree: 0 that of the process (PIDR), 3 that of the kernel (PID 0). A
//! hypervisor reaches its guest (LPIDR) by quadrants 1 and 2; while that is partition 0, they are 0 and 3 once more.
//!
//! The partition table belongs to the hypervisor. Of a guest of pseries it is not in the dump, and PTCR reads 0: then Linux's
//! process table is looked for in memory. The hash MMU's table is not in such a dump either; it is not supported.
//!
//! Source: Power ISA 3.1B, book III, chapter 6; `spec/arch-notes.md` section 7.4; Linux `arch/powerpc/mm/book3s64/radix_pgtable.c`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::MSR_HV;
use crate::radix::Directory;
use vmcore_core::arch::SeenTables;
use vmcore_core::{Error, Gpa, Gva, MappingList, PhysMemory, RegionKind, RegisterFile, Translation, memory};

/// MSR: addresses of data are translated.
const MSR_DR: u64 = 1 << 4;
/// LPCR: the guest's (for a hypervisor, its own) tables are radix trees.
const LPCR_HR: u64 = 1 << 20;
/// The bits of an effective address that a real one has.
pub(crate) const REAL: u64 = 0x0fff_ffff_ffff_ffff;
const QUADRANT_SHIFT: u32 = 62;
const KERNEL_QUADRANT: u64 = 3;
/// Partition-table entry, first doubleword: a radix tree translates.
const PARTITION_HR: u64 = 1 << 63;
/// PTCR, and second doubleword of a partition-table entry: where the table lies, and log2 of its length less 12.
const TABLE: u64 = 0x0fff_ffff_ffff_f000;
const TABLE_SIZE: u64 = 0x1f;
const MIN_TABLE_SHIFT: u32 = 12;
/// Entries of both tables.
const ENTRY_LEN: u64 = 16;

/// First doubleword of process-table entry 0 as Linux writes it on POWER9 and POWER10, but for the root: 52 bits, of which the
/// root takes 13.
const LINUX_ROOT: u64 = 0x4000_0000_0000_00ad;
const LINUX_ROOT_MASK: u64 = 0xf000_0000_0000_ffff;
/// Where Linux maps all of physical memory.
pub(crate) const LINEAR_MAP: u64 = 0xc000_0000_0000_0000;
/// Linux's process table takes 8 or 16 MiB, and begins at a multiple of that; models with fewer PIDs have smaller ones.
const PROCESS_TABLE_STEP: u64 = 1 << 20;
const PROCESS_TABLE_SHIFT: u32 = 24;
/// How many places are looked at. Linux takes the highest free memory, so that it is one of the first.
const MAX_PROBES: usize = 1 << 16;
/// Directories that are read to find the page size.
const PAGE_SIZE_BUDGET: u32 = 0x1000;

/// How a vCPU sees memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Effective addresses are real ones, but for what a hypervisor's real addresses are offset by (HRMOR).
    Real { offset: u64 },
    /// By radix trees; `lpid` is a hypervisor's LPIDR.
    Radix { tables: Tables, pid: Option<u64>, lpid: Option<u64> },
}

impl Mode {
    pub(crate) fn of(registers: &RegisterFile, memory: &dyn PhysMemory) -> Result<Self, Error> {
        let msr = register(registers, "msr")?;
        let is_hypervisor = msr & MSR_HV != 0;
        if msr & MSR_DR != 0 {
            return Ok(Self::Radix {
                tables: Tables::of(registers, memory)?,
                pid: registers.value("pidr"),
                lpid: is_hypervisor.then(|| registers.value("lpidr").unwrap_or(0)),
            });
        }
        // HRMOR is 0 unless firmware has moved the hypervisor.
        let offset = if is_hypervisor { registers.value("hrmor").unwrap_or(0) & REAL } else { 0 };
        Ok(Self::Real { offset })
    }

    /// The physical address of an effective one.
    pub(crate) fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        match self {
            Self::Real { offset } => {
                // The highest bit of a hypervisor's address says: without the offset.
                let offset = if gva.0 >> 63 == 0 { *offset } else { 0 };
                Ok(Translation::unprotected(Gpa(gva.0 & REAL | offset), (!gva.0 & 0xfff).saturating_add(1)))
            }
            Self::Radix { tables, pid, lpid } => {
                let pid = match (gva.0 >> QUADRANT_SHIFT, lpid) {
                    (0, _) | (1, Some(0)) => {
                        pid.ok_or(Error::NoRegister { name: "pidr", what: "an address of a process" })?
                    }
                    (KERNEL_QUADRANT, _) | (2, Some(0)) => 0,
                    (_, None) => return Err(Error::NotCanonical { gva, bits: QUADRANT_SHIFT }),
                    (_, Some(lpid)) => return Err(nested(*lpid)),
                };
                let root = tables.root(memory, pid, gva)?;
                let within_quadrant = gva.0 & !(u64::MAX << QUADRANT_SHIFT);
                if within_quadrant >> root.span() != 0 {
                    return Err(Error::NotCanonical { gva, bits: root.span() });
                }
                root.translate(memory, gva)
            }
        }
    }

    /// Adds all that the trees of the kernel and of the process map.
    ///
    /// QEMU's notes lack PIDR: without it, the process is not known, and its half is left out.
    pub(crate) fn mappings(
        &self,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error> {
        let Self::Radix { tables, pid, .. } = self else { return Ok(()) };
        let kernel = (KERNEL_QUADRANT << QUADRANT_SHIFT, 0);
        for (start, pid) in pid.map(|pid| (0, pid)).into_iter().chain([kernel]) {
            match tables.root(memory, pid, Gva(start)) {
                Ok(root) => root.mappings(memory, start, seen, list)?,
                Err(Error::NotMapped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A process table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    base: u64,
    /// log2 of its length in bytes.
    shift: u32,
}

impl Tables {
    /// The process table of the vCPU's partition.
    pub(crate) fn of(registers: &RegisterFile, memory: &dyn PhysMemory) -> Result<Self, Error> {
        let lpcr = registers.value("lpcr");
        if let Some(lpcr) = lpcr.filter(|lpcr| lpcr & LPCR_HR == 0) {
            return Err(unsupported("address translation by the hash MMU", format!("LPCR is {lpcr:#x}")));
        }
        let ptcr = registers.value("ptcr").unwrap_or(0);
        if ptcr == 0 {
            let missing = Error::NoRegister {
                name: if lpcr.is_none() { "lpcr" } else { "ptcr" },
                what: "a guest without Linux's process table in its memory",
            };
            return find_process_table(memory)?.ok_or(missing);
        }
        let is_hypervisor = register(registers, "msr")? & MSR_HV != 0;
        match registers.value("lpidr") {
            Some(lpid @ 1..) if !is_hypervisor => Err(nested(lpid)),
            _ => Self::of_partition(memory, ptcr),
        }
    }

    /// The process table of partition 0: the hypervisor's.
    fn of_partition(memory: &dyn PhysMemory, ptcr: u64) -> Result<Self, Error> {
        let at = ptcr & TABLE;
        let word = |at| memory::read_array(memory, Gpa(at), "partition table").map(u64::from_be_bytes);
        let (partition, processes) = (word(at)?, word(at | 8)?);
        if partition & PARTITION_HR == 0 {
            let found = format!("the partition-table entry at {at:#x} is {partition:#x}");
            return Err(unsupported("address translation by the hash MMU", found));
        }
        let shift = u32::try_from(processes & TABLE_SIZE).unwrap_or(0).saturating_add(MIN_TABLE_SHIFT);
        Ok(Self { base: processes & TABLE, shift })
    }

    /// The root of the kernel's own tree.
    pub(crate) fn kernel_root(&self, memory: &dyn PhysMemory) -> Result<Directory, Error> {
        self.root(memory, 0, Gva(LINEAR_MAP))
    }

    /// The root of the tree of a process, for an address of it.
    fn root(&self, memory: &dyn PhysMemory, pid: u64, gva: Gva) -> Result<Directory, Error> {
        let at = Gpa(self.base.saturating_add(pid.saturating_mul(ENTRY_LEN)));
        let has_entry = pid >> self.shift.saturating_sub(ENTRY_LEN.ilog2()) == 0;
        let entry =
            if has_entry { u64::from_be_bytes(memory::read_array(memory, at, "process table")?) } else { 0 };
        Directory::root(entry).ok_or(Error::NotMapped { gva, level: "process-table", at, entry })
    }

    /// Size of small pages in bytes, if the kernel has any.
    pub(crate) fn page_size(&self, memory: &dyn PhysMemory) -> Option<u64> {
        let root = self.root(memory, 0, Gva(0)).ok()?;
        root.page_shift(memory, &mut { PAGE_SIZE_BUDGET }).map(|shift| 1 << shift)
    }
}

/// The root of Linux's own tree, which lies at `at`.
pub(crate) fn linux_root(at: Gpa) -> Option<Directory> {
    Directory::root(LINUX_ROOT | at.0 & !LINUX_ROOT_MASK)
}

/// Looks for Linux's process table: entry 0 tells the root of the kernel's tree, and that tree maps the table.
fn find_process_table(memory: &dyn PhysMemory) -> Result<Option<Tables>, Error> {
    let ram = memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    let places = ram.rev().flat_map(|region| {
        let first = region.gpa.0.div_ceil(PROCESS_TABLE_STEP);
        let end = region.end().0.div_ceil(PROCESS_TABLE_STEP);
        (first..end).rev().map(|index| index.saturating_mul(PROCESS_TABLE_STEP))
    });
    for at in places.take(MAX_PROBES) {
        let mut bytes = [0; 8];
        if !memory.read_at(Gpa(at), &mut bytes)?.is_empty() {
            continue;
        }
        let entry = u64::from_be_bytes(bytes);
        let Some(root) = Directory::root(entry).filter(|_| entry & LINUX_ROOT_MASK == LINUX_ROOT) else {
            continue;
        };
        if root.translate(memory, Gva(LINEAR_MAP | at)).is_ok_and(|found| found.gpa.0 == at) {
            return Ok(Some(Tables { base: at, shift: PROCESS_TABLE_SHIFT }));
        }
    }
    Ok(None)
}

fn unsupported(what: &'static str, found: String) -> Error {
    Error::Unsupported { what, found }
}

/// What runs under the hypervisor that is in the dump: its addresses would go through two trees.
fn nested(lpid: u64) -> Error {
    unsupported("address translation of a guest of the guest", format!("LPIDR is {lpid:#x}"))
}

fn register(registers: &RegisterFile, name: &'static str) -> Result<u64, Error> {
    registers.value(name).ok_or(Error::NoRegister { name, what: "walking the page tables" })
}

#[cfg(test)]
mod tests;
