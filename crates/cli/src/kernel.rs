//! The guest's kernel: its VMCOREINFO, wherever that comes from, and what `info` shows of it.

use crate::args::NoteArgs;
use crate::{job, text};
use anyhow::{Context, anyhow};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vmcore::machine::Uts;
use vmcore::vmcoreinfo::log::Log;
use vmcore::vmcoreinfo::{
    self, Candidate, Evidence, Found, Level, Origin, Outcome, Shape, Way, note, uname_search, uts,
};
use vmcore::{DumpState, Gpa, Machine, Note, Vmcoreinfo};

/// The most that is read of a file that holds VMCOREINFO; real ones have 4 KiB.
const MAX_FILE_LEN: u64 = 1 << 20;
/// Modes of riscv64's `satp`, in its highest four bits, and the bits of an address in each.
///
/// Source: RISC-V privileged specification, "Supervisor Address Translation and Protection Register".
const SATP_MODES: [(u64, u32); 3] = [(8, 39), (9, 48), (10, 57)];

/// Reads the note that the user supplies: the text of VMCOREINFO, or a note with its header.
pub(crate) fn read_note(path: &Path) -> anyhow::Result<Note> {
    let context = || format!("cannot take VMCOREINFO from {}", path.display());
    let file = File::open(path).with_context(context)?;
    let mut bytes = Vec::new();
    // A device or a pipe does not tell how long it is.
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        let limit = text::size(MAX_FILE_LEN);
        return Err(anyhow!("it has more than {limit}, and no kernel tells that much").context(context()));
    }
    let expected = || anyhow!("it begins neither with OSRELEASE= nor with the header of such a note");
    note::of_bytes(bytes).ok_or_else(expected).with_context(context)
}

/// Where a machine's note comes from.
#[derive(Debug, Default)]
pub(crate) struct NoteOrigin {
    pub(crate) outcome: Outcome,
    /// The file that the user has supplied.
    pub(crate) file: Option<PathBuf>,
}

impl NoteOrigin {
    /// Sees to it that the machine has its guest's note, by a search of its memory where needed, unless the user forbids that.
    pub(crate) fn complete(
        machine: &mut Machine,
        args: &NoteArgs,
        quiet: bool,
        state: &DumpState,
    ) -> anyhow::Result<Self> {
        if args.no_vmcoreinfo_search {
            return Ok(Self::complete_from(machine, args, &[]));
        }
        let outcome = job::with_progress(quiet, state, || vmcoreinfo::complete(machine, &[], state));
        let outcome = outcome.context("the search for the guest's VMCOREINFO did not end")?;
        Ok(Self::new(outcome, machine, args))
    }

    /// As [`NoteOrigin::complete`], with nothing but what is `known` instead of a search.
    pub(crate) fn complete_from(machine: &mut Machine, args: &NoteArgs, known: &[Candidate]) -> Self {
        let outcome = vmcoreinfo::complete_from(machine, known);
        Self::new(outcome, machine, args)
    }

    fn new(mut outcome: Outcome, machine: &Machine, args: &NoteArgs) -> Self {
        let file = args.vmcoreinfo.clone();
        if let (Some(path), Some(Origin::Own(Some(evidence)))) = (&file, &outcome.origin)
            && machine.arch.is_some()
            && evidence.level() == Level::Text
            && !evidence.is_denied()
        {
            let path = path.display();
            outcome.warnings.push(format!("nothing in the guest's memory confirms the VMCOREINFO of {path}"));
        }
        Self { outcome, file }
    }

    /// Where the note lies in the guest's memory, header and text, if that is known.
    pub(crate) fn place(&self) -> Option<(Gpa, u64)> {
        let Some(Origin::Found(Found { candidate, .. })) = &self.outcome.origin else { return None };
        Some((candidate.gpa, candidate.note().encoded_len() as u64))
    }

    /// Says on standard error what was found, and what the user must know of it.
    pub(crate) fn say(&self, quiet: bool) {
        if let Some(Origin::Found(found)) = self.outcome.origin.as_ref().filter(|_| !quiet) {
            text::say(&format!("VMCOREINFO was found in the guest's memory: {found}"));
        }
        self.warn();
    }

    /// Says on standard error what the user must know.
    pub(crate) fn warn(&self) {
        for warning in &self.outcome.warnings {
            text::say(&format!("vmcore: warning: {warning}"));
        }
    }

    /// In a line: where the note comes from, if the dump did not have it.
    pub(crate) fn as_text(&self) -> Option<String> {
        match &self.outcome.origin {
            Some(Origin::Found(Found { candidate, way, evidence })) => {
                let way = if *way == Way::Pointer { "by the kernel's pointer" } else { "in memory" };
                Some(format!("found {way} at {}, confirmed by {}", candidate.gpa, evidence.level()))
            }
            Some(Origin::Own(_)) => self.file.as_ref().map(|path| format!("of {}", path.display())),
            None => None,
        }
    }

    /// What else was found, a line each.
    pub(crate) fn others(&self) -> impl Iterator<Item = String> {
        self.outcome.others.iter().map(ToString::to_string)
    }

    pub(crate) fn as_json(&self) -> Value {
        let Outcome { origin, others, warnings } = &self.outcome;
        let mut json = match origin {
            None => json!({}),
            Some(Origin::Own(evidence)) => json!({ "evidence": evidence.as_ref().map(evidence_json) }),
            Some(Origin::Found(found)) => found_json(found),
        };
        json["origin"] = match origin {
            None => Value::Null,
            Some(Origin::Own(_)) if self.file.is_some() => "user".into(),
            Some(Origin::Own(_)) => "dump".into(),
            Some(Origin::Found(Found { way: Way::Pointer, .. })) => "pointer".into(),
            Some(Origin::Found(_)) => "search".into(),
        };
        json["others"] = others.iter().map(found_json).collect();
        json["warnings"] = json!(warnings);
        json
    }
}

