//! The tasks of this repository: `cargo xtask ci`, `golden`, `guest`, `e2e`, `bench`, `new-arch`.
//!
//! Whatever the server of continuous integration does is here, so that it runs at the desk as it runs there.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks report to the person who runs them")]

mod apt;
mod bench;
mod capi;
mod ci;
mod deny;
mod e2e;
mod golden;
mod guest;
mod new_arch;
mod oracle;
mod package;
mod packages;
mod qmp;
mod run;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The tasks of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure us beside QEMU
    Bench(bench::Args),
    /// Run all checks
    Ci(ci::Args),
    /// Check the invariants of the design that can be checked
    Tidy,
    /// Run the command against real guests and real consumers
    E2e(e2e::Args),
    /// Make every golden file and snapshot anew
    Golden {
        /// Change nothing, and fail if something would change
        #[arg(long)]
        check: bool,
    },
    /// Boot a Debian guest in QEMU, or leave one at reset, and print its QMP socket
    Guest(guest::Spec),
    /// Write the crate of a new architecture and link it in
    NewArch(new_arch::Args),
    /// Install libvmcore, the C interface, with its header and its pkg-config file
    InstallCapi(capi::Args),
    /// Install the packages that the tests need
    Packages,
}

fn main() -> ExitCode {
    match task(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Bench(args) => bench::bench(&args),
        Task::Ci(args) => ci::ci(&args),
        Task::Tidy => tidy::tidy(),
        Task::E2e(args) => e2e::e2e(&args),
        Task::Golden { check } => golden::golden(check),
        Task::Guest(spec) => guest::guest(&spec),
        Task::NewArch(args) => new_arch::new_arch(&args),
        Task::InstallCapi(args) => capi::install(&args),
        Task::Packages => packages::packages(),
    }
}
