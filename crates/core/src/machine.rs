//! A guest at one moment: the value that every source gives and every format takes.

use crate::{
    Arch, Class, DumpInfo, Endianness, Error, Gva, Kernel, Mapping, MappingList, Note, PhysMemory,
    RegionKind, RegisterFile,
};
use crate::{NoteScope, NoteTable, Translation, Vcpu, Vmcoreinfo, arch, memory, own_note};
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

/// What tells one kind of dump from another, as an ELF header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `e_machine`.
    pub elf_machine: u16,
    /// Width of the structures.
    pub class: Class,
    /// Byte order of the words.
    pub endianness: Endianness,
    /// `e_flags`, without the "incomplete" bit.
    pub elf_flags: u32,
}

impl Identity {
    /// Of a dump that does not say what it is of: no machine (`EM_NONE`).
    pub const UNKNOWN: Self =
        Self { elf_machine: 0, class: Class::Elf64, endianness: Endianness::Little, elf_flags: 0 };
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// An oddity that loses nothing: a known defect of the program that wrote the dump.
    Note,
    /// Something is missing or damaged.
    Error,
}

/// Something that a reader noticed about a dump, and lived with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where in the file.
    pub offset: Option<u64>,
    /// What it is, as a sentence without a full stop.
    pub text: String,
}

/// What the guest's `uname` says, as kdump headers carry it: each at most 64 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uts {
    /// `Linux`.
    pub sysname: String,
    /// Host name.
    pub nodename: String,
    /// As in `6.1.0-50-cloud-amd64`.
    pub release: String,
    /// As in `#1 SMP Debian 6.1.170-1`.
    pub version: String,
    /// As in `x86_64`.
    pub machine: String,
    /// NIS domain.
    pub domainname: String,
}

impl Uts {
    /// The fields with their names, in the order of `struct new_utsname`.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, &String); 6] {
        let Self { sysname, nodename, release, version, machine, domainname } = self;
        [
            ("sysname", sysname),
            ("nodename", nodename),
            ("release", release),
            ("version", version),
            ("machine", machine),
            ("domainname", domainname),
        ]
    }

    /// The same, to be filled.
    #[must_use]
    pub fn fields_mut(&mut self) -> [(&'static str, &mut String); 6] {
        let Self { sysname, nodename, release, version, machine, domainname } = self;
        [
            ("sysname", sysname),
            ("nodename", nodename),
            ("release", release),
            ("version", version),
            ("machine", machine),
            ("domainname", domainname),
        ]
    }
}

/// What a dump says of itself as a whole, beside its notes.
///
/// kdump headers have fields for it; in an ELF core it is a note of our own ([`crate::own_note::encode_header`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What was left out on purpose: makedumpfile's dump level, bits 1 to 16.
    pub dump_level: u32,
    /// What the guest's `uname` says, if a dump said it.
    pub uts: Option<Uts>,
}

/// The most vCPUs of a machine: twice what QEMU and Linux can have. More notes than that are carried along unread.
const MAX_VCPUS: usize = 8192;

/// A snapshot of one guest.
#[derive(Clone)]
pub struct Machine {
    /// What the dump it came from said of itself, or what the first writer is to say.
    pub identity: Identity,
    /// Its architecture, if one is linked in that knows the identity.
    pub arch: Option<&'static dyn Arch>,
    /// Its vCPUs, by index. Empty if the architecture is not known.
    pub vcpus: Vec<Vcpu>,
    /// Its memory.
    pub memory: Arc<dyn PhysMemory>,
    /// Virtual addresses that the dump itself stated for its memory, beyond "virtual is physical".
    pub mappings: Vec<Mapping>,
    /// Notes that belong to no vCPU, in their order, but for the guest's.
    pub notes: Vec<Note>,
    /// The guest's own note: VMCOREINFO.
    pub guest_note: Option<Note>,
    /// What the dump said of itself beside its notes.
    pub header: Header,
    /// Whether the dump says of itself that it is not finished.
    pub is_incomplete: bool,
    /// What the reader noticed.
    pub findings: Vec<Finding>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("identity", &self.identity)
            .field("vcpus", &self.vcpus.len())
            .field("regions", &self.memory.regions())
            .field("mappings", &self.mappings.len())
            .field("notes", &self.notes)
            .field("guest_note", &self.guest_note)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A guest of `arch` with this memory and these registers; the rest is empty.
    #[must_use]
    pub fn new(arch: &'static dyn Arch, memory: Arc<dyn PhysMemory>, vcpus: Vec<RegisterFile>) -> Self {
        // The architecture decides the rest from the guest's state.
        let identity = Identity {
            elf_machine: arch.elf_machine(),
            class: Class::Elf64,
            endianness: Endianness::Little,
            elf_flags: 0,
        };
        let mut machine = Self::empty(identity, Some(arch), memory);
        machine.vcpus = vcpus.into_iter().map(Vcpu::new).collect();
        let info = arch.dump_info(&machine);
        machine.identity.class = info.class;
        machine.identity.endianness = info.endianness;
        machine.identity.elf_flags = info.elf_flags;
        machine
    }

