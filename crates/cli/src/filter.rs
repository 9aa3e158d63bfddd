//! `-d LEVEL`: leaving out pages, for `capture` and `convert` alike.
//!
//! [`Plan::new`] comes while a live guest runs, so that what cannot be done fails before it is stopped; [`Plan::apply`] when it
//! stands still.

use crate::args::WriteArgs;
use crate::failure::Hint;
use crate::kernel::NoteOrigin;
use crate::{job, text};
use anyhow::anyhow;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use vmcore::filter::{Filter, Level, Report, ScanOptions, Selection};
use vmcore::{DumpState, Error, Format, Kernel, Machine, PhysMemory};

/// Gaps of fewer pages are not worth a segment (`spec/filter.md` section 10.2).
const MIN_GAP: u64 = 256;

/// What is to be left out, and how it is found.
pub(crate) struct Plan {
    how: How,
    /// Whether the dump holds only a range of the memory that is filtered.
    is_part: bool,
    options: ScanOptions,
}

enum How {
    /// Pages, by the guest's own records.
    Filter(Box<Filter>),
    /// Nothing but zero pages: no more was asked for, or no more can be told.
    Full {
        asked: Level,
        /// Why no more can be told, if more was asked for.
        why: Option<String>,
    },
}

impl Plan {
    /// Sees to it that the level that `args` ask for can be done; `None` if they ask for none.
    ///
    /// `note` says where VMCOREINFO lies: that is never left out.
    pub(crate) fn new(
        kernel: Result<Kernel, Error>,
        note: Option<&NoteOrigin>,
        args: &WriteArgs,
        format: &dyn Format,
    ) -> anyhow::Result<Option<Self>> {
        let Some(asked) = args.dump_level else { return Ok(None) };
        let threads = job::execute_options(args.threads, false).threads;
        let min_gap = if format.abilities().segments { MIN_GAP } else { 0 };
        let is_part = args.range.is_some();
        let plan =
            |how| Some(Self { how, is_part, options: ScanOptions { threads, strict: false, min_gap } });
        let error = match kernel.and_then(|kernel| Filter::new(&kernel, asked)) {
            Ok(mut filter) => {
                if let Some((gpa, len)) = note.and_then(NoteOrigin::place) {
                    filter.keep("VMCOREINFO", gpa, len);
                }
                return Ok(plan(How::Filter(Box::new(filter))));
            }
            Err(error) if asked.needs_kernel() => anyhow!(error),
            Err(_) => return Ok(plan(How::Full { asked, why: None })),
        };
        if args.or_full {
            return Ok(plan(How::Full { asked, why: Some(format!("{error:#}")) }));
        }
        let hint = Hint("with --or-full the dump holds all pages where that cannot be told".to_owned());
        Err(error.context("cannot tell which pages to leave out").context(hint))
    }

    /// The memory of a running guest as a dump would hold it now; it serves for an estimate only.
    pub(crate) fn preview(
        &self,
        memory: &Arc<dyn PhysMemory>,
        state: &DumpState,
    ) -> anyhow::Result<Arc<dyn PhysMemory>> {
        let How::Filter(filter) = &self.how else { return Ok(Arc::clone(memory)) };
        let selection = filter.scan(&[], ScanOptions { strict: true, ..self.options }, state)?;
        Ok(Arc::new(selection.filtered(memory)))
    }

    /// Takes the pages out of the machine's memory. `is_running`: the guest goes on meanwhile.
    pub(crate) fn apply(
        &self,
        machine: &mut Machine,
        is_running: bool,
        state: &DumpState,
    ) -> anyhow::Result<Filtered> {
        match &self.how {
            How::Filter(filter) => {
                let options = ScanOptions { strict: is_running, ..self.options };
                let selection = filter.scan(&machine.vcpus, options, state)?;
                selection.apply(machine);
                Ok(Filtered::Pages { selection: Box::new(selection), is_part: self.is_part })
            }
            How::Full { asked, why } => {
                let effective = asked.without(Level::ALL.without(Level::ZERO));
                machine.header.dump_level |= effective.number();
                Ok(Filtered::Full { asked: *asked, effective, why: why.clone() })
            }
        }
    }
}

/// What was left out.
pub(crate) enum Filtered {
    Pages { selection: Box<Selection>, is_part: bool },
    Full { asked: Level, effective: Level, why: Option<String> },
}

