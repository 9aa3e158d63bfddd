//! Dump levels: the pages that we leave out are those that makedumpfile leaves out of the same dump.
//!
//! Source: `spec/filter.md`. Where makedumpfile is wrong (section 11) we differ, and the tests say so.

use super::capture::same_files;
use super::consumers::{self, Sample, drgn_reads, libkdumpfile_reads, sample};
use super::kdump::{convert, passed};
use super::vmcore::fails_with;
use super::{Context, Verdict};
use crate::guest::{GuestArch, KNOWN_TEXT, sha256};
use crate::oracle::bitmap::{Bitmap, Bitmaps};
use crate::oracle::core_file::CoreFile;
use crate::oracle::makedumpfile::Makedumpfile;
use crate::oracle::pages::Pages;
use crate::oracle::walk;
use crate::run::any_output;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Each kind of pages, with zero pages, which need not be written, and all of them.
pub(super) const FEW: [u32; 6] = [1, 3, 5, 9, 17, 31];
/// The level that leaves out all that can be.
const ALL: u32 = 31;
/// How long a guest may take to give memory back.
const BALLOON: Duration = Duration::from_secs(120);

pub(crate) fn all_levels(context: &mut Context) -> Result<Verdict> {
    same_as_makedumpfile(context, 0..=ALL)
}

/// For guests that are large, and for those whose makedumpfile is not built for this machine. All levels are compared if the
/// user asks for it.
pub(crate) fn few_levels(context: &mut Context) -> Result<Verdict> {
    if context.all_levels { all_levels(context) } else { same_as_makedumpfile(context, FEW) }
}

/// As [`all_levels`], after the guest has given some of its memory back.
pub(crate) fn ballooned(context: &mut Context) -> Result<Verdict> {
    inflate(context, 64 << 20)?;
    all_levels(context)
}

pub(crate) fn few_ballooned(context: &mut Context) -> Result<Verdict> {
    inflate(context, 64 << 20)?;
    few_levels(context)
}

/// Takes memory from the guest.
fn inflate(context: &mut Context, taken: u64) -> Result<()> {
    let guest = context.guest();
    let left = (guest.spec.mem << 20) - taken;
    guest.qmp.execute("balloon", json!({ "value": left }))?;
    loop {
        let event = guest.qmp.wait_event("BALLOON_CHANGE", BALLOON)?;
        if event["data"]["actual"] == json!(left) {
            return Ok(());
        }
    }
}

/// A guest whose memory is the same in each boot: the bitmaps have the digests of the specification.
pub(crate) fn digests(context: &mut Context) -> Result<Verdict> {
    let pinned = context.guest().spec.pinned().context("its memory is not the same in each boot")?;
    if !context.guest().is_as_specified()? {
        return Ok(Verdict::Skipped(format!("the packages of the specification's guest {}", pinned.name)));
    }
    let (core, bits) = (context.dump()?, context.path("bits"));
    for (level, digest) in pinned.bitmaps {
        let bitmaps = ours(context, &core, level)?;
        std::fs::write(&bits, &bitmaps.dumped.bytes)?;
        let found = sha256(&bits)?;
        let pages = bitmaps.dumped.count();
        ensure!(
            found.starts_with(digest),
            "{} at level {level}: {pages} pages, digest {found}, expected {digest}",
            pinned.name
        );
    }
    Ok(Verdict::Passed)
}

/// Our bitmaps of a dump at a level, without memory of firmware.
pub(super) fn ours(context: &Context, core: &Path, level: u32) -> Result<Bitmaps> {
    let out = context.path("ours.kdump");
    convert(context, &[core], &out, &["--format", "kdump", "--compress", "none", "-d", &level.to_string()])?;
    Bitmaps::read(&out)
}

/// The second bitmaps of both are the same at these levels, bit for bit, as far as makedumpfile's goes.
fn same_as_makedumpfile(context: &mut Context, levels: impl IntoIterator<Item = u32>) -> Result<Verdict> {
    let core = context.dump()?;
    let linux = context.guest().spec.arch.target().linux.as_ref().context("nothing is booted")?;
    let makedumpfile = Makedumpfile::new(linux.debian)?;
    let (theirs, ours) = (context.path("theirs.kdump"), context.path("ours.kdump"));
    let mistaken = Tails::new(context.core()?)?;
    let mut left_out = Vec::new();
    for level in levels {
        makedumpfile.filter(level, &core, &theirs)?;
        let level_text = level.to_string();
        let options = ["--format", "kdump", "--compress", "none", "--all-memory", "-d", level_text.as_str()];
        convert(context, &[&core], &ours, &options)?;
        let (theirs, ours) = (Bitmaps::read(&theirs)?, Bitmaps::read(&ours)?);
        same(&ours.dumped.first(theirs.dumped.max_mapnr), &theirs.dumped, mistaken.as_ref())
            .with_context(|| format!("level {level}"))?;
        all_above(&ours, theirs.dumped.max_mapnr).with_context(|| format!("level {level}"))?;
        left_out.push(ours.present.count() - ours.dumped.count());
    }
    // Else both could have done nothing.
    ensure!(left_out.last() > Some(&1000), "pages left out by level: {left_out:?}");
    Ok(Verdict::Passed)
}

