//! Programs of the operating system that the tests need.

use crate::run::{self, any_output, output};
use anyhow::{Result, bail};
use std::process::Command;

/// Debian packages, and what of theirs is used.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "guests, and the oracle"),
    ("qemu-system-arm", "guests of aarch64 and arm"),
    ("qemu-system-ppc", "guests of ppc64"),
    ("qemu-system-misc", "guests of s390x and riscv64"),
    ("gdb-multiarch", "consumer"),
    ("lldb", "consumer"),
    ("makedumpfile", "consumer"),
    ("libkdumpfile10", "consumer, through Python's ctypes"),
    ("liblzo2-2", "peer of our LZO, through Python's ctypes"),
    ("crash", "consumer"),
    ("python3", "the environment of drgn and Volatility 3"),
    ("python3-venv", "the environment of drgn and Volatility 3"),
    ("binutils", "assembles the bare-metal guests of the golden files; readelf is a consumer"),
    ("gcc", "compiles users of the C interface"),
    ("g++", "compiles users of the C interface"),
    ("pkgconf", "compiles users of the C interface"),
    ("valgrind", "runs users of the C interface"),
    ("file", "consumer"),
    ("e2fsprogs", "the disk of a guest"),
    ("xz-utils", "unpacks the drivers of newer kernels"),
    ("util-linux", "setpriv: guests end with their test"),
];

/// Installs what is missing, or says so where we may not.
pub(crate) fn packages() -> Result<()> {
    let missing: Vec<String> =
        PACKAGES.iter().filter(|(name, _)| !is_installed(name)).map(|(name, _)| (*name).to_owned()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !run::is_root() {
        for (name, why) in PACKAGES.iter().filter(|(name, _)| missing.iter().any(|missing| missing == name)) {
            eprintln!("missing: {name} ({why})");
        }
        bail!("as root: apt-get install --no-install-recommends {}", missing.join(" "));
    }
    install(&missing)
}

/// Installs packages as root.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let install = || {
        let mut command = apt_get();
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        output(&mut command)
    };
    // The lists of a fresh machine may be missing or old.
    if install().is_err() {
        run::retry(4, "reading the package lists", || output(apt_get().arg("update")))?;
        run::retry(3, "installing packages", install)?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn is_installed(package: &str) -> bool {
    let out = any_output(Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]));
    out.is_ok_and(|out| out.stdout == b"install ok installed")
}
