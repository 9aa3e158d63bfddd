//! Programs of others that open our dumps. A missing one is skipped by name.

use super::python::{self, DRGN, LIBKDUMPFILE};
use super::{Context, Verdict};
use crate::oracle::core_file::{
    CoreFile, EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, FIRMWARE, Order,
};
use crate::oracle::walk;
use crate::run::{any_output, find, output};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn gdb(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let dump = context.dump()?;
    let core = context.core()?;
    let slots = slots(core.head.machine)?;
    let mut command = Command::new(gdb);
    command.args(["-nx", "-batch", "-ex"]).arg(format!("core-file {}", dump.display()));
    command.args(["-ex", "info threads"]);
    let notes = core.head.notes_of("CORE", 1);
    let mut expected = Vec::new();
    for (index, note) in notes.iter().enumerate() {
        command.arg("-ex").arg(format!("thread {}", index + 1));
        for (name, slot) in slots {
            let value = match core.head.machine {
                EM_386 | EM_ARM => u64::from(core.head.order.u32(note, 72 + 4 * slot)),
                _ => core.head.order.u64(note, 112 + 8 * slot),
            };
            command.arg("-ex").arg(format!("printf \"{index}.{name}=%lx\\n\", (unsigned long)${name}"));
            expected.push(format!("{index}.{name}={value:x}"));
        }
    }
    for (paddr, bytes) in samples(&core)? {
        let value = core.head.order.u64(&bytes, 0);
        command.arg("-ex").arg(format!("printf \"{paddr:x}:%llx\\n\", *(unsigned long long*){paddr:#x}"));
        expected.push(format!("{paddr:x}:{value:x}"));
    }
    let out = output(&mut command)?;
    let threads = out.lines().filter(|line| line.trim_start_matches(['*', ' ']).contains("LWP")).count();
    ensure!(threads >= notes.len(), "gdb shows {threads} threads, there are {}:\n{out}", notes.len());
    for line in expected {
        ensure!(out.lines().any(|found| found == line), "gdb does not say {line}:\n{out}");
    }
    Ok(Verdict::Passed)
}

/// `file` and readelf know the dump for what it is, and find nothing wrong with it.
pub(crate) fn elf_tools(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let core = context.core()?;
    let (Some(file), Some(readelf)) = (find("file"), find("readelf")) else {
        return missing("file, readelf");
    };
    let said = output(Command::new(file).arg("--brief").arg(&dump))?;
    let order = if core.head.order == Order::Big { "MSB" } else { "LSB" };
    let bits = if core.head.is_64 { "64" } else { "32" };
    let expected = format!("ELF {bits}-bit {order} core file");
    ensure!(said.starts_with(&expected), "file says {said}, expected {expected}");
    let out = any_output(Command::new(readelf).args(["--all", "--wide"]).arg(&dump))?;
    let wrong = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success() && wrong.is_empty(), "readelf finds fault: {wrong}");
    let said = String::from_utf8_lossy(&out.stdout);
    let loads = said.lines().filter(|line| line.trim_start().starts_with("LOAD ")).count();
    ensure!(
        loads == core.head.segments.len(),
        "readelf sees {loads} segments of {}",
        core.head.segments.len()
    );
    Ok(Verdict::Passed)
}

/// Some registers by gdb's names, with their places in `pr_reg` (`spec/arch-notes.md` section 3.2).
fn slots(machine: u16) -> Result<&'static [(&'static str, usize)]> {
    Ok(match machine {
        EM_X86_64 => &[
            ("r15", 0),
            ("rbp", 4),
            ("rbx", 5),
            ("rax", 10),
            ("rip", 16),
            ("rsp", 19),
            ("cs", 17),
            ("gs_base", 22),
        ],
        EM_386 => &[("ebx", 0), ("ecx", 1), ("ebp", 5), ("eax", 6), ("eip", 12), ("esp", 15)],
        EM_AARCH64 => &[("x0", 0), ("x19", 19), ("x30", 30), ("sp", 31), ("pc", 32)],
        EM_ARM => &[("r0", 0), ("r12", 12), ("sp", 13), ("lr", 14), ("pc", 15), ("cpsr", 16)],
        EM_PPC64 => &[("r1", 1), ("r13", 13), ("pc", 32), ("msr", 33), ("ctr", 35), ("lr", 36), ("cr", 38)],
        EM_RISCV => &[("pc", 0), ("ra", 1), ("sp", 2), ("a0", 10), ("t6", 31)],
        EM_S390 => &[("pswm", 0), ("pswa", 1), ("r0", 2), ("r14", 16), ("r15", 17)],
        other => bail!("the places of registers of ELF machine {other} are not known here"),
    })
}

