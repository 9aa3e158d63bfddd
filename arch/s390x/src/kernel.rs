//! The address space of Linux on s390x, by its VMCOREINFO.
//!
//! The kernel was at the same place in virtual and in real memory until Linux 6.10. Since then it says where it is
//! (`KERNELOFFPHYS`), and two parts have stayed: the lowcore, and the code that runs with addresses of 31 bits (amode31).
//!
//! Source: `spec/vmcoreinfo.md` section 5.3, `spec/filter.md` section 6.3; Linux `arch/s390/kernel/vmcore_info.c`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::dat::{PAGE_MASK, PREFIX_AREA, Space};
use std::ops::Range;
use vmcore_core::{Error, Gpa, Gva, KernelSpace, PhysMemory, RegisterFile, Translation, Vmcoreinfo};

/// What needs the keys.
const WALK: &str = "walking the kernel's page tables";
/// The control registers that name address spaces.
const SPACES: [&str; 3] = ["cr1", "cr7", "cr13"];

pub(crate) struct LinuxSpace {
    image: Image,
    root: Gpa,
    tables: Space,
}

/// Where the kernel's image lies.
struct Image {
    /// What is added to a virtual address, modulo 2^64.
    to_physical: u64,
    /// Addresses that are real ones also where the image has moved.
    amode31: Range<u64>,
}

impl LinuxSpace {
    pub(crate) fn new(info: &Vmcoreinfo, memory: &dyn PhysMemory) -> Result<Self, Error> {
        let root = info.need_symbol("swapper_pg_dir", WALK)?;
        let image = Image::new(info)?;
        let root = image.physical(root);
        Ok(Self { image, root, tables: Space::at(memory, root)? })
    }
}

impl Image {
    fn new(info: &Vmcoreinfo) -> Result<Self, Error> {
        let missing = |key: &str| Error::NoKey { key: key.to_owned(), what: WALK };
        let to_physical = match info.get("KERNELOFFPHYS") {
            None => 0,
            Some(_) => {
                let physical = info.hex("KERNELOFFPHYS").ok_or_else(|| missing("KERNELOFFPHYS"))?;
                let offset = info.hex("KERNELOFFSET").ok_or_else(|| missing("KERNELOFFSET"))?;
                physical.wrapping_sub(offset)
            }
        };
        let amode31 = info.hex("SAMODE31").unwrap_or(0)..info.hex("EAMODE31").unwrap_or(0);
        Ok(Self { to_physical, amode31 })
    }

    fn physical(&self, gva: Gva) -> Gpa {
        let is_fixed = gva.0 < PREFIX_AREA || self.amode31.contains(&gva.0);
        Gpa(if is_fixed { gva.0 } else { gva.0.wrapping_add(self.to_physical) })
    }
}

