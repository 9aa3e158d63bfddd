//! `vmcore bt`: the backtrace of each vCPU.

use crate::args::BtArgs;
use crate::failure::{Exit, Outcome};
use crate::job;
use crate::text;
use crate::visit::Visit;
use crate::vmlinux::Vmlinux;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use vmcore::Machine;
use vmcore::backtrace::{Backtrace, End, Error, Frame, Unwinder, Way, image};

/// How long a guest may stand still for its backtraces, which take milliseconds.
const MAX_PAUSE: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &BtArgs) -> Outcome {
    let vmlinux = Vmlinux::of(&args.vmlinux)?;
    let visit = Visit { subject: &args.subject, max_pause: Some(MAX_PAUSE), quiet: false };
    let name = visit.name();
    let (report, _) = visit.make(|visited, _| {
        visited.note.say(false);
        let report = Report::of(&visited.machine, args, vmlinux.as_ref());
        report.with_context(|| format!("cannot make a backtrace of {name}"))
    })?;
    report.warn();
    if args.json {
        text::print_json(&report.as_json(&name))?;
    } else {
        text::on_stdout(|out| Ok(out.write_all(report.as_text().as_bytes())?))?;
    }
    Ok(Exit::Complete)
}

/// What was found.
struct Report {
    vcpus: Vec<(usize, Backtrace)>,
    /// Why there are no names.
    nameless: Option<String>,
    warnings: Vec<String>,
    /// How gdb takes the symbols of the vmlinux.
    gdb: Option<String>,
}

impl Report {
    fn of(machine: &Machine, args: &BtArgs, vmlinux: Option<&Vmlinux>) -> anyhow::Result<Self> {
        ensure!(!machine.vcpus.is_empty(), "it has no registers, which tell where a stack begins");
        let mut warnings = job::damage(machine);
        if let Some(vmlinux) = vmlinux {
            warnings.extend(vmlinux.check(machine)?);
            let (path, image) = (&vmlinux.path, &vmlinux.image);
            for (has, what) in
                [(image.has_call_frames(), "call-frame information"), (image.has_symbols(), "symbols")]
            {
                if !has {
                    warnings.push(format!("{path} has no {what}: it was stripped"));
                }
            }
        }
        let unwinder = Unwinder::new(machine, vmlinux.map(|vmlinux| &vmlinux.image))?;
        let indexes = match args.vcpu {
            Some(index) => index..index + 1,
            None => 0..machine.vcpus.len(),
        };
        let traced = indexes.map(|index| Ok((index, unwinder.backtrace(index)?)));
        let vcpus = traced.collect::<anyhow::Result<Vec<_>>>()?;
        let nameless = unwinder.symbols().err().map(|error| error.to_string());
        warnings.extend(
            unwinder
                .modules_error()
                .map(|error| format!("functions of modules have no names: {}", error.with_causes())),
        );
        let gdb =
            vmlinux.zip(unwinder.slide()).map(|(vmlinux, slide)| image::gdb_command(&vmlinux.path, slide));
        Ok(Self { vcpus, nameless, warnings, gdb })
    }

    fn warn(&self) {
        let nameless = self
            .nameless
            .iter()
            .map(|why| format!("functions have no names, --vmlinux FILE gives them: {why}"));
        for warning in self.warnings.iter().cloned().chain(nameless) {
            text::say(&format!("vmcore: warning: {warning}"));
        }
    }

    fn as_text(&self) -> String {
        let texts: Vec<String> =
            self.vcpus.iter().map(|(index, backtrace)| text_of(*index, backtrace)).collect();
        texts.join("\n")
    }

    fn as_json(&self, name: &str) -> Value {
        let vcpus = self.vcpus.iter().map(|(index, backtrace)| {
            json!({
                "index": index,
                "frames": backtrace.frames.iter().map(frame_json).collect::<Vec<_>>(),
                "end": end_name(&backtrace.end),
                "is_complete": backtrace.end.is_complete(),
                "end_text": backtrace.end.to_string(),
                "source_error": backtrace.source_error.as_ref().map(Error::with_causes),
            })
        });
        json!({
            "name": name,
            "vcpus": vcpus.collect::<Vec<_>>(),
            "symbols_error": self.nameless,
            "warnings": self.warnings,
            "gdb_command": self.gdb,
        })
    }
}

