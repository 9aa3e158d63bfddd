//! `cargo xtask e2e`: the command against real guests and real consumers.
//!
//! A test is a row of [`TESTS`]. Tests of one guest stand together, so that it is booted once. A test waits for events, never
//! for time; boots are tried again, checks never.

mod bt;
mod capture;
mod consumers;
mod deviations;
mod dmesg;
mod dumps;
mod emulators;
mod emulators_gdb;
mod faults;
mod filter;
mod gdb;
mod guests;
mod host;
mod kdump;
mod lldb;
mod proxy;
mod python;
mod registers;
mod servers;
mod vbox;
mod vmcore;
mod vmcoreinfo;

use crate::guest::{Guest, Spec};
use crate::oracle::core_file::CoreFile;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) use gdb::Server as GdbServer;
pub(crate) use vmcore::Vmcore;

/// How a test ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// What is missing on this machine.
    Skipped(String),
}

type Run = fn(&mut Context) -> Result<Verdict>;

struct Test {
    name: &'static str,
    /// The guest that it needs; none needs no guest.
    guest: Option<fn() -> Spec>,
    run: Run,
    help: &'static str,
    /// Runs only with `--all` or by its name: CI has no time for it.
    is_extra: bool,
}

#[rustfmt::skip] // a table is read by column
const TESTS: &[Test] = &[
    test("list",                   None, dumps::list, "list names the plugins that are linked in"),
    test("target-descriptions",    None, consumers::target_descriptions, "gdb takes each architecture's target.xml"),
    test("emulators",              None, emulators::dump_themselves, "emulators of others dump themselves, attached and detached: gdb reads what they say of their guests"),
    test("emulators-gdb",          None, emulators_gdb::debugged, "emulators of others in gdb: break, watch, step, back, finish, interrupt, detach, kill, reconnect"),
    test("emulators-lldb",         None, lldb::emulator, "one of them in LLDB: registers and memory"),
    test("fake-not-qmp",           None, servers::not_qmp, "a server that speaks another protocol: a clear error, in bounded time"),
    test("fake-closes",            None, servers::closes, "a server that closes at the start, or in the middle of a reply"),

    test("gdb-clients",            None, gdb::clients, "several clients of `vmcore gdb`, which vanish, do not read, or talk nonsense"),

    test("plain-same-as-qemu",     Some(guests::plain), capture::same_as_qemu, "segments, notes and memory are those of QEMU's dump; a paused guest stays paused"),
    test("plain-registers",         Some(guests::plain), registers::same_as_stub, "every register is what QEMU's gdb stub says"),
    test("plain-running",          Some(guests::plain), capture::running, "a running guest runs on, and the pause is reported"),
    test("plain-snapshot",         Some(guests::plain), capture::snapshot, "--snapshot: the guest runs while the copy of its memory is written"),
    test("plain-paging",           Some(guests::plain), capture::paging, "--paging states every mapping of the page tables, and QEMU's where it is right"),
    test("plain-pipe",             Some(guests::plain), capture::pipe, "-o - into a pipe gives the bytes of the file"),
    test("plain-options",          Some(guests::plain), capture::same_bytes, "--threads, --no-sparse and --snapshot do not change a byte"),
    test("plain-range",            Some(guests::plain), capture::range, "--range gives what QEMU's begin and length give"),
    test("plain-no-stop",          Some(guests::plain), capture::no_stop, "--no-stop copies memory while the guest runs"),
    test("plain-stream",           Some(guests::plain), capture::stream, "--memory stream gives the same dump"),
    test("plain-busy-monitor",     Some(guests::plain), capture::busy_monitor, "a monitor that somebody else uses: a clear error, and nothing is executed later"),
    test("plain-host-memory",      Some(guests::plain), host::memory_does_not_grow, "QEMU's memory does not grow by a capture"),
    test("plain-convert-qemu-7.2", Some(guests::plain), dumps::convert_qemu, "QEMU's own dump is converted without loss, verified and read"),
    test("plain-read",             Some(guests::plain), dumps::read, "info, verify and read, physical and virtual, on our dump"),
    test("plain-dmesg",            Some(guests::plain), dmesg::log, "dmesg of dumps and of the running guest: what the guest's own says, and makedumpfile --dump-dmesg"),
    test("plain-bt",               Some(guests::plain), bt::named, "backtraces of a dump and of the running guest: the functions that drgn finds there"),
    test("plain-elf-tools",        Some(guests::plain), consumers::elf_tools, ""),
    test("plain-gdb",              Some(guests::plain), consumers::gdb, "gdb: threads, registers, memory"),
    test("plain-gdb-server",       Some(guests::plain), gdb::dumps, "`vmcore gdb`: gdb sees what info and read show, of ELF, kdump and VirtualBox dumps"),
    test("plain-gdb-filtered",     Some(guests::plain), gdb::filtered, "`vmcore gdb` of a filtered dump: what was left out is an error, and no zeros"),
    test("plain-gdb-image",        Some(guests::plain), gdb::image, "`vmcore gdb` of an image of memory: the kernel's virtual memory, and no registers"),
    test("plain-gdb-live",         Some(guests::plain), gdb::live, "`vmcore gdb` of the running guest"),
    test("plain-gdb-symbols",      Some(guests::plain), gdb::symbols, "gdb with symbols, where the kernel's vmlinux is at hand"),
    test("plain-gdb-lldb",         Some(guests::plain), lldb::dump, "`vmcore gdb` in LLDB"),
    test("plain-drgn",             Some(guests::plain), consumers::drgn, "drgn: release, physical memory"),
    test("plain-makedumpfile",     Some(guests::plain), consumers::makedumpfile, "makedumpfile: --dump-dmesg and -c -d 31"),
    test("plain-libkdumpfile",     Some(guests::plain), consumers::libkdumpfile, "libkdumpfile: pages by physical address"),
    test("plain-volatility",       Some(guests::plain), consumers::volatility, "Volatility 3: banners"),
    test("plain-images",           Some(guests::plain), consumers::images, "padded and LiME images, in Volatility"),
    test("plain-crash",            Some(guests::plain), consumers::crash, "crash, where the kernel's vmlinux is at hand"),
    test("plain-kdump-written",    Some(guests::plain), kdump::written, "kdump in all compressions: converted without loss, opened by libkdumpfile, drgn, makedumpfile, crash"),
    test("plain-kdump-volatility", Some(guests::plain), kdump::volatility, "kdump as an image of memory, in Volatility"),
    test("plain-kdump-lzo",        Some(guests::plain), kdump::lzo, "liblzo2 expands the pages that we pack, and we those that it packs"),
    test("plain-kdump-captured",   Some(guests::plain), kdump::captured, "kdump into a file and into a pipe, and what makedumpfile -R makes of the latter"),
    test("plain-kdump-split",      Some(guests::plain), kdump::split, "a dump in several files: captured, split anew, and put together by makedumpfile --reassemble"),
    test("plain-kdump-qemu-7.2",   Some(guests::plain), kdump::of_qemu, "QEMU's kdump dumps are read, and repaired"),
    test("plain-kdump-makedumpfile", Some(guests::plain), kdump::of_makedumpfile, "what makedumpfile filters, splits and flattens is read"),
    test("plain-filter",           Some(guests::plain), filter::all_levels, "the pages that makedumpfile leaves out, at each dump level"),
    test("plain-filter-contents",  Some(guests::plain), filter::contents, "dump level 31: user data is gone, kernel data is there, and everybody opens the dump"),
    test("plain-filter-captured",  Some(guests::plain), filter::captured, "-d of a paused guest and of a running one, with --snapshot and --no-stop"),
    test("plain-vbox",             Some(guests::plain), vbox::there_and_back, "VirtualBox cores of all releases: there and back without loss"),
    test("plain-vbox-record",      Some(guests::plain), vbox::record, "VirtualBox's own record of a vCPU holds its registers"),
    test("plain-vbox-elf-tools",   Some(guests::plain), vbox::elf_tools, "readelf finds nothing wrong with VirtualBox cores"),
    test("plain-vbox-volatility",  Some(guests::plain), vbox::volatility, "VirtualBox cores in Volatility"),
    test("plain-vbox-kernel",      Some(guests::plain), vbox::kernel_tools, "VirtualBox cores in drgn, libkdumpfile and crash"),
    test("plain-sigint",           Some(guests::plain), faults::sigint, "SIGINT at random moments: the guest runs, nothing is left behind"),
    test("plain-sigkill",          Some(guests::plain), faults::sigkill, "SIGKILL at random moments: the guest runs, no file has the final name"),
    test("plain-max-pause",        Some(guests::plain), faults::max_pause, "an output that hangs does not hold the guest for longer than --max-pause"),
    test("plain-stalled",          Some(guests::plain), faults::stalled, "SIGTERM lets the guest go also while the output is stuck"),
    test("plain-cut-monitor",      Some(guests::plain), faults::cut_monitor, "a monitor that is cut at any point of the conversation: the guest runs"),
    test("plain-disk-full",        Some(guests::plain), faults::disk_full, "a disk that is too small is refused before the guest stops"),
    test("plain-disk-fills-up",    Some(guests::plain), faults::disk_fills_up, "a disk that fills up meanwhile: an error, the guest runs, nothing is left behind"),
    test("plain-read-only",        Some(guests::plain), faults::read_only, "a read-only folder is refused before the guest stops"),
    test("plain-unprivileged",     Some(guests::plain), faults::unprivileged, "another user is told what is not permitted; --memory stream works for them"),
    test("plain-panicked",         Some(guests::plain), capture::panicked, "a panicked guest stays so (the last one with this guest)"),

    test("bare-vmcoreinfo",        Some(guests::bare), vmcoreinfo::found, "without the vmcoreinfo device: the note is found in QEMU's dump, and ours is opened by drgn and makedumpfile"),
    test("bare-captured",          Some(guests::bare), vmcoreinfo::captured, "so it is in our own dump"),
    test("bare-vbox",              Some(guests::bare), vbox::found, "a VirtualBox core has no note: drgn opens what we make of it"),
    test("bare-big-vmcoreinfo",    Some(guests::bare_big), vmcoreinfo::found, "the note lies above 4 GiB"),

    test("stale-vmcoreinfo",       None, vmcoreinfo::stale, "the note of an earlier kernel, which lies first in memory, is not taken for that of the running one"),

    test("level5-same-as-qemu",    Some(guests::level5), capture::same_as_qemu, "five-level paging, QEMU 10.0, memfd: as above"),
    test("level5-running",         Some(guests::level5), capture::running, ""),
    test("level5-paging",          Some(guests::level5), capture::paging, ""),
    test("level5-read",            Some(guests::level5), dumps::read, ""),
    test("level5-dmesg",           Some(guests::level5), dmesg::log, ""),
    test("level5-drgn",            Some(guests::level5), consumers::drgn, ""),
    test("level5-makedumpfile",    Some(guests::level5), consumers::makedumpfile, ""),
    test("level5-kdump-qemu-10.0", Some(guests::level5), kdump::of_qemu, ""),
    test("level5-convert-qemu-10.0", Some(guests::level5), dumps::convert_qemu, ""),
    test("level5-filter",          Some(guests::level5), filter::few_levels, ""),
    // QEMU's own dump fills the memfd: only a fresh guest shows whether ours does.
    test("memfd-host-memory",      Some(guests::memfd), host::memory_does_not_grow, "shared memory does not grow by a capture"),

    test("file-host-memory",       Some(guests::file), host::memory_does_not_grow, "nor do the blocks of a backing file"),
    test("file-running",           Some(guests::file), capture::running, ""),
    test("file-same-as-qemu",      Some(guests::file), capture::same_as_qemu, "memory-backend-file, pc"),

    test("big-same-as-qemu",       Some(guests::big), capture::same_as_qemu, "5 GiB on pc: memory is split at the PCI hole"),
    test("big-running",            Some(guests::big), capture::running, ""),
    test("big-filter",             Some(guests::big), filter::few_levels, "dump levels above 4 GiB"),

    test("numa-same-as-qemu",      Some(guests::numa), capture::same_as_qemu, "two NUMA nodes with a backend each"),
    test("numa-dimm-same-as-qemu", Some(guests::numa), capture::same_as_qemu_with_dimm, "and a DIMM that is plugged in while the guest runs"),
    test("numa-paging",            Some(guests::numa), capture::paging, ""),
    test("numa-filter",            Some(guests::numa), filter::few_levels, ""),

    test("i386-pae-same-as-qemu",  Some(guests::i386_pae), capture::same_as_qemu, "i386 kernel with PAE"),
    test("i386-pae-registers",      Some(guests::i386_pae), registers::same_as_stub, ""),
    test("i386-pae-running",       Some(guests::i386_pae), capture::running, ""),
    test("i386-pae-paging",        Some(guests::i386_pae), capture::paging, ""),
    test("i386-pae-read",          Some(guests::i386_pae), dumps::read, ""),
    test("i386-pae-dmesg",         Some(guests::i386_pae), dmesg::not_supported, "no address space of the kernel: a clear error"),
    test("i386-pae-filter",        Some(guests::i386_pae), filter::not_supported, "no dump levels: a clear error before the guest is stopped"),
    test("i386-pae-gdb",           Some(guests::i386_pae), consumers::gdb, ""),
    test("i386-pae-gdb-server",    Some(guests::i386_pae), gdb::dumps, ""),
    test("i386-pae-vbox",          Some(guests::i386_pae), vbox::there_and_back, "32-bit registers in VirtualBox's 64-bit record"),
    test("i386-pae-convert",       Some(guests::i386_pae), dumps::convert_qemu, ""),
    test("i386-same-as-qemu",      Some(guests::i386), capture::same_as_qemu, "i386 kernel without PAE, QEMU 10.0"),
    test("i386-paging",            Some(guests::i386), capture::paging, ""),

    test("aarch64-same-as-qemu",   Some(guests::aarch64), capture::same_as_qemu, "aarch64, cortex-a57"),
    test("aarch64-registers",       Some(guests::aarch64), registers::same_as_stub, ""),
    test("aarch64-running",        Some(guests::aarch64), capture::running, ""),
    test("aarch64-read",           Some(guests::aarch64), dumps::read, ""),
    test("aarch64-dmesg",          Some(guests::aarch64), dmesg::log, ""),
    test("aarch64-bt",             Some(guests::aarch64), bt::named, ""),
    test("aarch64-gdb",            Some(guests::aarch64), consumers::gdb, ""),
    test("aarch64-gdb-server",     Some(guests::aarch64), gdb::dumps, ""),
    test("aarch64-gdb-filtered",   Some(guests::aarch64), gdb::filtered, ""),
    test("aarch64-gdb-image",      Some(guests::aarch64), gdb::image, ""),
    test("aarch64-gdb-lldb",       Some(guests::aarch64), lldb::dump, ""),
    test("aarch64-drgn",           Some(guests::aarch64), consumers::drgn, ""),
    test("aarch64-libkdumpfile",   Some(guests::aarch64), consumers::libkdumpfile, ""),
    test("aarch64-convert",        Some(guests::aarch64), dumps::convert_qemu, ""),
    test("aarch64-kdump",          Some(guests::aarch64), kdump::foreign, "kdump: converted without loss, opened by libkdumpfile and drgn"),
    test("aarch64-filter",         Some(guests::aarch64), filter::few_levels, "makedumpfile of that architecture, under qemu-user"),
    test("aarch64-filter-contents", Some(guests::aarch64), filter::contents, ""),
    test("aarch64-vmcoreinfo",     Some(guests::bare_aarch64), vmcoreinfo::found, ""),
    test("sve-same-as-qemu",       Some(guests::aarch64_max), capture::same_as_qemu, "aarch64 with SVE, QEMU 10.0, memfd"),
    test("sve-registers",           Some(guests::aarch64_max), registers::same_as_stub, ""),
    test("sve-gdb",                Some(guests::aarch64_max), consumers::gdb, ""),
    test("sve-gdb-server",         Some(guests::aarch64_max), gdb::dumps, ""),
    test("sve-running",            Some(guests::aarch64_max), capture::running, ""),
    test("sve-convert",            Some(guests::aarch64_max), dumps::convert_qemu, ""),

    test("ppc64le-same-as-qemu",   Some(guests::ppc64le), capture::same_as_qemu, "little-endian pseries, QEMU 10.0"),
    test("ppc64le-registers",       Some(guests::ppc64le), registers::same_as_stub, ""),
    test("ppc64le-running",        Some(guests::ppc64le), capture::running, ""),
    test("ppc64le-read",           Some(guests::ppc64le), dumps::read, ""),
    test("ppc64le-dmesg",          Some(guests::ppc64le), dmesg::log, "without the vmcoreinfo device"),
    test("ppc64le-bt",             Some(guests::ppc64le), bt::named_by_guest, ""),
    test("ppc64le-gdb",            Some(guests::ppc64le), consumers::gdb, ""),
    test("ppc64le-gdb-server",     Some(guests::ppc64le), gdb::dumps, ""),
    test("ppc64le-gdb-filtered",   Some(guests::ppc64le), gdb::filtered, ""),
    test("ppc64le-gdb-image",      Some(guests::ppc64le), gdb::image, ""),
    test("ppc64le-convert",        Some(guests::ppc64le), dumps::convert_qemu, ""),
    test("ppc64le-vmcoreinfo",     Some(guests::ppc64le), vmcoreinfo::found, ""),

    test("ppc64le-kdump",          Some(guests::ppc64le), kdump::foreign, ""),
    test("ppc64le-filter",         Some(guests::ppc64le), filter::few_levels, ""),
    test("ppc64le-7.2-read",       Some(guests::ppc64le_mistaken), dumps::read, "QEMU 7.2 takes a little-endian pseries guest for a big-endian one"),
    test("ppc64le-7.2-gdb",        Some(guests::ppc64le_mistaken), consumers::gdb, ""),

    test("s390x-same-as-qemu",     Some(guests::s390x), capture::same_as_qemu, "big-endian s390x"),
    test("s390x-registers",         Some(guests::s390x), registers::same_as_stub, ""),
    test("s390x-running",          Some(guests::s390x), capture::running, ""),
    test("s390x-read",             Some(guests::s390x), dumps::read, ""),
    test("s390x-dmesg",            Some(guests::s390x), dmesg::log, "without the vmcoreinfo device"),
    test("s390x-bt",               Some(guests::s390x), bt::named_by_guest, ""),
    test("s390x-elf-tools",        Some(guests::s390x), consumers::elf_tools, "file and readelf find nothing wrong"),
    test("s390x-gdb",              Some(guests::s390x), consumers::gdb, ""),
    test("s390x-gdb-server",       Some(guests::s390x), gdb::dumps, ""),
    test("s390x-gdb-filtered",     Some(guests::s390x), gdb::filtered, ""),
    test("s390x-gdb-image",        Some(guests::s390x), gdb::image, ""),
    test("s390x-libkdumpfile",     Some(guests::s390x), consumers::libkdumpfile, ""),
    test("s390x-kdump",            Some(guests::s390x), kdump::foreign, ""),
    test("s390x-filter",           Some(guests::s390x), filter::few_levels, ""),
    test("s390x-vmcoreinfo",       Some(guests::s390x), vmcoreinfo::found, "the kernel's pointer leads to the note"),
    test("s390x-convert",          Some(guests::s390x), dumps::convert_qemu, ""),

    test("riscv64-at-reset",       Some(guests::riscv64), capture::at_reset, "vCPUs that have not executed anything, as below"),
    test("riscv64-registers",       Some(guests::riscv64), registers::same_as_stub, ""),
    test("riscv64-gdb",            Some(guests::riscv64), consumers::gdb, ""),
    test("riscv64-gdb-server",     Some(guests::riscv64), gdb::dumps, ""),
    test("riscv64-convert",        Some(guests::riscv64), dumps::convert_qemu, ""),
    test("riscv64-max-registers",   Some(guests::riscv64_max), registers::same_as_stub, "all that QEMU 10.0 has, vectors too"),
    test("riscv64-max-gdb",        Some(guests::riscv64_max), consumers::gdb, ""),
    test("riscv64-linux-bt",       Some(guests::riscv64_linux), bt::named_by_guest, ""),
    test("riscv64-linux-dmesg",    Some(guests::riscv64_linux), dmesg::log, ""),
    test("arm-at-reset",           Some(guests::arm), capture::at_reset, "32 bits"),
    test("arm-registers",           Some(guests::arm), registers::same_as_stub, ""),
    test("arm-gdb",                Some(guests::arm), consumers::gdb, ""),
    test("arm-gdb-server",         Some(guests::arm), gdb::dumps, ""),
    test("arm-convert",            Some(guests::arm), dumps::convert_qemu, ""),
    test("ppc64-at-reset",         Some(guests::ppc64), capture::at_reset, "big-endian powernv"),
    test("ppc64-registers",         Some(guests::ppc64), registers::same_as_stub, ""),
    test("ppc64-elf-tools",        Some(guests::ppc64), consumers::elf_tools, "big-endian, too"),
    test("ppc64-gdb",              Some(guests::ppc64), consumers::gdb, ""),
    test("ppc64-gdb-server",       Some(guests::ppc64), gdb::dumps, ""),
    test("ppc64-convert",          Some(guests::ppc64), dumps::convert_qemu, ""),

    test("d1-digests",             Some(guests::d1), filter::digests, "guests with the same memory in each boot: the bitmaps are those of the specification"),
    test("d1-filter",              Some(guests::d1), filter::few_levels, ""),
    test("d7-digests",             Some(guests::d7), filter::digests, "riscv64; makedumpfile 1.7.8 of riscv64 misreads its page structs"),
    test("mixed-6.12-filter",      Some(guests::mixed_6_12), filter::ballooned, "ext4, tmpfs, huge pages, a balloon"),
    test("mixed-6.12-waiters",     Some(guests::mixed_6_12), deviations::waiters, "a bit that makedumpfile takes for that of slab pages"),
    extra("lpa2-filter",            Some(guests::lpa2), deviations::lpa2, "aarch64 with pages of 16 KiB and 52 bits of addresses: the pages are those that drgn's structs tell, makedumpfile fails"),
    extra("ppc64le-4k-filter",      Some(guests::ppc64le_4k), deviations::root_table, "pages of 4 KiB: likewise, makedumpfile loses pages"),
    extra("d2-digests",             Some(guests::d2), filter::digests, "s390x"),
    extra("d2-filter",              Some(guests::d2), filter::few_levels, ""),
    extra("d3-digests",             Some(guests::d3), filter::digests, "aarch64"),
    extra("d3-filter",              Some(guests::d3), filter::few_levels, ""),
    extra("d5-digests",             Some(guests::d5), filter::digests, "x86_64, 6.12"),
    extra("d5-filter",              Some(guests::d5), filter::all_levels, ""),
    extra("d8-digests",             Some(guests::d8), filter::digests, "x86_64, 5.10"),
    extra("d8-filter",              Some(guests::d8), filter::all_levels, ""),
    extra("mixed-5.10-filter",      Some(guests::mixed_5_10), filter::ballooned, ""),
    extra("mixed-6.1-filter",       Some(guests::mixed_6_1), filter::ballooned, ""),
    extra("mixed-newest-filter",    Some(guests::mixed_newest), filter::ballooned, "the newest kernel that Debian builds"),
    extra("huge-filter",            Some(guests::huge), filter::few_ballooned, "5 GiB on two NUMA nodes, a page of 1 GiB whose page structs are freed"),
];

