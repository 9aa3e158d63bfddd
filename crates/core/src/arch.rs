//! What an architecture must say, and the registry of those that are linked in.
//!
//! An architecture plugin depends on this crate only and submits itself:
//!
//! ```text
//! vmcore_core::inventory::submit! { vmcore_core::ArchPlugin(&X86_64) }
//! ```

use crate::registry::{registry, unknown};
use crate::{
    Class, Endianness, Error, Gpa, Gva, Identity, KernelSpace, Machine, MappingList, Note, NoteTable,
    PhysMemory, RegisterFile, RegisterTable, StackRules, Vmcoreinfo,
};
use std::fmt::{self, Write as _};
use std::ops::Range;

/// What a dump's header says of the guest as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpInfo {
    /// Width of the dump's structures.
    pub class: Class,
    /// Byte order of the guest and of the dump.
    pub endianness: Endianness,
    /// `e_flags` of an ELF core.
    pub elf_flags: u32,
    /// Size of the guest's pages in bytes: a power of two.
    pub page_size: u64,
    /// What kdump headers call `phys_base`; two's complement, often negative.
    pub phys_base: i64,
    /// `machine` of the guest's `uname`, as in `x86_64`.
    pub uts_machine: &'static str,
    /// Where firmware and devices have memory of their own: what lies there is no RAM unless RAM reaches past it.
    pub device_window: Range<u64>,
}

/// Where a virtual address lies in guest physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub gpa: Gpa,
    /// How many bytes from there on belong to the same page or block.
    pub len: u64,
    /// What the page tables permit there; `None` where no table stands between the two, or says nothing of it.
    pub access: Option<Access>,
}

/// What page tables permit whom a page is for: programs, or else the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub execute: bool,
}

/// As in `r-x`.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.execute, 'x')];
        letters.into_iter().try_for_each(|(may, letter)| f.write_char(if may { letter } else { '-' }))
    }
}

impl Translation {
    /// Where no page table permits or forbids anything.
    #[must_use]
    pub const fn unprotected(gpa: Gpa, len: u64) -> Self {
        Self { gpa, len, access: None }
    }

    /// Whether a walk has led to `wanted`; `None` if it needed a table that cannot be read, which tells nothing of the rest.
    ///
    /// It is what [`KernelSpace::is_used_by`] is made of: dumps of a range of memory lack tables, and so do dumps that were cut off.
    #[must_use]
    pub fn leads_to(walk: &Result<Self, Error>, wanted: Gpa) -> Option<bool> {
        match walk {
            Ok(found) => Some(found.gpa == wanted),
            Err(Error::NoMemory { .. } | Error::Io { .. } | Error::Source { .. }) => None,
            Err(_) => Some(false),
        }
    }
}

/// An architecture: tables, and small functions for what a table cannot say.
///
/// What works after which step:
///
/// 1. `name`, `elf_machine`, `registers` and `notes`: dumps of the architecture are read, shown and converted, and
///    a live guest is captured;
/// 2. `dump_info`: class, byte order and page size are right for every guest, not only the usual one;
/// 3. `translate`: `read --virt` works;
/// 4. `mappings`: `--paging` works;
/// 5. `kernel_space`: what needs the guest's kernel works: a search for its VMCOREINFO, its log, dump levels;
/// 6. `stack`: backtraces work.
pub trait Arch: Send + Sync {
    /// Its name, as in `x86_64`.
    fn name(&self) -> &'static str;

    /// `e_machine` of its ELF files.
    fn elf_machine(&self) -> u16;

    /// Whether a dump with this identity is of this architecture; needed where two share an `e_machine`.
    fn accepts(&self, identity: &Identity) -> bool {
        identity.elf_machine == self.elf_machine()
    }

