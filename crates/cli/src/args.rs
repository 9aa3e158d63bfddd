//! The command line. Help, man page and shell completions are made from it.

use crate::address::Address;
use crate::text::{parse_number, parse_range};
use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueHint};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use vmcore::filter::Level;
use vmcore::vmcoreinfo::log::LEVELS;
use vmcore::{Class, Compression, RangeFilter};

const AFTER_HELP: &str = "\
Exit status:
  0    done; the dump is complete and sound
  1    an error ended the command
  2    wrong arguments
  3    done, but the dump is not complete or not sound
  130  interrupted

Try it without any VM:
  vmcore capture demo:x86_64 -o demo.vmcore && vmcore info demo.vmcore";

/// Capture, convert, inspect and verify crash dumps of virtual machines.
#[derive(Debug, Parser)]
#[command(
    name = "vmcore",
    version,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a dump of a running guest
    ///
    /// The guest stands still only while its memory is read, and goes on whatever happens to this command. A guest that was paused stays paused.
    ///
    /// Examples:
    ///   vmcore capture qemu:/run/qmp.sock -o guest.vmcore
    ///   vmcore capture qemu:127.0.0.1:4444 -o - | ssh host 'cat > guest.vmcore'
    #[command(verbatim_doc_comment)]
    Capture(CaptureArgs),
    /// Write a dump again, in another format, or only a part of it
    Convert(ConvertArgs),
    /// Show what a dump, or a running guest, holds: machine, memory map, notes, registers, kernel
    Info(InfoArgs),
    /// Print the log of the guest's kernel, as `dmesg` in the guest does
    ///
    /// The kernel's log is found by its VMCOREINFO note. A running guest stands still while its log is copied.
    Dmesg(DmesgArgs),
    /// Show the backtrace of each vCPU
    ///
    /// Kernels of x86_64 carry the tables for it in their memory (ORC), those of other architectures keep frame pointers;
    /// kernels since Linux 6.0 say where their list of symbols lies. So nothing but the dump is needed, but the kernel's vmlinux makes
    /// it exact where frame pointers do not tell all; its debug information gives lines and inlined functions. Of a vCPU that runs a program, only the place is shown.
    Bt(BtArgs),
    /// Check every structure of a dump and read every page of it
    Verify(VerifyArgs),
    /// Print memory of a dump, by physical or virtual address
    Read(ReadArgs),
    /// Serve a dump, or a guest that stands still meanwhile, to gdb and LLDB
    Gdb(GdbArgs),
    /// List the architectures, formats and sources that are linked in
    List(ListArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    Man {
        /// Folder that they are written to
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// How a dump is read: what it does not say of itself.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct OpenArgs {
    /// Format of the dump that is read, where it cannot be told from the file: raw
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<String>,
    /// Architecture of the guest, where the dump does not say it: raw, lime
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
}

/// Where the guest's VMCOREINFO comes from.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct NoteArgs {
    /// Take the guest's VMCOREINFO from this file, its text or the note, whatever the guest or the dump has
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vmcoreinfo: Option<PathBuf>,
    /// Do not search the guest's memory for the VMCOREINFO that it has not given
    #[arg(long)]
    pub(crate) no_vmcoreinfo_search: bool,
}

/// What is looked into: shared by the commands that take a dump or a running guest.
#[derive(Debug, clap::Args)]
pub(crate) struct SubjectArgs {
    /// A dump (of a split one all files), or a running guest such as `qemu:/run/qmp.sock`
    #[arg(value_name = "DUMP|SOURCE", value_hint = ValueHint::FilePath, required = true)]
    pub(crate) inputs: Vec<String>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) note: NoteArgs,
}

/// The kernel's ELF file: shared by `bt` and `gdb`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct VmlinuxArgs {
    /// The ELF file of the guest's kernel, with symbols and debug information
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vmlinux: Option<PathBuf>,
    /// Use the vmlinux even if its build id is not that of the guest's kernel
    #[arg(short, long, requires = "vmlinux")]
    pub(crate) force: bool,
}

