//! Which QEMU, and how it is told about the guest.

use super::arch::Linux;
use super::deterministic::Pinned;
use super::{Backend, QemuVersion, Spec, initrd, kernel};
use crate::apt::{Apt, RELEASE};
use crate::run::{self, any_output, output};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The backing file of [`Backend::File`], given the guest's folder.
pub(crate) fn backing_file(spec: &Spec, folder: &Path) -> PathBuf {
    spec.memory.clone().unwrap_or_else(|| folder.join("memory"))
}

/// The initrd in a guest's folder.
pub(super) fn initrd_file(folder: &Path) -> PathBuf {
    folder.join("initrd")
}

/// The command that runs a guest. `socket` is made by QEMU, `control` is there already.
pub(crate) fn command(spec: &Spec, folder: &Path, socket: &Path, control: &Path) -> Result<Command> {
    let target = spec.arch.target();
    let pinned = spec.pinned();
    if spec.deterministic && pinned.is_none() {
        bail!("no such guest is known to have the same memory in each boot");
    }
    let mut command = program(spec)?;
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-accel", "tcg", "-cpu", spec.cpu(), "-smp", &spec.cpus.to_string()]);
    match pinned {
        Some(pinned) => pinned.arguments(&mut command),
        None => {
            command.args(["-action", "panic=pause"]).args(target.devices);
        }
    }
    if spec.vmcoreinfo || pinned.is_some_and(|pinned| pinned.vmcoreinfo) {
        command.args(["-device", "vmcoreinfo"]);
    }
    memory(&mut command, spec, folder);
    if spec.features {
        features(&mut command, folder)?;
    }
    // Both monitors are there when the second has greeted.
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
    command.arg("-qmp").arg(format!("unix:{},server=off", control.display()));
    command.args(["-serial", "stdio"]);
    let Some((linux, version)) = spec.linux() else {
        command.arg("-S");
        return Ok(command);
    };
    let kernel = kernel::kernel(linux, version, pinned)?;
    let (archive, append) = match pinned {
        Some(pinned) => (pinned.initrd(&kernel)?, Pinned::append(linux.console)),
        None => (initrd::initrd(linux, &kernel, spec)?, append(linux, spec)),
    };
    let initrd = initrd_file(folder);
    fs::write(&initrd, archive)?;
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initrd).arg("-append").arg(append);
    Ok(command)
}

/// The kernel's command line.
fn append(linux: &Linux, spec: &Spec) -> String {
    let (console, fill) = (linux.console, spec.fill);
    let mut append =
        format!("console={console} loglevel=4 panic=-1 memhp_default_state=online GUEST_FILL={fill}");
    if spec.features {
        append.push_str(" GUEST_FEATURES=1");
    }
    if let Some(parameters) = &spec.append {
        append = format!("{append} {parameters}");
    }
    append
}

/// A disk with an empty file system, and a balloon.
fn features(command: &mut Command, folder: &Path) -> Result<()> {
    let disk = folder.join("disk");
    fs::File::create(&disk)?.set_len(64 << 20)?;
    let mkfs = run::find("mkfs.ext4").context("mkfs.ext4 is missing: install e2fsprogs")?;
    output(Command::new(mkfs).arg("-q").arg(&disk))?;
    command.arg("-drive").arg(format!("file={},if=none,id=disk,format=raw", disk.display()));
    command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-balloon-pci,id=balloon"]);
    Ok(())
}

