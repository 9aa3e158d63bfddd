//! Call-frame information: `.debug_frame` and `.eh_frame` of an ELF file.
//!
//! Source: DWARF 5, section 6.4; LSB, "Exception Frames".

use crate::Error;
use crate::registers::{Names, Registers};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, EndianSlice, Evaluation, EvaluationResult,
    Expression, Location, Piece, RegisterRule, RunTimeEndian, UnwindContext, UnwindExpression, UnwindSection,
    Value, Vendor,
};
use std::fmt;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// How many operations of an expression are executed; real ones have ten.
const MAX_OPERATIONS: u32 = 1000;

/// Reads a word of `len` bytes of the guest's memory.
pub(crate) type ReadWord<'a> = &'a dyn Fn(u64, u8) -> Result<u64, Error>;

/// Which section it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Debug,
    Exception,
}

/// One section, and where the entry of each function stands in it.
pub(crate) struct CallFrames {
    bytes: Vec<u8>,
    kind: Kind,
    endian: RunTimeEndian,
    address_size: u8,
    vendor: Vendor,
    bases: BaseAddresses,
    /// Functions by address: begin, end, and offset in the section.
    functions: Vec<(u64, u64, usize)>,
}

impl fmt::Debug for CallFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFrames")
            .field("kind", &self.kind)
            .field("functions", &self.functions.len())
            .finish()
    }
}

/// The frame of a caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// `None` if the information says that there is no caller.
    pub(crate) registers: Option<Registers>,
    /// Whether the caller was interrupted: its pc is then not behind a call.
    pub(crate) is_interrupted: bool,
}

impl CallFrames {
    /// The section of these `bytes`, which stands at `address` in the file's address space.
    ///
    /// What is damaged ends the list of functions; those before it count.
    pub(crate) fn new(
        kind: Kind,
        bytes: Vec<u8>,
        address: u64,
        endian: RunTimeEndian,
        address_size: u8,
        vendor: Vendor,
    ) -> Self {
        let bases = BaseAddresses::default().set_eh_frame(address);
        let mut frames = Self { bytes, kind, endian, address_size, vendor, bases, functions: Vec::new() };
        let functions = match kind {
            Kind::Debug => functions(&frames.debug_frame(), &frames.bases),
            Kind::Exception => functions(&frames.eh_frame(), &frames.bases),
        };
        frames.functions = functions;
        frames.functions.sort_unstable();
        frames
    }

    fn debug_frame(&self) -> DebugFrame<Slice<'_>> {
        let mut section = DebugFrame::new(&self.bytes, self.endian);
        section.set_address_size(self.address_size);
        section.set_vendor(self.vendor);
        section
    }

    fn eh_frame(&self) -> EhFrame<Slice<'_>> {
        let mut section = EhFrame::new(&self.bytes, self.endian);
        section.set_address_size(self.address_size);
        section.set_vendor(self.vendor);
        section
    }

    /// The frame that called the one with these registers, whose code is at `address` in the file's address space.
    ///
    /// `None` if the section does not know that code.
    pub(crate) fn caller(
        &self,
        address: u64,
        registers: &Registers,
        names: &Names,
        read: ReadWord<'_>,
    ) -> Option<Result<Caller, Error>> {
        let before = self.functions.partition_point(|(begin, _, _)| *begin <= address);
        let (_, end, offset) = *self.functions.get(before.checked_sub(1)?)?;
        if address >= end {
            return None;
        }
        let step = Step { bases: &self.bases, address, registers, names, read };
        Some(match self.kind {
            Kind::Debug => step.take(&self.debug_frame(), offset),
            Kind::Exception => step.take(&self.eh_frame(), offset),
        })
    }
}

fn functions<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<(u64, u64, usize)> {
    let mut found = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(S::cie_from_offset)
        {
            found.push((fde.initial_address(), fde.end_address(), fde.offset()));
        }
    }
    found
}

/// One step from a frame to its caller.
struct Step<'a> {
    bases: &'a BaseAddresses,
    address: u64,
    registers: &'a Registers,
    names: &'a Names,
    read: ReadWord<'a>,
}

impl Step<'_> {
    fn take<'s, S: UnwindSection<Slice<'s>>>(&self, section: &S, offset: usize) -> Result<Caller, Error> {
        let fde = section.fde_from_offset(self.bases, S::Offset::from(offset), S::cie_from_offset)?;
        let mut context = UnwindContext::new();
        let row = fde.unwind_info_for_address(section, self.bases, &mut context, self.address)?;
        let encoding = fde.cie().encoding();
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.need(register.0, self.names)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(section, expression, encoding, None)?,
        };
        let cfa = self.names.address(cfa);
        let mut caller = self.registers.clone();
        // What no rule speaks of is as it was; the stack pointer is as it was at the call.
        let stack_pointer = cfa.wrapping_sub(self.names.rules.cfa_above_stack_pointer);
        caller.set(self.names.stack_pointer, Some(stack_pointer));
        for (register, rule) in row.registers() {
            let value = match rule {
                RegisterRule::Undefined => None,
                RegisterRule::SameValue => self.registers.get(register.0),
                RegisterRule::Offset(offset) => Some(self.word(cfa.wrapping_add_signed(*offset))?),
                RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
                RegisterRule::Register(other) => self.registers.get(other.0),
                RegisterRule::Expression(expression) => {
                    Some(self.word(self.evaluate(section, expression, encoding, Some(cfa))?)?)
                }
                RegisterRule::ValExpression(expression) => {
                    Some(self.evaluate(section, expression, encoding, Some(cfa))?)
                }
                RegisterRule::Constant(value) => Some(*value),
                // aarch64's "is the return address signed": signatures are taken away in any case.
                RegisterRule::Architectural => continue,
            };
            caller.set(register.0, value);
        }
        let column = fde.cie().return_address_register();
        let is_outermost = matches!(row.register(column), Some(RegisterRule::Undefined));
        let registers = if is_outermost {
            None
        } else {
            caller.pc = caller.need(column.0, self.names)?;
            Some(caller)
        };
        Ok(Caller { registers, is_interrupted: fde.is_signal_trampoline() })
    }

    fn word(&self, address: u64) -> Result<u64, Error> {
        (self.read)(self.names.address(address), self.names.word)
    }

    fn evaluate<'s, S: UnwindSection<Slice<'s>>>(
        &self,
        section: &S,
        expression: &UnwindExpression<usize>,
        encoding: gimli::Encoding,
        cfa: Option<u64>,
    ) -> Result<u64, Error> {
        let Expression(bytes) = expression.get(section)?;
        let mut evaluation = Evaluation::new(bytes, encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        // An expression for a register begins with the canonical frame address.
        cfa.into_iter().for_each(|cfa| evaluation.set_initial_value(cfa));
        let mut result = evaluation.evaluate()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let value = (self.read)(self.names.address(address), size)?;
                    evaluation.resume_with_memory(Value::Generic(value))?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.registers.need(register.0, self.names)?;
                    evaluation.resume_with_register(Value::Generic(value))?
                }
                _ => return Err(gimli::Error::UnsupportedEvaluation.into()),
            };
        }
        match evaluation.result().first() {
            Some(Piece { location: Location::Address { address }, .. }) => Ok(*address),
            _ => Err(gimli::Error::UnsupportedEvaluation.into()),
        }
    }
}
