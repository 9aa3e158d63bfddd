//! The walk from frame to frame.

use crate::cfi::Caller;
use crate::debug_info::Function;
use crate::modules::{self, Module};
use crate::orc::{self, Orc};
use crate::registers::{Names, Registers};
use crate::{Error, Image, Location, Source, SymbolTable, kallsyms};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use vmcore_core::{
    Endianness, FrameRecord, Gva, InterruptFrame, InterruptLink, Kernel, Machine, RegisterFile,
};

/// The most frames of a backtrace.
pub const MAX_FRAMES: usize = 256;

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is where the vCPU stands.
    Registers,
    /// By call-frame information of the ELF file.
    CallFrames,
    /// By the kernel's ORC tables.
    Orc,
    /// By what was saved when the kernel was interrupted there.
    InterruptFrame,
    /// By the return address in the link register: the function above has not saved it.
    LinkRegister,
    /// By a frame record, to which the frame pointer led.
    FrameRecord,
    /// It has no frame of its own: it is inlined in the next one.
    Inlined,
}

impl Way {
    /// A name for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::CallFrames => "call-frame information",
            Self::Orc => "orc",
            Self::InterruptFrame => "interrupt frame",
            Self::LinkRegister => "link register",
            Self::FrameRecord => "frame record",
            Self::Inlined => "inlined",
        }
    }
}

/// A function that has been called and has not returned yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it stands: of all but the first and those that were interrupted, the instruction behind the call.
    pub pc: Gva,
    /// Its stack pointer there, if it is known.
    pub stack_pointer: Option<Gva>,
    /// The function's name, if it is known.
    pub location: Option<Location>,
    /// The module that it is in.
    pub module: Option<Arc<str>>,
    /// The line of the source, of the call in all but the first and those that were interrupted, if it is known.
    pub source: Option<Source>,
    /// How the frame was found.
    pub way: Way,
}

/// Why there are no more frames.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Nothing called the last one.
    Outermost,
    /// The vCPU runs a program: its stack is the program's own.
    InProgram,
    /// A program that stands at this address has entered the kernel.
    FromProgram(Gva),
    /// Nothing tells what called the last one.
    Unknown,
    /// The frame pointer leads to a return address where the kernel has no code.
    NoCode(Gva),
    /// The frame pointer is in the lower half of the addresses, and the kernel in the upper one: it is a program's, or a
    /// firmware's that has started the kernel.
    Foreign(Gva),
    /// The next frame would be one that was seen already.
    Repeats,
    /// There are [`MAX_FRAMES`].
    TooMany,
    /// What is needed for the next frame cannot be had.
    Failed(Error),
}

impl End {
    /// Whether all frames of the kernel are there: else the walk has stopped before their end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Outermost | Self::InProgram | Self::FromProgram(_) | Self::Foreign(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outermost => f.write_str("the outermost frame"),
            Self::InProgram => f.write_str("the vCPU runs a program"),
            Self::FromProgram(pc) => write!(f, "entered from a program at {pc}"),
            Self::NoCode(gva) => {
                write!(f, "the frame pointer leads to a return address that is none of the kernel's: {gva}")
            }
            Self::Foreign(gva) => {
                write!(f, "the frame pointer is that of whoever has entered the kernel: {gva}")
            }
            Self::Unknown => f.write_str("nothing tells what called the last frame"),
            Self::Repeats => f.write_str("the next frame would be one of those above: the stack is damaged"),
            Self::TooMany => write!(f, "more than {MAX_FRAMES} frames"),
            Self::Failed(error) => write!(f, "the next frame cannot be read: {}", error.with_causes()),
        }
    }
}

/// The frames of a vCPU, the innermost first.
#[derive(Debug)]
pub struct Backtrace {
    /// At least one, if the vCPU's program counter is known.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: End,
    /// Why lines and inlined functions are missing from some frame on, although the ELF file has them.
    pub source_error: Option<Error>,
}

/// Walks the stacks of a machine's vCPUs.
#[derive(Debug)]
pub struct Unwinder<'a> {
    machine: &'a Machine,
    names: Names,
    kernel: Option<Kernel>,
    image: Option<&'a Image>,
    slide: u64,
    symbols: Result<SymbolTable, Error>,
    orc: Option<Orc>,
    /// Read when code is not the kernel's own.
    modules: OnceLock<Result<Vec<Module>, Error>>,
}

/// A step of a walk.
enum Step {
    /// To a frame; whether its pc is where it was interrupted.
    Frame(Registers, Way, bool),
    End(End),
}

