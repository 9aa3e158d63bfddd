//! kdump dumps and flattened streams: ours in the programs of others, theirs in ours.

use super::python::LZO_PEER;
use super::{Context, Verdict, consumers};
use crate::oracle::core_file::{CoreFile, FIRMWARE, Head};
use crate::oracle::{compare, qemu};
use crate::run::{any_output, find, output, printed};
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COMPRESSIONS: [&str; 5] = ["zlib", "lzo", "snappy", "zstd", "none"];

/// Converts a dump; further options behind the names.
pub(super) fn convert(context: &Context, inputs: &[&Path], out: &Path, options: &[&str]) -> Result<()> {
    let mut args: Vec<&OsStr> = vec!["convert".as_ref()];
    args.extend(inputs.iter().map(|path| path.as_os_str()));
    args.extend(["--force".as_ref(), "-o".as_ref(), out.as_os_str()]);
    args.extend(options.iter().map(OsStr::new));
    context.vmcore.run(args).map(drop)
}

/// The memory and the notes of `dump`, in any format, are those of the ELF core `core`.
fn same_as(context: &Context, dump: &Path, core: &Path) -> Result<()> {
    let elf = context.path("again.vmcore");
    convert(context, &[dump], &elf, &[])?;
    same_memory_and_notes(&elf, core)
}

/// The same of two ELF cores.
fn same_memory_and_notes(elf: &Path, core: &Path) -> Result<()> {
    let (found, expected) = (CoreFile::open(elf)?, CoreFile::open(core)?);
    let mut file = File::open(core)?;
    let head = Head::read(&mut file)?;
    compare::same_memory(&head, &mut file, &found)?;
    compare::same_notes(&expected.head, &found.head)
}

/// The files of a dump that is split in `count`.
fn parts(dump: &Path, count: usize) -> Vec<PathBuf> {
    (1..=count).map(|number| PathBuf::from(format!("{}.{number}", dump.display()))).collect()
}

/// A guest of an architecture that is not the host's: makedumpfile and crash are built for the host's alone.
pub(crate) fn foreign(context: &mut Context) -> Result<Verdict> {
    let (core, kdump) = (context.dump()?, context.path("guest.kdump"));
    for method in ["zlib", "lzo", "zstd"] {
        convert(context, &[&core], &kdump, &["--format", "kdump", "--compress", method, "--all-memory"])?;
        context.vmcore.verify(&kdump)?;
        same_as(context, &kdump, &core).context(method)?;
        passed(consumers::libkdumpfile_of(context, &kdump)).context(method)?;
        if context.core()?.head.vmcoreinfo("OSRELEASE").is_ok() {
            passed(consumers::drgn_of(context, &kdump)).context(method)?;
        }
    }
    Ok(Verdict::Passed)
}

/// Volatility 3 reads no kdump dump, of anybody; as an image of memory it reads ours.
pub(crate) fn volatility(context: &mut Context) -> Result<Verdict> {
    let (kdump, image) = (context.path("guest.kdump"), context.path("guest.lime"));
    let uri = context.guest().uri();
    context.vmcore.capture(&uri, &kdump, &["--format", "kdump", "--compress", "zstd"])?;
    convert(context, &[&kdump], &image, &["--format", "lime"])?;
    consumers::volatility_of(context, &image)
}

/// A dump in several files: captured, split anew, and put together by makedumpfile.
pub(crate) fn split(context: &mut Context) -> Result<Verdict> {
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let (core, dump) = (context.path("stopped.vmcore"), context.path("split.kdump"));
    let (again, whole) = (context.path("again.kdump"), context.path("whole.kdump"));
    let all = ["--format", "kdump", "--all-memory"];
    let reassemble = |parts: &[PathBuf]| -> Result<()> {
        let mut command = Command::new(&makedumpfile);
        // In any order.
        command.args(["-f", "--reassemble"]).args(parts.iter().rev()).arg(&whole);
        output(&mut command).map(drop)
    };
    context.guest().stop()?;
    let uri = context.guest().uri();
    context.vmcore.capture(&uri, &core, &[])?;
    let two = [&all[..], &["--split", "2"]].concat();
    let report = context.vmcore.capture(&uri, &dump, &two)?;
    // A stream, which is read once from its start to its end, fills one file after the other. Its headers lack what `uname` in
    // the guest's memory says.
    context.vmcore.capture(&uri, &again, &[&two[..], &["--memory", "stream"]].concat())?;
    context.guest().cont()?;
    ensure!(report["files"].as_array().map(Vec::len) == Some(2), "the report says {}", report["files"]);
    let captured = parts(&dump, 2);
    let captured: Vec<&Path> = captured.iter().map(PathBuf::as_path).collect();
    context.vmcore.run([&[Path::new("verify")], &captured[..]].concat())?;
    let elf = context.path("whole.vmcore");
    convert(context, &captured, &elf, &[])?;
    same_memory_and_notes(&elf, &core).context("--split 2")?;
    let streamed = parts(&again, 2);
    let streamed: Vec<&Path> = streamed.iter().map(PathBuf::as_path).collect();
    convert(context, &streamed, &elf, &[])?;
    same_memory_and_notes(&elf, &core).context("--memory stream")?;
    // What makedumpfile makes of the files is the dump as it is written in one.
    convert(context, &captured, &again, &[&all[..], &["--split", "3"]].concat())?;
    reassemble(&parts(&again, 3))?;
    same_as(context, &whole, &core).context("makedumpfile --reassemble")?;
    let (ours, theirs) = (context.path("ours.kdump"), context.path("theirs.kdump"));
    convert(context, &[&core], &ours, &all)?;
    convert(context, &[&whole], &theirs, &all)?;
    super::capture::same_files(&ours, &theirs).context("makedumpfile --reassemble")?;
    let (ours, theirs) = (ours.metadata()?.len(), whole.metadata()?.len());
    // It stores repeated pages again, but of zero pages one, or the file would be many times as long.
    ensure!(theirs < ours * 5 / 4, "makedumpfile --reassemble makes {theirs} bytes of {ours}");
    // And consumers open it.
    let core = context.dump()?;
    convert(context, &[&core], &again, &["--format", "kdump", "--split", "3"])?;
    reassemble(&parts(&again, 3))?;
    passed(consumers::libkdumpfile_of(context, &whole))?;
    passed(consumers::drgn_of(context, &whole))?;
    passed(consumers::makedumpfile_of(context, &whole))?;
    passed(consumers::crash_of(context, &whole))?;
    Ok(Verdict::Passed)
}

