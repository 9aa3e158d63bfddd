//! Logs that are built here from the layout of the structures, in both byte orders and word lengths.
//!
//! Fields stand in another order than in any kernel: where they are must come from VMCOREINFO.

mod flat_buffers;
mod ring;

use super::{Damage, Log};
use std::sync::Arc;
use vmcore_core::arch::SeenTables;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    Arch, DumpInfo, Endianness, Error, Gpa, Group, Gva, Kernel, KernelSpace, Machine, MappingList, NoteTable,
    PhysMemory, Register, RegisterFile, RegisterTable, Translation, Vmcoreinfo,
};

/// Where the guest's memory begins.
const BASE: u64 = 0x4_0000;
const ORDERS: [Endianness; 2] = [Endianness::Little, Endianness::Big];

/// An architecture whose kernel lies at its physical addresses.
struct Flat;

impl KernelSpace for Flat {
    fn image(&self, gva: Gva) -> Option<Gpa> {
        Some(Gpa(gva.0))
    }
    fn translate(&self, _: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
        Ok(Translation::unprotected(Gpa(gva.0), 0x1000 - gva.0 % 0x1000))
    }
    fn is_used_by(&self, _: &RegisterFile, _: &dyn PhysMemory) -> Option<bool> {
        None
    }
}

static TABLE: RegisterTable = RegisterTable {
    gdb_architecture: "flat",
    rows: &[Register { name: "pc", bits: 32, group: Group::General, dwarf: None, gdb: None }],
    gdb_types: &[],
    gdb_features: &[],
    program_counter: "pc",
    stack_pointer: "pc",
};

impl Arch for Flat {
    fn name(&self) -> &'static str {
        "flat"
    }
    fn elf_machine(&self) -> u16 {
        0xf1a7
    }
    fn uts_machines(&self) -> &'static [&'static str] {
        &["flat"]
    }
    fn registers(&self) -> &'static RegisterTable {
        &TABLE
    }
    fn notes(&self) -> &'static [NoteTable] {
        &[]
    }
    fn dump_info(&self, _: &Machine) -> DumpInfo {
        unreachable!("nothing is dumped")
    }
    fn translate(&self, _: &RegisterFile, _: &dyn PhysMemory, _: Gva) -> Result<Translation, Error> {
        unreachable!("the kernel's own tables count")
    }
    fn mappings(
        &self,
        _: &RegisterFile,
        _: &dyn PhysMemory,
        _: &mut SeenTables,
        _: &mut MappingList,
    ) -> Result<(), Error> {
        unreachable!("nothing is dumped")
    }
    fn kernel_space(
        &self,
        _: &Vmcoreinfo,
        _: Endianness,
        _: &dyn PhysMemory,
    ) -> Result<Box<dyn KernelSpace>, Error> {
        Ok(Box::new(Flat))
    }
}

/// Memory that is filled field by field, and the VMCOREINFO beside it.
#[derive(Clone)]
struct Image {
    order: Endianness,
    bytes: Vec<u8>,
    info: String,
}

impl Image {
    fn new(order: Endianness) -> Self {
        Self { order, bytes: vec![0; 0x4000], info: String::new() }
    }

    /// Writes a number of `len` bytes at an address.
    fn put(&mut self, gva: u64, len: usize, value: u64) {
        self.order.encode(value, self.place(gva, len));
    }

    fn put_bytes(&mut self, gva: u64, bytes: &[u8]) {
        self.place(gva, bytes.len()).copy_from_slice(bytes);
    }

    fn place(&mut self, gva: u64, len: usize) -> &mut [u8] {
        let start = usize::try_from(gva - BASE).unwrap();
        &mut self.bytes[start..start + len]
    }

    /// Adds `KIND(name)=value`, each pair of `names` one.
    fn state(&mut self, kind: &str, names: &[(&str, u64)]) {
        for (name, value) in names {
            let value = if kind == "SYMBOL" { format!("{value:x}") } else { value.to_string() };
            self.info += &format!("{kind}({name})={value}\n");
        }
    }

    fn open(&self) -> Result<Log, Error> {
        let memory = BlockMemory::new(vec![(Gpa(BASE), self.bytes.clone())])?;
        let info = Vmcoreinfo::parse(self.info.as_bytes());
        Log::open(&Kernel::new(&Flat, info, self.order, Arc::new(memory))?)
    }
}

/// The texts of a log, and what is damaged in it.
fn read(log: &Log) -> (Vec<String>, Vec<Damage>) {
    let texts = log.records().filter_map(Result::ok);
    let texts = texts.map(|record| String::from_utf8_lossy(record.text).into_owned()).collect();
    (texts, log.records().filter_map(Result::err).collect())
}

#[test]
fn a_missing_key_is_named() {
    let error = |info: &str| {
        let image = Image { info: info.to_owned(), ..Image::new(Endianness::Little) };
        image.open().err().unwrap().to_string()
    };
    let list = "SIZE(list_head)=16\n";
    assert_eq!(error(""), "VMCOREINFO has no usable SIZE(list_head), reading the kernel's log needs it");
    assert_eq!(
        error(list),
        "VMCOREINFO has no usable SIZE(printk_ringbuffer), reading the kernel's log needs it"
    );
    assert_eq!(
        error("SIZE(list_head)=9\n"),
        "reading the kernel's log is not supported: a list_head of 9 bytes"
    );
}
