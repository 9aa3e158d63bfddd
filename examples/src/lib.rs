//! What the examples share: a processor that runs in a thread until it is stopped, and a main program that dumps its guest in all ways.
//!
//! | example | emulator | architecture |
//! |---|---|---|
//! | `armv4t` | `armv4t_emu`: its user gives it memory | arm |
//! | `ckb_vm` | `ckb-vm`: it has the memory itself | riscv64 |
//! | `rust_vmm` | KVM with `kvm-ioctls` and `vm-memory`; without /dev/kvm, a vCPU that is made up | x86_64 |
//!
//! `cargo run -p vmcore-examples --example armv4t FOLDER` writes four dumps into the folder, and prints what the emulator itself says of its
//! guest at the time of each. `cargo xtask e2e emulators` compares that with what gdb reads in the dumps. With `--gdb ADDRESS` they serve gdb while
//! they run: see [`gdb`].

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what the examples are for")]

pub mod gdb;

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use vmcore::dump::{DumpCompleted, DumpRequest, DumpStatus, Dumper, Guest};

/// What a processor's thread passes between instructions, while the guest is not stopped.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    /// Whether the processor stands before the gate.
    is_waiting: bool,
    /// How often it has passed.
    passed: u64,
}

impl Gate {
    /// Runs a processor in a thread of its own: `step` executes some instructions.
    pub fn run(self: &Arc<Self>, mut step: impl FnMut() + Send + 'static) {
        let gate = Arc::clone(self);
        thread::spawn(move || {
            loop {
                gate.pass();
                step();
            }
        });
    }

    fn pass(&self) {
        let mut state = lock(&self.state);
        state.is_waiting = true;
        self.changed.notify_all();
        state = self.wait_while(state, |state| state.is_closed);
        state.is_waiting = false;
        state.passed += 1;
        self.changed.notify_all();
    }

    /// Returns when the processor stands still, and tells whether it ran: [`Guest::stop`].
    pub fn close(&self) -> bool {
        let mut state = lock(&self.state);
        let was_open = !std::mem::replace(&mut state.is_closed, true);
        drop(self.wait_while(state, |state| !state.is_waiting));
        was_open
    }

    /// Lets the processor go on: [`Guest::resume`].
    pub fn open(&self) {
        lock(&self.state).is_closed = false;
        self.changed.notify_all();
    }

    /// Returns when the processor has executed more.
    pub fn wait_for_steps(&self) {
        let state = lock(&self.state);
        let enough = state.passed + 2;
        drop(self.wait_while(state, |state| state.passed < enough));
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, GateState>,
        condition: impl Fn(&GateState) -> bool,
    ) -> MutexGuard<'a, GateState> {
        self.changed.wait_while(state, |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks what no thread leaves behind in a state that others must not see.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dumps a guest that runs in ELF and kdump, attached and detached, into the folder that the command line names.
///
/// # Errors
/// What [`Dumper::dump`] returns; a guest that does not go on lets it wait forever.
pub fn dump_in_all_ways(guest: Arc<dyn Guest>, gate: &Gate) -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: the folder for the dumps")?);
    let dumper = Dumper::new(guest);
    for (name, format, detach) in [
        ("attached.elf", "elf", false),
        ("detached.elf", "elf", true),
        ("attached.kdump", "kdump-zlib", false),
        ("detached.kdump", "kdump-raw-zlib", true),
    ] {
        gate.wait_for_steps();
        println!("dump {name}");
        let path = folder.join(name);
        let path = path.to_str().ok_or("a folder whose name is text")?;
        // What a QMP client would send.
        let request = DumpRequest::from_json(&serde_json::json!({
            "paging": false, "protocol": format!("file:{path}"), "format": format, "detach": detach,
        }))?;
        dumper.dump(&request, |_| None)?;
        dumper.wait();
        if dumper.query().status != DumpStatus::Completed {
            return Err(format!("{name}: {:?}", dumper.query()).into());
        }
    }
    gate.wait_for_steps();
    Ok(())
}

/// Prints an event as QMP has it, and what the emulator says of its guest, which stands still: values by the names of gdb's registers,
/// and of words of memory as `*0x1000`.
pub fn tell(event: &DumpCompleted, facts: &[(String, u64)]) {
    println!("event {}", serde_json::json!({ "event": "DUMP_COMPLETED", "data": event }));
    for (name, value) in facts {
        println!("fact {name} {value:x}");
    }
}

/// The guide, whose code is compiled and run as tests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
pub struct Guide;
