//! `convert`, `info`, `verify` and `read` on dumps of real kernels.

use super::{Context, Verdict};
use crate::oracle::core_file::{CoreFile, EM_AARCH64, EM_PPC64, Head};
use crate::oracle::{compare, qemu, walk};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;

pub(crate) fn list(context: &mut Context) -> Result<Verdict> {
    let listed: Value = serde_json::from_slice(&context.vmcore.run(["list", "--json"])?)?;
    for (kind, key, names) in [
        ("architectures", "name", &["aarch64", "arm", "i386", "ppc64", "riscv64", "s390x", "x86_64"][..]),
        ("formats", "name", &["elf"]),
        ("sources", "scheme", &["demo", "qemu"]),
    ] {
        let rows = listed[kind].as_array().with_context(|| format!("no {kind} are listed"))?;
        for name in names {
            ensure!(rows.iter().any(|row| row[key] == *name), "{name} is not among the {kind}: {rows:?}");
        }
    }
    Ok(Verdict::Passed)
}

/// QEMU's dump, converted, holds the same memory and notes.
pub(crate) fn convert_qemu(context: &mut Context) -> Result<Verdict> {
    let (theirs, ours) = (context.path("qemu.dump"), context.path("converted.vmcore"));
    let again = context.path("again.vmcore");
    qemu::dump_to_file(context.guest(), &theirs, "elf")?;
    context.vmcore.verify(&theirs)?;
    let search = "--no-vmcoreinfo-search".as_ref();
    context.vmcore.run(["convert".as_ref(), search, theirs.as_os_str(), "-o".as_ref(), ours.as_os_str()])?;
    let mut file = File::open(&theirs)?;
    let head = Head::read(&mut file)?;
    let converted = CoreFile::open(&ours)?;
    compare::same_segments(&head, &converted.head)?;
    compare::same_notes(&head, &converted.head)?;
    // The vector notes of ppc64, which QEMU gives to an owner where nobody looks for them, come in their right form, too.
    let is_same = head.notes.len() == converted.head.notes.len() || head.machine == EM_PPC64;
    ensure!(is_same, "convert adds or loses notes");
    compare::same_memory(&head, &mut file, &converted)?;
    context.vmcore.verify(&ours)?;
    same_reading(context, &theirs)?;
    same_reading(context, &ours)?;
    // What we wrote ourselves comes out again byte for byte.
    context.vmcore.run(["convert".as_ref(), search, ours.as_os_str(), "-o".as_ref(), again.as_os_str()])?;
    super::capture::same_files(&ours, &again).context("converted twice")?;
    Ok(Verdict::Passed)
}

pub(crate) fn read(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    let (found, kernel) = (context.core()?.head.order, context.guest().spec.arch.target().order);
    ensure!(found == kernel, "the dump is {found:?} endian, the kernel is {kernel:?} endian");
    context.vmcore.verify(&dump)?;
    same_reading(context, &dump)?;
    Ok(Verdict::Passed)
}

/// `info` and `read` say what the oracle reads from the same file.
fn same_reading(context: &mut Context, path: &Path) -> Result<()> {
    let core = CoreFile::open(path)?;
    let info = context.vmcore.info(path)?;
    let regions: Vec<(u64, u64)> =
        core.head.segments.iter().map(|segment| (segment.paddr, segment.memsz)).collect();
    let shown = info["regions"].as_array().context("info has no regions")?;
    let shown: Vec<_> =
        shown.iter().filter_map(|region| region["gpa"].as_u64().zip(region["len"].as_u64())).collect();
    ensure!(shown == regions, "info shows the regions {shown:x?}, the dump has {regions:x?}");
    if info["architecture"].is_null() {
        // Without the plugin of its architecture, which `list` looks for, a dump has no vCPUs.
        return Ok(());
    }
    let vcpus = context.guest().spec.cpus;
    ensure!(
        info["vcpus"].as_array().map(Vec::len) == Some(vcpus as usize),
        "info shows other vCPUs than {vcpus}"
    );
    if !context.guest().spec.is_booted() {
        return Ok(());
    }
    if let Some((vaddr, paddr)) = walk::linear(core.head.machine) {
        return same_bytes(context, path, &core, vaddr, paddr).map(drop);
    }
    let release = core.head.vmcoreinfo("OSRELEASE")?;
    ensure!(
        info["vmcoreinfo"]["OSRELEASE"] == json!(release),
        "info says {}",
        info["vmcoreinfo"]["OSRELEASE"]
    );
    let (vaddr, paddr) = walk::init_uts_ns(&core)?;
    let bytes = same_bytes(context, path, &core, vaddr, paddr)?;
    let text = String::from_utf8_lossy(&bytes);
    ensure!(text.contains(&release), "init_uts_ns does not hold the release {release}");
    Ok(())
}

/// `read` gives the dump's bytes by both addresses, for each vCPU.
fn same_bytes(
    context: &mut Context,
    path: &Path,
    core: &CoreFile,
    vaddr: u64,
    paddr: u64,
) -> Result<Vec<u8>> {
    let mut expected = vec![0; 390];
    core.read_physical(paddr, &mut expected)?;
    ensure!(expected.iter().any(|byte| *byte != 0), "memory at {paddr:#x} would be the same anywhere");
    let physical = context.vmcore.read(path, paddr, expected.len(), &["--raw"])?;
    ensure!(physical == expected, "read by physical address {paddr:#x} differs");
    if core.head.machine == EM_AARCH64 && core.head.notes.iter().all(|note| note.owner != "VMCORE") {
        // QEMU's notes lack the registers that say where the page tables are.
        return Ok(physical);
    }
    for cpu in 0..context.guest().spec.cpus {
        let virt =
            context.vmcore.read(path, vaddr, expected.len(), &["--virt", "--cpu", &cpu.to_string()])?;
        ensure!(virt == expected, "read by virtual address {vaddr:#x} of vCPU {cpu} differs");
    }
    Ok(physical)
}
