//! What is known of the registers of one frame.

use crate::Error;
use std::collections::BTreeMap;
use vmcore_core::{RegisterFile, RegisterTable, StackRules};

/// Values by DWARF number; a register that is not there is not known in this frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    values: BTreeMap<u16, u64>,
}

impl Registers {
    /// Of a vCPU; `None` if its program counter is not known.
    pub(crate) fn of(file: &RegisterFile) -> Option<Self> {
        let pc = file.value(file.table().program_counter)?;
        let known = file.iter().filter(|(_, row, _)| row.byte_len() <= 8);
        let numbered = known.filter_map(|(_, row, bytes)| Some((row.dwarf?.0, bytes)));
        let values = numbered.map(|(number, bytes)| (number, vmcore_core::Endianness::Little.decode(bytes)));
        Some(Self { pc, values: values.collect() })
    }

    /// Of code that was interrupted at `pc`; nothing else is known.
    pub(crate) fn at(pc: u64) -> Self {
        Self { pc, values: BTreeMap::new() }
    }

    pub(crate) fn get(&self, number: u16) -> Option<u64> {
        self.values.get(&number).copied()
    }

    pub(crate) fn need(&self, number: u16, names: &Names) -> Result<u64, Error> {
        self.get(number).ok_or_else(|| Error::NoRegister(names.name(number)))
    }

    pub(crate) fn set(&mut self, number: u16, value: Option<u64>) {
        match value {
            Some(value) => self.values.insert(number, value),
            None => self.values.remove(&number),
        };
    }
}

/// The registers of an architecture that a walk knows by role, as DWARF numbers.
#[derive(Debug)]
pub(crate) struct Names {
    table: &'static RegisterTable,
    pub(crate) rules: &'static StackRules,
    pub(crate) stack_pointer: u16,
    pub(crate) link: Option<u16>,
    pub(crate) frame_pointer: Option<u16>,
    /// Bytes of an address.
    pub(crate) word: u8,
}

impl Names {
    /// `None` if the stack pointer has no number: then nothing can be said of a frame.
    pub(crate) fn new(table: &'static RegisterTable, rules: &'static StackRules) -> Option<Self> {
        let find = |name| number(table, name);
        let pc = table.row(table.find(table.program_counter)?)?;
        Some(Self {
            table,
            rules,
            stack_pointer: find(table.stack_pointer)?,
            link: rules.link_register.and_then(find),
            frame_pointer: rules.record.and_then(|record| find(record.pointer)),
            word: u8::try_from(pc.byte_len()).ok().filter(|len| matches!(len, 4 | 8))?,
        })
    }

    /// The DWARF number of the register named `name`.
    pub(crate) fn number(&self, name: &str) -> Option<u16> {
        number(self.table, name)
    }

    pub(crate) fn is_program_counter(&self, name: &str) -> bool {
        self.table.program_counter == name
    }

    pub(crate) fn table(&self) -> &'static RegisterTable {
        self.table
    }

    /// An address, cut to the width that addresses have.
    pub(crate) fn address(&self, value: u64) -> u64 {
        if self.word == 4 { value & u64::from(u32::MAX) } else { value }
    }

    fn name(&self, number: u16) -> String {
        let row = self.table.rows.iter().find(|row| row.dwarf.is_some_and(|dwarf| dwarf.0 == number));
        row.map_or_else(|| format!("DWARF {number}"), |row| row.name.to_owned())
    }
}

fn number(table: &RegisterTable, name: &str) -> Option<u16> {
    Some(table.row(table.find(name)?)?.dwarf?.0)
}