impl Filtered {
    /// Says it, a line each; what was asked for and not done also if the rest is not to be said.
    pub(crate) fn say(&self, quiet: bool) {
        match self {
            Self::Pages { selection, is_part } => {
                let report = selection.report();
                if !quiet {
                    lines(report, *is_part).iter().for_each(|line| text::say(line));
                }
                for remark in report.remarks() {
                    text::say(&format!("vmcore: warning: {remark}"));
                }
            }
            Self::Full { why: Some(why), .. } => {
                text::say(&format!("vmcore: warning: the dump holds all pages: {why}"));
            }
            Self::Full { .. } => {}
        }
    }

    /// As JSON: pages by class, and what was kept.
    pub(crate) fn as_json(&self) -> Value {
        match self {
            Self::Pages { selection, .. } => as_json(selection.report()),
            Self::Full { asked, effective, why } => {
                json!({ "asked": asked.number(), "effective": effective.number(), "remarks": Vec::from_iter(why) })
            }
        }
    }
}

/// The report for people: a table of classes. `is_part`: the dump holds only a part of these pages.
fn lines(report: &Report, is_part: bool) -> Vec<String> {
    let names: Vec<&str> = report.effective.names().collect();
    let level = match &names[..] {
        [] => "all pages".to_owned(),
        names => format!("without {} pages", text::list(names)),
    };
    let row = |name: &str, pages: u64| {
        let size = text::size(pages.saturating_mul(report.page_size));
        format!("  {name:<17}{size:>10}  {}", text::count(pages, "page"))
    };
    let of = if is_part { "; of all memory, not only of the range" } else { "" };
    let mut lines = vec![format!("dump level {}: {level}{of}", report.effective)];
    let removed = report.removed.iter().filter(|(_, pages)| *pages > 0);
    lines.extend(removed.map(|(class, pages)| row(class.name(), *pages)));
    if report.removed_before > 0 {
        lines.push(row("left out before", report.removed_before));
    }
    lines.push(row("kept", report.kept_pages()));
    if report.bridged > 0 {
        lines.push(row("  in small gaps", report.bridged));
    }
    if report.without_struct > 0 {
        lines.push(row("  no struct page", report.without_struct));
    }
    lines
}

fn as_json(report: &Report) -> Value {
    let by_name = |(name, pages): (&str, u64)| (name.replace(' ', "_"), json!(pages));
    let removed: Map<String, Value> =
        report.removed.iter().map(|(class, pages)| by_name((class.name(), *pages))).collect();
    let guarded: Map<String, Value> = report.guarded.iter().copied().map(by_name).collect();
    let lack = |lack: &vmcore::filter::Lack| json!({ "key": lack.key, "bits": lack.bits.number(), "effect": lack.effect });
    json!({
        "asked": report.asked.number(),
        "effective": report.effective.number(),
        "memory_model": report.model,
        "page_size": report.page_size,
        "pages": report.pages,
        "kept_pages": report.kept_pages(),
        "removed_pages": removed,
        "sections": report.sections,
        "absent_sections": report.absent_sections,
        "without_struct_page": report.without_struct,
        "unreadable_struct_page": report.unreadable_structs,
        "bad_orders": report.bad_orders,
        "kept_by_strict_checks": report.interventions.total(),
        "kept_by_guard": guarded,
        "kept_in_small_gaps": report.bridged,
        "removed_before": report.removed_before,
        "lacks": report.lacks.iter().map(lack).collect::<Vec<_>>(),
        "remarks": report.remarks(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::filter::{Class, Interventions, Lack};

    fn report() -> Report {
        Report {
            asked: Level::ALL,
            effective: Level::ALL.without(Level::FREE),
            lacks: vec![Lack {
                key: "OFFSET(page.private)".to_owned(),
                bits: Level::FREE,
                effect: "free pages are kept",
            }],
            model: "SPARSEMEM_EXTREME",
            page_size: 4096,
            pages: 131_072,
            removed: Class::ALL.map(|class| match class {
                Class::Cache => (class, 27_288),
                Class::User => (class, 898),
                _ => (class, 0),
            }),
            sections: 4,
            absent_sections: 0,
            without_struct: 64,
            unreadable_structs: 1,
            bad_orders: 0,
            interventions: Interventions::default(),
            guarded: vec![("page tables", 2)],
            bridged: 300,
            removed_before: 12,
        }
    }

    #[test]
    fn text_for_people() {
        let text: Vec<String> = lines(&report(), true).into_iter().chain(report().remarks()).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn json_for_programs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&as_json(&report())).unwrap());
    }
}