/// Our dumps in all compressions: nothing is lost, and everybody opens them.
pub(crate) fn written(context: &mut Context) -> Result<Verdict> {
    let core = context.dump()?;
    let dump = context.path("guest.kdump");
    for compression in COMPRESSIONS {
        let all = ["--format", "kdump", "--compress", compression, "--all-memory"];
        let check = |context: &mut Context| -> Result<()> {
            convert(context, &[&core], &dump, &all)?;
            context.vmcore.verify(&dump)?;
            same_as(context, &dump, &core)?;
            convert(context, &[&core], &dump, &all[..4])?;
            passed(consumers::libkdumpfile_of(context, &dump))?;
            passed(consumers::drgn_of(context, &dump))?;
            // Debian's makedumpfile is built without the others.
            if ["zlib", "lzo", "none"].contains(&compression) {
                passed(consumers::makedumpfile_of(context, &dump))?;
            }
            consumers::crash_of(context, &dump).map(drop)
        };
        check(context).with_context(|| format!("--compress {compression}"))?;
    }
    Ok(Verdict::Passed)
}

/// Here a missing consumer is as bad as a failed one: its own test says so by name.
pub(super) fn passed(verdict: Result<Verdict>) -> Result<()> {
    match verdict? {
        Verdict::Passed | Verdict::Skipped(_) => Ok(()),
    }
}

/// liblzo2 expands our pages, and we expand its.
pub(crate) fn lzo(context: &mut Context) -> Result<Verdict> {
    let Some(python) = find("python3") else { return Ok(Verdict::Skipped("python3".to_owned())) };
    let (core, ours, theirs) = (context.dump()?, context.path("ours.kdump"), context.path("theirs.kdump"));
    convert(context, &[&core], &ours, &["--format", "kdump", "--compress", "lzo", "--all-memory"])?;
    for task in ["expand", "pack"] {
        let mut command = Command::new(&python);
        let out = any_output(command.args(["-c", LZO_PEER, task]).args([&ours, &theirs]))?;
        match out.status.code() {
            Some(0) => {}
            Some(77) => return Ok(Verdict::Skipped("liblzo2".to_owned())),
            _ => bail!("{task}: {}", printed(&out)),
        }
        let count: u64 = String::from_utf8(out.stdout)?.trim().parse()?;
        ensure!(count > 10_000, "only {count} pages are LZO's");
        same_as(context, &theirs, &core).with_context(|| format!("{task} by liblzo2"))?;
        context.vmcore.verify(&theirs)?;
    }
    Ok(Verdict::Passed)
}

/// A capture into a file, into a pipe, and what `makedumpfile -R` makes of the latter.
pub(crate) fn captured(context: &mut Context) -> Result<Verdict> {
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let (core, dump) = (context.path("stopped.vmcore"), context.path("stopped.kdump"));
    let stream = context.path("stream");
    context.guest().stop()?;
    let uri = context.guest().uri();
    context.vmcore.capture(&uri, &core, &[])?;
    let options = ["--format", "kdump", "--compress", "zstd", "--all-memory"];
    context.vmcore.capture(&uri, &dump, &options)?;
    let mut command = context.vmcore.command(["capture", &uri, "-o", "-", "--quiet"]);
    // A pipe, not the file itself: only a pipe cannot go back.
    let mut child = command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().context("no pipe")?;
    std::io::copy(&mut pipe, &mut File::create(&stream)?)?;
    ensure!(child.wait()?.success(), "the capture into a pipe failed");
    context.guest().cont()?;
    same_as(context, &dump, &core).context("the file")?;
    same_as(context, &stream, &core).context("the stream")?;
    context.vmcore.verify(&stream)?;
    rearrange_both(context, &makedumpfile, &stream)?;
    super::capture::same_files(&dump, &context.path("rearranged.ours"))?;
    Ok(Verdict::Passed)
}

