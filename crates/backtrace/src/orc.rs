//! ORC: the tables by which kernels of x86_64 walk their own stacks. They lie in the kernel's memory, and no file is needed.
//!
//! ```text
//! __start_orc_unwind_ip   one for each entry, ascending: the address of its first instruction, 32 bits, counted from here
//! __start_orc_unwind      entries of 6 bytes:
//!     0  16 bits  distance of the caller's stack pointer, signed
//!     2  16 bits  distance of the caller's rbp, signed
//!     4   4 bits  register that the first is counted from
//!         4 bits  register that the second is counted from; 0: rbp is as it was
//!         type    what lies there: 2 bits, since Linux 6.4 three
//! ```
//!
//! Modules have tables of their own (`modules.rs`).
//!
//! Source: Linux `arch/x86/include/asm/orc_types.h`, `arch/x86/kernel/unwind_orc.c`.

use crate::registers::{Names, Registers};
use crate::{Error, SymbolTable};
use std::ops::Range;
use vmcore_core::{Gva, Kernel};

/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 6;
/// The most entries; real kernels have 600,000.
const MAX_ENTRIES: u64 = 1 << 24;
/// How many entries are looked at to learn how they are laid out.
const SAMPLES: u64 = 64;
/// Where code lies: the names of begins and ends.
const CODE: [(&str, &str); 2] = [("_stext", "_etext"), ("_sinittext", "_einittext")];

/// Numbers of registers that are none.
const UNDEFINED: u8 = 0;
const CALLER_SP: u8 = 1;
/// The number of `rsp`.
const SP: u8 = 5;
/// What the register points to is counted from.
const INDIRECT: [u8; 2] = [8, 9];
/// Of them, the one whose distance is added afterwards.
const SP_INDIRECT: u8 = 9;

/// The tables of a kernel.
#[derive(Debug)]
pub(crate) struct Orc {
    addresses: Gva,
    entries: Gva,
    count: u64,
    code: Vec<Range<u64>>,
    /// Whether the type has three bits.
    is_new: bool,
}

/// What lies where an entry points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing is known of this code.
    Undefined,
    /// No frame called it.
    EndOfStack,
    /// Behind a return address.
    Call,
    /// `struct pt_regs`.
    Registers,
    /// Its end: what the processor itself has saved.
    Partial,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sp_offset: i16,
    bp_offset: i16,
    sp_register: u8,
    bp_register: u8,
    kind: Kind,
}

/// Of a function that is not there, called by a pointer that is null: nothing but the return address was pushed. Linux's
/// own unwinder takes it so.
const CALL_OF_NULL: Entry =
    Entry { sp_offset: 8, bp_offset: 0, sp_register: SP, bp_register: UNDEFINED, kind: Kind::Call };

/// What an entry leads to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The code is not in the tables, or they know nothing of it.
    Unknown,
    /// There is no caller.
    Outermost,
    /// The frame of the caller.
    Call(Registers),
    /// An interrupt frame at this address, of which the first bytes are missing.
    Interrupt { at: u64, first: u64 },
}

impl Orc {
    /// The tables of a kernel with these symbols; `None` if it has none.
    pub(crate) fn find(kernel: &Kernel, symbols: &SymbolTable) -> Option<Self> {
        let range = |begin, end| {
            let (begin, end) = (symbols.find(begin)?, symbols.find(end)?);
            Some((begin, end.offset_from(begin)?))
        };
        let (addresses, len) = range("__start_orc_unwind_ip", "__stop_orc_unwind_ip")?;
        let (entries, entries_len) = range("__start_orc_unwind", "__stop_orc_unwind")?;
        let count = (len / 4).min(entries_len / ENTRY_LEN).min(MAX_ENTRIES);
        let code = CODE.into_iter().filter_map(|(begin, end)| {
            let (begin, len) = range(begin, end)?;
            Some(begin.0..begin.0 + len)
        });
        let mut orc = Self { addresses, entries, count, code: code.collect(), is_new: false };
        orc.is_new = orc.has_wide_types(kernel).ok()?;
        Some(orc)
    }

    /// The tables of a module, which has code in these ranges; they look like those of its kernel.
    pub(crate) fn of_module(&self, addresses: Gva, entries: Gva, count: u64, code: Vec<Range<u64>>) -> Self {
        Self { addresses, entries, count: count.min(MAX_ENTRIES), code, is_new: self.is_new }
    }

    /// Whether types have three bits. Kernels that distributors keep alive have it in older releases too; but in all kernels
    /// nearly all entries are of calls, whose type is 0 in two bits and 2 in three.
    fn has_wide_types(&self, kernel: &Kernel) -> Result<bool, Error> {
        let mut wide = 0;
        for sample in 0..SAMPLES {
            let [.., flags] = self.words(kernel, self.count * sample / SAMPLES)?;
            wide += u64::from(flags >> 8 & 7 == 2);
        }
        Ok(wide > SAMPLES / 2)
    }