const fn test(name: &'static str, guest: Option<fn() -> Spec>, run: Run, help: &'static str) -> Test {
    Test { name, guest, run, help, is_extra: false }
}

const fn extra(name: &'static str, guest: Option<fn() -> Spec>, run: Run, help: &'static str) -> Test {
    Test { is_extra: true, ..test(name, guest, run, help) }
}

/// Which tests, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains one of these
    filter: Vec<String>,
    /// List the tests
    #[arg(long)]
    list: bool,
    /// Also the tests that CI has no time for
    #[arg(long)]
    all: bool,
    /// Compare all 32 dump levels with makedumpfile's, also of guests of which CI compares some
    #[arg(long)]
    all_levels: bool,
    /// What is missing is a failure, as with CI=true in the environment; but a vmlinux, and old packages
    #[arg(long)]
    no_skip: bool,
    /// The program to be tested [default: it is built]
    #[arg(long)]
    vmcore: Option<PathBuf>,
}

impl Args {
    /// The tests of CI.
    pub(crate) fn usual(no_skip: bool) -> Self {
        Self { filter: Vec::new(), list: false, all: false, all_levels: false, no_skip, vmcore: None }
    }
}

/// What a test works with.
pub(crate) struct Context {
    pub(crate) vmcore: Vmcore,
    guest: Option<Guest>,
    /// Scratch space on disk, empty at the start of a test.
    folder: tempfile::TempDir,
    /// Whether no dump level is left out.
    all_levels: bool,
    /// A dump of the current guest, for the consumers.
    dump: Option<(tempfile::TempDir, PathBuf)>,
}