impl KernelSpace for LinuxSpace {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(self.image.physical(gva))
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        self.tables.translate(memory, gva)
    }

    /// One of the three spaces is the kernel's: the primary one while the kernel runs, the home one also while a program does.
    ///
    /// A vCPU without any space was never started.
    fn is_used_by(&self, registers: &RegisterFile, _memory: &dyn PhysMemory) -> Option<bool> {
        let known = SPACES.iter().filter_map(|name| registers.value(name)).filter(|asce| *asce != 0);
        known.map(|asce| asce & !PAGE_MASK == self.root.0).reduce(|one, other| one || other)
    }

    fn section_size_bits(&self) -> Option<u32> {
        Some(28)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

    use super::*;
    use crate::registers::TABLE;
    use vmcore_core::memory::BlockMemory;

    const IDENTITY: &str = "SYMBOL(swapper_pg_dir)=8000\nKERNELOFFSET=0\nSAMODE31=1000\nEAMODE31=3000\n";
    /// The image, linked from 0x3ff_8000_0000 on, lies at 1 MiB.
    const MOVED: &str = "SYMBOL(swapper_pg_dir)=3ff80008000\nKERNELOFFSET=3ff80000000\nKERNELOFFPHYS=100000\n\
        SAMODE31=4000\nEAMODE31=6000\n";

    /// Tables at `root`: region-third, of which entry 0 maps the first 2 GiB and `entry` the image, by large frames.
    fn memory(root: u64, entry: u64) -> BlockMemory {
        let mut bytes = vec![0; 0x14_0000];
        let mut word = |at: u64, word: u64| {
            let at = usize::try_from(at).unwrap();
            bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
        };
        for index in 0..2048 {
            word(root + index * 8, 0x24); // nothing, and yet it says which table it is
        }
        word(root, 0x404); // a frame of 2 GiB at 0
        word(root + entry * 8, 0x13_0007);
        for index in 0..2048 {
            word(0x13_0000 + index * 8, 0x20);
        }
        word(0x13_0000, 0x10_0400); // 1 MiB
        word(0x13_0008, 0x13_8000);
        word(0x13_8000, 0x5_a000);
        BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap()
    }

    fn space(text: &str, memory: &BlockMemory) -> Result<LinuxSpace, Error> {
        LinuxSpace::new(&Vmcoreinfo::parse(text.as_bytes()), memory)
    }

    #[test]
    fn a_kernel_where_virtual_is_real() {
        let memory = memory(0x8000, 1);
        let space = space(IDENTITY, &memory).unwrap();
        assert_eq!(space.image(Gva(0xef_4898)), Some(Gpa(0xef_4898)));
        let found = space.translate(&memory, Gva(0x1234)).unwrap();
        assert_eq!((found.gpa, found.len), (Gpa(0x1234), 0x8000_0000 - 0x1234), "the lowcore is no border");
        let error = space.translate(&memory, Gva(0x40_0000_0000)).unwrap_err();
        assert_eq!(error.to_string(), "0x4000000000 is not mapped: the region-third entry at 0x8400 is 0x24");
    }

    #[test]
    fn a_kernel_that_was_moved() {
        let start = 0x3ff_8000_0000;
        let memory = memory(0x10_8000, start >> 31);
        let space = space(MOVED, &memory).unwrap();
        let landmark = Gva(start + 0x8_0010);
        assert_eq!(space.image(landmark), Some(Gpa(0x18_0010)));
        assert_eq!(space.image(Gva(0x1ff8)), Some(Gpa(0x1ff8)), "lowcore");
        assert_eq!(space.image(Gva(0x4010)), Some(Gpa(0x4010)), "amode31");
        let found =
            |gva: u64| space.translate(&memory, Gva(gva)).map(|found| (found.gpa.0, found.len)).unwrap();
        assert_eq!(found(start + 0x8_0010), (0x18_0010, 0x7_fff0));
        assert_eq!(found(start + 0x10_0008), (0x5_a008, 0xff8));
        assert_eq!(found(0x4010).0, 0x4010);
    }

    #[test]
    fn a_vcpu_uses_it_also_while_it_runs_a_program() {
        let memory = memory(0x8000, 1);
        let space = space(IDENTITY, &memory).unwrap();
        let used = |known: &[(&str, u64)]| {
            let mut registers = RegisterFile::new(&TABLE);
            for (name, value) in known {
                assert!(registers.set_value(name, *value), "{name}");
            }
            space.is_used_by(&registers, &memory)
        };
        assert_eq!(used(&[("cr1", 0x8007), ("cr7", 0x7_0007), ("cr13", 0x8007)]), Some(true));
        assert_eq!(used(&[("cr1", 0x7_0007), ("cr7", 0x7_0007), ("cr13", 0x8007)]), Some(true), "a program");
        assert_eq!(used(&[("cr1", 0x9007), ("cr7", 0x7_0007), ("cr13", 0x9007)]), Some(false));
        assert_eq!(used(&[("cr1", 0), ("cr7", 0), ("cr13", 0)]), None, "never started");
        assert_eq!(used(&[]), None);
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = |text: &str| space(text, &memory(0x8000, 1)).err().unwrap().to_string();
        let sentence =
            |key: &str| format!("VMCOREINFO has no usable {key}, walking the kernel's page tables needs it");
        assert_eq!(error("KERNELOFFSET=0"), sentence("SYMBOL(swapper_pg_dir)"));
        assert_eq!(error("SYMBOL(swapper_pg_dir)=8000\nKERNELOFFPHYS=0"), sentence("KERNELOFFSET"));
        assert_eq!(error("SYMBOL(swapper_pg_dir)=8000\nKERNELOFFPHYS=x"), sentence("KERNELOFFPHYS"));
        assert_eq!(
            error("SYMBOL(swapper_pg_dir)=7000000"),
            "page table: guest memory at 0x7000000 is not available"
        );
    }
}
