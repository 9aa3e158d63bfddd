//! Captures, compared with QEMU's own dump of the same stopped guest.

use super::vmcore::fails_with;
use super::{Context, Verdict, bt, gdb};
use crate::guest::KNOWN_TEXT;
use crate::oracle::compare;
use crate::oracle::core_file::{CoreFile, Head};
use crate::oracle::qemu::{QemuDump, settle};
use crate::oracle::walk::Mappings;
use crate::qmp::{Qmp, event_time};
use crate::run::any_output;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Longer than a capture takes on the slowest machine.
const CAPTURE: Duration = Duration::from_secs(120);

pub(crate) fn same_as_qemu(context: &mut Context) -> Result<Verdict> {
    context.guest().stop()?;
    let core = capture_at_rest(context)?;
    if context.guest().spec.vmcoreinfo {
        core.head.vmcoreinfo("OSRELEASE")?;
    }
    compare::same_as_qemu(context.guest(), &core)?;
    holds_known_text(&core)?;
    context.guest().cont()?;
    Ok(Verdict::Passed)
}

/// As [`same_as_qemu`], of vCPUs that have not executed anything yet.
pub(crate) fn at_reset(context: &mut Context) -> Result<Verdict> {
    let core = capture_at_rest(context)?;
    compare::same_as_qemu(context.guest(), &core)?;
    Ok(Verdict::Passed)
}

/// Captures a guest that does not run: it stays as it is. What the dump says of it in its header is right.
fn capture_at_rest(context: &mut Context) -> Result<CoreFile> {
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    let state = context.guest().qmp.status()?;
    context.guest().qmp.forget_events()?;
    context.vmcore.capture(&uri, &path, &[])?;
    let events = context.guest().qmp.events()?;
    let moved: Vec<_> = events.iter().filter(|name| ["STOP", "RESUME"].contains(&name.as_str())).collect();
    ensure!(moved.is_empty(), "a guest that was {state} saw {moved:?}");
    let now = context.guest().qmp.status()?;
    ensure!(now == state, "a guest that was {state} is now {now}");
    let core = CoreFile::open(&path)?;
    let (vcpus, target) = (context.guest().spec.cpus as usize, context.guest().spec.arch.target());
    ensure!(core.head.notes_of("CORE", 1).len() == vcpus, "{} threads", core.head.notes_of("CORE", 1).len());
    // A 32-bit guest needs 64-bit headers only if it has memory above 4 GiB; QEMU writes them if it ends there.
    let end = core.head.segments.iter().map(|segment| segment.paddr + segment.memsz).max();
    let is_64 = target.is_64 || end > Some(1 << 32);
    ensure!(core.head.is_64 == is_64, "the ELF class is 64 bit: {}", core.head.is_64);
    ensure!(core.head.order == target.order, "the dump is {:?} endian", core.head.order);
    Ok(core)
}

pub(crate) fn panicked(context: &mut Context) -> Result<Verdict> {
    const STATE: &str = "guest-panicked";
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    context.guest().panic()?;
    ensure!(context.guest().qmp.status()? == STATE, "the guest is {}", context.guest().qmp.status()?);
    context.guest().qmp.forget_events()?;
    let report = context.vmcore.capture(&uri, &path, &[])?;
    ensure!(report["state"] == STATE, "the report says {}", report["state"]);
    let events = context.guest().qmp.events()?;
    ensure!(!events.iter().any(|name| name == "RESUME"), "a panicked guest was started");
    ensure!(context.guest().qmp.status()? == STATE, "the guest is {}", context.guest().qmp.status()?);
    compare::same_as_qemu(context.guest(), &CoreFile::open(&path)?)?;
    context.give_up_guest();
    bt::shows_module(context, &path)?;
    gdb::shows_crash(context, &path)
}

/// QEMU and we could be wrong together: the text that the guest wrote must be there.
fn holds_known_text(core: &CoreFile) -> Result<()> {
    let count = core.pages_of(KNOWN_TEXT)?.len();
    ensure!(count > 1000, "only {count} pages hold the text that the guest wrote");
    Ok(())
}

pub(crate) fn same_as_qemu_with_dimm(context: &mut Context) -> Result<Verdict> {
    context.guest().plug_dimm(128)?;
    same_as_qemu(context)
}

pub(crate) fn running(context: &mut Context) -> Result<Verdict> {
    capture_running(context, &[])
}

pub(crate) fn snapshot(context: &mut Context) -> Result<Verdict> {
    capture_running(context, &["--snapshot"])
}

