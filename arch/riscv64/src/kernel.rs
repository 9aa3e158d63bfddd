//! The address space of Linux on riscv64, by its VMCOREINFO.
//!
//! ```text
//! PAGE_OFFSET ────────► all of memory, from its first byte on (the linear map)
//! KERNEL_LINK_ADDR ───► the kernel's image
//! ```
//!
//! Kernels before Linux 5.13 lie in the linear map only.
//!
//! Source: `spec/vmcoreinfo.md` section 5.3, `spec/filter.md` section 6.5; Linux `arch/riscv/kernel/vmcore_info.c`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::paging::Tables;
use vmcore_core::{
    Endianness, Error, Gpa, Gva, KernelSpace, PhysMemory, RegisterFile, Translation, Vmcoreinfo,
};

/// What needs the keys.
const WALK: &str = "walking the kernel's page tables";

pub(crate) struct Space {
    image: Image,
    tables: Tables,
    /// An address of the image that every kernel states.
    landmark: Option<Gva>,
}

/// Where the kernel's image and the linear map lie, each as the kernel says it.
struct Image {
    /// `KERNEL_LINK_ADDR`: the first address of the image.
    link: Option<u64>,
    /// `va_kernel_pa_offset`: what is taken from an address from there on, modulo 2^64.
    link_offset: Option<u64>,
    /// `PAGE_OFFSET`: the first address of the linear map.
    linear: Option<u64>,
    /// `phys_ram_base`: what is there.
    ram: Option<u64>,
}

impl Space {
    pub(crate) fn new(info: &Vmcoreinfo, endianness: Endianness) -> Result<Self, Error> {
        let no_key = |name: &str| Error::NoKey { key: format!("NUMBER({name})"), what: WALK };
        let image = Image {
            link: info.number("KERNEL_LINK_ADDR"),
            link_offset: info.number("va_kernel_pa_offset"),
            linear: info.number("PAGE_OFFSET"),
            ram: info.number("phys_ram_base"),
        };
        let root = image.physical(info.need_symbol("swapper_pg_dir", WALK)?).map_err(no_key)?;
        let bits = info.need("NUMBER", "VA_BITS", WALK)?;
        let tables = Tables::at(root, bits, endianness).ok_or_else(|| no_key("VA_BITS"))?;
        Ok(Self { image, tables, landmark: info.symbol("init_uts_ns").map(Gva) })
    }
}

impl Image {
    /// Where an address of the image or of the linear map lies, or which number is missing to tell.
    fn physical(&self, gva: Gva) -> Result<Gpa, &'static str> {
        if self.link.is_some_and(|link| gva.0 >= link) {
            let offset = self.link_offset.ok_or("va_kernel_pa_offset")?;
            return Ok(Gpa(gva.0.wrapping_sub(offset)));
        }
        let (linear, ram) = (self.linear.ok_or("PAGE_OFFSET")?, self.ram.ok_or("phys_ram_base")?);
        Ok(Gpa(gva.0.wrapping_sub(linear).wrapping_add(ram)))
    }
}

