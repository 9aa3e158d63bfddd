//! What gdb sees of the VMM. With KVM the vCPU runs and stops as gdb wants it; one that is made up can be looked at, and changed.

use crate::patches::Patches;
use crate::vcpu::{Exit, Vcpu};
use crate::{COUNTER, Ram, memory, x86_64};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmcore::gdb::{
    Access, Action, Actions, Breakpoint, BreakpointKind, Breakpoints, Error, Kill, Presence, Resume, Stop,
    StopReason, TableRegisters, Target, ThreadId,
};
use vmcore::vm_memory::GuestRam;
use vmcore::{Endianness, Gva, RegisterFile, Translation};
use vmcore_examples::gdb::{DebugRegisters, Machine};

const VCPU: ThreadId = ThreadId::of_vcpu(0);
/// The exception of `int3`; that of the debug registers and of a step is the other one.
const BREAKPOINT_EXCEPTION: u32 = 3;
/// gdb's numbers of signals: for an error of the VMM, and for a program that was killed.
const SIGABRT: u8 = 6;
const SIGKILL: u8 = 9;

const NOT_TAKEN: Error = Error::refused("the vCPU does not take this value");

pub(crate) struct Debuggee {
    vcpu: Vcpu,
    ram: Arc<Ram>,
    memory: GuestRam<Arc<Ram>>,
    table: TableRegisters,
    /// The vCPU's registers since it stands still.
    registers: RegisterFile,
    software: Patches,
    hardware: DebugRegisters,
    watches_memory: bool,
    /// How it is to go on, if it is.
    action: Option<Action>,
    is_attached: bool,
    is_interrupted: bool,
    end: Option<StopReason>,
}

impl Debuggee {
    pub(crate) fn new(vcpu: Vcpu, ram: Arc<Ram>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut debuggee = Self {
            vcpu,
            memory: GuestRam::new(Arc::clone(&ram))?,
            ram,
            table: TableRegisters::new(x86_64().registers(), Endianness::Little),
            registers: RegisterFile::new(x86_64().registers()),
            software: Patches::default(),
            hardware: DebugRegisters::default(),
            watches_memory: watches_memory()?,
            action: None,
            is_attached: false,
            is_interrupted: false,
            end: None,
        };
        debuggee.look()?;
        let is_known = |id| debuggee.registers.get(id).is_some();
        debuggee.table = TableRegisters::known(x86_64().registers(), Endianness::Little, is_known);
        Ok(debuggee)
    }

    /// Reads the vCPU's registers.
    fn look(&mut self) -> Result<(), Error> {
        self.registers = RegisterFile::new(x86_64().registers());
        self.vcpu.copy_to(&mut self.registers).map_err(|_| Error::refused("KVM does not tell the registers"))
    }

    /// Sets the vCPU's registers: those that it lets be set.
    fn set_registers(&mut self, registers: &RegisterFile) -> Result<(), Error> {
        let set = self.vcpu.copy_from(registers);
        self.look()?;
        set.map_err(|_| NOT_TAKEN)
    }

    /// Where the bytes at a virtual address lie, and how many of them.
    fn translate(&self, address: u64) -> Result<Translation, Error> {
        x86_64().translate(&self.registers, &self.memory, Gva(address)).map_err(|_| Error::FAULT)
    }