    fn empty(identity: Identity, arch: Option<&'static dyn Arch>, memory: Arc<dyn PhysMemory>) -> Self {
        Self {
            identity,
            arch,
            vcpus: Vec::new(),
            memory,
            mappings: Vec::new(),
            notes: Vec::new(),
            guest_note: None,
            header: Header::default(),
            is_incomplete: false,
            findings: Vec::new(),
        }
    }

    /// A guest that was read from notes: gives each vCPU its own, finds the guest's, keeps the rest.
    #[must_use]
    pub fn from_notes(identity: Identity, memory: Arc<dyn PhysMemory>, notes: Vec<Note>) -> Self {
        let arch = arch::of_identity(&identity);
        let mut machine = Self::empty(identity, arch, memory);
        // The first table of an architecture is the note that begins a vCPU.
        let tables = arch.map_or(&[][..], |arch| arch.notes());
        let mut in_vcpu = false;
        let mut machine_scope = std::collections::HashMap::new();
        for note in notes {
            if let Some(header) = own_note::decode_header(&note) {
                machine.header = header;
                in_vcpu = false;
                continue;
            }
            let table = tables.iter().find(|table| table.matches(&note));
            match (table, arch) {
                (Some(table), Some(arch)) if std::ptr::eq(table, &tables[0]) => {
                    in_vcpu = machine.vcpus.len() < MAX_VCPUS;
                    if in_vcpu {
                        machine.vcpus.push(Vcpu::new(RegisterFile::new(arch.registers())));
                    }
                }
                (Some(table), _) if table.scope == NoteScope::Machine => {
                    in_vcpu = false;
                    let index = machine_scope.entry(table.name).or_insert(0_usize);
                    if let Some(vcpu) = machine.vcpus.get_mut(*index) {
                        vcpu.take(table, note, identity.endianness);
                        *index += 1;
                    } else {
                        machine.notes.push(note);
                    }
                    continue;
                }
                _ => {}
            }
            if note.is_vmcoreinfo() {
                // Of several the last counts, as QEMU writes the guest's own last.
                machine.notes.extend(machine.guest_note.replace(note));
                in_vcpu = false;
                continue;
            }
            match (machine.vcpus.last_mut().filter(|_| in_vcpu), table) {
                (Some(vcpu), Some(table)) => vcpu.take(table, note, identity.endianness),
                (Some(vcpu), None) => {
                    if !vcpu.take_unknown(note, identity.endianness) {
                        let text = "a VMCORE note holds registers that this architecture lacks".to_owned();
                        machine.findings.push(Finding { severity: Severity::Note, offset: None, text });
                    }
                }
                (None, _) => machine.notes.push(note),
            }
        }
        machine.settle_endianness();
        machine.settle_numbers();
        machine
    }

    /// States the architecture of a guest that was read from a dump which does not say it ([`Identity::UNKNOWN`]).
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the dump says another one.
    pub fn assume(&mut self, arch: &'static dyn Arch) -> Result<(), Error> {
        if self.identity.elf_machine == arch.elf_machine() {
            return Ok(());
        }
        if self.identity != Identity::UNKNOWN {
            let own = self.arch.map_or("a machine that is not known", Arch::name);
            let found = format!("{}, where the dump is of {own}", arch.name());
            return Err(Error::Unsupported { what: "another architecture than the dump's", found });
        }
        self.arch = Some(arch);
        self.identity = Self::new(arch, Arc::clone(&self.memory), Vec::new()).identity;
        Ok(())
    }