impl KernelSpace for Space {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        self.image.physical(gva).ok()
    }

    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        self.tables.translate(memory, gva)
    }

    /// The tables of programs have the kernel's half too.
    fn is_used_by(&self, registers: &RegisterFile, memory: &dyn PhysMemory) -> Option<bool> {
        let tables = Tables::of(registers).ok()??;
        let landmark = self.landmark?;
        let wanted = self.image(landmark)?;
        Translation::leads_to(&tables.translate(memory, landmark), wanted)
    }

    fn section_size_bits(&self) -> Option<u32> {
        Some(27)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "the numbers are ours")]

    use super::*;
    use crate::registers::TABLE;
    use vmcore_core::memory::BlockMemory;

    const LINK: u64 = 0xffff_ffff_8000_0000;
    const RAM: u64 = 0x8000_0000;
    /// The image lies 2 MiB into RAM, its first table here.
    const ROOT: u64 = 0x8020_8000;
    const LANDMARK: Gva = Gva(LINK + 0x1010);

    const LEAF: u64 = 0xf;
    const TABLE_AT: u64 = 1;

    fn info(bits: u32) -> String {
        format!(
            "NUMBER(VA_BITS)={bits}\nNUMBER(PAGE_OFFSET)=0xff60000000000000\nNUMBER(phys_ram_base)={RAM:#x}\n\
            NUMBER(KERNEL_LINK_ADDR)={LINK:#x}\nNUMBER(va_kernel_pa_offset)={:#x}\n\
            SYMBOL(swapper_pg_dir)={:x}\nSYMBOL(init_uts_ns)={:x}\n",
            LINK - RAM - 0x20_0000,
            LINK + 0x8000,
            LANDMARK.0
        )
    }

    fn space(text: &str) -> Result<Space, Error> {
        Space::new(&Vmcoreinfo::parse(text.as_bytes()), Endianness::Little)
    }

    const fn entry(address: u64, kind: u64) -> u64 {
        address >> 2 | kind
    }

    /// Tables of so many levels, one after the other from the root on: the image as one page of 2 MiB, and one of the largest
    /// pages at the beginning of the upper half.
    fn memory(levels: u32) -> BlockMemory {
        let mut bytes = vec![0; 0x1_0000];
        let mut word = |at: u64, word: u64| {
            let at = usize::try_from(at - (ROOT & !0xffff)).unwrap();
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        };
        let mut table = ROOT;
        for level in (1..levels).rev() {
            let slot = table + (LINK >> (12 + 9 * level) & 0x1ff) * 8;
            if level == 1 {
                word(slot, entry(RAM + 0x20_0000, LEAF));
            } else {
                word(slot, entry(table + 0x1000, TABLE_AT));
            }
            table += 0x1000;
        }
        word(ROOT + 256 * 8, entry(0, LEAF));
        BlockMemory::new(vec![(Gpa(ROOT & !0xffff), bytes)]).unwrap()
    }

    #[test]
    fn the_image_and_the_walk_agree_in_each_mode() {
        for (bits, levels) in [(39, 3), (48, 4), (57, 5)] {
            let (space, memory) = (space(&info(bits)).unwrap(), memory(levels));
            assert_eq!(space.image(LANDMARK), Some(Gpa(0x8020_1010)));
            let found = |gva: u64| space.translate(&memory, Gva(gva)).map(|found| (found.gpa.0, found.len));
            assert_eq!(found(LANDMARK.0).unwrap(), (0x8020_1010, 0x1f_eff0));
            let largest = 1 << (bits - 9);
            assert_eq!(found((u64::MAX << (bits - 1)) + 0x1000).unwrap(), (0x1000, largest - 0x1000));
            assert!(matches!(found(1 << 60), Err(Error::NotCanonical { .. })));
            assert!(matches!(found(0x1000), Err(Error::NotMapped { .. })));
        }
    }

    #[test]
    fn a_kernel_in_the_linear_map() {
        let info = "NUMBER(VA_BITS)=39\nNUMBER(PAGE_OFFSET)=0xffffffe000000000\nNUMBER(phys_ram_base)=0x80000000\n\
            SYMBOL(swapper_pg_dir)=ffffffe000208000\n";
        let space = space(info).unwrap();
        assert_eq!(space.image(Gva(0xffff_ffe0_0020_1010)), Some(Gpa(0x8020_1010)));
        let found = space.translate(&memory(3), Gva(LINK + 0x10)).unwrap();
        assert_eq!(found.gpa, Gpa(0x8020_0010), "the root was found by the linear map");
    }

    #[test]
    fn the_vcpu_tells_whether_it_uses_it() {
        let space = space(&info(39)).unwrap();
        let used = |known: &[(&str, u64)]| {
            let mut registers = RegisterFile::new(&TABLE);
            for (name, value) in known {
                assert!(registers.set_value(name, *value), "{name}");
            }
            space.is_used_by(&registers, &memory(3))
        };
        let satp = |mode: u64, root: u64| mode << 60 | 0x1234 << 44 | root >> 12;
        assert_eq!(used(&[("satp", satp(8, ROOT))]), Some(true));
        assert_eq!(used(&[("satp", satp(8, ROOT)), ("priv", 0)]), Some(true), "a program");
        assert_eq!(used(&[("satp", satp(8, ROOT + 0x4000))]), Some(false), "another kernel");
        assert_eq!(used(&[("satp", satp(0, ROOT))]), None, "no tables");
        assert_eq!(used(&[("satp", satp(8, ROOT)), ("priv", 3)]), None, "firmware");
        assert_eq!(used(&[("satp", satp(8, RAM - 0x1000))]), None, "its tables are not in the dump");
        assert_eq!(used(&[]), None);
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = |text: &str| space(text).err().unwrap().to_string();
        let sentence =
            |key: &str| format!("VMCOREINFO has no usable {key}, walking the kernel's page tables needs it");
        let without = |key: &str| {
            let text = info(39);
            text.split_inclusive('\n').filter(|line| !line.contains(key)).collect::<String>()
        };
        for name in ["VA_BITS", "va_kernel_pa_offset"] {
            assert_eq!(error(&without(name)), sentence(&format!("NUMBER({name})")));
        }
        assert_eq!(error(&without("swapper_pg_dir")), sentence("SYMBOL(swapper_pg_dir)"));
        assert_eq!(error("SYMBOL(swapper_pg_dir)=1000"), sentence("NUMBER(PAGE_OFFSET)"));
        assert_eq!(
            error("SYMBOL(swapper_pg_dir)=1000\nNUMBER(PAGE_OFFSET)=0"),
            sentence("NUMBER(phys_ram_base)")
        );
        assert_eq!(error(&info(40)), sentence("NUMBER(VA_BITS)"));
    }
}