/// Tail pages of compound pages, where makedumpfile 1.7.8 does not know them: since Linux 7.1, which has `compound_info` for
/// `compound_head`. It takes some of them for anonymous pages, also in slabs.
struct Tails {
    core: CoreFile,
    mappings: walk::Mappings,
    pages: Pages,
}

impl Tails {
    fn new(core: CoreFile) -> Result<Option<Self>> {
        if core.head.vmcoreinfo("OFFSET(page.compound_info)").is_err() {
            return Ok(None);
        }
        let (mappings, pages) = (walk::Mappings::walked(&core)?, Pages::new(&core.head)?);
        Ok(Some(Self { core, mappings, pages }))
    }

    /// Whether all of these are tail pages.
    fn hold(&self, pfns: Range<u64>) -> Result<bool> {
        for pfn in pfns {
            if !self.has(pfn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has(&self, pfn: u64) -> Result<bool> {
        let paddr = self.mappings.translate(self.pages.address(pfn));
        let mut bytes = vec![0; usize::try_from(self.pages.len)?];
        self.core.read_physical(paddr.with_context(|| format!("no struct of page {pfn:#x}"))?, &mut bytes)?;
        Ok(self.pages.page(&bytes).is_tail())
    }
}

/// Both have the same pages, but for those that makedumpfile is mistaken about.
fn same(ours: &Bitmap, theirs: &Bitmap, mistaken: Option<&Tails>) -> Result<()> {
    const SHOWN: usize = 12;
    let mut differences = Vec::new();
    for (is_ours, range) in ours.differences(theirs) {
        let mistaken = mistaken.filter(|_| is_ours);
        if !mistaken.map(|tails| tails.hold(range.clone())).transpose()?.unwrap_or(false) {
            differences.push((is_ours, range));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let pages: u64 = differences.iter().map(|(_, range)| range.end - range.start).sum();
    let text = |(is_ours, range): &(bool, Range<u64>)| {
        let who = if *is_ours { "we" } else { "makedumpfile" };
        format!("only {who}: pfn {:#x}..{:#x}", range.start, range.end)
    };
    let shown: Vec<_> = differences.iter().take(SHOWN).map(text).collect();
    bail!("{pages} pages in {} ranges are kept by one alone\n{}", differences.len(), shown.join("\n"))
}

/// makedumpfile forgets all pages above the last that Linux has page structs for (M4 of `spec/filter.md` section 11). We
/// keep them.
fn all_above(ours: &Bitmaps, max_mapnr: u64) -> Result<()> {
    for pfn in max_mapnr..ours.present.max_mapnr {
        ensure!(
            ours.present.has(pfn) == ours.dumped.has(pfn),
            "page {pfn:#x}, which Linux does not know, is left out"
        );
    }
    Ok(())
}

/// What users had in memory is gone, what the kernel has is there, and everybody opens the dump.
pub(crate) fn contents(context: &mut Context) -> Result<Verdict> {
    let core = context.dump()?;
    let (elf, kdump) = (context.path("level31.vmcore"), context.path("level31.kdump"));
    let level = ALL.to_string();
    convert(context, &[&core], &elf, &["-d", &level])?;
    convert(context, &[&core], &kdump, &["--format", "kdump", "-d", &level])?;
    let (full, filtered) = (CoreFile::open(&core)?, CoreFile::open(&elf)?);

    let dumped = Bitmaps::read(&kdump)?.dumped;
    // A file in tmpfs, and a variable of a shell, which has a million bytes. Other copies went through pipes to pages that are
    // now in a CPU's list of free pages: those look like no other, and makedumpfile keeps them, too. So do pages of the file that
    // are on their way to the list of recently used ones.
    // And an ELF core has data also in gaps that are too short for a segment to end there.
    let file = usize::try_from(context.guest().spec.fill << 8)? / 16 * 15;
    for (line, pages) in [(KNOWN_TEXT, file), ("VMCORE-PROCESS-0", 200)] {
        let before = full.pages_of(line)?;
        let after = before.iter().filter(|paddr| dumped.has(*paddr >> 12)).count();
        let before = before.len();
        ensure!(before >= after + pages, "{after} of {before} pages that hold {line} are left");
    }
    let (vaddr, paddr) = walk::init_uts_ns(&filtered)?;
    let release = full.head.vmcoreinfo("OSRELEASE")?;
    for dump in [&elf, &kdump] {
        let bytes = context.vmcore.read(dump, vaddr, 390, &["--virt"])?;
        ensure!(String::from_utf8_lossy(&bytes).contains(&release), "the kernel's name is gone");
        context.vmcore.verify(dump)?;
    }
    let kept = kept(&dumped, &full, paddr)?;
    for dump in [elf, kdump] {
        opens(context, &dump, &kept).with_context(|| dump.display().to_string())?;
    }
    Ok(Verdict::Passed)
}

/// A capture leaves out what a conversion of the full dump does, with a snapshot too; of a running guest the dump is sound.
pub(crate) fn captured(context: &mut Context) -> Result<Verdict> {
    let uri = context.guest().uri();
    let level = ALL.to_string();
    let options = ["--format", "kdump", "-d", &level];
    let path = |name: &str| context.path(name);
    let (core, converted) = (path("full.vmcore"), path("converted.kdump"));
    let (paused, copied, running) = (path("paused.kdump"), path("copied.kdump"), path("running.kdump"));
    context.guest().stop()?;
    context.vmcore.capture(&uri, &core, &[])?;
    let report = context.vmcore.capture(&uri, &paused, &options)?;
    context.vmcore.capture(&uri, &copied, &[&options[..], &["--snapshot"]].concat())?;
    context.guest().cont()?;
    convert(context, &[&core], &converted, &options)?;
    same_files(&paused, &copied).context("with --snapshot")?;
    let (expected, found) = (Bitmaps::read(&converted)?.dumped, Bitmaps::read(&paused)?.dumped);
    let differs = (0..expected.max_mapnr).find(|pfn| expected.has(*pfn) != found.has(*pfn));
    ensure!(differs.is_none(), "page {differs:x?} is left out of one dump only");
    ensure!(report["dump_level"]["effective"] == json!(ALL), "the report says {}", report["dump_level"]);

    for option in ["--snapshot", "--no-stop"] {
        context.vmcore.capture(&uri, &running, &[&options[..], &[option, "--force"]].concat())?;
        context.vmcore.verify(&running)?;
        context.guest().ping()?;
        let kept = Bitmaps::read(&running)?.dumped;
        let count = (0..kept.max_mapnr).filter(|pfn| kept.has(*pfn)).count();
        ensure!(count > 0 && (count as u64) < kept.max_mapnr / 2, "{count} pages are kept with {option}");
        let release = &context.vmcore.info(&running)?["kernel"]["release"];
        ensure!(release.is_string(), "with {option} the kernel is {release}");
    }
    Ok(Verdict::Passed)
}

/// A guest that cannot be analyzed is not stopped for it, unless a full dump will do.
pub(crate) fn not_supported(context: &mut Context) -> Result<Verdict> {
    let (uri, path) = (context.guest().uri(), context.path("guest.vmcore"));
    context.guest().qmp.forget_events()?;
    let out = any_output(&mut context.vmcore.capture_command(&uri, &path, &["-d", "31"]))?;
    fails_with(&out, &["which pages to leave out", "--or-full"])?;
    let events = context.guest().qmp.events()?;
    ensure!(!events.iter().any(|name| name == "STOP"), "the guest was stopped for nothing");
    let report = context.vmcore.capture(&uri, &path, &["-d", "31", "--or-full"])?;
    ensure!(report["dump_level"]["effective"] == json!(1), "the report says {}", report["dump_level"]);
    context.vmcore.verify(&path)?;
    Ok(Verdict::Passed)
}

/// Some pages that are in the filtered dump, and what the full one says of them.
fn kept(dumped: &Bitmap, full: &CoreFile, also: u64) -> Result<Vec<Sample>> {
    const COUNT: u64 = 16;
    let pfns: Vec<u64> = (0..dumped.max_mapnr).filter(|pfn| dumped.has(*pfn)).collect();
    let step = usize::try_from(pfns.len() as u64 / COUNT)?.max(1);
    let mut samples = vec![sample(full, also & !0xfff)?];
    for pfn in pfns.into_iter().step_by(step) {
        samples.push(sample(full, pfn << 12)?);
    }
    Ok(samples)
}

fn opens(context: &mut Context, dump: &Path, kept: &[Sample]) -> Result<()> {
    passed(drgn_reads(context, dump, kept.to_vec())).context("drgn")?;
    passed(libkdumpfile_reads(context, dump, kept.to_vec())).context("libkdumpfile")?;
    if context.guest().spec.arch != GuestArch::X86_64 {
        // The other two are built for one architecture each.
        return Ok(());
    }
    passed(consumers::makedumpfile_of(context, dump)).context("makedumpfile")?;
    passed(consumers::crash_of(context, dump)).context("crash")
}