/// The backtrace of the vCPU `index`: its frames in a line each, and why it ends or has stopped, if not at the outermost.
pub(crate) fn text_of(index: usize, backtrace: &Backtrace) -> String {
    let mut out = format!("vCPU {index}\n");
    out.extend(backtrace.frames.iter().enumerate().map(|(number, frame)| frame_text(number, frame)));
    let end = match &backtrace.end {
        End::Outermost => None,
        end if end.is_complete() => Some(end.to_string()),
        end => Some(format!("stopped: {end}")),
    };
    let unlined = backtrace.source_error.as_ref();
    let unlined = unlined.map(|error| format!("lines of the source are missing: {}", error.with_causes()));
    out.extend(end.into_iter().chain(unlined).map(|line| format!("  {}\n", text::visible(&line))));
    out
}

/// A frame in a line: `#1  0xffffffff8152a5a3  default_idle_call+0x23  at kernel/sched/idle.c:109  (orc)`.
fn frame_text(number: usize, frame: &Frame) -> String {
    let name = frame
        .location
        .as_ref()
        .map_or_else(|| "?".to_owned(), |location| text::visible(&location.to_string()));
    let module =
        frame.module.as_ref().map(|module| format!(" [{}]", text::visible(module))).unwrap_or_default();
    let source = frame.source.as_ref();
    let source =
        source.map_or_else(String::new, |source| format!("  at {}", text::visible(&source.to_string())));
    let way = match frame.way {
        Way::Registers => String::new(),
        way => format!("  ({})", way.name()),
    };
    format!("  #{number:<3} {:#018x}  {name}{module}{source}{way}\n", frame.pc.0)
}

fn frame_json(frame: &Frame) -> Value {
    json!({
        "pc": frame.pc.0,
        "sp": frame.stack_pointer.map(|gva| gva.0),
        "function": frame.location.as_ref().map(|location| &location.name),
        "offset": frame.location.as_ref().and_then(|location| location.offset),
        "module": frame.module.as_deref(),
        "file": frame.source.as_ref().map(|source| &source.file),
        "line": frame.source.as_ref().map(|source| source.line),
        "by": frame.way.name(),
    })
}

/// A name for programs.
fn end_name(end: &End) -> &'static str {
    match end {
        End::Outermost => "outermost",
        End::InProgram => "in program",
        End::FromProgram(_) => "from program",
        End::Unknown => "unknown",
        End::NoCode(_) => "no code",
        End::Foreign(_) => "foreign",
        End::Repeats => "repeats",
        End::TooMany => "too many",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::Gva;
    use vmcore::backtrace::{Location, Source};

    fn report() -> Report {
        let frame = |pc, name: Option<&str>, way| Frame {
            pc: Gva(pc),
            stack_pointer: (way == Way::Registers).then_some(Gva(0xffff_8880_0001_2340)),
            location: name.map(|name| Location { name: name.to_owned(), offset: Some(pc & 0xfff) }),
            module: None,
            source: None,
            way,
        };
        let line = |line| Some(Source { file: "arch/x86/include/asm/irqflags.h".to_owned(), line });
        let inlined = Frame {
            location: Some(Location { name: "arch_safe_halt".to_owned(), offset: None }),
            source: line(52),
            ..frame(0xffff_ffff_8120_d00b, None, Way::Inlined)
        };
        let frames = vec![
            inlined,
            Frame {
                source: line(173),
                ..frame(0xffff_ffff_8120_d00b, Some("native_safe_halt"), Way::Registers)
            },
            frame(0xffff_ffff_8120_d00a, Some("default_idle\x1b[31m"), Way::Orc),
            Frame {
                module: Some("virtio_net".into()),
                ..frame(0xffff_ffff_c012_3456, None, Way::FrameRecord)
            },
        ];
        let backtrace = |frames, end| Backtrace { frames, end, source_error: None };
        let program = vec![frame(0x40_1234, None, Way::Registers)];
        Report {
            vcpus: vec![
                (0, backtrace(frames, End::Outermost)),
                (1, backtrace(program, End::InProgram)),
                (2, backtrace(Vec::new(), End::NoCode(Gva(2)))),
            ],
            nameless: None,
            warnings: vec!["something".to_owned()],
            gdb: Some(image::gdb_command("vmlinux", 0x2f80_0000)),
        }
    }

    #[test]
    fn text_for_people() {
        insta::assert_snapshot!(report().as_text());
    }

    #[test]
    fn json_for_programs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report().as_json("guest.vmcore")).unwrap());
    }
}