    /// Gives the machine its guest's byte order, where the dump that it was read from has the other one.
    ///
    /// QEMU 7.2 writes dumps of little-endian ppc64 guests in big-endian order (`spec/arch-notes.md` section 9, D4).
    fn settle_endianness(&mut self) {
        let Some(arch) = self.arch else { return };
        let stated = self.identity.endianness;
        let endianness = arch.endianness(self);
        if endianness == stated {
            return;
        }
        self.identity.endianness = endianness;
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.release_notes(arch, stated));
        let text = format!("the dump is {stated}, its guest {endianness} (QEMU 7.2 does that to ppc64le)");
        self.findings.push(Finding { severity: Severity::Note, offset: None, text });
    }

    /// Sets the numbers of vCPUs right that are in the other byte order: QEMU 7.2 writes those of s390x in the host's
    /// (`spec/arch-notes.md` section 3.1). drgn looks a vCPU up by them.
    fn settle_numbers(&mut self) {
        let Some(arch) = self.arch else { return };
        let endianness = self.identity.endianness;
        let is_swapped = |(wanted, vcpu): (u32, &Vcpu)| {
            let number = vcpu.number(arch, endianness).and_then(|number| u32::try_from(number).ok());
            number.is_some_and(|number| number.swap_bytes() == wanted)
        };
        if self.vcpus.is_empty() || !(1..).zip(&self.vcpus).all(is_swapped) {
            return;
        }
        self.number_vcpus();
        let text =
            "the numbers of the vCPUs are in the other byte order (QEMU 7.2 writes them in its host's)"
                .to_owned();
        self.findings.push(Finding { severity: Severity::Note, offset: None, text });
    }

    /// Lets the notes of each vCPU say its place among them, counted from 1: the thread that it is to debuggers.
    ///
    /// Only who knows that the notes are of vCPUs may do so: those of a kernel's own dump say which process ran.
    pub fn number_vcpus(&mut self) {
        let Some(arch) = self.arch else { return };
        for (number, vcpu) in (1..).zip(&mut self.vcpus) {
            vcpu.set_number(arch, self.identity.endianness, number);
        }
    }

    /// All notes in the order in which a dump holds them: those of each vCPU, those that stand behind all vCPUs,
    /// those of no vCPU, and the guest's as the last.
    #[must_use]
    pub fn encode_notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Some(arch) = self.arch {
            let tables = arch.notes();
            // Notes behind all vCPUs are told apart by their order alone: if a later vCPU has one, each before it needs one.
            let last = |table: &NoteTable| self.vcpus.iter().rposition(|vcpu| vcpu.has(table, tables));
            let in_order = tables.iter().filter(|table| table.scope == NoteScope::Machine);
            let last: Vec<(&str, Option<usize>)> = in_order.map(|table| (table.name, last(table))).collect();
            for scope in [NoteScope::Vcpu, NoteScope::Machine] {
                for (index, vcpu) in self.vcpus.iter().enumerate() {
                    let is_forced = |table: &NoteTable| {
                        last.iter()
                            .any(|(name, last)| *name == table.name && last.is_some_and(|last| index <= last))
                    };
                    notes.extend(vcpu.encode(arch, index, self.identity.endianness, scope, is_forced));
                }
            }
        }
        notes.extend(self.notes.iter().cloned());
        notes.extend(self.guest_note.clone());
        notes
    }

    /// What a dump's header says of this guest.
    #[must_use]
    pub fn dump_info(&self) -> DumpInfo {
        self.arch.map_or_else(
            || DumpInfo {
                class: self.identity.class,
                endianness: self.identity.endianness,
                elf_flags: self.identity.elf_flags,
                page_size: self.vmcoreinfo().and_then(|info| info.page_size()).unwrap_or(0x1000),
                phys_base: 0,
                uts_machine: "",
                device_window: 0..0,
            },
            |arch| arch.dump_info(self),
        )
    }

    /// The parsed VMCOREINFO note.
    #[must_use]
    pub fn vmcoreinfo(&self) -> Option<Vmcoreinfo> {
        self.guest_note.as_ref().filter(|note| note.is_vmcoreinfo()).map(|note| Vmcoreinfo::parse(&note.desc))
    }

    /// Bytes of RAM, all regions together.
    #[must_use]
    pub fn ram_len(&self) -> u64 {
        let regions = self.memory.regions().iter();
        regions.filter(|region| region.kind == RegionKind::Ram).map(|region| region.len).sum()
    }

    /// Translates a virtual address by the page tables of vCPU `vcpu_index`.
    ///
    /// Where the dump lacks a register that this needs, as QEMU's own of aarch64 do, or the page tables are of a kind that is not
    /// supported ([`Error::lacks_page_tables`]), the kernel's tables serve, which VMCOREINFO
    /// names: for all addresses that they map. Of a machine without vCPUs, as an image of memory is, that goes for index 0.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if there is no such vCPU, [`Error::UnknownArch`] if the architecture is not linked in, and
    /// what [`Arch::translate`] returns; of a machine without vCPUs what [`Machine::kernel`] and [`Kernel::translate`] return.
    pub fn translate(&self, vcpu_index: usize, gva: Gva) -> Result<Translation, Error> {
        self.translate_or_ask(&OnceCell::new(), vcpu_index, gva)
    }

    /// [`Machine::translate`] of one address after the other: the kernel that is asked where a register is missing is found once,
    /// and stays in `kernel`.
    ///
    /// # Errors
    /// As [`Machine::translate`].
    pub fn translate_or_ask(
        &self,
        kernel: &OnceCell<Option<Kernel>>,
        vcpu_index: usize,
        gva: Gva,
    ) -> Result<Translation, Error> {
        let arch = self.known_arch("address translation")?;
        let ask = || kernel.get_or_init(|| self.kernel().ok()).as_ref();
        if self.vcpus.is_empty() && vcpu_index == 0 {
            return match ask() {
                Some(kernel) => kernel.translate(gva),
                None => self.kernel()?.translate(gva),
            };
        }
        let vcpu = self.vcpus.get(vcpu_index);
        let vcpu = vcpu.ok_or(Error::TooLarge {
            what: "vCPU index",
            found: vcpu_index as u64,
            limit: (self.vcpus.len() as u64).saturating_sub(1),
        })?;
        arch.translate(vcpu.registers(), &*self.memory, gva).or_else(|error| {
            let kernel = error.lacks_page_tables().then(ask).flatten();
            kernel.and_then(|kernel| kernel.translate(gva).ok()).ok_or(error)
        })
    }

    /// All that the page tables of all vCPUs map, merged: what `--paging` dumps are made of.
    ///
    /// Empty if no vCPU has paging enabled.
    ///
    /// # Errors
    /// [`Error::UnknownArch`] if the architecture is not linked in, and what [`Arch::mappings`] returns.
    pub fn page_table_mappings(&self) -> Result<Vec<Mapping>, Error> {
        let arch = self.known_arch("a list of virtual addresses")?;
        let mut seen = arch::SeenTables::default();
        let mut list = MappingList::default();
        for vcpu in &self.vcpus {
            arch.mappings(vcpu.registers(), &*self.memory, &mut seen, &mut list)?;
        }
        Ok(list.into_sorted())
    }

    /// Its architecture, for `what` depends on it.
    ///
    /// # Errors
    /// [`Error::UnknownArch`] if it is not known.
    pub fn known_arch(&self, what: &'static str) -> Result<&'static dyn Arch, Error> {
        self.arch.ok_or(Error::UnknownArch { what, elf_machine: self.identity.elf_machine })
    }

    /// Copies memory at a virtual address of vCPU `vcpu_index` into `buf`, page by page.
    ///
    /// # Errors
    /// As [`Machine::translate`], and [`Error::NoMemory`] where a page is mapped but not in the dump.
    pub fn read_virtual(&self, vcpu_index: usize, gva: Gva, buf: &mut [u8]) -> Result<(), Error> {
        let kernel = OnceCell::new();
        memory::read_translated(&*self.memory, gva, buf, |gva| {
            self.translate_or_ask(&kernel, vcpu_index, gva)
        })
    }

    /// The guest's kernel, as its VMCOREINFO describes it.
    ///
    /// # Errors
    /// [`Error::UnknownArch`] if its architecture is not linked in, [`Error::NoVmcoreinfo`] if the machine has none, and
    /// what [`Arch::kernel_space`] returns.
    pub fn kernel(&self) -> Result<Kernel, Error> {
        let what = "looking into the guest's kernel";
        let arch = self.known_arch(what)?;
        let info = self.vmcoreinfo().ok_or(Error::NoVmcoreinfo { what })?;
        Kernel::new(arch, info, self.identity.endianness, Arc::clone(&self.memory))
    }
}
