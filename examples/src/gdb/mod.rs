//! gdb on the emulators of the examples: breakpoints, watchpoints, stepping, where it can be backwards, interrupts.
//!
//! `armv4t --gdb 127.0.0.1:0` waits with its first instruction for gdb, and says where. A client that leaves lets the program run on, and
//! another may come. The made-up vCPU of `rust_vmm` does not run: it is looked at, and changed. `--run` runs the same program without anybody, for comparison. Both end with a line that says how the program did.
//!
//! | module | what an emulator gets from it |
//! |---|---|
//! | `server` | the loop that runs a [`Machine`] and listens to the client |
//! | `debuggee` | an interpreter, a [`Processor`], as a machine |
//! | `debug_registers` | what lets a processor of x86 stop by itself, under a hypervisor |

mod debug_registers;
mod debuggee;
mod server;

pub use debug_registers::DebugRegisters;
pub use debuggee::{Debuggee, Processor, Touch};
pub use server::Machine;

use std::error::Error;
use vmcore::gdb::StopReason;

/// What to do with a program instead of dumping it: `--run` or `--gdb ADDRESS` of the command line.
#[derive(Debug)]
pub enum Mode {
    /// Run it to its end.
    Run,
    /// Let gdb do so, which connects to this address. Port 0 is one that is free.
    Gdb(String),
}

impl Mode {
    /// What the command line says; none if it does not.
    ///
    /// # Errors
    /// If `--gdb` has no address.
    pub fn from_args() -> Result<Option<Self>, Box<dyn Error>> {
        let mut args = std::env::args().skip(1);
        match args.next().as_deref() {
            Some("--run") => Ok(Some(Self::Run)),
            Some("--gdb") => Ok(Some(Self::Gdb(args.next().ok_or("--gdb: the address to listen on")?))),
            _ => Ok(None),
        }
    }

    /// Runs a program to its end, and prints which one that was.
    ///
    /// # Errors
    /// If the address cannot be listened on; if nobody can connect any more, and the program does not end.
    pub fn run(self, mut machine: impl Machine) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Run => {
                // As when a client leaves: it runs on.
                machine.detached(1);
                while machine.is_running() {
                    machine.run();
                }
            }
            Self::Gdb(address) => server::serve(&mut machine, &address)?,
        }
        match machine.end() {
            Some(StopReason::Exited(status)) => println!("exit {status}"),
            Some(StopReason::Killed(signal)) => println!("killed by signal {signal}"),
            other => return Err(format!("the program did not end: {other:?}").into()),
        }
        Ok(())
    }
}