impl Context {
    /// The guest of this test, running.
    pub(crate) fn guest(&mut self) -> &mut Guest {
        self.guest.as_mut().expect("the test's row names a guest")
    }

    /// Ends a guest that no other test can use.
    pub(crate) fn give_up_guest(&mut self) {
        self.guest = None;
    }

    /// A name in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A dump of the current guest, made once.
    pub(crate) fn dump(&mut self) -> Result<PathBuf> {
        if let Some((_, path)) = &self.dump {
            return Ok(path.clone());
        }
        let folder = scratch()?;
        let path = folder.path().join("guest.vmcore");
        let uri = self.guest().uri();
        self.vmcore.capture(&uri, &path, &[])?;
        self.dump = Some((folder, path.clone()));
        Ok(path)
    }

    /// As [`Context::dump`], opened by the oracle's reader.
    pub(crate) fn core(&mut self) -> Result<CoreFile> {
        CoreFile::open(&self.dump()?)
    }
}

/// A folder on the disk, removed when dropped.
fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("vmcore-e2e-").tempdir_in(crate::run::cache("tmp")?)?)
}

pub(crate) fn e2e(args: &Args) -> Result<()> {
    let is_wanted = |test: &&Test| {
        let is_usual = args.filter.is_empty() && (args.all || args.list || !test.is_extra);
        is_usual || args.filter.iter().any(|filter| test.name.contains(filter.as_str()))
    };
    let tests: Vec<&Test> = TESTS.iter().filter(is_wanted).collect();
    if args.list {
        for test in tests {
            let class = if test.is_extra { "extra" } else { "" };
            println!("{:<28} {class:<6} {}", test.name, test.help);
        }
        return Ok(());
    }
    if tests.is_empty() {
        bail!("no test has such a name: --list shows them");
    }
    let no_skip = args.no_skip || std::env::var("CI").is_ok_and(|value| value == "true");
    let program = match &args.vmcore {
        Some(path) => std::path::absolute(path)?,
        None => build()?,
    };
    let mut context = Context {
        vmcore: Vmcore::new(program),
        guest: None,
        folder: scratch()?,
        all_levels: args.all_levels,
        dump: None,
    };
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for test in &tests {
        let start = Instant::now();
        let result = prepare(&mut context, test).and_then(|()| (test.run)(&mut context));
        let result = result.and_then(|verdict| {
            tidy_up(&mut context)?;
            Ok(verdict)
        });
        let seconds = start.elapsed().as_secs_f64();
        // crash and symbols need a vmlinux, digests need packages that one day are no longer there.
        let may_skip =
            ["plain-crash", "plain-gdb-symbols"].contains(&test.name) || test.name.ends_with("-digests");
        match result {
            Ok(Verdict::Skipped(what)) if no_skip && !may_skip => {
                println!("{} ... FAILED\n  {what} missing, and nothing may be skipped here", test.name);
                failed.push(test.name);
            }
            Ok(Verdict::Skipped(what)) => {
                println!("{} ... skipped: {what} missing", test.name);
                skipped += 1;
            }
            Ok(Verdict::Passed) => {
                println!("{} ... ok ({seconds:.1} s)", test.name);
                passed += 1;
            }
            Err(error) => {
                println!("{} ... FAILED ({seconds:.1} s)", test.name);
                for cause in error.chain() {
                    println!("  {}", cause.to_string().replace('\n', "\n  "));
                }
                failed.push(test.name);
                // Whatever it did to the guest shall not fail others.
                context.guest = None;
            }
        }
    }
    println!("\n{passed} passed, {} failed, {skipped} skipped", failed.len());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Gives the test its guest, running and with no events pending, and an empty folder.
fn prepare(context: &mut Context, test: &Test) -> Result<()> {
    context.folder = scratch()?;
    let Some(spec) = test.guest.map(|spec| spec()) else { return Ok(()) };
    if context.guest.as_ref().is_none_or(|guest| guest.spec != spec) {
        context.guest = None;
        context.dump = None;
        context.guest = Some(Guest::boot(&spec)?);
    }
    context.guest().qmp.forget_events()
}

/// Each test leaves its guest as it found it.
fn tidy_up(context: &mut Context) -> Result<()> {
    let Some(guest) = &mut context.guest else { return Ok(()) };
    if !guest.is_alive() {
        bail!("QEMU ended");
    }
    match guest.qmp.status()?.as_str() {
        "running" => guest.ping(),
        "prelaunch" if !guest.spec.is_booted() => Ok(()),
        "paused" | "shutdown" | "guest-panicked" if guest.spec.deterministic => Ok(()),
        other => bail!("the guest is left {other}"),
    }
}

/// Builds the command as users get it.
pub(crate) fn build() -> Result<PathBuf> {
    crate::run::built(&["--package", "vmcore-cli"], "vmcore")
}

/// Names of all files below a folder, for checks that nothing is left behind.
fn files_in(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
