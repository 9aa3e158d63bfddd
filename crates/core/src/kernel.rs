//! The guest's kernel, seen from outside with nothing but its VMCOREINFO and the guest's memory.

use crate::{Arch, Endianness, Error, Gpa, Gva, PhysMemory, RegisterFile, Translation, Vmcoreinfo, memory};
use std::fmt;
use std::sync::Arc;

/// The address space of a kernel: what only its architecture knows.
///
/// Source of all formulas: `spec/vmcoreinfo.md` section 5.3 and `spec/filter.md` section 6.
pub trait KernelSpace: Send + Sync {
    /// Where an address of the kernel's image lies, by arithmetic alone: no table is read.
    ///
    /// `None` if the formula needs a key that the kernel does not give.
    fn image(&self, gva: Gva) -> Option<Gpa>;

    /// Walks the kernel's page tables.
    ///
    /// # Errors
    /// As [`Arch::translate`].
    fn translate(&self, memory: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error>;

    /// Whether a vCPU uses the page tables of this kernel, also while it runs a program.
    ///
    /// It tells the kernel that runs from what an earlier one left in memory. `None` if the registers do not
    /// tell, or if tables that they lead to cannot be read ([`Translation::leads_to`]).
    fn is_used_by(&self, registers: &RegisterFile, memory: &dyn PhysMemory) -> Option<bool>;

    /// `SECTION_SIZE_BITS` of kernels that do not say it: log2 of the length of a memory section in bytes.
    ///
    /// `None` if it is not known (`spec/filter.md` section 5.2).
    fn section_size_bits(&self) -> Option<u32> {
        None
    }
}

/// The guest's kernel: its VMCOREINFO, its address space, and the memory behind both.
#[derive(Clone)]
pub struct Kernel {
    info: Arc<Vmcoreinfo>,
    space: Arc<dyn KernelSpace>,
    endianness: Endianness,
    memory: Arc<dyn PhysMemory>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("release", &self.info.release()).finish_non_exhaustive()
    }
}

impl Kernel {
    /// The kernel that `info` describes, in this memory.
    ///
    /// # Errors
    /// What [`Arch::kernel_space`] returns.
    pub fn new(
        arch: &dyn Arch,
        info: Vmcoreinfo,
        endianness: Endianness,
        memory: Arc<dyn PhysMemory>,
    ) -> Result<Self, Error> {
        let space = arch.kernel_space(&info, endianness, &*memory)?.into();
        Ok(Self { info: Arc::new(info), space, endianness, memory })
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> &Vmcoreinfo {
        &self.info
    }

    /// Its address space.
    #[must_use]
    pub fn space(&self) -> &dyn KernelSpace {
        &*self.space
    }

    /// Byte order of its words.
    #[must_use]
    pub fn endianness(&self) -> Endianness {
        self.endianness
    }

    /// The memory that it lies in.
    #[must_use]
    pub fn memory(&self) -> &Arc<dyn PhysMemory> {
        &self.memory
    }

    /// Where a virtual address lies.
    ///
    /// # Errors
    /// As [`KernelSpace::translate`].
    pub fn translate(&self, gva: Gva) -> Result<Translation, Error> {
        self.space.translate(&*self.memory, gva)
    }

    /// Copies memory at a virtual address into `buf`.
    ///
    /// # Errors
    /// As [`memory::read_translated`].
    pub fn read(&self, gva: Gva, buf: &mut [u8]) -> Result<(), Error> {
        memory::read_translated(&*self.memory, gva, buf, |gva| self.translate(gva))
    }

    /// The unsigned number of `N` bytes (at most 8) at a virtual address, in the kernel's byte order.
    ///
    /// # Errors
    /// As [`Kernel::read`].
    pub fn number_at<const N: usize>(&self, gva: Gva) -> Result<u64, Error> {
        const { assert!(N <= 8) };
        let mut bytes = [0; N];
        self.read(gva, &mut bytes)?;
        Ok(self.endianness.decode(&bytes))
    }

    /// `SYMBOL(name)`; zero and all-ones count as absent.
    ///
    /// # Errors
    /// [`Error::NoKey`], with `what` needs it.
    pub fn symbol(&self, name: &str, what: &'static str) -> Result<Gva, Error> {
        self.info.need_symbol(name, what)
    }

    /// `KIND(name)`, where `kind` is `NUMBER`, `OFFSET`, `SIZE` or `LENGTH`.
    ///
    /// # Errors
    /// [`Error::NoKey`], with `what` needs it.
    pub fn value(&self, kind: &str, name: &str, what: &'static str) -> Result<u64, Error> {
        self.info.need(kind, name, what)
    }
}