/// `convert --rearrange` and `makedumpfile -R` make the same file of a stream.
fn rearrange_both(context: &Context, makedumpfile: &Path, stream: &Path) -> Result<()> {
    let (theirs, ours) = (context.path("rearranged.theirs"), context.path("rearranged.ours"));
    let mut command = Command::new(makedumpfile);
    command.args(["-f", "-R"]).arg(&theirs).stdin(File::open(stream)?).stdout(Stdio::null());
    let status = command.status()?;
    ensure!(status.success(), "makedumpfile -R ended with {status}");
    convert(context, &[stream], &ours, &["--rearrange"])?;
    super::capture::same_files(&theirs, &ours).context("--rearrange")
}

/// QEMU's own dumps, flattened, and not where it can.
pub(crate) fn of_qemu(context: &mut Context) -> Result<Verdict> {
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let (core, theirs) = (context.path("stopped.vmcore"), context.path("qemu.kdump"));
    context.guest().stop()?;
    let uri = context.guest().uri();
    context.vmcore.capture(&uri, &core, &[])?;
    let mut formats = vec!["kdump-zlib"];
    if context.guest().spec.qemu == crate::guest::QemuVersion::V10 {
        formats.push("kdump-raw-zlib");
    }
    for format in formats {
        qemu::dump_to_file(context.guest(), &theirs, format)?;
        if format == "kdump-zlib" {
            rearrange_both(context, &makedumpfile, &theirs)?;
        }
        context.vmcore.verify(&theirs)?;
        let elf = context.path("qemu.vmcore");
        convert(context, &[&theirs], &elf, &[])?;
        let mut file = File::open(&core)?;
        let head = Head::read(&mut file)?;
        compare::same_memory(&head, &mut file, &CoreFile::open(&elf)?).context(format)?;
        // And repaired: what drgn does not open of QEMU's it opens of ours.
        let repaired = context.path("repaired.kdump");
        convert(context, &[&theirs], &repaired, &["--format", "kdump"])?;
        passed(consumers::makedumpfile_of(context, &repaired)).context(format)?;
    }
    context.guest().cont()?;
    Ok(Verdict::Passed)
}

/// What makedumpfile makes of our dump opens in ours and holds the guest's memory.
pub(crate) fn of_makedumpfile(context: &mut Context) -> Result<Verdict> {
    let Some(makedumpfile) = find("makedumpfile") else {
        return Ok(Verdict::Skipped("makedumpfile".to_owned()));
    };
    let core = context.dump()?;
    let out = context.path("theirs");
    let parts: Vec<PathBuf> = (0..3).map(|index| context.path(&format!("part{index}"))).collect();
    let cases: [&[&str]; 9] = [
        &["-c", "-d", "0"],
        &["-l", "-d", "1"],
        &["-c", "-d", "2"],
        &["-c", "-d", "17"],
        &["-l", "-d", "31"],
        &["-d", "31"],
        // Higher levels leave out more than zeros, and an ELF core does not say which.
        &["-E", "-d", "1"],
        &["-F", "-c", "-d", "31"],
        &["--split", "-c", "-d", "31"],
    ];
    for options in cases {
        let check = || -> Result<()> {
            let mut command = Command::new(&makedumpfile);
            command.arg("-f").args(options).arg(&core).stdout(Stdio::null());
            let mut inputs = vec![out.as_path()];
            if options.contains(&"--split") {
                command.args(&parts);
                inputs = parts.iter().map(PathBuf::as_path).collect();
            } else if options.contains(&"-F") {
                command.stdout(File::create(&out)?);
            } else {
                command.arg(&out);
            }
            let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
            ensure!(status.success(), "makedumpfile ended with {status}");
            if inputs.len() == 1 {
                context.vmcore.verify(&out)?;
            }
            let elf = context.path("filtered.vmcore");
            convert(context, &inputs, &elf, &[])?;
            // Each page that is there is the guest's. makedumpfile drops pages behind the last RAM without a word.
            let mut file = File::open(&elf)?;
            let mut head = Head::read(&mut file)?;
            head.segments.retain(|segment| !FIRMWARE.contains(&segment.paddr));
            ensure!(head.memory_len() > 16 << 20, "only {} bytes of memory are left", head.memory_len());
            compare::same_memory(&head, &mut file, &CoreFile::open(&core)?)?;
            let again = context.path("again.kdump");
            convert(context, &inputs, &again, &["--format", "kdump", "--compress", "zstd", "--all-memory"])?;
            context.vmcore.verify(&again)
        };
        check().with_context(|| format!("makedumpfile {}", options.join(" ")))?;
    }
    Ok(Verdict::Passed)
}
