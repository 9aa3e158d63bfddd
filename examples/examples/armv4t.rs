//! `armv4t_emu`, an interpreter of ARMv4T whose user gives it memory: here a vector, which the processor and the dumper share.

#![forbid(unsafe_code)]

use armv4t_emu::{Cpu, Memory, Mode, reg};
use std::error::Error;
use std::sync::{Arc, Mutex};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::memory::read_by_region;
use vmcore::{Arch, Gpa, PhysMemory, Region, RegisterFile, Unreadable, arch};
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

const RAM_LEN: usize = 64 << 10;
/// Where the program counts.
const COUNTER: u32 = 0x8000;
const PROGRAM: [u32; 6] = [
    0xe3a0_0000, //       mov r0, #0
    0xe3a0_1902, //       mov r1, #0x8000
    0xe3a0_d903, //       mov sp, #0xc000
    0xe280_0001, // loop: add r0, r0, #1
    0xe581_0000, //       str r0, [r1]
    0xeaff_fffc, //       b loop
];

/// The memory, at address 0.
struct Ram {
    bytes: Mutex<Vec<u8>>,
    regions: [Region; 1],
}

impl PhysMemory for Ram {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, vmcore::Error> {
        let bytes = lock(&self.bytes);
        read_by_region(&self.regions, gpa, buf, |_, at, piece, _| {
            let at = usize::try_from(at.0).expect("it is inside the region");
            piece.copy_from_slice(&bytes[at..at + piece.len()]);
            Ok(())
        })
    }
}

/// As the processor sees it: addresses without memory read as 0.
struct Bus<'a>(&'a Ram);

impl Bus<'_> {
    fn load<const N: usize>(&self, addr: u32) -> [u8; N] {
        let mut word = [0; N];
        let _ = self.0.read_at(Gpa(addr.into()), &mut word);
        word
    }

    fn store(&self, addr: u32, word: &[u8]) {
        let at = addr as usize;
        if let Some(bytes) = lock(&self.0.bytes).get_mut(at..at + word.len()) {
            bytes.copy_from_slice(word);
        }
    }
}

impl Memory for Bus<'_> {
    fn r8(&mut self, addr: u32) -> u8 {
        u8::from_le_bytes(self.load(addr))
    }
    fn r16(&mut self, addr: u32) -> u16 {
        u16::from_le_bytes(self.load(addr))
    }
    fn r32(&mut self, addr: u32) -> u32 {
        u32::from_le_bytes(self.load(addr))
    }
    fn w8(&mut self, addr: u32, val: u8) {
        self.store(addr, &val.to_le_bytes());
    }
    fn w16(&mut self, addr: u32, val: u16) {
        self.store(addr, &val.to_le_bytes());
    }
    fn w32(&mut self, addr: u32, val: u32) {
        self.store(addr, &val.to_le_bytes());
    }
}

/// Names of `armv4t_emu`'s registers, by their numbers.
const NAMES: [&str; 17] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "sp", "lr", "pc", "cpsr",
];

struct Board {
    cpu: Arc<Mutex<Cpu>>,
    ram: Arc<Ram>,
    gate: Arc<Gate>,
}

impl Board {
    /// The registers of the current mode.
    fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let cpu = *lock(&self.cpu);
        let value = move |index: u8| u64::from(cpu.reg_get(cpu.mode(), index));
        (0..).zip(NAMES).map(move |(index, name)| (name, value(index)))
    }
}

impl Guest for Board {
    fn arch(&self) -> &'static dyn Arch {
        arch::by_name("arm").expect("it is linked in")
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::clone(&self.ram) as Arc<dyn PhysMemory>
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, vmcore::Error> {
        let mut registers = RegisterFile::new(self.arch().registers());
        for (name, value) in self.values() {
            registers.set_value(name, value);
        }
        Ok(vec![registers])
    }

    fn stop(&self) -> Result<bool, vmcore::Error> {
        Ok(self.gate.close())
    }

    fn resume(&self) {
        self.gate.open();
    }

    fn completed(&self, event: &DumpCompleted) {
        let mut facts: Vec<_> = self.values().map(|(name, value)| (name.to_owned(), value)).collect();
        let counter = Bus(&self.ram).r32(COUNTER);
        facts.push((format!("*{COUNTER:#x}"), counter.into()));
        tell(event, &facts);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![0; RAM_LEN];
    for (word, place) in PROGRAM.iter().zip(bytes.chunks_exact_mut(4)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let ram = Ram { bytes: Mutex::new(bytes), regions: [Region::ram(Gpa(0), RAM_LEN as u64)] };
    let mut cpu = Cpu::new();
    cpu.reg_set(Mode::User, reg::PC, 0);
    let board = Board { cpu: Arc::new(Mutex::new(cpu)), ram: Arc::new(ram), gate: Arc::default() };

    let (cpu, ram, gate) = (Arc::clone(&board.cpu), Arc::clone(&board.ram), Arc::clone(&board.gate));
    gate.run(move || {
        let mut cpu = lock(&cpu);
        for _ in 0..100 {
            cpu.step(&mut Bus(&ram));
        }
    });
    dump_in_all_ways(Arc::new(board), &gate)
}