fn memory(command: &mut Command, spec: &Spec, folder: &Path) {
    let machine = spec.machine();
    let mut add = |option: &str, value: String| {
        command.arg(option).arg(value);
    };
    let mem = spec.mem;
    match spec.backend {
        Backend::None => {
            add("-machine", machine.to_owned());
            add("-m", format!("{mem}M"));
        }
        Backend::File | Backend::Memfd => {
            add("-machine", format!("{machine},memory-backend=ram"));
            add("-m", format!("{mem}M"));
            let path = backing_file(spec, folder);
            let backend = match spec.backend {
                Backend::File => format!("memory-backend-file,mem-path={}", path.display()),
                _ => "memory-backend-memfd".to_owned(),
            };
            add("-object", format!("{backend},id=ram,size={mem}M,share=on"));
        }
        Backend::Numa => {
            add("-machine", machine.to_owned());
            add("-m", format!("{mem}M,slots=2,maxmem={}M", mem * 4));
            let low = mem * 2 / 3;
            for (node, len) in [low, mem - low].into_iter().enumerate() {
                add("-object", format!("memory-backend-ram,id=node{node},size={len}M"));
                add("-numa", format!("node,nodeid={node},memdev=node{node}"));
            }
        }
        Backend::Dimm => {
            add("-machine", machine.to_owned());
            add("-m", format!("{mem}M,slots=2,maxmem={}M", mem * 4));
        }
    }
}

/// The program of that version with what it needs to find its files, ended by the kernel when we end.
pub(crate) fn program(spec: &Spec) -> Result<Command> {
    let target = spec.arch.target();
    let program = format!("qemu-system-{}", target.qemu);
    let package = match (target.package, spec.qemu) {
        // Later versions have packages of their own for them, and the rest is still there.
        ("qemu-system-misc", QemuVersion::V10) if target.qemu == "s390x" => "qemu-system-s390x",
        ("qemu-system-misc", QemuVersion::V10) if target.qemu == "riscv64" => "qemu-system-riscv",
        (package, _) => package,
    };
    // Not a `pre_exec`: that would be unsafe code.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    let (wanted, suite) = match spec.qemu {
        QemuVersion::V7 => ("7.2", RELEASE.to_owned()),
        QemuVersion::V10 => ("10.0", format!("{RELEASE}-backports")),
    };
    if is_version(&program, wanted) {
        command.arg(program);
        return Ok(command);
    }
    let root = Apt::new(&suite, "amd64")?.unpacked(&format!("{package}-{wanted}"), |_| {
        let mut packages = vec![package, "qemu-system-common", "qemu-system-data", "seabios"];
        if package == "qemu-system-riscv" {
            // The links to the firmware are in QEMU's packages, the firmware is not.
            packages.push("opensbi");
        }
        Ok(packages.into_iter().map(str::to_owned).collect())
    })?;
    let path = root.join("usr/bin").join(&program);
    install_libraries(&path, package)?;
    if !is_version(&path.display().to_string(), wanted) {
        bail!("{} is not QEMU {wanted}: remove {} and try again", path.display(), root.display());
    }
    command.arg(&path).env("QEMU_MODULE_DIR", module_folder(&root)?);
    for folder in ["qemu", "seabios"] {
        command.arg("-L").arg(root.join("usr/share").join(folder));
    }
    Ok(command)
}

fn is_version(program: &str, wanted: &str) -> bool {
    let out = any_output(Command::new(program).arg("--version"));
    out.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(&format!("version {wanted}.")))
}

/// The folder of the accelerators, which Debian builds as modules.
fn module_folder(root: &Path) -> Result<PathBuf> {
    let libraries = root.join("usr/lib");
    for entry in fs::read_dir(&libraries)? {
        let folder = entry?.path().join("qemu");
        if folder.is_dir() {
            return Ok(folder);
        }
    }
    bail!("{} has no folder of QEMU modules", libraries.display())
}

/// Installs the shared libraries that a QEMU of the cache lacks, by the dependencies of its package.
fn install_libraries(program: &Path, package: &str) -> Result<()> {
    let listed = output(Command::new("ldd").arg(program))?;
    let missing: Vec<&str> = listed
        .lines()
        .filter(|line| line.ends_with("not found"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The same dependencies as those of the release's own QEMU, but for a few.
    let packages = Apt::new(&format!("{RELEASE}-backports"), "amd64")?.dependencies(package)?;
    let packages: Vec<String> = packages.into_iter().filter(|name| name.starts_with("lib")).collect();
    if !run::is_root() {
        bail!("{} lacks {}: install {}", program.display(), missing.join(", "), packages.join(" "));
    }
    crate::packages::install(&packages).with_context(|| format!("for {}", program.display()))
}