/// Lets the machine's header name the kernel of a guest without VMCOREINFO, by a search of its memory.
pub(crate) fn search_uname(machine: &mut Machine, quiet: bool, state: &DumpState) -> anyhow::Result<()> {
    let found = job::with_progress(quiet, state, || uname_search::complete(machine, state));
    for uts in found.context("the search for the name of the guest's kernel did not end")? {
        let name = uname(&uts);
        text::say(&format!(
            "vmcore: warning: memory has the names of several kernels, none is taken: {name}"
        ));
    }
    Ok(())
}

fn found_json(found: &Found) -> Value {
    let info = found.candidate.info();
    json!({
        "gpa": found.candidate.gpa.0,
        "has_header": found.candidate.shape == Shape::Note,
        "release": info.release(),
        "kaslr_offset": info.hex("KERNELOFFSET"),
        "evidence": evidence_json(&found.evidence),
    })
}

fn evidence_json(evidence: &Evidence) -> Value {
    json!({ "uname": evidence.uname, "page_tables": evidence.page_tables, "vcpu": evidence.vcpu })
}

/// What VMCOREINFO and memory say of the kernel.
pub(crate) struct Kernel {
    info: Vmcoreinfo,
    page_size: u64,
    /// Only where a kernel states it.
    phys_base: Option<i64>,
    /// What its `uname` says.
    uts: Option<Uts>,
    /// How long it had been up when it last printed something.
    uptime: Option<Duration>,
}

impl Kernel {
    /// The kernel of a machine that has a note.
    pub(crate) fn of(machine: &Machine) -> Option<Self> {
        let info = machine.vmcoreinfo()?;
        let dump = machine.dump_info();
        let phys_base = info.number("phys_base").map(|_| dump.phys_base);
        // The rest is in memory.
        let kernel = machine.kernel().ok().filter(|_| !machine.memory.is_sequential());
        let uts = kernel.as_ref().and_then(|kernel| uts::read(kernel).ok());
        let uptime = kernel.as_ref().and_then(uptime);
        Some(Self { info, page_size: dump.page_size, phys_base, uts, uptime })
    }

    fn release(&self) -> &str {
        self.info.release().unwrap_or("of unknown release")
    }

    fn kaslr_offset(&self) -> Option<u64> {
        self.info.hex("KERNELOFFSET")
    }

    fn build_id(&self) -> Option<&str> {
        self.info.get("BUILD-ID")
    }

    /// Bits of a virtual address.
    fn va_bits(&self) -> Option<u64> {
        let number = |name| self.info.number(name);
        let mode = |satp: u64| SATP_MODES.into_iter().find(|(mode, _)| *mode == satp >> 60);
        number("VA_BITS")
            .or_else(|| number("pgtable_l5_enabled").map(|enabled| if enabled == 0 { 48 } else { 57 }))
            .or_else(|| number("satp").and_then(mode).map(|(_, bits)| bits.into()))
    }

    /// Seconds since 1970.
    fn crash_time(&self) -> Option<u64> {
        self.info.get("CRASHTIME")?.trim().parse().ok()
    }

    /// In a line.
    pub(crate) fn summary(&self) -> String {
        let mut parts = vec![self.release().to_owned(), format!("pages of {}", text::size(self.page_size))];
        parts.extend(self.kaslr_offset().map(|offset| format!("KASLR offset {offset:#x}")));
        parts.extend(self.phys_base.map(|phys_base| {
            let sign = if phys_base < 0 { "-" } else { "" };
            format!("phys_base {sign}{:#x}", phys_base.unsigned_abs())
        }));
        parts.extend(self.va_bits().map(|bits| format!("addresses of {bits} bits")));
        parts.join(", ")
    }

    /// What else is known, a name and a value each.
    pub(crate) fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = Vec::new();
        details.extend(self.uts.as_ref().map(|uts| ("uname", uname(uts))));
        details.extend(self.build_id().map(|id| ("build id", id.to_owned())));
        details.extend(self.uptime.map(|uptime| {
            let seconds = uptime.as_secs_f64();
            ("up", format!("{seconds:.6} s or more: that was when it last printed something"))
        }));
        details.extend(self.crash_time().map(|time| ("crashed", text::utc(time))));
        details
    }

    pub(crate) fn as_json(&self) -> Value {
        json!({
            "release": self.info.release(),
            "build_id": self.build_id(),
            "page_size": self.page_size,
            "kaslr_offset": self.kaslr_offset(),
            "phys_base": self.phys_base,
            "va_bits": self.va_bits(),
            "crash_time": self.crash_time(),
            "uts": self.uts.as_ref().map(uts_json),
            "uptime_s": self.uptime.map(|uptime| uptime.as_secs_f64()),
        })
    }
}

/// What `uname` says, in a line.
pub(crate) fn uname(uts: &Uts) -> String {
    let fields = uts.fields().map(|(_, value)| value.as_str());
    let known: Vec<&str> = fields.into_iter().filter(|value| !value.is_empty()).collect();
    known.join(" ")
}

pub(crate) fn uts_json(uts: &Uts) -> Value {
    let fields = uts.fields().into_iter();
    fields.map(|(name, value)| (name.to_owned(), value.as_str().into())).collect::<Map<_, _>>().into()
}

/// The time of the last record of the log that can be read.
fn uptime(kernel: &vmcore::Kernel) -> Option<Duration> {
    let log = Log::open(kernel).ok()?;
    let times = log.records().filter_map(|record| record.ok()?.timestamp_ns);
    times.last().map(Duration::from_nanos)
}
