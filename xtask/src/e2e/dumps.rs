//! `convert`, `info`, `verify` and `read` on dumps of real kernels.

use super::{Context, Verdict};
use crate::oracle::core_file::{CoreFile, Head};
use crate::oracle::{compare, qemu, walk};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::fs::File;

pub(crate) fn list(context: &mut Context) -> Result<Verdict> {
    let listed: Value = serde_json::from_slice(&context.vmcore.run(["list", "--json"])?)?;
    for (kind, key, names) in [
        ("architectures", "name", &["i386", "x86_64"][..]),
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
    context.vmcore.run(["convert".as_ref(), theirs.as_os_str(), "-o".as_ref(), ours.as_os_str()])?;
    let mut file = File::open(&theirs)?;
    let head = Head::read(&mut file)?;
    let converted = CoreFile::open(&ours)?;
    compare::same_segments(&head, &converted.head)?;
    compare::same_notes(&head, &converted.head)?;
    ensure!(head.notes.len() == converted.head.notes.len(), "convert adds or loses notes");
    compare::same_memory(&head, &mut file, &converted)?;
    context.vmcore.verify(&ours)?;
    same_reading(context, &theirs)?;
    same_reading(context, &ours)?;
    // What we wrote ourselves comes out again byte for byte.
    context.vmcore.run(["convert".as_ref(), ours.as_os_str(), "-o".as_ref(), again.as_os_str()])?;
    super::capture::same_files(&ours, &again).context("converted twice")?;
    Ok(Verdict::Passed)
}

pub(crate) fn read(context: &mut Context) -> Result<Verdict> {
    let dump = context.dump()?;
    context.vmcore.verify(&dump)?;
    same_reading(context, &dump)?;
    Ok(Verdict::Passed)
}

/// `info` and `read` say what the oracle reads from the same file.
fn same_reading(context: &mut Context, path: &std::path::Path) -> Result<()> {
    let core = CoreFile::open(path)?;
    let info = context.vmcore.info(path)?;
    let release = core.head.vmcoreinfo("OSRELEASE")?;
    ensure!(
        info["vmcoreinfo"]["OSRELEASE"] == json!(release),
        "info says {}",
        info["vmcoreinfo"]["OSRELEASE"]
    );
    let vcpus = context.guest().spec.cpus;
    ensure!(
        info["vcpus"].as_array().map(Vec::len) == Some(vcpus as usize),
        "info shows other vCPUs than {vcpus}"
    );
    let regions: Vec<(u64, u64)> =
        core.head.segments.iter().map(|segment| (segment.paddr, segment.memsz)).collect();
    let shown = info["regions"].as_array().context("info has no regions")?;
    let shown: Vec<_> =
        shown.iter().filter_map(|region| region["gpa"].as_u64().zip(region["len"].as_u64())).collect();
    ensure!(shown == regions, "info shows the regions {shown:x?}, the dump has {regions:x?}");

    let (vaddr, paddr) = walk::init_uts_ns(&core)?;
    let mut expected = vec![0; 390];
    core.read_physical(paddr, &mut expected)?;
    let physical = context.vmcore.read(path, paddr, expected.len(), &["--raw"])?;
    ensure!(physical == expected, "read by physical address {paddr:#x} differs");
    for cpu in 0..vcpus {
        let virt =
            context.vmcore.read(path, vaddr, expected.len(), &["--virt", "--cpu", &cpu.to_string()])?;
        ensure!(virt == expected, "read by virtual address {vaddr:#x} of vCPU {cpu} differs");
    }
    let text = String::from_utf8_lossy(&physical);
    ensure!(text.contains(&release), "init_uts_ns does not hold the release {release}");
    Ok(())
}