/// Captures a guest that runs, and runs on; the pause is reported.
fn capture_running(context: &mut Context, options: &[&str]) -> Result<Verdict> {
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    let report = context.vmcore.capture(&uri, &path, options)?;
    let qmp = &mut context.guest().qmp;
    let stop = event_time(&qmp.wait_event("STOP", CAPTURE)?).context("no time in STOP")?;
    let resume = event_time(&qmp.wait_event("RESUME", CAPTURE)?).context("no time in RESUME")?;
    ensure!(qmp.status()? == "running", "the guest is {}", qmp.status()?);
    context.guest().ping()?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds, for a comparison")]
    let pause = (resume - stop) as f64 / 1e3;
    let reported = report["pause_ms"].as_f64().context("no pause_ms in the report")?;
    // QEMU's own times of its events are the truth, and the only times that both of us know.
    ensure!((pause - reported).abs() < 0.5, "the pause was {pause} ms, the report says {reported} ms");
    let written = report["bytes_written"].as_u64().context("no bytes_written in the report")?;
    ensure!(written > context.guest().spec.fill << 20, "only {written} bytes were written");
    context.vmcore.verify(&path)?;
    Ok(Verdict::Passed)
}

pub(crate) fn paging(context: &mut Context) -> Result<Verdict> {
    let (plain, paged) = (context.path("plain.vmcore"), context.path("paged.vmcore"));
    let uri = context.guest().uri();
    context.guest().stop()?;
    context.vmcore.capture(&uri, &plain, &[])?;
    context.vmcore.capture(&uri, &paged, &["--paging"])?;
    let theirs = QemuDump::start(context.guest(), true)?.head_only(context.guest())?;
    context.guest().cont()?;
    let (plain, paged) = (CoreFile::open(&plain)?, CoreFile::open(&paged)?);
    compare::same_notes(&theirs, &paged.head)?;

    let walked = Mappings::walked(&plain)?;
    let stated = Mappings::stated(&paged.head.segments);
    let missing = walked.missing_in(&stated);
    ensure!(missing.is_empty(), "{} mappings are not in our dump: {:x?}", missing.len(), first(&missing));
    // RAM that no page table maps is there all the same, by its physical address.
    let untrue: Vec<_> =
        stated.missing_in(&walked).into_iter().filter(|(vaddr, paddr, _)| vaddr != paddr).collect();
    ensure!(untrue.is_empty(), "{} segments are in no page table: {:x?}", untrue.len(), first(&untrue));

    // QEMU states what the page tables say, but for its known defects: those are all wrong by the walk, too.
    let theirs = Mappings::stated(&theirs.segments);
    let wrong = theirs.missing_in(&walked);
    let not_ours = theirs.missing_in(&stated);
    let unexplained: Vec<_> = not_ours.iter().filter(|mapping| !wrong.contains(mapping)).collect();
    ensure!(
        unexplained.is_empty(),
        "QEMU states {} true mappings that we lack: {unexplained:x?}",
        unexplained.len()
    );
    ensure!(wrong.len() < theirs.count(), "QEMU and the walk share no mapping: the walk is wrong");

    same_bytes_by_address(&plain, &paged)?;
    Ok(Verdict::Passed)
}

fn first<T: Clone>(list: &[T]) -> Vec<T> {
    list.iter().take(5).cloned().collect()
}

/// Each segment of `paged` has the bytes that `plain` has at its physical address.
fn same_bytes_by_address(plain: &CoreFile, paged: &CoreFile) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (mut expected, mut found) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for segment in &paged.head.segments {
        let mut done = 0;
        while done < segment.filesz {
            // Pieces that lie in one segment of the plain dump.
            let paddr = segment.paddr + done;
            let mut plain_segments = plain.head.segments.iter();
            let holder =
                plain_segments.find(|plain| plain.paddr <= paddr && paddr < plain.paddr + plain.memsz);
            let holder = holder.with_context(|| format!("{paddr:#x} is in no segment of the plain dump"))?;
            let len = (segment.filesz - done).min(1 << 20).min(holder.paddr + holder.memsz - paddr);
            let len = usize::try_from(len)?;
            plain.read_physical(paddr, &mut expected[..len])?;
            paged.file.read_exact_at(&mut found[..len], segment.offset + done)?;
            ensure!(expected[..len] == found[..len], "bytes at {paddr:#x} differ with --paging");
            done += len as u64;
        }
    }
    Ok(())
}

