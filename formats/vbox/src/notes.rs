//! VirtualBox's notes: the core descriptor, then a CPU record for each vCPU.
//!
//! They are the first notes of a core. What else the guest has to say, in the notes that other tools look for, stands behind them:
//! who reads VirtualBox's passes over those.
//!
//! Notes that VirtualBox wrote itself are carried along among the machine's, also through other formats, so that they can be
//! written again; those that we would write anyway are not.

use crate::cpu::Cpu;
use crate::header::{
    CORE_MAGIC, CoreDescriptor, EarlyDescriptor, NT_REVENCPU, NT_VBOXCORE, NT_VBOXCPU, OWNERS, OWNERS_2010,
    REVEN_MAGIC, RevenCpu,
};
use crate::release::{CURRENT, Release};
use vmcore_core::{Machine, Note, RegisterFile, Vcpu};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

/// [`CoreDescriptor::revision`] of what we write: VirtualBox's own is never 0.
const OUR_REVISION: u32 = 0;

/// Which of VirtualBox's notes one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The core descriptor.
    Core,
    /// A CPU record.
    Cpu,
    /// What reven's VirtualBox tells beside it.
    Reven,
}

/// Which of VirtualBox's notes this is, by the owner, with or without its NUL, and the type.
pub(crate) fn kind_of(owner: &[u8], note_type: u32) -> Option<Kind> {
    let end = owner.iter().position(|byte| *byte == 0).unwrap_or(owner.len());
    let is =
        |names: [&[u8]; 2]| names.iter().any(|name| name.strip_suffix(&[0]).unwrap_or(name) == &owner[..end]);
    let (is_core, is_cpu) = (is([OWNERS.core, OWNERS_2010.core]), is([OWNERS.cpu, OWNERS_2010.cpu]));
    match note_type {
        NT_VBOXCORE if is_core => Some(Kind::Core),
        NT_VBOXCPU if is_cpu => Some(Kind::Cpu),
        NT_REVENCPU if is_cpu => Some(Kind::Reven),
        _ => None,
    }
}

/// VirtualBox's notes of a list, and the others.
pub(crate) fn split(notes: Vec<Note>) -> (Vec<Note>, Vec<Note>) {
    notes.into_iter().partition(|note| kind_of(&note.name, note.note_type).is_some())
}

/// The notes of `machine` in the form of a release.
pub(crate) fn new(machine: &Machine, release: &Release) -> Vec<Note> {
    let descriptor = CoreDescriptor {
        magic: U32::new(CORE_MAGIC),
        format_version: U32::new(release.format_version),
        len: U32::new(u32::try_from(size_of::<CoreDescriptor>()).unwrap_or(0)),
        vbox_version: U32::new(release.vbox_version),
        revision: U32::new(OUR_REVISION),
        cpu_count: U32::new(u32::try_from(machine.vcpus.len()).unwrap_or(u32::MAX)),
    };
    let note = |owner: &[u8], note_type, desc| Note { name: owner.to_vec(), note_type, desc };
    let mut notes = vec![note(release.owners.core, NT_VBOXCORE, descriptor.as_bytes().to_vec())];
    notes.extend(machine.vcpus.iter().map(|vcpu| {
        let bytes = Cpu::new(release.record, vcpu.registers()).into_bytes();
        note(release.owners.cpu, NT_VBOXCPU, bytes)
    }));
    notes
}

/// The notes that the machine came with, with the registers that it has now.
pub(crate) fn renewed(machine: &Machine, mut carried: Vec<Note>) -> Vec<Note> {
    let version =
        carried.iter().find_map(Descriptor::of_note).map_or(0, |descriptor| descriptor.vbox_version);
    let mut vcpus = machine.vcpus.iter();
    for note in carried.iter_mut().filter(|note| is_of_kind(note, Kind::Cpu)) {
        let Some(vcpu) = vcpus.next() else { break };
        if let Some(mut cpu) = Cpu::of_bytes(&note.desc, version) {
            cpu.update(vcpu.registers());
            note.desc = cpu.into_bytes();
        }
    }
    carried
}

