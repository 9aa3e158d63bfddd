//! What gdb sees of an emulator, and how it runs it.

use super::Machine;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use vmcore::gdb::{
    Access, Action, Actions, BreakpointSet, Breakpoints, Error, Kill, Presence, Resume, Reverse, Stop,
    StopReason, TableRegisters, Target, ThreadId,
};
use vmcore::{Arch, Endianness, RegisterFile};

/// An access of an instruction to data.
#[derive(Clone, Debug)]
pub struct Touch {
    /// Address of the first byte.
    pub address: u64,
    /// [`Access::Read`] or [`Access::Write`]
    pub access: Access,
    /// What was there before.
    pub before: Vec<u8>,
}

/// An emulator of one little-endian vCPU without page tables, whose memory begins at address 0.
pub trait Processor {
    /// All that it is beside its memory.
    type State;

    /// Its architecture.
    fn arch(&self) -> &'static dyn Arch;
    /// Its program counter.
    fn program_counter(&self) -> u64;
    /// All registers that it has.
    fn registers(&self) -> RegisterFile;
    /// Sets all registers that it has.
    fn set_registers(&mut self, registers: &RegisterFile);
    /// What [`Self::restore`] takes.
    fn save(&self) -> Self::State;
    /// Makes it what it was.
    fn restore(&mut self, state: Self::State);
    /// Its memory.
    fn memory(&self) -> impl Deref<Target = Vec<u8>>;
    /// Its memory, to be changed: also instructions that it has executed already.
    fn memory_mut(&mut self) -> impl DerefMut<Target = Vec<u8>>;

    /// Executes one instruction, and tells what it touches.
    ///
    /// # Errors
    /// Why no other can be executed: the program has ended, or has made a mistake.
    fn step(&mut self, touches: &mut Vec<Touch>) -> Result<(), StopReason>;
}

/// Instructions between two looks at the client.
const SLICE: usize = 1000;
/// Instructions that can be undone.
const RECORD: usize = 1 << 16;
const VCPU: ThreadId = ThreadId::of_vcpu(0);

/// How the program goes on.
#[derive(Clone, Copy, Debug)]
enum Going {
    Stopped,
    Forward(Action),
    /// One instruction, or to the last breakpoint.
    Back {
        is_step: bool,
    },
}

/// A processor that gdb looks at: the registers by the architecture's table, the breakpoints in a set that each step asks.
pub struct Debuggee<P: Processor> {
    processor: P,
    registers: TableRegisters,
    breakpoints: BreakpointSet<64>,
    /// What the last instructions have changed, the last one at the end.
    record: VecDeque<(P::State, Vec<Touch>)>,
    going: Going,
    is_attached: bool,
    is_interrupted: bool,
    end: Option<StopReason>,
}

impl<P: Processor> fmt::Debug for Debuggee<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debuggee").field("going", &self.going).field("end", &self.end).finish_non_exhaustive()
    }
}

impl<P: Processor> Debuggee<P> {
    /// One that stands still.
    pub fn new(processor: P) -> Self {
        let registers = processor.registers();
        let is_known = |id| registers.get(id).is_some();
        Self {
            registers: TableRegisters::known(processor.arch().registers(), Endianness::Little, is_known),
            processor,
            breakpoints: BreakpointSet::default(),
            record: VecDeque::new(),
            going: Going::Stopped,
            is_attached: false,
            is_interrupted: false,
            end: None,
        }
    }

    fn go(&mut self, going: Going) {
        self.going = going;
        self.is_interrupted = false;
    }

    /// One instruction, and why to stop. A breakpoint at its own address is not asked: the program stands there already.
    fn forward(&mut self, action: Action) -> Option<StopReason> {
        let state = self.processor.save();
        let mut touches = Vec::new();
        let executed = self.processor.step(&mut touches);
        if let Some(watched) = self.watched(&touches) {
            // These architectures stop before the access, and clients step over it.
            self.undo(state, &touches);
            return Some(watched);
        }
        if self.is_attached {
            if self.record.len() == RECORD {
                self.record.pop_front();
            }
            self.record.push_back((state, touches));
        }
        let pc = self.processor.program_counter();
        let is_done = match action {
            Action::Continue { .. } => false,
            Action::Step { .. } => true,
            Action::StepRange { start, end } => !(start..end).contains(&pc),
        };
        executed.err().or(self.breakpoints.at(pc)).or(is_done.then_some(StopReason::TRAP))
    }

    /// Undoes an instruction; likewise.
    fn back(&mut self, is_step: bool) -> Option<StopReason> {
        let Some((state, touches)) = self.record.pop_back() else { return Some(StopReason::ReplayStart) };
        if let Some(watched) = self.watched(&touches) {
            self.record.push_back((state, touches));
            return Some(watched);
        }
        self.undo(state, &touches);
        let breakpoint = self.breakpoints.at(self.processor.program_counter());
        breakpoint.or(is_step.then_some(StopReason::TRAP))
    }