    /// The pieces of memory at a virtual address, up to the first that is not there: where each lies, and its length.
    fn pieces(&self, address: u64, len: usize) -> Vec<(u64, usize)> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < len {
            let Ok(place) = self.translate(address + done as u64) else { break };
            let here = usize::try_from(place.len).unwrap_or(usize::MAX).min(len - done);
            if !self.ram.check_range(GuestAddress(place.gpa.0), here) {
                break;
            }
            pieces.push((place.gpa.0, here));
            done += here;
        }
        pieces
    }

    /// Runs until there is a reason to stop; none if it was woken.
    fn execute(&mut self, action: Action) -> Option<StopReason> {
        loop {
            let exit = match (self.vcpu.run(), action) {
                // Not every KVM knows that an instruction that comes back to the VMM is a step, too.
                (Exit::Looped, Action::Step { .. } | Action::StepRange { .. }) => self.vcpu.finish(),
                (exit, _) => exit,
            };
            match exit {
                Exit::Looped => {}
                Exit::Woken => return None,
                Exit::Ended(status) => return Some(StopReason::Exited(status)),
                Exit::Debug(debug) if debug.exception == BREAKPOINT_EXCEPTION => {
                    let is_ours = self.software.is_at(debug.pc);
                    return Some(if is_ours { StopReason::SoftwareBreakpoint } else { StopReason::TRAP });
                }
                Exit::Debug(debug) => match self.hardware.hit(debug.dr6) {
                    None if self.is_within(action) => {}
                    reason => return Some(reason.unwrap_or(StopReason::TRAP)),
                },
                Exit::Stepped if self.is_within(action) => {}
                Exit::Stepped => return Some(StopReason::TRAP),
                // A KVM that emulates instructions in place of running them fails at `int3`.
                Exit::Lost(_) if self.program_counter().is_some_and(|pc| self.software.is_at(pc)) => {
                    return Some(StopReason::SoftwareBreakpoint);
                }
                #[expect(clippy::print_stderr, reason = "gdb's packet has no place for it")]
                Exit::Lost(why) => {
                    eprintln!("the vCPU has left its program: {why}");
                    return Some(StopReason::Signal(SIGABRT));
                }
            }
        }
    }

    /// Whether it is to make more than one step, and is still where it is to make them.
    fn is_within(&self, action: Action) -> bool {
        let Action::StepRange { start, end } = action else { return false };
        self.program_counter().is_some_and(|pc| (start..end).contains(&pc))
    }

    /// The vCPU's program counter, which is behind what was read when it stopped.
    fn program_counter(&self) -> Option<u64> {
        self.vcpu.regs().ok().map(|regs| regs.rip)
    }
}

/// Whether KVM stops at accesses to memory: one that emulates instructions in place of running them does not. A guest of its own shows it.
fn watches_memory() -> Result<bool, Box<dyn std::error::Error>> {
    let ram = Arc::new(memory()?);
    let mut vcpu = Vcpu::new(&ram)?;
    let mut watch = DebugRegisters::default();
    watch.insert(Breakpoint { kind: BreakpointKind::Watch(Access::Write), address: COUNTER, len: 4 })?;
    vcpu.set_debug(&watch, false)?;
    // It writes there before it comes back by itself.
    Ok(matches!(vcpu.run(), Exit::Debug(_)))
}

impl Machine for Debuggee {
    fn is_running(&self) -> bool {
        self.action.is_some()
    }

    fn run(&mut self) -> Option<Stop> {
        let action = self.action?;
        let is_step = !matches!(action, Action::Continue { .. });
        let reason = match self.vcpu.set_debug(&self.hardware, is_step) {
            _ if self.is_interrupted => StopReason::Interrupted,
            Ok(()) => self.execute(action)?,
            Err(_) => StopReason::Signal(SIGABRT),
        };
        self.action = None;
        let reason = self.look().map_or(StopReason::Signal(SIGABRT), |()| reason);
        self.end = match reason {
            StopReason::Exited(_) => Some(reason),
            // Nobody is there to mend it.
            StopReason::Signal(signal) if !self.is_attached => Some(StopReason::Killed(signal)),
            _ => None,
        };
        Some(Stop { thread: VCPU, reason })
    }

    fn end(&self) -> Option<StopReason> {
        self.end
    }

    fn waker(&self) -> Box<dyn Fn() + Send> {
        self.vcpu.waker()
    }
}

impl Target for Debuggee {
    fn thread(&self, index: usize) -> Option<ThreadId> {
        (index == 0).then_some(VCPU)
    }
    fn stop(&self) -> Stop {
        Stop { thread: VCPU, reason: StopReason::TRAP }
    }

