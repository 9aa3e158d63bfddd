//! The registers of an architecture's table, as gdb knows them.

use crate::{Error, Presence};
use vmcore_core::{Endianness, Register, RegisterFile, RegisterId, RegisterTable};

/// What a [`Target`](crate::Target) says of registers whose values are in a [`RegisterFile`]: `target.xml`, and values in the
/// guest's byte order. gdb's number of a register is its place among the rows that are listed.
#[derive(Debug)]
pub struct TableRegisters {
    /// The rows that are listed, by gdb's number.
    rows: Vec<(RegisterId, &'static Register)>,
    description: String,
    program_counter: Option<u32>,
    expedited: Vec<u32>,
    endianness: Endianness,
}

impl TableRegisters {
    /// The registers of `table`, of a guest whose byte order is `endianness`.
    #[must_use]
    pub fn new(table: &RegisterTable, endianness: Endianness) -> Self {
        Self::known(table, endianness, |_| true)
    }

    /// As [`TableRegisters::new`], without the registers that are not known, as far as gdb takes a description without them
    /// ([`RegisterTable::gdb_rows`]): gdb shows those as unavailable, but LLDB 14 shows `0xcc` in each byte.
    #[must_use]
    pub fn known(
        table: &RegisterTable,
        endianness: Endianness,
        is_known: impl Fn(RegisterId) -> bool,
    ) -> Self {
        let rows = table.gdb_rows(is_known);
        let number = |name: &str| {
            let place = rows.iter().position(|(_, row)| row.name == name)?;
            u32::try_from(place).ok()
        };
        let program_counter = number(table.program_counter);
        Self {
            program_counter,
            expedited: program_counter.into_iter().chain(number(table.stack_pointer)).collect(),
            description: table.target_description_of(&rows),
            rows,
            endianness,
        }
    }

    /// [`Target::description`](crate::Target::description)
    #[must_use]
    pub fn description(&self, annex: &str) -> Option<&[u8]> {
        (annex == "target.xml").then_some(self.description.as_bytes())
    }

    /// How many there are: [`Target::g_count`](crate::Target::g_count).
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of the value of register `number`: [`Target::register_len`](crate::Target::register_len).
    #[must_use]
    pub fn value_len(&self, number: u32) -> Option<usize> {
        Some(usize::from(self.row(number)?.1.gdb?.bits).div_ceil(8))
    }

    /// The number of the program counter.
    #[must_use]
    pub fn program_counter(&self) -> Option<u32> {
        self.program_counter
    }

    /// The program counter and the stack pointer: [`Target::expedited`](crate::Target::expedited).
    #[must_use]
    pub fn expedited(&self) -> &[u32] {
        &self.expedited
    }

    /// Puts the value of register `number` into `value`: [`Target::read_register`](crate::Target::read_register).
    ///
    /// # Errors
    /// [`Error::FAULT`] if there is no such register.
    pub fn read(&self, registers: &RegisterFile, number: u32, value: &mut [u8]) -> Result<Presence, Error> {
        let (id, _) = self.row(number).ok_or(Error::FAULT)?;
        let Some(known) = registers.get(id) else { return Ok(Presence::Unknown) };
        // gdb's register may be longer than ours (selectors), or shorter.
        value.fill(0);
        let len = known.len().min(value.len());
        value[..len].copy_from_slice(&known[..len]);
        if self.endianness == Endianness::Big {
            value.reverse();
        }
        Ok(Presence::Known)
    }

    /// Sets register `number`: [`Target::write_register`](crate::Target::write_register).
    ///
    /// # Errors
    /// [`Error::FAULT`] if there is no such register.
    pub fn write(&self, registers: &mut RegisterFile, number: u32, value: &[u8]) -> Result<(), Error> {
        let (id, row) = self.row(number).ok_or(Error::FAULT)?;
        let mut value = value.to_vec();
        if self.endianness == Endianness::Big {
            value.reverse();
        }
        value.resize(row.byte_len(), 0);
        registers.set(id, &value);
        Ok(())
    }

    fn row(&self, number: u32) -> Option<(RegisterId, &'static Register)> {
        self.rows.get(number as usize).copied()
    }
}
