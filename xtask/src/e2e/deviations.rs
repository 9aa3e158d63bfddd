//! Where makedumpfile 1.7.8 is wrong about real guests, and we are not: `spec/filter.md` section 11.
//!
//! Each test asserts that makedumpfile still is: the day that it is not, its row becomes one of those in `filter.rs`.

use super::filter::{FEW, ours};
use super::python::{self, DRGN};
use super::{Context, Verdict};
use crate::oracle::bitmap::Bitmaps;
use crate::oracle::core_file::Segment;
use crate::oracle::makedumpfile::Makedumpfile;
use crate::oracle::pages::{Page, Pages, WAITERS};
use crate::oracle::walk::Mappings;
use crate::run::output;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

/// M1: kernels since 6.10 have no `PG_slab`, but makedumpfile takes its bit, which is that of pages that somebody waits for now.
///
/// No page of an idle guest is waited for: so one page of a program and a free block get the bit.
pub(crate) fn waiters(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let core = context.core()?;
    let pages = Pages::new(&core.head)?;
    let mappings = Mappings::walked(&core)?;
    // The first page of a kind, with its struct, and where that lies.
    let find = |is_it: &dyn Fn(&Page) -> bool| -> Result<(u64, Page, u64)> {
        let mut bytes = vec![0; usize::try_from(pages.len)?];
        let max_mapnr = core.head.segments.iter().map(|segment| (segment.paddr + segment.memsz) >> 12).max();
        for pfn in 0..max_mapnr.unwrap_or(0) {
            let Some(paddr) = mappings.translate(pages.address(pfn)) else { continue };
            core.read_physical(paddr, &mut bytes)?;
            let page = pages.page(&bytes);
            if is_it(&page) && page.flags & WAITERS == 0 {
                return Ok((pfn, page, paddr));
            }
        }
        bail!("the guest has no such page")
    };
    let anonymous = find(&|page| {
        let is_single = page.flags & pages.head == 0 && !page.is_tail();
        is_single && page.mapping & 1 == 1 && page.flags & pages.lru != 0
    })?;
    let free = find(&|page| page.mapcount == pages.buddy)?;

    let changed = context.path("waiters.vmcore");
    fs::copy(&dump, &changed)?;
    let file = File::options().write(true).open(&changed)?;
    for (_, page, paddr) in [&anonymous, &free] {
        let at = paddr + pages.fields[0] as u64;
        let holds = |segment: &&Segment| (segment.paddr..segment.paddr + segment.filesz).contains(&at);
        let segment = core.head.segments.iter().find(holds).context("the struct is not in the dump")?;
        let flags = page.flags | WAITERS;
        file.write_all_at(&flags.to_le_bytes(), segment.offset + at - segment.paddr)?;
    }
    let (anonymous, free) = (anonymous.0..anonymous.0 + 1, free.0..free.0 + (1 << free.1.private));
    let makedumpfile = Makedumpfile::new("amd64")?;
    // Cache, what programs have, and free pages, each with zero pages. That of a program is on the list of recently used ones, as pages of
    // the cache are.
    for (level, is_ours, range) in [(3, true, anonymous.clone()), (9, false, anonymous), (17, false, free)] {
        let (before, found) = (ours(context, &dump, level)?.dumped, ours(context, &changed, level)?.dumped);
        ensure!(found == before, "level {level}: the bit makes a difference to us");
        let theirs = context.path("theirs.kdump");
        makedumpfile.filter(level, &changed, &theirs)?;
        let theirs = Bitmaps::read(&theirs)?.dumped;
        let differences = found.first(theirs.max_mapnr).differences(&theirs);
        ensure!(differences == [(is_ours, range.clone())], "level {level}: {differences:x?}, not {range:x?}");
    }
    Ok(Verdict::Passed)
}

/// M2: aarch64 with 52 bits of addresses and pages of 16 KiB: makedumpfile gives up.
pub(crate) fn lpa2(context: &mut Context) -> Result<Verdict> {
    let (dump, theirs) = (context.dump()?, context.path("theirs.kdump"));
    let failed = Makedumpfile::new("arm64")?.filter(31, &dump, &theirs);
    ensure!(failed.is_err(), "makedumpfile knows such guests now");
    as_structs_say(context)
}

/// M3: ppc64 with pages of 4 KiB: makedumpfile reads a sixteenth of the root of the page tables, finds the structs elsewhere,
/// and leaves out what it likes, at each level.
pub(crate) fn root_table(context: &mut Context) -> Result<Verdict> {
    let (dump, theirs) = (context.dump()?, context.path("theirs.kdump"));
    Makedumpfile::new("ppc64el")?.filter(0, &dump, &theirs)?;
    let lost = Bitmaps::read(&theirs)?;
    let lost = lost.present.count() - lost.dumped.count();
    ensure!(lost > 1000, "makedumpfile loses only {lost} pages at level 0");
    as_structs_say(context)
}

/// We leave out what the page structs say, which drgn finds by the kernel's page tables.
fn as_structs_say(context: &mut Context) -> Result<Verdict> {
    let Ok(environment) = python::environment() else { return Ok(Verdict::Skipped("drgn".to_owned())) };
    let dump = context.dump()?;
    let head = context.core()?.head;
    let pages = Pages::new(&head)?;
    let page_len: u64 = head.vmcoreinfo("PAGESIZE")?.parse()?;
    let [segment] = &head.segments[..] else { bail!("RAM in {} pieces", head.segments.len()) };
    let (first, count) = (segment.paddr / page_len, segment.memsz / page_len);
    let mut drgn = Command::new(environment.join("python"));
    drgn.args(["-c", DRGN]).arg(&dump);
    drgn.arg(format!("virtual:{:#x}:{}", pages.address(first), count * pages.len));
    let out = output(&mut drgn)?;
    let structs = bytes(out.lines().nth(1).context("drgn reads nothing")?)?;
    let mut left_out = Vec::new();
    for level in FEW {
        let expected = pages.kept(level, first, &structs)?;
        let found = ours(context, &dump, level)?.dumped;
        let differences = found.differences(&expected);
        let shown = &differences[..differences.len().min(8)];
        ensure!(differences.is_empty(), "level {level}: {} differences, {shown:x?}", differences.len());
        left_out.push(count - found.count());
    }
    ensure!(left_out.iter().skip(1).all(|count| *count > 100), "pages left out by level: {left_out:?}");
    Ok(Verdict::Passed)
}

/// Of hexadecimal digits.
fn bytes(text: &str) -> Result<Vec<u8>> {
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    pairs.iter().map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}
