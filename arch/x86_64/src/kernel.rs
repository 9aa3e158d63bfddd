//! The address space of Linux on x86_64, by its VMCOREINFO.
//!
//! Source: `spec/vmcoreinfo.md` section 5.3, `spec/filter.md` section 6.1; Linux `arch/x86/kernel/vmcore_info_64.c`.

use crate::paging::Mode;
use vmcore_core::{Error, Gpa, Gva, KernelSpace, PhysMemory, RegisterFile, Translation, Vmcoreinfo};

/// Where the image would lie without KASLR: `__START_KERNEL_map`.
const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// The names that kernels have given to their top page table, newest last.
const ROOTS: [&str; 3] = ["init_level4_pgt", "init_top_pgt", "swapper_pg_dir"];

pub(crate) struct Space {
    /// What is added to an address of the image, modulo 2^64.
    to_physical: u64,
    mode: Mode,
    /// An address of the image that every kernel states.
    landmark: Option<Gva>,
}

impl Space {
    pub(crate) fn new(info: &Vmcoreinfo) -> Result<Self, Error> {
        let what = "walking the kernel's page tables";
        let missing = |key: &str| Error::NoKey { key: key.to_owned(), what };
        let phys_base = info.number("phys_base").ok_or_else(|| missing("NUMBER(phys_base)"))?;
        let to_physical = phys_base.wrapping_sub(IMAGE_BASE);
        let root = ROOTS.into_iter().find_map(|name| info.symbol(name).filter(|root| *root != 0));
        let root = root.ok_or_else(|| missing("SYMBOL(init_top_pgt)"))?.wrapping_add(to_physical);
        let has_five_levels = info.number("pgtable_l5_enabled").is_some_and(|enabled| enabled != 0);
        let encryption = info.number("sme_mask").unwrap_or(0);
        let landmark = info.symbol("init_uts_ns").map(Gva);
        Ok(Self { to_physical, mode: Mode::long(Gpa(root), has_five_levels, encryption), landmark })
    }
}

impl KernelSpace for Space {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(Gpa(gva.0.wrapping_add(self.to_physical)))
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        self.mode.translate(memory, gva)
    }

    fn is_used_by(&self, registers: &RegisterFile, memory: &dyn PhysMemory) -> Option<bool> {
        let mode = Mode::of_x86_64(registers).ok().filter(Mode::is_paged)?;
        let landmark = self.landmark?;
        let wanted = self.image(landmark)?;
        let finds_it = |mode: Mode| Translation::leads_to(&mode.translate(memory, landmark), wanted);
        match finds_it(mode) {
            Some(false) => finds_it(mode.before_isolation()),
            found => found,
        }
    }

    fn section_size_bits(&self) -> Option<u32> {
        Some(27)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::x86_64;
    use vmcore_core::memory::BlockMemory;

    const INFO: &str = "SYMBOL(init_top_pgt)=ffffffff82001000\nNUMBER(phys_base)=-16777216\n\
        NUMBER(pgtable_l5_enabled)=0\nSYMBOL(init_uts_ns)=ffffffff82200010\n";

    /// A kernel at 16 MiB, linked at 32 MiB: 2 MiB pages, the tables right at its beginning.
    fn memory() -> BlockMemory {
        let mut bytes = vec![0; 0x8000];
        let mut entry = |table: usize, index: usize, entry: u64| {
            bytes[table + index * 8..][..8].copy_from_slice(&entry.to_le_bytes());
        };
        entry(0x1000, 511, 0x100_2003);
        entry(0x2000, 510, 0x100_3003);
        entry(0x3000, 16, 0x100_0083);
        entry(0x3000, 17, 0x120_0083);
        // The tables of an earlier kernel, and those of a program under page-table isolation.
        entry(0x6000, 511, 0x100_2003);
        BlockMemory::new(vec![(Gpa(0x100_0000), bytes)]).unwrap()
    }

    #[test]
    fn the_image_and_the_walk_agree() {
        let space = Space::new(&Vmcoreinfo::parse(INFO.as_bytes())).unwrap();
        let landmark = Gva(0xffff_ffff_8220_0010);
        assert_eq!(space.image(landmark), Some(Gpa(0x120_0010)));
        let found = space.translate(&memory(), landmark).unwrap();
        assert_eq!((found.gpa, found.len), (Gpa(0x120_0010), 0x1f_fff0));
    }

    #[test]
    fn a_vcpu_uses_it_also_while_it_runs_a_program() {
        let space = Space::new(&Vmcoreinfo::parse(INFO.as_bytes())).unwrap();
        let used = |cr0: u64, cr3: u64| {
            let mut registers = RegisterFile::new(&x86_64::TABLE);
            for (name, value) in [("cr0", cr0), ("cr3", cr3), ("cr4", 0x20), ("efer", 0xd01)] {
                registers.set_value(name, value);
            }
            space.is_used_by(&registers, &memory())
        };
        assert_eq!(used(1 << 31, 0x100_6000), Some(true));
        assert_eq!(used(1 << 31, 0x100_7000), Some(true), "page-table isolation");
        assert_eq!(used(1 << 31, 0x100_4000), Some(false));
        assert_eq!(used(0, 0x100_6000), None, "paging is off");
        assert_eq!(used(1 << 31, 0x200_0000), None, "its tables are not in the dump");
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = Space::new(&Vmcoreinfo::parse(b"NUMBER(phys_base)=0")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "VMCOREINFO has no usable SYMBOL(init_top_pgt), walking the kernel's page tables needs it"
        );
    }
}
