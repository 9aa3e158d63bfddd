//! `vmcore info`: what a dump or a live guest holds.

use crate::args::InfoArgs;
use crate::failure::{Exit, Outcome};
use crate::kernel::{self, Kernel, NoteOrigin};
use crate::visit::{Kind, Visit, Visited};
use crate::{input, text};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use vmcore::filter::Level;
use vmcore::{
    Class, Endianness, Finding, Machine, Mapping, Note, Region, RegionKind, Severity, Vcpu, Vmcoreinfo, arch,
    own_note, register::Hex,
};

/// Registers that are shown of each vCPU unless `--registers` asks for all, by the groups that matter most.
const SHOWN: [vmcore::Group; 2] = [vmcore::Group::Control, vmcore::Group::General];

/// How long a guest may stand still to be looked at, which takes milliseconds.
const MAX_PAUSE: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &InfoArgs) -> Outcome {
    let visit = Visit { subject: &args.subject, max_pause: Some(MAX_PAUSE), quiet: false };
    // Of memory only what the kernel says of itself is looked at.
    let (mut subject, released) = visit.make(|visited, _| Ok(Subject::of(&visit, visited)))?;
    if let Some(released) = released {
        subject.description += &format!(", {}", released.state);
    }
    subject.note.warn();
    if args.json {
        text::print_json(&subject)?;
    } else {
        text::print(subject.as_text(args.registers).as_bytes())?;
    }
    Ok(Exit::Complete)
}

/// What is shown.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// In a line: the format and length of a dump, or the emulator.
    description: String,
    /// The files of a dump; none of a live guest.
    files: Vec<String>,
    format: Option<&'static str>,
    /// What is around the format.
    wrapper: Option<&'static str>,
    pub(crate) machine: Machine,
    kernel: Option<Kernel>,
    /// Where the guest's note comes from.
    pub(crate) note: NoteOrigin,
}

impl Subject {
    /// What is visited.
    pub(crate) fn of(visit: &Visit<'_>, visited: Visited) -> Self {
        let Visited { machine, note, kind } = visited;
        let inputs = &visit.subject.inputs;
        let (description, files, format, wrapper) = match kind {
            Kind::Guest(description) => (description, Vec::new(), None, None),
            Kind::Dump { format, wrapper, file_len } => {
                let split = match inputs.len() {
                    1 => String::new(),
                    count => format!("split in {}, ", text::count(count as u64, "file")),
                };
                let (name, len) = (input::format_text(format, wrapper), text::size(file_len));
                (format!("format {name}, {split}{len}"), inputs.clone(), Some(format), wrapper)
            }
        };
        let kernel = Kernel::of(&machine);
        Self { name: visit.name(), description, files, format, wrapper, machine, kernel, note }
    }

    pub(crate) fn as_text(&self, all_registers: bool) -> String {
        let machine = &self.machine;
        let identity = &machine.identity;
        let mut out = text::visible(&format!("{}: {}", self.name, self.description));
        out.push('\n');
        let arch =
            machine.arch.map_or_else(|| "unknown architecture".to_owned(), |arch| arch.name().to_owned());
        out += &format!(
            "machine   {arch} (ELF machine {}), {}, {}, {}\n",
            identity.elf_machine,
            identity.class,
            identity.endianness,
            text::count(machine.vcpus.len() as u64, "vCPU")
        );
        self.push_kernel(&mut out);
        let header = &machine.header;
        if let Some(uts) = &header.uts {
            out += &text::visible(&format!("uname     {}", kernel::uname(uts)));
            out.push('\n');
        }
        if header.uts.is_some() || header.dump_level > 0 {
            out += &format!("level     {}\n", level_text(header.dump_level));
        }
        let regions = machine.memory.regions();
        out += &format!(
            "memory    {} in {}\n",
            text::size(machine.ram_len()),
            text::count(regions.len() as u64, "region")
        );
        for region in regions.iter().take(64) {
            let kind = if region.kind == RegionKind::Ram { "" } else { "  no bytes (MMIO)" };
            let last = region.end().0.wrapping_sub(1);
            out += &format!("  {:#018x}-{last:#018x}  {}{kind}\n", region.gpa.0, text::size(region.len));
        }
        if regions.len() > 64 {
            out += &format!("  and {} more (--json lists them all)\n", regions.len() - 64);
        }
        if !machine.mappings.is_empty() {
            out += &format!(
                "          with {} of virtual addresses\n",
                text::count(machine.mappings.len() as u64, "range")
            );
        }
        out += &format!("notes     {}\n", self.notes());
        for (index, vcpu) in machine.vcpus.iter().enumerate() {
            out += &format!("vCPU {index}\n");
            let is_shown = |group| all_registers || SHOWN.contains(&group);
            let registers = vcpu.registers().iter().filter(|(_, row, _)| is_shown(row.group));
            let cells: Vec<String> =
                registers.map(|(_, row, value)| format!("{:<8} {}", row.name, Hex(value))).collect();
            for line in cells.chunks(3) {
                let cells: Vec<String> = line.iter().map(|cell| format!("{cell:<29}")).collect();
                out += &format!("  {}\n", cells.join(" ").trim_end());
            }
        }
        for finding in &machine.findings {
            out += &text::visible(&finding_text(finding));
            out.push('\n');
        }
        out
    }

