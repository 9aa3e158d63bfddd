//! What speaks for a note: whether the kernel that it describes is there, and whether it is the one that runs.
//!
//! Stale notes lie in memory, too: of an earlier boot, of a kernel that started this one by kexec, of guests of the guest.
//! Their kernels' images and page tables may still be whole. Only a vCPU tells which kernel runs.
//!
//! Source: `spec/vmcoreinfo.md` section 5.3.

use crate::{Candidate, uts};
use std::fmt;
use std::sync::Arc;
use vmcore_core::{
    Arch, Endianness, Gva, Kernel, Machine, PhysMemory, RegisterFile, Vmcoreinfo, memory::read_translated,
};

/// Bytes from `_stext` on that are the text of a kernel.
const MAX_TEXT_LEN: u64 = 64 << 20;
/// vCPUs that are asked. They all run one kernel: if none of so many tells, the others will not.
const MAX_VCPUS: usize = 64;

/// What is known of a guest whose note is looked for or verified.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// Its architecture, if that is known: without it, notes are found but not verified.
    pub arch: Option<&'a dyn Arch>,
    /// Its byte order.
    pub endianness: Endianness,
    /// Its memory; it may be that of a running guest.
    pub memory: &'a Arc<dyn PhysMemory>,
    /// The registers of its vCPUs at the moment that the memory is of. Empty if the guest runs.
    pub vcpus: &'a [&'a RegisterFile],
}

impl fmt::Debug for Guest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("arch", &self.arch.map(Arch::name))
            .field("endianness", &self.endianness)
            .field("vcpus", &self.vcpus.len())
            .finish_non_exhaustive()
    }
}

impl Guest<'_> {
    /// Looks at a machine as a guest.
    pub fn of<T>(machine: &Machine, look: impl FnOnce(&Guest<'_>) -> T) -> T {
        let vcpus: Vec<&RegisterFile> = machine.vcpus.iter().map(|vcpu| vcpu.registers()).collect();
        look(&Guest {
            arch: machine.arch.map(|arch| -> &dyn Arch { arch }),
            endianness: machine.identity.endianness,
            memory: &machine.memory,
            vcpus: &vcpus,
        })
    }
}

/// What speaks for a note, from the least to what decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing but its text.
    Text,
    /// `uname` lies where it says, with the release that it says. It does so after the next boot, too.
    Uname,
    /// The page tables of its kernel map `uname` to the same place.
    PageTables,
    /// A vCPU uses those page tables: it is the kernel that runs.
    Vcpu,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "nothing",
            Self::Uname => "uname in memory",
            Self::PageTables => "page tables in memory",
            Self::Vcpu => "a vCPU",
        })
    }
}

/// The evidence for one note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// `uname` in memory has the release of the note.
    pub uname: bool,
    /// The kernel's page tables agree with the arithmetic of its image.
    pub page_tables: bool,
    /// Whether a vCPU uses its page tables; `None` if no vCPU tells.
    pub vcpu: Option<bool>,
}

impl Evidence {
    /// The best of it.
    #[must_use]
    pub fn level(&self) -> Level {
        match *self {
            Self { vcpu: Some(true), .. } => Level::Vcpu,
            Self { page_tables: true, .. } => Level::PageTables,
            Self { uname: true, .. } => Level::Uname,
            _ => Level::Text,
        }
    }

    /// Whether the vCPUs are known to run something else.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.vcpu == Some(false)
    }

    /// Whether a note with this evidence may be taken if there is no better one: something in memory agrees with it, or
    /// nothing could.
    #[must_use]
    pub fn is_acceptable(&self) -> bool {
        !self.is_denied() || self.level() > Level::Text
    }
}

/// Collects the evidence for a note that says this. Costs a few reads, and a few more a vCPU.
#[must_use]
pub fn verify(guest: &Guest<'_>, info: &Vmcoreinfo) -> Evidence {
    let Some(arch) = guest.arch else { return Evidence::default() };
    let vcpus = || guest.vcpus.iter().take(MAX_VCPUS);
    let kernel = Kernel::new(arch, info.clone(), guest.endianness, Arc::clone(guest.memory));
    let Ok(kernel) = kernel else {
        // An architecture that does not know its kernels can still ask its vCPUs' page tables. That they lead elsewhere
        // says nothing: a program runs.
        let found = vcpus().any(|vcpu| vcpu_finds_uname(guest, arch, vcpu, info));
        return Evidence { uname: found, page_tables: false, vcpu: found.then_some(true) };
    };
    let uname = uts::read(&kernel).is_ok_and(|uts| Some(uts.release.as_str()) == info.release());
    let page_tables = info.symbol("init_uts_ns").map(Gva).is_some_and(|gva| {
        let found = kernel.translate(gva).map(|found| found.gpa);
        // Without arithmetic to compare with, what they map must be right.
        found.is_ok_and(|gpa| kernel.space().image(gva).map_or(uname, |image| image == gpa))
    });
    let mut vcpu = None;
    for registers in vcpus() {
        match kernel.space().is_used_by(registers, &**guest.memory) {
            Some(true) => {
                vcpu = Some(true);
                break;
            }
            Some(false) => vcpu = Some(false),
            None => {}
        }
    }
    // Where the registers with the page tables are not known, a program counter may tell.
    if vcpu.is_none() && uname && vcpus().any(|vcpu| is_in_text(vcpu, info)) {
        vcpu = Some(true);
    }
    Evidence { uname, page_tables, vcpu }
}

/// Whether a vCPU executes the text of this kernel. That it does not says nothing: it may run a program, or a driver.
fn is_in_text(vcpu: &RegisterFile, info: &Vmcoreinfo) -> bool {
    let counter = vcpu.value(vcpu.table().program_counter);
    let distance = counter.zip(info.symbol("_stext")).and_then(|(counter, text)| counter.checked_sub(text));
    distance.is_some_and(|distance| distance < MAX_TEXT_LEN)
}

/// Whether the page tables of a vCPU lead to the `uname` that the note says.
fn vcpu_finds_uname(guest: &Guest<'_>, arch: &dyn Arch, vcpu: &RegisterFile, info: &Vmcoreinfo) -> bool {
    let memory = &**guest.memory;
    let read =
        |gva, buf: &mut [u8]| read_translated(memory, gva, buf, |gva| arch.translate(vcpu, memory, gva));
    let found = uts::address(info).and_then(|gva| uts::read_by(gva, read).ok());
    found.is_some_and(|uts| Some(uts.release.as_str()) == info.release())
}

/// Reads a candidate that was found before once more, and collects the evidence for it as the guest is now.
///
/// This is how a note that was found while the guest ran is made sure of when it stands still. `None` if it is not there
/// any more, or says something else.
#[must_use]
pub fn recheck(guest: &Guest<'_>, candidate: &Candidate) -> Option<Evidence> {
    let again = Candidate::read(&**guest.memory, candidate.gpa, guest.endianness)?;
    again.says_the_same(candidate).then(|| verify(guest, again.info()))
}
