//! The command `vmcore`: captures, converts, inspects and verifies crash dumps of virtual machines.

#![forbid(unsafe_code)]

mod address;
mod args;
mod bt;
mod capture;
mod convert;
mod dmesg;
mod failure;
mod filter;
mod gdb;
mod info;
mod input;
mod job;
mod kernel;
mod list;
mod look;
mod output;
mod outputs;
mod read;
mod snapshot;
mod text;
mod verify;
mod visit;
mod vmlinux;

use anyhow::Context;
use args::{Args, Command};
use clap::{CommandFactory, Parser};
use failure::{Exit, Outcome};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args.command) {
        Ok(exit) => exit.into(),
        Err(error) => failure::report(&error),
    }
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Capture(args) => capture::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::Dmesg(args) => dmesg::run(args),
        Command::Bt(args) => bt::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Read(args) => read::run(args),
        Command::Gdb(args) => gdb::run(args),
        Command::List(args) => list::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "vmcore", &mut script);
            text::print(&script)?;
            Ok(Exit::Complete)
        }
        Command::Man { directory } => {
            let context = || format!("cannot write man pages into {}", directory.display());
            std::fs::create_dir_all(directory).with_context(context)?;
            clap_mangen::generate_to(Args::command(), directory).with_context(context)?;
            Ok(Exit::Complete)
        }
    }
}