    /// The lines about the guest's kernel.
    fn push_kernel(&self, out: &mut String) {
        let summary = self.kernel.as_ref().map(Kernel::summary);
        let summary = summary.unwrap_or_else(|| "unknown: there is no VMCOREINFO note".to_owned());
        let origin = self.note.as_text().map(|origin| ("note", origin));
        let others = self.note.others().map(|other| ("also", other));
        // The header says it in a line of its own.
        let is_shown = |(name, _): &(&str, String)| *name != "uname" || self.machine.header.uts.is_none();
        let details = self.kernel.iter().flat_map(Kernel::details).filter(is_shown);
        let details = details.chain(origin).chain(others);
        out.push_str(&text::visible(&format!("kernel    {summary}")));
        for (name, value) in details {
            out.push('\n');
            out.push_str(&text::visible(&format!("  {name:<8} {value}")));
        }
        out.push('\n');
    }

    /// The notes by kind, each with how many there are.
    fn notes(&self) -> String {
        let mut kinds: Vec<(String, usize)> = Vec::new();
        for note in self.machine.encode_notes() {
            let name = note_name(&self.machine, &note);
            match kinds.iter_mut().find(|(kind, _)| *kind == name) {
                Some((_, count)) => *count += 1,
                None => kinds.push((name, 1)),
            }
        }
        let kinds = kinds
            .iter()
            .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{name} x{count}") });
        let kinds: Vec<String> = kinds.collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
    }
}

/// A list of JSON values, each of which lives only while it is written: a dump can have millions of them.
pub(crate) struct List<F>(pub(crate) F);

impl<F: Fn() -> I, I: Iterator<Item = Value>> Serialize for List<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let machine = &self.machine;
        let identity = &machine.identity;
        let dump = machine.dump_info();
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("name", &self.name)?;
        out.serialize_entry("description", &self.description)?;
        out.serialize_entry("files", &self.files)?;
        out.serialize_entry("format", &self.format)?;
        out.serialize_entry("wrapper", &self.wrapper)?;
        out.serialize_entry("dump_level", &machine.header.dump_level)?;
        out.serialize_entry("uts", &machine.header.uts.as_ref().map(kernel::uts_json))?;
        out.serialize_entry("architecture", &machine.arch.map(arch::Arch::name))?;
        out.serialize_entry("elf_machine", &identity.elf_machine)?;
        out.serialize_entry("class", if identity.class == Class::Elf32 { &32 } else { &64 })?;
        let is_little = identity.endianness == Endianness::Little;
        out.serialize_entry("endianness", if is_little { "little" } else { "big" })?;
        out.serialize_entry("page_size", &dump.page_size)?;
        out.serialize_entry("phys_base", &dump.phys_base)?;
        out.serialize_entry("ram_len", &machine.ram_len())?;
        let region = |region: &Region| {
            let kind = if region.kind == RegionKind::Ram { "ram" } else { "mmio" };
            json!({ "gpa": region.gpa.0, "len": region.len, "kind": kind })
        };
        out.serialize_entry("regions", &List(|| machine.memory.regions().iter().map(region)))?;
        let mapping = |m: &Mapping| json!({ "gva": m.gva.0, "gpa": m.gpa.0, "len": m.len });
        out.serialize_entry("mappings", &List(|| machine.mappings.iter().map(mapping)))?;
        let notes = machine.encode_notes();
        let note = |note: &Note| {
            json!({
                "owner": String::from_utf8_lossy(note.owner()),
                "type": note.note_type,
                "name": note_name(machine, note),
                "len": note.desc.len(),
            })
        };
        out.serialize_entry("notes", &List(|| notes.iter().map(note)))?;
        let vcpu = |(index, vcpu): (usize, &Vcpu)| {
            // Values are strings: many JSON readers lose the low bits of large numbers.
            let registers = vcpu.registers().iter();
            let registers =
                registers.map(|(_, row, value)| (row.name.to_owned(), Hex(value).to_string().into()));
            json!({ "index": index, "registers": registers.collect::<Map<String, Value>>() })
        };
        out.serialize_entry("vcpus", &List(|| machine.vcpus.iter().enumerate().map(vcpu)))?;
        out.serialize_entry("kernel", &self.kernel.as_ref().map(Kernel::as_json))?;
        out.serialize_entry("note", &self.note.as_json())?;
        out.serialize_entry("vmcoreinfo", &machine.vmcoreinfo().as_ref().map(by_key))?;
        out.serialize_entry("is_incomplete", &machine.is_incomplete)?;
        out.serialize_entry("findings", &List(|| machine.findings.iter().map(finding_json)))?;
        out.end()
    }
}