pub(crate) fn drgn(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    drgn_of(context, &dump)
}

/// drgn opens this dump, whose memory is that of the guest's ELF core.
pub(super) fn drgn_of(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let samples = samples_of(context, dump)?;
    drgn_reads(context, dump, samples)
}

/// drgn reads these pages of the dump.
pub(super) fn drgn_reads(context: &mut Context, dump: &Path, samples: Vec<Sample>) -> Result<Verdict> {
    let Ok(environment) = python_environment() else { return missing("drgn") };
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    script(&environment.join("python"), DRGN, dump, &release, samples)
}

pub(crate) fn libkdumpfile(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    libkdumpfile_of(context, &dump)
}

pub(super) fn libkdumpfile_of(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let samples = samples_of(context, dump)?;
    libkdumpfile_reads(context, dump, samples)
}

/// libkdumpfile reads these pages of the dump.
pub(super) fn libkdumpfile_reads(
    context: &mut Context,
    dump: &Path,
    samples: Vec<Sample>,
) -> Result<Verdict> {
    let Some(python) = with_libkdumpfile() else { return missing("libkdumpfile") };
    let arch = context.guest().spec.arch.target().qemu;
    script(&python, LIBKDUMPFILE, dump, arch, samples)
}

/// A Python that finds libkdumpfile, if there is one.
pub(super) fn with_libkdumpfile() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let is_there = folders.iter().any(|folder| Path::new(folder).join("libkdumpfile.so.10").exists());
    find("python3").filter(|_| is_there)
}

/// Runs a script that opens the dump, prints one line, and then memory in hex.
fn script(python: &Path, text: &str, dump: &Path, first_line: &str, samples: Vec<Sample>) -> Result<Verdict> {
    let mut command = Command::new(python);
    command.arg("-c").arg(text).arg(dump);
    command.args(samples.iter().map(|(paddr, bytes)| format!("{paddr:#x}:{}", bytes.len())));
    let out = output(&mut command)?;
    let mut lines = out.lines();
    let found = lines.next().unwrap_or_default();
    ensure!(found == first_line, "it says {found}, expected {first_line}");
    for (paddr, bytes) in samples {
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(lines.next() == Some(expected.as_str()), "memory at {paddr:#x} differs");
    }
    Ok(Verdict::Passed)
}

pub(crate) fn makedumpfile(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    makedumpfile_of(context, &dump)
}

pub(super) fn makedumpfile_of(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let Some(makedumpfile) = find("makedumpfile") else { return missing("makedumpfile") };
    let (log, filtered) = (context.path("dmesg.txt"), context.path("filtered.kdump"));
    output(Command::new(&makedumpfile).args(["-f", "--dump-dmesg"]).arg(dump).arg(&log))?;
    let log = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    ensure!(log.contains(&format!("Linux version {release}")), "the kernel's log does not name {release}");
    output(Command::new(&makedumpfile).args(["-f", "-c", "-d", "31"]).arg(dump).arg(&filtered))?;
    let (all, kept) = (context.core()?.head.memory_len(), std::fs::metadata(&filtered)?.len());
    ensure!(kept > 1 << 20 && kept < all / 4, "the filtered dump has {kept} bytes of {all}");
    Ok(Verdict::Passed)
}

pub(crate) fn volatility(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    volatility_of(context, &dump)
}

