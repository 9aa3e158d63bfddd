//! A look at a running guest, before it is stopped: what takes time is done here, and what cannot be done is known here.

use crate::args::NoteArgs;
use crate::kernel::{self, NoteOrigin};
use crate::{job, text};
use std::sync::Arc;
use vmcore::vmcoreinfo::{Candidate, Findings, Guest, Level, search};
use vmcore::{
    Arch, Attached, Class, DumpState, Endianness, Error, Identity, Kernel, Machine, Note, PhysMemory,
    Preview, Vmcoreinfo,
};

/// What a look has found.
pub(crate) struct Look<'a> {
    args: &'a NoteArgs,
    preview: Option<Preview>,
    /// The note that the user supplies.
    supplied: Option<Note>,
    /// Notes that lie in the guest's memory, the best first, and their byte order.
    found: Vec<Candidate>,
    endianness: Endianness,
}

impl<'a> Look<'a> {
    /// No look: nothing of the kernel is needed.
    pub(crate) fn none(guest: &dyn Attached, args: &'a NoteArgs) -> Self {
        let preview = guest.preview();
        Self { args, preview, supplied: None, found: Vec::new(), endianness: Endianness::Little }
    }

    /// Looks for the guest's VMCOREINFO in its memory, unless the user forbids or supplies it.
    ///
    /// A guest that has the device states it when it is stopped. Whether it has one cannot be seen before; its note then is one
    /// of the first that are found.
    pub(crate) fn at(
        guest: &dyn Attached,
        args: &'a NoteArgs,
        quiet: bool,
        state: &DumpState,
    ) -> anyhow::Result<Self> {
        let supplied = args.vmcoreinfo.as_ref().map(|path| kernel::read_note(path)).transpose()?;
        let mut look = Self { supplied, ..Self::none(guest, args) };
        let Some(preview) = look.preview.as_ref() else { return Ok(look) };
        let Some(arch) = preview.arch else { return Ok(look) };
        let mut orders = orders(arch);
        look.endianness = orders.next().unwrap_or(look.endianness);
        if args.no_vmcoreinfo_search || look.supplied.is_some() {
            return Ok(look);
        }
        for endianness in std::iter::once(look.endianness).chain(orders) {
            let guest = Guest { arch: Some(arch), endianness, memory: &preview.memory, vcpus: &[] };
            let found = job::with_progress(quiet, state, || search(&guest, Level::PageTables, state));
            let Findings { found, .. } = match found {
                Ok(findings) => findings,
                Err(Error::Cancelled) => return Err(Error::Cancelled.into()),
                // The dump needs no note.
                Err(error) => {
                    text::say(&format!(
                        "vmcore: warning: the guest's VMCOREINFO was not looked for: {error}"
                    ));
                    break;
                }
            };
            if !found.is_empty() {
                look.endianness = endianness;
                look.found = found.into_iter().map(|found| found.candidate).collect();
                break;
            }
        }
        Ok(look)
    }

    /// The guest's memory while it runs.
    pub(crate) fn memory(&self) -> Option<&Arc<dyn PhysMemory>> {
        self.preview.as_ref().map(|preview| &preview.memory)
    }

    /// The guest's kernel while it runs; `None` where it is not known before the guest is stopped.
    pub(crate) fn kernel(&self) -> Option<Result<Kernel, Error>> {
        let preview = self.preview.as_ref()?;
        let info = match (&self.supplied, self.found.first()) {
            (Some(note), _) => Vmcoreinfo::parse(&note.desc),
            (None, Some(candidate)) => candidate.info().clone(),
            (None, None) if self.args.no_vmcoreinfo_search => return None,
            (None, None) => {
                return Some(Err(Error::NoVmcoreinfo { what: "looking into the guest's kernel" }));
            }
        };
        Some(Kernel::new(preview.arch?, info, self.endianness, Arc::clone(&preview.memory)))
    }

    /// Gives the guest, which was stopped since, its note.
    pub(crate) fn complete(&self, machine: &mut Machine) -> NoteOrigin {
        if let Some(note) = &self.supplied {
            machine.guest_note = Some(note.clone());
        }
        NoteOrigin::complete_from(machine, self.args, &self.found)
    }
}

/// The byte orders that guests of an architecture can have, the usual one first.
fn orders(arch: &dyn Arch) -> impl Iterator<Item = Endianness> {
    let elf_machine = arch.elf_machine();
    [Endianness::Little, Endianness::Big].into_iter().filter(move |endianness| {
        let identity = |class| Identity { elf_machine, class, endianness: *endianness, elf_flags: 0 };
        [Class::Elf64, Class::Elf32].into_iter().any(|class| arch.accepts(&identity(class)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::arch;

    #[test]
    fn byte_orders_of_architectures() {
        let check = |name: &str, expected: &[Endianness]| {
            let found: Vec<Endianness> = orders(arch::by_name(name).unwrap()).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("x86_64", &[Endianness::Little]);
        check("s390x", &[Endianness::Big]);
        check("ppc64", &[Endianness::Little, Endianness::Big]);
    }
}