/// How a dump is written: shared by `capture` and `convert`.
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// The dump to be written: a file, `-` for standard output, or `fd:N`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) output: String,
    /// Write N files that hold the dump together, FILE.1 to FILE.N, all at the same time; kdump only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=256))]
    pub(crate) split: Option<u32>,
    /// Format of the dump, as `vmcore list` names them, or QEMU's names of them (kdump-zlib, kdump-raw-zstd, ...)
    #[arg(long, default_value = "elf")]
    pub(crate) format: String,
    /// How pages are compressed, if the format does: zlib (the default), lzo, snappy, zstd or none
    #[arg(long, value_name = "METHOD", value_parser = parse_compression)]
    pub(crate) compress: Option<Compression>,
    /// How hard to compress: 0 to 12 with zlib, -7 to 22 with zstd [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) level: Option<i32>,
    /// Leave out pages that are seldom needed, as makedumpfile's -d: the sum of 1 (zero), 2 (cache), 4 (private cache), 8 (user) and 16 (free)
    #[arg(short, long, value_name = "LEVEL", allow_negative_numbers = true)]
    pub(crate) dump_level: Option<Level>,
    /// Write all pages if the guest's kernel does not tell what they are used for, instead of failing
    #[arg(long, requires = "dump_level")]
    pub(crate) or_full: bool,
    /// Write makedumpfile's flattened stream, as is done by itself where the output is a pipe that the format cannot be written to
    #[arg(long)]
    pub(crate) flatten: bool,
    /// Also memory of firmware and devices behind the end of RAM, over which makedumpfile stumbles in kdump dumps
    #[arg(long)]
    pub(crate) all_memory: bool,
    /// Give memory the virtual addresses of the guest's page tables
    #[arg(long)]
    pub(crate) paging: bool,
    /// Only this range of guest physical memory; sizes take K, M and G
    #[arg(long, value_name = "BEGIN:LENGTH", value_parser = parse_range)]
    pub(crate) range: Option<RangeFilter>,
    /// Insist on 32- or 64-bit structures
    #[arg(long, value_name = "32|64", value_parser = parse_class)]
    pub(crate) class: Option<Class>,
    /// Threads that read and write [default: one a processor, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Write zero pages too, instead of leaving holes
    #[arg(long)]
    pub(crate) no_sparse: bool,
    /// Replace an existing file
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print a report in JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CaptureArgs {
    /// The guest, as in `qemu:/run/qmp.sock` (see `vmcore list`)
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) note: NoteArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    /// Let the guest run while its memory is copied: the dump is not of one moment
    #[arg(long)]
    pub(crate) no_stop: bool,
    /// Only copy memory while the guest stands still; pack and write it when the guest runs again
    #[arg(long, conflicts_with = "no_stop")]
    pub(crate) snapshot: bool,
    /// The most memory that --snapshot takes, as in 512M [default: half of what is available]
    #[arg(long, value_name = "SIZE", requires = "snapshot", value_parser = parse_number)]
    pub(crate) max_buffer: Option<u64>,
    /// Let the guest go on after this time even if the dump is not done; it then fails. 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) max_pause: u64,
    /// Where memory comes from: the guest's process, or the stream of QEMU's own dump (slower, needs no rights)
    #[arg(long, value_enum, default_value_t = Memory::Process)]
    pub(crate) memory: Memory,
    /// Only the registers of QEMU's notes; do not ask for floating point, EFER and the like
    #[arg(long)]
    pub(crate) no_extra_registers: bool,
}

/// Where the memory of a live guest is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Memory {
    /// The memory of the guest's process, or the files behind it
    Process,
    /// The stream of the emulator's own dump
    Stream,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// The dump to be read; of a split one all files, in any order
    #[arg(value_name = "DUMP", value_hint = ValueHint::FilePath, required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) note: NoteArgs,
    /// Turn a flattened stream into the file that it holds, byte for byte, as `makedumpfile -R` does
    #[arg(long, conflicts_with_all = ["format", "paging", "range", "class", "compress", "level", "flatten", "all_memory", "split", "dump_level"])]
    pub(crate) rearrange: bool,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// Show all registers, not only the most important
    #[arg(long)]
    pub(crate) registers: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DmesgArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// Only records of these levels: emerg, alert, crit, err, warn, notice, info or debug
    #[arg(short, long = "level", value_name = "LEVEL,...", value_delimiter = ',', value_parser = parse_level)]
    pub(crate) levels: Vec<u8>,
    /// Also print the facility, the level and the caller of each record
    #[arg(short = 'x', long)]
    pub(crate) decode: bool,
    /// Print all that is known of each record as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BtArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    #[command(flatten)]
    pub(crate) vmlinux: VmlinuxArgs,
    /// Only this vCPU, from 0
    #[arg(long, value_name = "N")]
    pub(crate) vcpu: Option<usize>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The dump; of a split one all files, in any order
    #[arg(value_name = "DUMP", value_hint = ValueHint::FilePath, required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Threads that read [default: one a processor, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "vmcore read [OPTIONS] <DUMP>... <ADDR> <LEN>")]
