//! `armv4t_emu`, an interpreter of ARMv4T whose user gives it memory: here a vector, which the processor and the dumper share.

#![forbid(unsafe_code)]

use armv4t_emu::{Cpu, Memory, Mode, reg};
use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::gdb::{Access, StopReason};
use vmcore::memory::read_by_region;
use vmcore::{Arch, Gpa, PhysMemory, Region, RegisterFile, Unreadable, arch};
use vmcore_examples::gdb::{Debuggee, Mode as Debugging, Processor, Touch};
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

const RAM_LEN: usize = 64 << 10;
/// Where the program counts.
const COUNTER: u32 = 0x8000;
/// How far it does; 0 is never reached.
const LIMIT: u32 = 0x8004;
const PROGRAM: [u32; 11] = [
    0xe3a0_0000, //        mov r0, #0
    0xe3a0_1902, //        mov r1, #0x8000
    0xe3a0_d903, //        mov sp, #0xc000
    0xeb00_0003, // loop:  bl count
    0xe591_2004, //        ldr r2, [r1, #4]
    0xe150_0002, //        cmp r0, r2
    0x1aff_fffb, //        bne loop
    0xef00_0000, //        swi 0             exit with status r0
    0xe280_0001, // count: add r0, r0, #1
    0xe581_0000, //        str r0, [r1]
    0xe12f_ff1e, //        bx lr
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
struct Bus<'a> {
    ram: &'a Ram,
    /// The accesses to data since it is there.
    touches: Vec<Touch>,
}

impl<'a> Bus<'a> {
    fn new(ram: &'a Ram) -> Self {
        Self { ram, touches: Vec::new() }
    }

    fn fetch<const N: usize>(&self, addr: u32) -> [u8; N] {
        let mut word = [0; N];
        let _ = self.ram.read_at(Gpa(addr.into()), &mut word);
        word
    }

    fn load<const N: usize>(&mut self, addr: u32) -> [u8; N] {
        let word = self.fetch(addr);
        self.touches.push(Touch { address: addr.into(), access: Access::Read, before: word.to_vec() });
        word
    }

    fn store(&mut self, addr: u32, word: &[u8]) {
        let at = addr as usize;
        if let Some(bytes) = lock(&self.ram.bytes).get_mut(at..at + word.len()) {
            self.touches.push(Touch { address: addr.into(), access: Access::Write, before: bytes.to_vec() });
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
    fn x16(&mut self, addr: u32) -> u16 {
        u16::from_le_bytes(self.fetch(addr))
    }
    fn x32(&mut self, addr: u32) -> u32 {
        u32::from_le_bytes(self.fetch(addr))
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

/// The registers of the current mode.
fn values(cpu: Cpu) -> impl Iterator<Item = (&'static str, u64)> {
    let value = move |index: u8| u64::from(cpu.reg_get(cpu.mode(), index));
    (0..).zip(NAMES).map(move |(index, name)| (name, value(index)))
}

fn register_file(cpu: Cpu) -> RegisterFile {
    let mut registers = RegisterFile::new(arm().registers());
    for (name, value) in values(cpu) {
        registers.set_value(name, value);
    }
    registers
}

fn arm() -> &'static dyn Arch {
    arch::by_name("arm").expect("it is linked in")
}

/// The guest that is dumped.
struct Board {
    cpu: Arc<Mutex<Cpu>>,
    ram: Arc<Ram>,
    gate: Arc<Gate>,
}

impl Guest for Board {
    fn arch(&self) -> &'static dyn Arch {
        arm()
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::clone(&self.ram) as Arc<dyn PhysMemory>
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, vmcore::Error> {
        Ok(vec![register_file(*lock(&self.cpu))])
    }

    fn stop(&self) -> Result<bool, vmcore::Error> {
        Ok(self.gate.close())
    }

    fn resume(&self) {
        self.gate.open();
    }

    fn completed(&self, event: &DumpCompleted) {
        let cpu = *lock(&self.cpu);
        let mut facts: Vec<_> = values(cpu).map(|(name, value)| (name.to_owned(), value)).collect();
        let counter = Bus::new(&self.ram).r32(COUNTER);
        facts.push((format!("*{COUNTER:#x}"), counter.into()));
        tell(event, &facts);
    }
}

/// The guest that gdb is served.
struct Interpreter {
    cpu: Cpu,
    ram: Ram,
}

impl Processor for Interpreter {
    type State = Cpu;

    fn arch(&self) -> &'static dyn Arch {
        arm()
    }
    fn program_counter(&self) -> u64 {
        self.cpu.reg_get(self.cpu.mode(), reg::PC).into()
    }
    fn registers(&self) -> RegisterFile {
        register_file(self.cpu)
    }
    fn set_registers(&mut self, registers: &RegisterFile) {
        let mode = self.cpu.mode();
        for (index, name) in (0..).zip(NAMES) {
            let value = registers.value(name).and_then(|value| u32::try_from(value).ok());
            self.cpu.reg_set(mode, index, value.expect("the table has it, and it has 32 bits"));
        }
    }
    fn save(&self) -> Cpu {
        self.cpu
    }
    fn restore(&mut self, cpu: Cpu) {
        self.cpu = cpu;
    }
    fn memory(&self) -> impl Deref<Target = Vec<u8>> {
        lock(&self.ram.bytes)
    }
    fn memory_mut(&mut self) -> impl DerefMut<Target = Vec<u8>> {
        lock(&self.ram.bytes)
    }

    fn step(&mut self, touches: &mut Vec<Touch>) -> Result<(), StopReason> {
        let mut bus = Bus::new(&self.ram);
        self.cpu.step(&mut bus);
        touches.append(&mut bus.touches);
        match self.cpu.mode() {
            Mode::Supervisor => {
                let [status, ..] = self.cpu.reg_get(Mode::User, 0).to_le_bytes();
                Err(StopReason::Exited(status))
            }
            Mode::Undefined => Err(StopReason::Signal(SIGILL)),
            _ => Ok(()),
        }
    }
}

/// gdb's number of the signal for an instruction that there is not.
const SIGILL: u8 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mode = Debugging::from_args()?;
    let mut bytes = vec![0; RAM_LEN];
    for (word, place) in PROGRAM.iter().zip(bytes.chunks_exact_mut(4)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    if mode.is_some() {
        bytes[LIMIT as usize] = 100;
    }
    let ram = Ram { bytes: Mutex::new(bytes), regions: [Region::ram(Gpa(0), RAM_LEN as u64)] };
    let mut cpu = Cpu::new();
    cpu.reg_set(Mode::User, reg::PC, 0);
    cpu.reg_set(Mode::User, reg::CPSR, 0x10); // user mode
    if let Some(mode) = mode {
        return mode.run(Debuggee::new(Interpreter { cpu, ram }));
    }
    let board = Board { cpu: Arc::new(Mutex::new(cpu)), ram: Arc::new(ram), gate: Arc::default() };

    let (cpu, ram, gate) = (Arc::clone(&board.cpu), Arc::clone(&board.ram), Arc::clone(&board.gate));
    gate.run(move || {
        let mut cpu = lock(&cpu);
        for _ in 0..100 {
            cpu.step(&mut Bus::new(&ram));
        }
    });
    dump_in_all_ways(Arc::new(board), &gate)
}