/// A dump level and what it left out, as in `24: without user and free pages`. Zero pages, bit 1, are there all the same: stored
/// once.
fn level_text(level: u32) -> String {
    let set = Level::BITS.into_iter().filter(|(bit, _)| level & bit.number() != 0 && *bit != Level::ZERO);
    let left_out: Vec<&str> = set.map(|(_, pages)| pages).collect();
    match &left_out[..] {
        [] => format!("{level}: all pages"),
        names => format!("{level}: without {} pages", text::list(names)),
    }
}

/// The lines by key: of those with one key the first counts, as in [`Vmcoreinfo::get`].
fn by_key(info: &Vmcoreinfo) -> BTreeMap<&str, &str> {
    let mut lines = BTreeMap::new();
    for (key, value) in info.iter() {
        lines.entry(key).or_insert(value);
    }
    lines
}

/// `CORE/NT_PRSTATUS`, or the type in hex where no table knows it.
fn note_name(machine: &Machine, note: &Note) -> String {
    let tables = machine.arch.map_or(&[][..], arch::Arch::notes);
    let owner = String::from_utf8_lossy(note.owner()).escape_debug().to_string();
    match tables.iter().find(|table| table.matches(note)) {
        Some(table) => format!("{owner}/{}", table.name),
        None if note.is_vmcoreinfo() => owner,
        None if note.is(own_note::OWNER, own_note::NT_VMCORE_REGISTERS) => format!("{owner}/registers"),
        None if note.is(own_note::OWNER, own_note::NT_VMCORE_HEADER) => format!("{owner}/header"),
        None => format!("{owner}/{:#x}", note.note_type),
    }
}

pub(crate) fn finding_text(finding: &Finding) -> String {
    let severity = if finding.severity == Severity::Error { "error" } else { "note" };
    let offset = finding.offset.map(|offset| format!(" at offset {offset:#x}")).unwrap_or_default();
    format!("{severity}{offset}: {}", finding.text)
}

pub(crate) fn finding_json(finding: &Finding) -> Value {
    let severity = if finding.severity == Severity::Error { "error" } else { "note" };
    json!({ "severity": severity, "offset": finding.offset, "text": finding.text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::NoteArgs;

    fn demo() -> Subject {
        let mut machine = vmcore::synth::demo::machine("x86_64").unwrap();
        let note = NoteOrigin::complete_from(&mut machine, &NoteArgs::default(), &[]);
        Subject {
            name: "demo.vmcore".into(),
            description: "format elf, 32 MiB".into(),
            files: vec!["demo.vmcore".into()],
            format: Some("elf"),
            wrapper: None,
            kernel: Kernel::of(&machine),
            note,
            machine,
        }
    }

    #[test]
    fn levels() {
        assert_eq!(level_text(1), "1: all pages");
        assert_eq!(level_text(17), "17: without free pages");
        assert_eq!(level_text(31), "31: without cache, private cache, user and free pages");
    }

    #[test]
    fn text_for_people() {
        insta::assert_snapshot!(demo().as_text(false));
    }

    #[test]
    fn json_for_programs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&demo()).unwrap());
    }
}