    /// What `uname -m` calls it; names of one machine's older models too.
    fn uts_machines(&self) -> &'static [&'static str];

    /// Its registers.
    fn registers(&self) -> &'static RegisterTable;

    /// Its notes, in the order in which they are written for a vCPU.
    ///
    /// Their layout follows the architecture, not the class of the file (`spec/arch-notes.md` section 1.1).
    fn notes(&self) -> &'static [NoteTable];

    /// The byte order of the guest, as its registers tell it; where they do not, that of the dump which it was read from.
    ///
    /// Memory must not be touched: it may not be there yet.
    fn endianness(&self, machine: &Machine) -> Endianness {
        machine.identity.endianness
    }

    /// What a dump's header says of `machine`.
    fn dump_info(&self, machine: &Machine) -> DumpInfo;

    /// Walks the vCPU's page tables for one address.
    ///
    /// # Errors
    /// [`Error::NotMapped`], [`Error::NotCanonical`], [`Error::NoMemory`] where a table is not in the dump,
    /// [`Error::NoRegister`], and errors of reading.
    fn translate(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        gva: Gva,
    ) -> Result<Translation, Error>;

    /// Adds all that the vCPU's page tables map; whether it is RAM is for the caller to see.
    ///
    /// A vCPU whose paging is off adds nothing. The same list is given for each vCPU of a machine, together with
    /// `seen`, in which a walker remembers the tables that it has walked.
    ///
    /// # Errors
    /// As [`Arch::translate`], and [`Error::TooLarge`] for page tables that are larger than any real guest's.
    fn mappings(
        &self,
        registers: &RegisterFile,
        memory: &dyn PhysMemory,
        seen: &mut SeenTables,
        list: &mut MappingList,
    ) -> Result<(), Error>;

    /// The address space of the guest's kernel, by what its VMCOREINFO says: no vCPU is needed.
    ///
    /// `endianness` is the guest's. Little of `memory` is read; it may be that of a running guest.
    ///
    /// # Errors
    /// [`Error::NoKey`] where VMCOREINFO says too little, [`Error::Unsupported`] for kernels and architectures that are not
    /// supported, and errors of reading.
    fn kernel_space(
        &self,
        info: &Vmcoreinfo,
        endianness: Endianness,
        memory: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        let _ = (info, endianness, memory);
        let found = format!("a kernel of {}", self.name());
        Err(Error::Unsupported { what: "finding the address space of a kernel by its VMCOREINFO", found })
    }

    /// Where kernels leave the guest physical address of their VMCOREINFO note, header and all: 8 bytes in the guest's
    /// order, 0 if there is none.
    ///
    /// Most leave it nowhere: then memory is searched.
    fn note_pointer(&self) -> Option<Gpa> {
        None
    }

    /// How its stacks are walked; `None` where nobody has said it yet.
    fn stack(&self) -> Option<&'static StackRules> {
        None
    }
}

/// Page tables that were walked already: where they lie and which virtual address their first entry maps.
///
/// vCPUs share most of their tables; each is walked once. And a table that maps itself over and over ends at a
/// bound, instead of after 2^36 entries.
#[derive(Debug, Default)]
pub struct SeenTables(std::collections::HashSet<(Gpa, Gva, u16)>);

impl SeenTables {
    /// The most tables that are walked: 1 GiB of 4 KiB tables, enough for 512 GiB of small pages.
    pub const MAX: usize = 1 << 18;

    /// Notes a table at `gpa` whose first entry maps `gva`, and tells whether it is new.
    ///
    /// `kind` is the architecture's: two vCPUs that read one table in two ways have two kinds.
    ///
    /// # Errors
    /// [`Error::TooLarge`] after [`SeenTables::MAX`] tables.
    pub fn insert(&mut self, gpa: Gpa, gva: Gva, kind: impl Into<u16>) -> Result<bool, Error> {
        let is_new = self.0.insert((gpa, gva, kind.into()));
        if self.0.len() > Self::MAX {
            return Err(Error::TooLarge {
                what: "page tables of the guest",
                found: self.0.len() as u64,
                limit: Self::MAX as u64,
            });
        }
        Ok(is_new)
    }
}

registry! {
    /// The registration of an architecture.
    ArchPlugin of Arch by name, "The architectures that are linked in, by name."
}

/// The architecture named `name`.
///
/// # Errors
/// [`Error::Unknown`] with the names that there are.
pub fn by_name(name: &str) -> Result<&'static dyn Arch, Error> {
    let found = all().iter().copied().find(|arch| arch.name() == name);
    found.ok_or_else(|| unknown("architecture", name, all().iter().map(|arch| arch.name())))
}

/// The architecture of a dump whose header has no ELF machine: by its first note, and by what `uname` calls it.
///
/// The note counts first: QEMU 7.2 calls also a guest in real mode `x86_64`, and 10.0 all of them `Unknown`.
#[must_use]
pub fn of_notes(
    notes: &[Note],
    uts_machine: &str,
    class: Class,
    endianness: Endianness,
) -> Option<&'static dyn Arch> {
    let accepts = |arch: &&dyn Arch| {
        arch.accepts(&Identity { elf_machine: arch.elf_machine(), class, endianness, elf_flags: 0 })
    };
    let is_named =
        |arch: &&dyn Arch| arch.uts_machines().iter().any(|name| name.eq_ignore_ascii_case(uts_machine));
    let fits = |arch: &&dyn Arch| {
        let first = arch.notes().first().zip(notes.first());
        first.is_some_and(|(table, note)| table.matches(note) && table.desc_len == note.desc.len())
    };
    let accepting = || all().iter().copied().filter(accepts);
    let by_note = || accepting().filter(fits);
    by_note().find(is_named).or_else(|| by_note().next()).or_else(|| accepting().find(is_named))
}

/// The architecture of a dump, if one is linked in that accepts it.
#[must_use]
pub fn of_identity(identity: &Identity) -> Option<&'static dyn Arch> {
    all().iter().copied().find(|arch| arch.accepts(identity))
}