/// Whether a note is of this kind.
pub(crate) fn is_of_kind(note: &Note, kind: Kind) -> bool {
    kind_of(&note.name, note.note_type) == Some(kind)
}

/// What a core descriptor of either form says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) magic: u32,
    /// `None` for the form that has none.
    pub(crate) format_version: Option<u32>,
    pub(crate) vbox_version: u32,
    pub(crate) revision: u64,
    pub(crate) cpu_count: u32,
}

impl Descriptor {
    /// What the note says, if it is one and long enough.
    pub(crate) fn of_note(note: &Note) -> Option<Self> {
        let desc = Some(&note.desc).filter(|_| is_of_kind(note, Kind::Core))?;
        let (current, _) = CoreDescriptor::read_from_prefix(desc).ok()?;
        if current.format_version.get() == 0
            && let Ok((early, _)) = EarlyDescriptor::read_from_prefix(desc)
        {
            return Some(Self {
                magic: early.magic.get(),
                format_version: None,
                vbox_version: u32::try_from(early.vbox_version.get()).unwrap_or(0),
                revision: early.revision.get(),
                cpu_count: early.cpu_count.get(),
            });
        }
        Some(Self {
            magic: current.magic.get(),
            format_version: Some(current.format_version.get()),
            vbox_version: current.vbox_version.get(),
            revision: current.revision.get().into(),
            cpu_count: current.cpu_count.get(),
        })
    }
}

/// Takes over the registers of VirtualBox's notes, of so many vCPUs at the most, and the notes themselves.
///
/// Of what we wrote ourselves all that is known is in the other notes, too: there, what is not known is no zero. Its form is all
/// that these notes then say.
///
/// Gives what is odd about the CPU records.
pub(crate) fn take(machine: &mut Machine, notes: Vec<Note>, max_vcpus: usize) -> Vec<String> {
    let descriptor = notes.iter().find_map(Descriptor::of_note);
    let version = descriptor.map_or(0, |descriptor| descriptor.vbox_version);
    let is_ours = descriptor.is_some_and(|descriptor| descriptor.revision == OUR_REVISION.into());
    let told = if is_ours { machine.vcpus.len() } else { 0 };
    let of_kind = |kind| notes.iter().filter(move |note| is_of_kind(note, kind));
    let records = of_kind(Kind::Cpu).take(max_vcpus).enumerate().skip(told);
    let wrong = records.filter_map(|(index, note)| take_cpu(machine, index, &note.desc, version)).collect();
    for (vcpu, note) in machine.vcpus.iter_mut().zip(of_kind(Kind::Reven)) {
        let known = RevenCpu::read_from_prefix(&note.desc).ok().map(|(known, _)| known);
        if let Some(known) = known.filter(|known| known.magic.get() == REVEN_MAGIC) {
            vcpu.add_register("cr8", &known.cr8.get().to_le_bytes());
        }
    }
    let descriptors = |notes: &[Note]| notes.first().cloned();
    let is_plain = told == machine.vcpus.len()
        && notes.len() == 1 + told
        && descriptors(&notes) == descriptors(&new(machine, CURRENT));
    if !is_plain {
        machine.notes.splice(0..0, notes);
    }
    wrong
}

/// Takes over the registers of one CPU record; gives what is wrong with it.
fn take_cpu(machine: &mut Machine, index: usize, desc: &[u8], version: u32) -> Option<String> {
    let arch = machine.arch?;
    if index >= machine.vcpus.len() {
        machine.vcpus.push(Vcpu::new(RegisterFile::new(arch.registers())));
    }
    let vcpu = machine.vcpus.get_mut(index)?;
    let Some(cpu) = Cpu::of_bytes(desc, version) else {
        let len = desc.len();
        return Some(format!("the registers of vCPU {index} are in a form of {len} bytes that is not known"));
    };
    for (_, row, value) in cpu.registers(arch.registers()).iter() {
        vcpu.add_register(row.name, value);
    }
    None
}