    fn description(&self, _: u32, annex: &str) -> Option<&[u8]> {
        self.table.description(annex)
    }
    fn g_count(&self, _: ThreadId) -> u32 {
        self.table.count()
    }
    fn register_len(&self, _: ThreadId, number: u32) -> Option<usize> {
        self.table.value_len(number)
    }
    fn expedited(&self, _: ThreadId) -> &[u32] {
        self.table.expedited()
    }
    fn read_register(&mut self, _: ThreadId, number: u32, value: &mut [u8]) -> Result<Presence, Error> {
        self.table.read(&self.registers, number, value)
    }
    fn write_register(&mut self, _: ThreadId, number: u32, value: &[u8]) -> Result<(), Error> {
        let mut registers = self.registers.clone();
        self.table.write(&mut registers, number, value)?;
        self.set_registers(&registers)?;
        let mut taken = vec![0; value.len()];
        self.table.read(&self.registers, number, &mut taken)?;
        if taken == value { Ok(()) } else { Err(NOT_TAKEN) }
    }

    fn read_memory(&mut self, _: ThreadId, address: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        for (gpa, len) in self.pieces(address, buf.len()) {
            let piece = &mut buf[done..done + len];
            self.ram.read_slice(piece, GuestAddress(gpa)).map_err(|_| Error::FAULT)?;
            self.software.hide(gpa, piece);
            done += len;
        }
        if done == 0 { Err(Error::FAULT) } else { Ok(done) }
    }
    fn write_memory(&mut self, _: ThreadId, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let pieces = self.pieces(address, bytes.len());
        if pieces.iter().map(|(_, len)| len).sum::<usize>() < bytes.len() {
            return Err(Error::FAULT);
        }
        let mut rest = bytes.to_vec();
        for (gpa, len) in pieces {
            let behind = rest.split_off(len);
            self.software.keep(gpa, &mut rest);
            self.ram.write_slice(&rest, GuestAddress(gpa)).map_err(|_| Error::FAULT)?;
            rest = behind;
        }
        Ok(())
    }

    fn attached(&mut self, _: u32) {
        self.is_attached = true;
        self.action = None;
        // If it ran, it was woken, and nobody has looked since.
        if self.look().is_err() {
            self.end = Some(StopReason::Killed(SIGABRT));
        }
    }
    fn detached(&mut self, _: u32) {
        self.is_attached = false;
        self.is_interrupted = false;
        self.action = self.vcpu.is_real().then_some(Action::Continue { signal: None });
    }

    fn resume(&mut self) -> Option<&mut dyn Resume> {
        if self.vcpu.is_real() { Some(self) } else { None }
    }
    fn breakpoints(&mut self) -> Option<&mut dyn Breakpoints> {
        if self.vcpu.is_real() { Some(self) } else { None }
    }
    fn kill(&mut self) -> Option<&mut dyn Kill> {
        Some(self)
    }
}

impl Resume for Debuggee {
    fn resume(&mut self, actions: &Actions<'_>) -> Result<(), Error> {
        self.action = Some(actions.of(VCPU).ok_or(Error::INVALID)?);
        self.is_interrupted = false;
        Ok(())
    }
    fn set_program_counter(&mut self, _: ThreadId, address: u64) -> Result<(), Error> {
        let mut registers = self.registers.clone();
        registers.set_value(x86_64().registers().program_counter, address);
        self.set_registers(&registers)
    }
    fn interrupt(&mut self) {
        self.is_interrupted = true;
    }
}

impl Breakpoints for Debuggee {
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        match breakpoint.kind {
            BreakpointKind::Software => {
                let gpa = self.translate(breakpoint.address)?.gpa.0;
                self.software.insert(&self.ram, breakpoint.address, gpa)
            }
            BreakpointKind::Watch(_) if !self.watches_memory => {
                Err(Error::refused("the KVM of this host does not stop at accesses to memory"))
            }
            _ => self.hardware.insert(breakpoint),
        }
    }
    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        match breakpoint.kind {
            BreakpointKind::Software => self.software.remove(&self.ram, breakpoint.address),
            _ => self.hardware.remove(breakpoint),
        }
    }
    fn clear(&mut self) {
        self.software.clear(&self.ram);
        self.hardware.clear();
    }
}

impl Kill for Debuggee {
    fn kill(&mut self, _: Option<u32>) -> Result<(), Error> {
        self.action = None;
        self.end = Some(StopReason::Killed(SIGKILL));
        Ok(())
    }
}