pub(crate) struct ReadArgs {
    /// The dump (of a split one all files), the first address, as in 0x1000, and how many bytes, as in 64 or 4K
    #[arg(value_names = ["DUMP", "ADDR", "LEN"], value_hint = ValueHint::FilePath, num_args = 3.., required = true)]
    operands: Vec<OsString>,
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    #[command(flatten)]
    pub(crate) note: NoteArgs,
    /// The address is virtual; it is translated by the page tables of a vCPU
    #[arg(long)]
    pub(crate) virt: bool,
    /// The vCPU whose page tables count, from 0
    #[arg(long, value_name = "N", default_value_t = 0, requires = "virt")]
    pub(crate) cpu: usize,
    /// Print bytes as they are (the default if standard output is no terminal)
    #[arg(long, conflicts_with = "hex")]
    pub(crate) raw: bool,
    /// Print a hex dump (the default on a terminal)
    #[arg(long)]
    pub(crate) hex: bool,
}

/// What `read` is to read, and where.
pub(crate) struct Operands<'a> {
    pub(crate) inputs: &'a [OsString],
    pub(crate) addr: u64,
    pub(crate) len: u64,
}

impl ReadArgs {
    /// The operands: the last two are numbers, those before them files, which clap cannot say itself.
    pub(crate) fn operands(&self) -> Result<Operands<'_>, clap::Error> {
        let wrong = |text: String| clap::Error::raw(ErrorKind::ValueValidation, text + "\n");
        let number = |name: &str, text: &OsStr| {
            parse_number(&text.to_string_lossy()).map_err(|why| wrong(format!("<{name}>: {why}")))
        };
        match &self.operands[..] {
            [inputs @ .., addr, len] if !inputs.is_empty() => {
                Ok(Operands { inputs, addr: number("ADDR", addr)?, len: number("LEN", len)? })
            }
            _ => Err(wrong("a dump, an address and a length are expected".to_owned())),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct GdbArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    #[command(flatten)]
    pub(crate) vmlinux: VmlinuxArgs,
    /// Where to wait for gdb: HOST:PORT, PORT on this machine, or unix:PATH. Whoever reaches it reads the whole guest
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1234", conflicts_with = "stdio")]
    pub(crate) listen: Address,
    /// Talk to gdb on standard input and output: `target remote | vmcore gdb DUMP --stdio`
    #[arg(long)]
    pub(crate) stdio: bool,
    /// End when the first client leaves
    #[arg(long)]
    pub(crate) once: bool,
    /// Let clients write registers and memory, each into a copy of its own: the dump and the guest stay as they are
    #[arg(long)]
    pub(crate) writable: bool,
    /// Do not tell of clients that come and go
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print the lists as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_compression(name: &str) -> Result<Compression, String> {
    let found = Compression::ALL.into_iter().find(|compression| compression.name() == name);
    found.ok_or_else(|| "zlib, lzo, snappy, zstd or none is expected".to_owned())
}

/// The number of a level of the kernel's log.
fn parse_level(name: &str) -> Result<u8, String> {
    let found = (0..).zip(LEVELS).find(|(_, level)| *level == name);
    found.map(|(number, _)| number).ok_or_else(|| format!("one of {} is expected", LEVELS.join(", ")))
}

fn parse_class(text: &str) -> Result<Class, String> {
    match text {
        "32" => Ok(Class::Elf32),
        "64" => Ok(Class::Elf64),
        _ => Err("32 or 64 is expected".to_owned()),
    }
}