impl<'a> Unwinder<'a> {
    /// For a machine, with its kernel's ELF file if there is one.
    ///
    /// # Errors
    /// [`vmcore_core::Error::Unsupported`] if the architecture is not linked in or does not say how its stacks are walked,
    /// [`Error::Unusable`] if the file is of another architecture.
    pub fn new(machine: &'a Machine, image: Option<&'a Image>) -> Result<Self, Error> {
        let found = || machine.arch.map_or("a machine that is not known", |arch| arch.name()).to_owned();
        let unsupported = || vmcore_core::Error::Unsupported { what: "a backtrace", found: found() };
        let arch = machine.arch.ok_or_else(unsupported)?;
        let rules = arch.stack().ok_or_else(unsupported)?;
        let names = Names::new(arch.registers(), rules).ok_or_else(unsupported)?;
        image.map_or(Ok(()), |image| image.check_arch(arch))?;
        let kernel = machine.kernel();
        let slide = match (&kernel, image) {
            (Ok(kernel), Some(image)) => image.slide(kernel.info()),
            _ => 0,
        };
        // Of a file that was stripped the kernel's own list takes the place.
        let of_file = image.filter(|image| image.has_symbols()).map(|image| image.symbols(slide));
        let (kernel, symbols) = match kernel {
            Ok(kernel) => {
                let symbols = of_file.map_or_else(|| kallsyms::read(&kernel), Ok);
                (Some(kernel), symbols)
            }
            Err(error) => (None, of_file.ok_or_else(|| error.into())),
        };
        let has_orc = !rules.orc_registers.is_empty();
        let orc = kernel.as_ref().zip(symbols.as_ref().ok()).filter(|_| has_orc);
        let orc = orc.and_then(|(kernel, symbols)| Orc::find(kernel, symbols));
        Ok(Self { machine, names, kernel, image, slide, symbols, orc, modules: OnceLock::new() })
    }

    /// The names of the kernel's functions: of the ELF file if it has symbols, else of the kernel's own list.
    ///
    /// # Errors
    /// Why there are none.
    pub fn symbols(&self) -> Result<&SymbolTable, &Error> {
        self.symbols.as_ref()
    }

    /// Why the modules are not known, if a backtrace has asked for them.
    #[must_use]
    pub fn modules_error(&self) -> Option<&Error> {
        self.modules.get()?.as_ref().err()
    }

    /// How far the kernel lies from where its ELF file says, modulo 2^64; `None` without a file.
    #[must_use]
    pub fn slide(&self) -> Option<u64> {
        self.image.map(|_| self.slide)
    }

    /// The backtrace of a vCPU.
    ///
    /// # Errors
    /// [`vmcore_core::Error::TooLarge`] if there is no such vCPU.
    pub fn backtrace(&self, vcpu_index: usize) -> Result<Backtrace, Error> {
        let vcpu = self.machine.vcpus.get(vcpu_index).ok_or(vmcore_core::Error::TooLarge {
            what: "vCPU index",
            found: vcpu_index as u64,
            limit: (self.machine.vcpus.len() as u64).saturating_sub(1),
        })?;
        let file = vcpu.registers();
        let Some(registers) = Registers::of(file) else {
            let name = file.table().program_counter.to_owned();
            let end = End::Failed(Error::NoRegister(name));
            return Ok(Backtrace { frames: Vec::new(), end, source_error: None });
        };
        Ok(Walk { unwinder: self, vcpu_index, file }.run(registers))
    }

    /// The code that an instruction at `pc` belongs to; a return address may stand behind the end of its function.
    fn locate(&self, pc: u64, is_exact: bool) -> Option<Location> {
        let at = Gva(lookup(pc, is_exact));
        let own = self.symbols.as_ref().ok().and_then(|symbols| symbols.code_at(at));
        let symbol = own.or_else(|| self.module_at(at)?.symbols.code_at(at))?;
        Some(Location { name: symbol.name.clone(), offset: Some(pc.wrapping_sub(symbol.gva.0)) })
    }

    /// The module that an address is in.
    fn module_at(&self, gva: Gva) -> Option<&Module> {
        let (kernel, symbols) = self.kernel.as_ref().zip(self.symbols.as_ref().ok())?;
        // Programs and the kernel itself are in no module.
        if symbols.code_at(gva).is_some() || kernel.translate(gva).is_err() {
            return None;
        }
        let read = || modules::read(kernel, symbols, self.names.word, self.orc.as_ref());
        self.modules.get_or_init(read).as_ref().ok()?.iter().find(|module| module.contains(gva.0))
    }

