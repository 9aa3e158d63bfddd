//! Crash dumps of guests, of any architecture and in any format: the facade.
//!
//! This crate links the default plugins and re-exports the model of [`vmcore_core`]. Depend on it, name it
//! (`use vmcore as _;` will do), and the registries are filled:
//!
//! ```
//! let names: Vec<&str> = vmcore::format::all().iter().map(|format| format.name()).collect();
//! assert!(names.contains(&"elf"));
//! ```
//!
//! # Take a dump
//!
//! A [`Machine`] is planned as a [`Layout`] by a [`Format`] and written to a [`Sink`]:
//!
//! ```
//! use vmcore::{DumpOptions, DumpState, ExecuteOptions, StreamSink, execute};
//!
//! let machine = vmcore::synth::demo::machine("x86_64")?;
//! let format = vmcore::format::by_name("elf")?;
//! let layout = format.plan(&machine, &DumpOptions::default())?;
//! let mut file = Vec::new();
//! let sink = StreamSink::new(&mut file);
//! let report = execute(&layout, &*machine.memory, &sink, ExecuteOptions::default(), &DumpState::default())?;
//! assert!(report.unreadable.is_empty());
//! # Ok::<(), vmcore::Error>(())
//! ```
//!
//! # Read a dump
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use vmcore::{FileReader, Gva};
//!
//! let file = FileReader::new(std::fs::File::open("guest.vmcore")?)?;
//! let dump = vmcore::format::open(vec![Arc::new(file)])?;
//! let machine = dump.machine;
//! println!("{}: {} vCPUs, {} bytes of RAM", dump.format, machine.vcpus.len(), machine.ram_len());
//! let mut text = [0; 16];
//! machine.read_virtual(0, Gva(0xffff_ffff_8100_0000), &mut text)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Dump an emulator's guest
//!
//! An emulator implements [`dump::Guest`] and gets QEMU's `dump-guest-memory`: see [`dump`], and the guide
//! [Embed vmcore in your VMM](https://github.com/vmcore-rs/vmcore/blob/main/docs/embedding.md).
//!
//! # Features
//!
//! `all` is the default. `default-features = false, features = ["x86_64", "elf"]` is 11 crates.
//!
//! | feature | gives |
//! |---|---|
//! | `all` | all architectures and formats, and all of the following but the last two |
//! | `x86_64` (with i386), `aarch64`, `arm`, `ppc64`, `riscv64`, `s390x` | an architecture alone |
//! | `elf`, `kdump`, `raw`, `vbox` | a format alone |
//! | `flat` | makedumpfile's flattened stream, around any format |
//! | `backtrace` | backtraces of vCPUs |
//! | `filter` | dump levels |
//! | `gdb` | gdb and LLDB on a dump, or on a guest |
//! | `qemu` | the source `qemu:` |
//! | `demo` | guests that are made up, and the source `demo:` |
//! | `serde` | requests and answers of [`dump`] as JSON |
//! | `vm-memory` | memory of rust-vmm |
//! | `kvm` | registers as KVM gives them |
//!
//! # Versions
//!
//! Semver; before 1.0 a change of the second number may break users. Rust 1.88 or later; that this rises is such a change, too.

#![forbid(unsafe_code)]
// A plugin that is listed but not named would not be linked, silently.
#![warn(unused_crate_dependencies)]

pub mod dump;
#[cfg(feature = "kvm")]
pub mod kvm;
#[cfg(feature = "vm-memory")]
pub mod vm_memory;

#[cfg(feature = "backtrace")]
pub use vmcore_backtrace as backtrace;
pub use vmcore_core::*;
#[cfg(feature = "filter")]
pub use vmcore_filter as filter;
pub use vmcore_vmcoreinfo as vmcoreinfo;

#[cfg(feature = "all")]
pub use vmcore_plugins::*;
// The plugins that are chosen one by one, each under its own name: see `build.rs`.
include!(concat!(env!("OUT_DIR"), "/plugins.rs"));

#[cfg(feature = "qemu")]
use vmcore_capture as _;
#[cfg(feature = "gdb")]
pub use vmcore_gdb as gdb;
#[cfg(feature = "demo")]
pub use vmcore_synth as synth;
// The tests' own, where the feature is not chosen.
#[cfg(all(test, not(feature = "vm-memory")))]
use ::vm_memory as _;