/// gdb takes each architecture's description, whose snapshots the tests keep, without a warning.
pub(crate) fn target_descriptions(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let xml = context.path("target.xml");
    let mut count = 0;
    for entry in std::fs::read_dir(crate::run::repository().join("tests/golden"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some(arch) = name.strip_suffix("-target.snap") else { continue };
        let snapshot = std::fs::read_to_string(&path)?;
        let (_, text) = snapshot.split_once("\n---\n").context("a snapshot has a head")?;
        std::fs::write(&xml, text)?;
        let mut command = Command::new(&gdb);
        command.args(["-nx", "-batch", "-ex"]).arg(format!("set tdesc filename {}", xml.display()));
        command.args(["-ex", "show architecture", "-ex", "maint print raw-registers"]);
        let out = any_output(&mut command)?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(!said.to_lowercase().contains("warning"), "{arch}: {said}");
        let out = String::from_utf8_lossy(&out.stdout);
        let (_, registers) = text.split_once("<reg name=\"").context("a description has registers")?;
        let first = registers.split('"').next().unwrap_or_default();
        ensure!(out.lines().any(|line| line.trim_start().starts_with(first)), "{arch}: gdb lacks {first}");
        count += 1;
    }
    ensure!(count > 0, "there are no snapshots of target descriptions");
    Ok(Verdict::Passed)
}

/// Images of memory alone are for Volatility: it knows both forms.
pub(crate) fn images(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    for format in ["raw", "lime"] {
        let image = context.path(format);
        let mut convert = context.vmcore.command(["convert", "--format", format, "-o"]);
        output(convert.arg(&image).arg(&dump))?;
        if let skipped @ Verdict::Skipped(_) = volatility_of(context, &image)? {
            return Ok(skipped);
        }
        let mut verify = context.vmcore.command(["verify", "--input-format", format]);
        output(verify.arg(&image))?;
        std::fs::remove_file(&image)?;
    }
    Ok(Verdict::Passed)
}

pub(super) fn volatility_of(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let Ok(environment) = python_environment() else { return missing("Volatility 3") };
    let mut command = Command::new(environment.join("vol"));
    let symbols = crate::run::cache("volatility")?;
    let out = output(
        command
            .args(["-q", "--offline", "--cache-path"])
            .arg(symbols)
            .arg("-f")
            .arg(dump)
            .arg("banners.Banners"),
    )?;
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    ensure!(out.contains(&format!("Linux version {release}")), "no banner of {release}:\n{out}");
    Ok(Verdict::Passed)
}

pub(crate) fn crash(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    crash_of(context, &dump)
}

pub(super) fn crash_of(context: &mut Context, dump: &Path) -> Result<Verdict> {
    let Some(crash) = find("crash") else { return missing("crash") };
    let release = context.core()?.head.vmcoreinfo("OSRELEASE")?;
    let vmlinux = PathBuf::from(format!("/usr/lib/debug/boot/vmlinux-{release}"));
    if !vmlinux.is_file() {
        return missing(&format!("{} for crash", vmlinux.display()));
    }
    let commands = context.path("commands");
    // Of Debian's later 6.1 kernels crash 8.0.2 lists the idle tasks alone, of QEMU's dumps too.
    std::fs::write(&commands, "sys\nps\nlog\nquit\n")?;
    let out = output(Command::new(crash).args(["-s", "-i"]).arg(&commands).arg(&vmlinux).arg(dump))?;
    for word in [format!("RELEASE: {release}"), "[swapper/0]".to_owned(), format!("Linux version {release}")]
    {
        ensure!(out.contains(&word), "crash does not show {word}:\n{out}");
    }
    Ok(Verdict::Passed)
}

pub(super) fn missing(what: &str) -> Result<Verdict> {
    Ok(Verdict::Skipped(what.to_owned()))
}

fn python_environment() -> Result<PathBuf> {
    python::environment().inspect_err(|error| eprintln!("the Python environment: {error:#}"))
}

/// A page: its physical address, and what it holds.
pub(super) type Sample = (u64, Vec<u8>);

/// Pages that this dump of the current guest must hold.
fn samples_of(context: &mut Context, dump: &Path) -> Result<Vec<Sample>> {
    let mut samples = samples(&context.core()?)?;
    if dump != context.dump()? {
        // kdump dumps lack what lies behind the end of RAM.
        samples.retain(|(paddr, _)| !FIRMWARE.contains(paddr));
    }
    Ok(samples)
}

/// Pages of the dump to look at: where the kernel's name is, and some of each segment.
fn samples(core: &CoreFile) -> Result<Vec<Sample>> {
    let mut addresses = vec![];
    if let Ok((_, paddr)) = walk::init_uts_ns(core) {
        addresses.push(paddr & !0xfff);
    }
    for segment in &core.head.segments {
        let end = segment.paddr + segment.memsz;
        addresses.extend([segment.paddr, (segment.paddr + segment.memsz / 2) & !0xfff, end - 4096]);
    }
    addresses.into_iter().map(|paddr| sample(core, paddr)).collect()
}

pub(super) fn sample(core: &CoreFile, paddr: u64) -> Result<Sample> {
    let mut bytes = vec![0; 4096];
    core.read_physical(paddr, &mut bytes).context("a sample")?;
    Ok((paddr, bytes))
}