pub(crate) fn pipe(context: &mut Context) -> Result<Verdict> {
    let path = context.path("guest.vmcore");
    let piped = context.path("piped.vmcore");
    let uri = context.guest().uri();
    context.guest().stop()?;
    context.vmcore.capture(&uri, &path, &[])?;
    let mut command = context.vmcore.command(["capture", &uri, "--quiet", "-o", "-"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("no pipe")?;
    io::copy(&mut stdout, &mut File::create(&piped)?)?;
    let status = child.wait()?;
    context.guest().cont()?;
    ensure!(status.success(), "it ended with {status}");
    same_files(&path, &piped)?;
    Ok(Verdict::Passed)
}

pub(crate) fn same_bytes(context: &mut Context) -> Result<Verdict> {
    let uri = context.guest().uri();
    context.guest().stop()?;
    let options: [&[&str]; 7] = [
        &[],
        &["--threads", "1"],
        &["--threads", "7"],
        &["--no-sparse"],
        &["--snapshot"],
        &["--snapshot", "--threads", "1"],
        // Too small: the guest then stands still for longer.
        &["--snapshot", "--max-buffer", "1M"],
    ];
    let first = context.path("0.vmcore");
    for (index, options) in options.iter().enumerate() {
        let path = context.path(&format!("{index}.vmcore"));
        context.vmcore.capture(&uri, &path, options)?;
        if index > 0 {
            same_files(&first, &path).with_context(|| format!("with {options:?}"))?;
            std::fs::remove_file(&path)?;
        }
    }
    context.guest().cont()?;
    Ok(Verdict::Passed)
}

/// Both have the same bytes.
pub(crate) fn same_files(first: &Path, second: &Path) -> Result<()> {
    let (mut a, mut b) = (File::open(first)?, File::open(second)?);
    let (len_a, len_b) = (a.metadata()?.len(), b.metadata()?.len());
    ensure!(len_a == len_b, "{} has {len_a} bytes, {} has {len_b}", first.display(), second.display());
    let (mut chunk_a, mut chunk_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < len_a {
        let len = usize::try_from((len_a - at).min(1 << 20))?;
        a.read_exact(&mut chunk_a[..len])?;
        b.read_exact(&mut chunk_b[..len])?;
        if let Some(index) = (0..len).find(|&index| chunk_a[index] != chunk_b[index]) {
            bail!("{} and {} differ at {:#x}", first.display(), second.display(), at + index as u64);
        }
        at += len as u64;
    }
    Ok(())
}

pub(crate) fn range(context: &mut Context) -> Result<Verdict> {
    // It starts and ends inside of pages, and has the hole of the VGA memory in it.
    let (begin, length) = (0x9_f123_u64, 0x10_0000_u64);
    let path = context.path("range.vmcore");
    let theirs = context.path("qemu.dump");
    let uri = context.guest().uri();
    context.guest().stop()?;
    context.vmcore.capture(&uri, &path, &["--range", &format!("{begin:#x}:{length:#x}")])?;
    let protocol = format!("file:{}", theirs.display());
    let arguments =
        serde_json::json!({ "paging": false, "protocol": protocol, "begin": begin, "length": length });
    settle(context.guest())?;
    context.guest().qmp.execute("dump-guest-memory", arguments)?;
    context.guest().cont()?;
    let mut theirs = File::open(theirs)?;
    let head = Head::read(&mut theirs)?;
    let ours = CoreFile::open(&path)?;
    compare::same_segments(&head, &ours.head)?;
    compare::same_notes(&head, &ours.head)?;
    compare::same_memory(&head, &mut theirs, &ours)?;
    Ok(Verdict::Passed)
}

pub(crate) fn no_stop(context: &mut Context) -> Result<Verdict> {
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    let report = context.vmcore.capture(&uri, &path, &["--no-stop"])?;
    let qmp = &mut context.guest().qmp;
    let stop = event_time(&qmp.wait_event("STOP", CAPTURE)?).context("no time in STOP")?;
    let resume = event_time(&qmp.wait_event("RESUME", CAPTURE)?).context("no time in RESUME")?;
    // Registers and map are of one moment; memory is not.
    let duration = report["duration_ms"].as_f64().context("no duration_ms in the report")?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds, for a comparison")]
    let pause = (resume - stop) as f64 / 1e3;
    ensure!(pause < duration / 2.0, "the guest stood still for {pause} of {duration} ms");
    context.vmcore.verify(&path)?;
    holds_known_text(&CoreFile::open(&path)?)?;
    Ok(Verdict::Passed)
}

pub(crate) fn stream(context: &mut Context) -> Result<Verdict> {
    let (path, streamed) = (context.path("guest.vmcore"), context.path("streamed.vmcore"));
    let uri = context.guest().uri();
    context.guest().stop()?;
    context.vmcore.capture(&uri, &path, &[])?;
    context.vmcore.capture(&uri, &streamed, &["--memory", "stream"])?;
    context.guest().cont()?;
    same_files(&path, &streamed)?;
    Ok(Verdict::Passed)
}

pub(crate) fn busy_monitor(context: &mut Context) -> Result<Verdict> {
    let path = context.path("guest.vmcore");
    let uri = context.guest().uri();
    let mut first = Qmp::new(UnixStream::connect(&context.guest().socket)?)?;
    let out = any_output(&mut context.vmcore.capture_command(&uri, &path, &[]))?;
    fails_with(&out, &["another client"])?;
    // QEMU executes what a second client sent when the first one leaves.
    drop(first.execute("query-status", serde_json::json!({}))?);
    drop(first);
    context.guest().ping()?;
    let events = context.guest().qmp.events()?;
    ensure!(!events.iter().any(|name| name == "STOP"), "the guest was stopped: {events:?}");
    // The monitor is free again.
    context.vmcore.capture(&uri, &path, &[])?;
    Ok(Verdict::Passed)
}