    /// The functions at `pc` by the ELF file's debug information: the innermost first, all but the last inlined.
    fn functions(&self, pc: u64, is_exact: bool) -> Result<Vec<Function>, Error> {
        let at = lookup(pc, is_exact).wrapping_sub(self.slide);
        self.image.map_or(Ok(Vec::new()), |image| image.functions(at))
    }
}

/// The address by which a frame's tables are found: a call may be a function's last instruction.
fn lookup(pc: u64, is_exact: bool) -> u64 {
    if is_exact { pc } else { pc.wrapping_sub(1) }
}

/// The walk of one vCPU.
struct Walk<'a> {
    unwinder: &'a Unwinder<'a>,
    vcpu_index: usize,
    file: &'a RegisterFile,
}

impl Walk<'_> {
    fn run(&self, first: Registers) -> Backtrace {
        let names = &self.unwinder.names;
        let (mut registers, mut way, mut is_exact) = (first, Way::Registers, true);
        let mut frames = Vec::new();
        let mut seen = HashSet::new();
        let mut source_error = None;
        let end = loop {
            let stack_pointer = registers.get(names.stack_pointer);
            let frame_pointer = names.frame_pointer.and_then(|number| registers.get(number));
            if !seen.insert((registers.pc, stack_pointer, frame_pointer)) {
                break End::Repeats;
            }
            if frames.len() >= MAX_FRAMES {
                break End::TooMany;
            }
            let (pc, stack_pointer) = (Gva(registers.pc), stack_pointer.map(Gva));
            let mut functions = Vec::new();
            if source_error.is_none() {
                match self.unwinder.functions(pc.0, is_exact) {
                    Ok(found) => functions = found,
                    Err(error) => source_error = Some(error),
                }
            }
            let function = functions.pop();
            frames.extend(functions.into_iter().map(|inlined| Frame {
                pc,
                stack_pointer,
                location: inlined.name.map(|name| Location { name, offset: None }),
                module: None,
                source: inlined.source,
                way: Way::Inlined,
            }));
            let source = function.and_then(|function| function.source);
            let location = self.unwinder.locate(pc.0, is_exact);
            let module = self.unwinder.module_at(Gva(lookup(pc.0, is_exact)));
            let module = module.map(|module| Arc::clone(&module.name));
            frames.push(Frame { pc, stack_pointer, location, module, source, way });
            if way == Way::Registers && (names.rules.is_in_program)(self.file) == Some(true) {
                break End::InProgram;
            }
            match self.step(&registers, is_exact) {
                Ok(Step::Frame(caller, ..)) if caller.pc == 0 => break End::Outermost,
                Ok(Step::Frame(caller, by, exact)) => (registers, way, is_exact) = (caller, by, exact),
                Ok(Step::End(end)) => break end,
                Err(error) => break End::Failed(error),
            }
        };
        Backtrace { frames, end, source_error }
    }

    /// To the caller of the frame with these registers.
    fn step(&self, registers: &Registers, is_exact: bool) -> Result<Step, Error> {
        let Unwinder { names, image, slide, kernel, orc, .. } = self.unwinder;
        let at = lookup(registers.pc, is_exact);
        let read = |address: u64, len: u8| self.word(address, len);
        let by_file = image.and_then(|image| image.caller(at.wrapping_sub(*slide), registers, names, &read));
        match by_file {
            Some(Ok(Caller { registers: None, .. })) => return Ok(Step::End(End::Outermost)),
            Some(Ok(Caller { registers: Some(mut caller), is_interrupted })) => {
                caller.pc = self.return_address(caller.pc);
                return Ok(Step::Frame(caller, Way::CallFrames, is_interrupted));
            }
            // Behind a frame record few registers are known: the next record leads on.
            Some(Err(Error::NoRegister(_))) | None => {}
            Some(Err(error)) => return Err(error),
        }
        let module = self.unwinder.module_at(Gva(at));
        let orc = module.map_or(orc.as_ref(), |module| module.orc.as_ref());
        if let (Some(kernel), Some(orc)) = (kernel, orc) {
            match orc.step(kernel, at, registers, names, &read)? {
                orc::Step::Call(caller) => return Ok(Step::Frame(caller, Way::Orc, false)),
                orc::Step::Interrupt { at, first } => return self.interrupted(registers, at, first),
                orc::Step::Outermost => return Ok(Step::End(End::Outermost)),
                orc::Step::Unknown => {}
            }
        }
        match names.rules.record.zip(names.frame_pointer) {
            Some((record, number)) => self.by_record(registers, is_exact, &record, number),
            None => Ok(Step::End(End::Unknown)),
        }
    }

    /// By the frame pointer, or by the link register if the function has made no frame yet.
    fn by_record(
        &self,
        registers: &Registers,
        is_exact: bool,
        record: &FrameRecord,
        number: u16,
    ) -> Result<Step, Error> {
        let names = &self.unwinder.names;
        let Some(pointer) = registers.get(number) else { return Ok(Step::End(End::Unknown)) };
        if let Some(at) = self.interrupt_frame(registers, pointer, record) {
            // It is that of the frame which the interrupt has entered the kernel with: its own function has no frame.
            return self.interrupted(registers, at, 0);
        }
        let found = self.read_record(pointer, record);
        if let Some(caller) = self.linked(registers, is_exact, found.as_ref().ok()) {
            return Ok(Step::Frame(caller, Way::LinkRegister, false));
        }
        if pointer == 0 {
            return Ok(Step::End(if self.unwinder.orc.is_some() { End::Unknown } else { End::Outermost }));
        }
        if pointer >> 63 == 0 && registers.pc >> 63 == 1 {
            return Ok(Step::End(End::Foreign(Gva(pointer))));
        }
        let (next, return_address) = found?;
        if return_address != 0 && !self.may_be_code(return_address) {
            return Ok(Step::End(End::NoCode(Gva(return_address))));
        }
        let mut caller = Registers::at(return_address);
        caller.set(number, Some(next));
        if number != names.stack_pointer {
            let distance = record.stack_pointer;
            caller.set(names.stack_pointer, distance.map(|distance| pointer.wrapping_add_signed(distance)));
        }
        Ok(Step::Frame(caller, Way::FrameRecord, false))
    }

    /// Whether a frame record may lead to this address: one in a program, or in no memory at all, was no frame record.
    ///
    /// Code that has a name may be gone: kernels unmap what they need while they start only. A kernel with ORC tables keeps
    /// no frame pointers: then only what leads back into its code is believed.
    fn may_be_code(&self, address: u64) -> bool {
        let Unwinder { orc, kernel, .. } = self.unwinder;
        let is_mapped = |kernel: &Kernel| kernel.translate(Gva(address)).is_ok();
        let may_be_nameless = || orc.is_none() && kernel.as_ref().is_none_or(is_mapped);
        self.unwinder.locate(address, false).is_some() || may_be_nameless()
    }

    /// The caller's frame pointer and the return address of a frame record.
    fn read_record(&self, pointer: u64, record: &FrameRecord) -> Result<(u64, u64), Error> {
        let len = self.unwinder.names.word;
        let next = self.word(pointer.wrapping_add_signed(record.next), len)?;
        let from = if record.is_in_caller { next } else { pointer };
        let zero_ends = record.is_in_caller && next == 0;
        let at = from.wrapping_add_signed(record.return_address);
        let return_address = if zero_ends { 0 } else { self.word(at, len)? };
        Ok((next, self.return_address(return_address)))
    }

    /// The caller that the link register names, if the function at the pc has not saved it; `found` is what the frame pointer
    /// leads to, the caller's frame pointer and a return address.
    ///
    /// If it has, and has called another one since, the link register leads back into the function itself.
    fn linked(&self, registers: &Registers, is_exact: bool, found: Option<&(u64, u64)>) -> Option<Registers> {
        let names = &self.unwinder.names;
        let link = self.return_address(registers.get(names.link.filter(|_| is_exact)?)?);
        let caller = self.unwinder.locate(link, false)?;
        let function = self.unwinder.locate(registers.pc, true);
        let is_in_function =
            |location: &Location| function.as_ref().is_some_and(|function| function.name == location.name);
        if found.is_some_and(|(_, in_record)| *in_record == link) || is_in_function(&caller) {
            return None;
        }
        let mut linked = registers.clone();
        linked.pc = link;
        linked.set(names.link?, None);
        if Some(names.stack_pointer) != names.frame_pointer {
            // A function that has made no frame has not moved it, but who knows.
            linked.set(names.stack_pointer, None);
        } else if let Some((next, in_record)) = found
            && self.unwinder.locate(*in_record, false).as_ref().is_some_and(is_in_function)
        {
            // It has made a frame, and has not saved its return address there: an older one of its own is left in its place.
            linked.set(names.stack_pointer, Some(*next));
        }
        Some(linked)
    }

    /// The interrupt frame that the frame pointer leads to, if it does.
    fn interrupt_frame(&self, registers: &Registers, pointer: u64, record: &FrameRecord) -> Option<u64> {
        let names = &self.unwinder.names;
        let frame = names.rules.interrupt_frame?;
        let word = |address| self.word(address, names.word).ok();
        let offset = |is_it: &dyn Fn(&str) -> bool| {
            frame.registers.iter().find(|(name, _)| is_it(name)).map(|(_, offset)| u64::from(*offset))
        };
        frame.links.iter().find_map(|link| match *link {
            InterruptLink::Tagged(tag) => {
                let alignment = u64::from(names.word);
                (pointer % alignment == tag && pointer > alignment).then(|| pointer - tag)
            }
            InterruptLink::Repeated { at } => {
                let base = pointer.checked_sub(at)?;
                let (next, return_address) = self.read_record(pointer, record).ok()?;
                let pc = word(base.checked_add(offset(&|name| names.is_program_counter(name))?)?)?;
                let saved = word(base.checked_add(offset(&|name| name == record.pointer)?)?)?;
                (pc != 0 && (saved, self.return_address(pc)) == (next, return_address)).then_some(base)
            }
            InterruptLink::Marked { at, word: mark } => {
                let is_marked = self.read_record(pointer, record).ok()? == (0, 0);
                let behind = pointer.checked_add(2 * u64::from(names.word))?;
                (is_marked && word(behind)? == mark).then(|| pointer.checked_sub(at)).flatten()
            }
            InterruptLink::Labelled { at, words, frame } => {
                let is_labelled = words.contains(&word(pointer.checked_add(at)?)?);
                is_labelled.then(|| pointer.checked_add(frame)).flatten()
            }
            InterruptLink::BehindLast { frame } => {
                let (next, _) = self.read_record(pointer, record).ok()?;
                let at = pointer.checked_add(frame).filter(|_| next == 0)?;
                let is_one = match self.interrupted(registers, at, 0).ok()? {
                    Step::Frame(caller, ..) => self.unwinder.locate(caller.pc, true).is_some(),
                    Step::End(end) => matches!(end, End::FromProgram(_)),
                };
                is_one.then_some(at)
            }
            InterruptLink::InFunctions(functions) => {
                let function = self.unwinder.locate(registers.pc, false)?;
                functions
                    .contains(&function.name.as_str())
                    .then(|| registers.get(names.stack_pointer))
                    .flatten()
            }
        })
    }

    /// To the code that was interrupted: its registers are in an interrupt frame, all but those before `first`.
    fn interrupted(&self, registers: &Registers, at: u64, first: u64) -> Result<Step, Error> {
        let names = &self.unwinder.names;
        let Some(InterruptFrame { registers: saved, .. }) = names.rules.interrupt_frame else {
            return Ok(Step::End(End::Unknown));
        };
        // What is not in the frame is as it was.
        let mut caller = registers.clone();
        let mut file = RegisterFile::new(names.table());
        for (name, offset) in saved.iter().filter(|(_, offset)| u64::from(*offset) >= first) {
            let value = self.word(at.wrapping_add(u64::from(*offset)), names.word)?;
            file.set_value(name, value);
            if names.is_program_counter(name) {
                caller.pc = value;
            } else if let Some(number) = names.number(name) {
                caller.set(number, file.value(name));
            }
        }
        if (names.rules.is_in_program)(&file) == Some(true) {
            return Ok(Step::End(End::FromProgram(Gva(caller.pc))));
        }
        Ok(Step::Frame(caller, Way::InterruptFrame, true))
    }

    fn return_address(&self, address: u64) -> u64 {
        let names = &self.unwinder.names;
        if address == 0 { 0 } else { (names.rules.return_address)(self.file, names.address(address)) }
    }

    /// A word of at most 8 bytes of the guest's memory.
    ///
    /// The kernel's own page tables map all stacks of the kernel, those of a vCPU perhaps not.
    fn word(&self, address: u64, len: u8) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        let buf = &mut bytes[..usize::from(len.clamp(1, 8))];
        let gva = Gva(address);
        let by_kernel = self.unwinder.kernel.as_ref().is_some_and(|kernel| kernel.read(gva, buf).is_ok());
        if !by_kernel {
            self.unwinder.machine.read_virtual(self.vcpu_index, gva, buf)?;
        }
        let endianness: Endianness = self.unwinder.machine.identity.endianness;
        Ok(endianness.decode(buf))
    }
}