    /// The three words of an entry.
    fn words(&self, kernel: &Kernel, index: u64) -> Result<[u16; 3], Error> {
        let mut bytes = [0; 6];
        kernel.read(Gva(self.entries.0.wrapping_add(index * ENTRY_LEN)), &mut bytes)?;
        let [a, b, c, d, e, f] = bytes;
        Ok([[a, b], [c, d], [e, f]].map(u16::from_le_bytes))
    }

    fn address(&self, kernel: &Kernel, index: u64) -> Result<u64, Error> {
        let at = self.addresses.0.wrapping_add(index * 4);
        let distance = kernel.number_at::<4>(Gva(at))?;
        // Sign-extended.
        Ok(at.wrapping_add(distance ^ 0x8000_0000).wrapping_sub(0x8000_0000))
    }

    /// The entry of the code at `address`.
    fn entry(&self, kernel: &Kernel, address: u64) -> Result<Option<Entry>, Error> {
        if address == 0 {
            return Ok(Some(CALL_OF_NULL));
        }
        if !self.code.iter().any(|range| range.contains(&address)) {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.address(kernel, middle)? <= address { low = middle + 1 } else { high = middle }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(None) };
        let [sp_offset, bp_offset, flags] = self.words(kernel, index)?;
        let (sp_register, bp_register) = ((flags & 0xf) as u8, (flags >> 4 & 0xf) as u8);
        let kind = if self.is_new {
            match flags >> 8 & 7 {
                1 => Kind::EndOfStack,
                2 => Kind::Call,
                3 => Kind::Registers,
                4 => Kind::Partial,
                _ => Kind::Undefined,
            }
        } else {
            match (sp_register, flags >> 8 & 3) {
                // Above the type: the end of the stack, and in Linux 6.3 a bit between them that does not matter here.
                (UNDEFINED, _) if flags >> 10 & 3 != 0 => Kind::EndOfStack,
                (UNDEFINED, _) | (_, 3) => Kind::Undefined,
                (_, 0) => Kind::Call,
                (_, 1) => Kind::Registers,
                _ => Kind::Partial,
            }
        };
        let [sp_offset, bp_offset] = [sp_offset, bp_offset].map(u16::cast_signed);
        Ok(Some(Entry { sp_offset, bp_offset, sp_register, bp_register, kind }))
    }

    /// What called the frame with these registers, whose code is at `address`.
    pub(crate) fn step(
        &self,
        kernel: &Kernel,
        address: u64,
        registers: &Registers,
        names: &Names,
        read: crate::cfi::ReadWord<'_>,
    ) -> Result<Step, Error> {
        let Some(entry) = self.entry(kernel, address)? else { return Ok(Step::Unknown) };
        if entry.kind == Kind::EndOfStack {
            return Ok(Step::Outermost);
        }
        let Some(base) = register(entry.sp_register, names).filter(|_| entry.kind != Kind::Undefined) else {
            return Ok(Step::Unknown);
        };
        let base = registers.need(base, names)?;
        let offset = i64::from(entry.sp_offset);
        let sp = match entry.sp_register {
            SP_INDIRECT => read(base, 8)?.wrapping_add_signed(offset),
            other if INDIRECT.contains(&other) => read(base.wrapping_add_signed(offset), 8)?,
            _ => base.wrapping_add_signed(offset),
        };
        let pc_offset = pc_offset(names);
        match entry.kind {
            Kind::Registers => return Ok(Step::Interrupt { at: sp, first: 0 }),
            Kind::Partial => return Ok(Step::Interrupt { at: sp.wrapping_sub(pc_offset), first: pc_offset }),
            _ => {}
        }
        let mut caller = registers.clone();
        caller.pc = read(sp.wrapping_sub(8), 8)?;
        caller.set(names.stack_pointer, Some(sp));
        let bp_from = match entry.bp_register {
            UNDEFINED => None,
            CALLER_SP => Some(sp),
            other => match register(other, names) {
                Some(number) => Some(registers.need(number, names)?),
                None => None,
            },
        };
        if let (Some(from), Some(bp)) = (bp_from, names.frame_pointer) {
            caller.set(bp, Some(read(from.wrapping_add_signed(i64::from(entry.bp_offset)), 8)?));
        }
        Ok(Step::Call(caller))
    }
}

/// The DWARF number of a register that ORC numbers otherwise.
fn register(orc: u8, names: &Names) -> Option<u16> {
    let name = names.rules.orc_registers.get(usize::from(orc)).copied().flatten()?;
    names.number(name)
}

/// Where an interrupt frame holds the pc: from there on, the processor itself has saved it.
fn pc_offset(names: &Names) -> u64 {
    let registers = names.rules.interrupt_frame.map_or(&[][..], |frame| frame.registers);
    let pc = registers.iter().find(|(name, _)| names.is_program_counter(name));
    pc.map_or(0, |(_, offset)| u64::from(*offset))
}