    /// Makes everything what it was before an instruction.
    fn undo(&mut self, state: P::State, touches: &[Touch]) {
        self.processor.restore(state);
        for touch in touches.iter().rev().filter(|touch| touch.access == Access::Write) {
            let start = usize::try_from(touch.address).expect("it was written");
            self.processor.memory_mut()[start..start + touch.before.len()].copy_from_slice(&touch.before);
        }
    }

    /// Why to stop, if one of these is watched.
    fn watched(&self, touches: &[Touch]) -> Option<StopReason> {
        let touched =
            |touch: &Touch| self.breakpoints.touched(touch.address, touch.before.len() as u64, touch.access);
        touches.iter().find_map(touched)
    }

    /// The part of memory that `len` bytes at `address` are in.
    fn range(&self, address: u64, len: usize) -> Result<Range<usize>, Error> {
        let memory_len = self.processor.memory().len();
        let start = usize::try_from(address).ok().filter(|start| *start < memory_len);
        let start = start.ok_or(Error::FAULT)?;
        Ok(start..memory_len.min(start.saturating_add(len)))
    }
}

impl<P: Processor> Machine for Debuggee<P> {
    fn is_running(&self) -> bool {
        !matches!(self.going, Going::Stopped)
    }

    fn run(&mut self) -> Option<Stop> {
        let reason = (0..SLICE).find_map(|_| match self.going {
            Going::Stopped => None,
            _ if self.is_interrupted => Some(StopReason::Interrupted),
            Going::Forward(action) => self.forward(action),
            Going::Back { is_step } => self.back(is_step),
        })?;
        self.going = Going::Stopped;
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
}

impl<P: Processor> Target for Debuggee<P> {
    fn thread(&self, index: usize) -> Option<ThreadId> {
        (index == 0).then_some(VCPU)
    }
    fn stop(&self) -> Stop {
        Stop { thread: VCPU, reason: StopReason::TRAP }
    }

    fn description(&self, _: u32, annex: &str) -> Option<&[u8]> {
        self.registers.description(annex)
    }
    fn g_count(&self, _: ThreadId) -> u32 {
        self.registers.count()
    }
    fn register_len(&self, _: ThreadId, number: u32) -> Option<usize> {
        self.registers.value_len(number)
    }
    fn expedited(&self, _: ThreadId) -> &[u32] {
        self.registers.expedited()
    }
    fn read_register(&mut self, _: ThreadId, number: u32, value: &mut [u8]) -> Result<Presence, Error> {
        self.registers.read(&self.processor.registers(), number, value)
    }
    fn write_register(&mut self, _: ThreadId, number: u32, value: &[u8]) -> Result<(), Error> {
        let mut registers = self.processor.registers();
        self.registers.write(&mut registers, number, value)?;
        self.processor.set_registers(&registers);
        Ok(())
    }

    fn read_memory(&mut self, _: ThreadId, address: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let range = self.range(address, buf.len())?;
        buf[..range.len()].copy_from_slice(&self.processor.memory()[range.clone()]);
        Ok(range.len())
    }
    fn write_memory(&mut self, _: ThreadId, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = self.range(address, bytes.len())?;
        if range.len() < bytes.len() {
            return Err(Error::FAULT);
        }
        self.processor.memory_mut()[range].copy_from_slice(bytes);
        Ok(())
    }

    fn attached(&mut self, _: u32) {
        self.is_attached = true;
        self.going = Going::Stopped;
    }
    fn detached(&mut self, _: u32) {
        self.is_attached = false;
        self.record.clear();
        self.go(Going::Forward(Action::Continue { signal: None }));
    }

    fn resume(&mut self) -> Option<&mut dyn Resume> {
        Some(self)
    }
    fn breakpoints(&mut self) -> Option<&mut dyn Breakpoints> {
        Some(&mut self.breakpoints)
    }
    fn reverse(&mut self) -> Option<&mut dyn Reverse> {
        Some(self)
    }
    fn kill(&mut self) -> Option<&mut dyn Kill> {
        Some(self)
    }
}

impl<P: Processor> Resume for Debuggee<P> {
    fn resume(&mut self, actions: &Actions<'_>) -> Result<(), Error> {
        let action = actions.of(VCPU).ok_or(Error::INVALID)?;
        self.go(Going::Forward(action));
        Ok(())
    }
    fn set_program_counter(&mut self, _: ThreadId, address: u64) -> Result<(), Error> {
        let mut registers = self.processor.registers();
        registers.set_value(self.processor.arch().registers().program_counter, address);
        self.processor.set_registers(&registers);
        Ok(())
    }
    fn interrupt(&mut self) {
        self.is_interrupted = true;
    }
}

impl<P: Processor> Reverse for Debuggee<P> {
    fn step_back(&mut self, _: ThreadId) -> Result<(), Error> {
        self.go(Going::Back { is_step: true });
        Ok(())
    }
    fn run_back(&mut self) -> Result<(), Error> {
        self.go(Going::Back { is_step: false });
        Ok(())
    }
}

impl<P: Processor> Kill for Debuggee<P> {
    fn kill(&mut self, _: Option<u32>) -> Result<(), Error> {
        self.going = Going::Stopped;
        self.end = Some(StopReason::Killed(9));
        Ok(())
    }
}
