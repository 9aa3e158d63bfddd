//! `cargo xtask golden`: makes the header of the C interface, every fixture of `tests/fixtures` and every insta snapshot anew.
//!
//! A fixture is what a real QEMU says about one of the bare-metal guests of `tests/guests`, which hold a
//! known value in every register: its dump, and beside it the same guest in other words (monitor text, gdb
//! registers, translated addresses). `tests/fixtures/README.md` tells what is in each.
//!
//! With `check`, nothing is left changed: what comes out differently is named, and that is the error.

mod fixtures;
mod header;
mod qemu;
mod snapshots;

use anyhow::{Result, bail};

use crate::run::repository;

/// One run of one guest in each version of QEMU: `NAME-qemu7.*`, and `NAME-qemu10.*` for what that one says
/// differently.
struct Recipe {
    name: &'static str,
    /// The program `tests/guests/GUEST.S`.
    guest: &'static str,
    binary: &'static str,
    machine: &'static str,
    cpu: &'static str,
    /// Further arguments, separated by spaces.
    more: &'static str,
    /// How many CPUs run the guest and tell us when they are ready; 0 for a machine that is never started.
    running: usize,
    texts: Texts,
    dumps: &'static [Dump],
}

/// What is asked beside the dumps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    /// Registers and memory map: for guests that differ from another one in their machine only.
    Machine,
    /// Also the gdb stub's registers, translated addresses and the leaves of the page tables.
    All,
}
use Texts::{All, Machine};

/// The arguments of one `dump-guest-memory`: `NAME-qemu7SUFFIX.elf.gz`.
struct Dump {
    suffix: &'static str,
    paging: bool,
    /// begin, length
    range: Option<(u64, u64)>,
}

const PLAIN: Dump = Dump { suffix: "", paging: false, range: None };
const PAGING: Dump = Dump { suffix: "-paging", paging: true, range: None };
/// A range inside the frame that counts.
const INSIDE: Dump = Dump { suffix: "-inside", paging: false, range: Some((0x17_e123, 0x6a1)) };
/// A range over three blocks: the end of low memory, the ROM below 1 MiB, the first frame above.
const ACROSS: Dump = Dump { suffix: "-across", paging: false, range: Some((0xe_fedd, 0x1_0246)) };
const PAGING_ACROSS: Dump =
    Dump { suffix: "-paging-across", paging: true, range: Some((0x10_0123, 0x6_0000)) };
/// From the last page below the PCI hole of 1 GiB to the first above 4 GiB, the ROM between them.
const HOLE: Dump = Dump { suffix: "", paging: false, range: Some((0xbfff_f800, 0x4000_1000)) };

const X86_64: &str = "qemu-system-x86_64";
const I386: &str = "qemu-system-i386";
const NUMA: &str = "-m 4 -object memory-backend-ram,id=a,size=2M -object memory-backend-ram,id=b,size=2M \
                    -numa node,memdev=a -numa node,memdev=b";

#[rustfmt::skip] // a table is read by column
const RECIPES: &[Recipe] = &[
    //     name             guest     binary  machine    cpu         more                    running  texts    dumps
    recipe("long4",         "long4",  X86_64, "pc",      "max",      "-m 4",                     1, All,     &[PLAIN, PAGING, INSIDE, ACROSS, PAGING_ACROSS]),
    recipe("long4-q35",     "long4",  X86_64, "q35",     "max",      "-m 4",                     1, Machine, &[PLAIN, ACROSS]),
    recipe("long4-microvm", "long4",  X86_64, "microvm", "max",      "-m 4",                     1, Machine, &[PLAIN]),
    recipe("long4-numa",    "long4",  X86_64, "pc",      "max",      NUMA,                       1, Machine, &[PLAIN]),
    recipe("long4-split",   "long4",  X86_64, "pc",      "max",      "-m 4G",                    1, Machine, &[HOLE]),
    recipe("long5",         "long5",  X86_64, "pc",      "max",      "-m 4",                     1, All,     &[PLAIN, PAGING]),
    recipe("smp",           "smp",    X86_64, "pc",      "max",      "-m 4 -smp 2",              2, All,     &[PLAIN, PAGING]),
    recipe("note",          "note",   X86_64, "pc",      "max",      "-m 4 -device vmcoreinfo",  1, All,     &[PLAIN]),
    recipe("calls",         "calls",  X86_64, "pc",      "max",      "-m 4 -device vmcoreinfo",  1, Machine, &[PLAIN]),
    recipe("flat32",        "flat32", X86_64, "pc",      "pentium",  "-m 4",                     1, All,     &[PLAIN, PAGING]),
    recipe("flat32-i386",   "flat32", I386,   "pc",      "pentium",  "-m 4",                     1, All,     &[PLAIN]),
    recipe("pse32",         "pse32",  X86_64, "pc",      "pentium3", "-m 4",                     1, All,     &[PLAIN, PAGING, PAGING_ACROSS]),
    recipe("pse32-split",   "pse32",  X86_64, "pc",      "pentium3", "-m 4G",                    1, Machine, &[HOLE]),
    recipe("pae32",         "pae32",  X86_64, "pc",      "max",      "-m 4",                     1, All,     &[PLAIN, PAGING]),
    recipe("pae32-i386",    "pae32",  I386,   "pc",      "max",      "-m 4",                     1, All,     &[PLAIN]),
    recipe("reset",         "flat32", X86_64, "pc",      "qemu64",   "-m 4 -S",                  0, All,     &[PLAIN]),
];

#[rustfmt::skip]
#[expect(clippy::too_many_arguments, reason = "it is one row of a table")]
const fn recipe(
    name: &'static str, guest: &'static str, binary: &'static str, machine: &'static str, cpu: &'static str,
    more: &'static str, running: usize, texts: Texts, dumps: &'static [Dump],
) -> Recipe {
    Recipe { name, guest, binary, machine, cpu, more, running, texts, dumps }
}

/// Regenerates fixtures and snapshots, or only compares.
///
/// # Errors
/// A tool that is missing when something is to be made; with `check`, every difference, named on stdout.
/// With `check` a missing QEMU is named and its fixtures are skipped; in CI (`CI` is set) that is an error too.
pub(crate) fn golden(check: bool) -> Result<()> {
    let repo = repository();
    let header = header::golden(repo, check)?;
    let fixtures = fixtures::golden(repo, RECIPES, check)?;
    let snapshots = snapshots::golden(repo, check)?;

    let differences = usize::from(header) + fixtures.differences + snapshots;
    if check && differences > 0 {
        bail!(
            "{differences} golden files differ; `cargo xtask golden` makes them anew, the diff is the review"
        );
    }
    if fixtures.skipped > 0 && std::env::var_os("CI").is_some() {
        bail!("{} fixtures were skipped: in CI no tool may be missing", fixtures.skipped);
    }
    Ok(())
}
