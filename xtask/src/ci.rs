//! `cargo xtask ci`: all checks, in the order in which they fail fastest.

use crate::run::{is_root, repository, run};
use crate::{capi, e2e, golden, new_arch, package, packages, tidy};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Instant;

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
    help: &'static str,
}

#[rustfmt::skip] // a table is read by column
const STEPS: &[Step] = &[
    Step { name: "packages", run: packages::packages, help: "programs of the operating system that the tests need" },
    Step { name: "fmt",      run: fmt,                help: "the sources are formatted" },
    Step { name: "tidy",     run: tidy::tidy,         help: "the invariants of the design" },
    Step { name: "clippy",   run: clippy,             help: "no warnings, in all targets" },
    Step { name: "features", run: features,           help: "each feature of the facade builds alone, the gdb engine without std" },
    Step { name: "new-arch", run: new_arch::check,    help: "the skeleton of an architecture compiles" },
    Step { name: "test",     run: test,               help: "unit, property, snapshot and doc tests" },
    Step { name: "doc",      run: doc,                help: "the documentation builds without warnings" },
    Step { name: "package",  run: package::check,     help: "each crate can be published" },
    Step { name: "golden",   run: golden_check,       help: "golden files and snapshots are what one command makes of them" },
    Step { name: "build",    run: build,              help: "the command, as users get it" },
    Step { name: "capi",     run: capi::check,        help: "the C interface: C11, C++17, an example under sanitizers and valgrind" },
    Step { name: "e2e",      run: end_to_end,         help: "real guests, real consumers" },
];

/// Which steps.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these steps
    steps: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
}

pub(crate) fn ci(args: &Args) -> Result<()> {
    if args.list {
        for step in STEPS {
            println!("{:<10} {}", step.name, step.help);
        }
        return Ok(());
    }
    if let Some(name) = args.steps.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        bail!("no step is named {name}: --list shows them");
    }
    let is_wanted = |step: &&Step| args.steps.is_empty() || args.steps.iter().any(|name| name == step.name);
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for step in STEPS.iter().filter(is_wanted) {
        println!("\n== {}: {}", step.name, step.help);
        let start = Instant::now();
        let result = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!("{:<10} {verdict:<6} {seconds:>7.1} s", step.name));
        if let Err(error) = result {
            println!("{}: {error:#}", step.name);
            failed.push(step.name);
            if step.name == "packages" {
                // The rest would fail for that reason.
                break;
            }
        }
    }
    println!("\n{}", summary.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    // A snapshot that differs is a failure and leaves no file behind.
    command.args(args).current_dir(repository()).env("INSTA_UPDATE", "no");
    command
}

fn fmt() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn features() -> Result<()> {
    for name in tidy::facade_features()?.iter().filter(|name| !["default", "all"].contains(&name.as_str())) {
        let features = format!("--features={name}");
        run(&mut cargo(&[
            "check",
            "--quiet",
            "--locked",
            "--package",
            "vmcore",
            "--no-default-features",
            &features,
        ]))?;
    }
    // Emulators without an operating system embed it: it needs neither `std` nor an allocator.
    run(&mut cargo(&["check", "--quiet", "--locked", "--package", "vmcore-gdb", "--no-default-features"]))
}

fn test() -> Result<()> {
    run(&mut cargo(&["test", "--workspace", "--locked"]))
}

fn doc() -> Result<()> {
    run(cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn golden_check() -> Result<()> {
    golden::golden(true)
}

fn build() -> Result<()> {
    e2e::build().map(drop)
}

fn end_to_end() -> Result<()> {
    // Who is not root cannot install what is missing, nor mount the small disks of some tests.
    e2e::e2e(&e2e::Args::usual(is_root()))
}
