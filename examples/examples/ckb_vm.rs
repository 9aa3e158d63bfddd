//! `ckb-vm`, an interpreter of RV64 that has its memory itself: the dumper looks into the machine, which is locked for that.

#![forbid(unsafe_code)]

use ckb_vm::decoder::{Decoder, build_decoder};
use ckb_vm::instructions::{Itype, Stype, extract_opcode, insts};
use ckb_vm::machine::VERSION2;
use ckb_vm::registers::{RA, REGISTER_ABI_NAMES};
use ckb_vm::{
    CoreMachine, DefaultCoreMachine, DefaultMachine, DefaultMachineBuilder, FlatMemory, ISA_IMC, Memory,
    SupportMachine,
};
use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::gdb::{Access, StopReason};
use vmcore::memory::read_by_region;
use vmcore::{Arch, Gpa, PhysMemory, Region, RegisterFile, Unreadable, arch};
use vmcore_examples::gdb::{Debuggee, Mode, Processor, Touch};
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

type Core = DefaultCoreMachine<u64, FlatMemory<u64>>;
type Machine = DefaultMachine<Core>;

const RAM_LEN: usize = 1 << 20;
const ENTRY: u64 = 0x1000;
/// Where the program counts.
const COUNTER: u64 = 0x8000;
/// How far it does; 0 is never reached.
const LIMIT: u64 = 0x8008;
const PROGRAM: [u32; 11] = [
    0x0000_82b7, //        lui  t0, 0x8
    0x0001_0137, //        lui  sp, 0x10
    0x0180_00ef, // loop:  jal  count
    0x0082_b303, //        ld   t1, 8(t0)
    0xfe65_1ce3, //        bne  a0, t1, loop
    0x05d0_0893, //        li   a7, 93
    0x0000_0073, //        ecall             exit with status a0
    0x0000_0013, //        nop
    0x0015_0513, // count: addi a0, a0, 1
    0x00a2_b023, //        sd   a0, 0(t0)
    0x0000_8067, //        ret
];

/// The machine's memory, at address 0.
struct Ram {
    machine: Arc<Mutex<Machine>>,
    regions: [Region; 1],
}

impl PhysMemory for Ram {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, vmcore::Error> {
        let machine = lock(&self.machine);
        read_by_region(&self.regions, gpa, buf, |_, at, piece, _| {
            let at = usize::try_from(at.0).expect("it is inside the region");
            piece.copy_from_slice(&machine.memory()[at..at + piece.len()]);
            Ok(())
        })
    }
}

/// gdb's names of the general registers: those of the ABI, where x8 is called `fp`.
fn names() -> impl Iterator<Item = &'static str> {
    REGISTER_ABI_NAMES.into_iter().map(|name| if name == "s0" { "fp" } else { name })
}

/// All registers.
fn values(machine: &Machine) -> impl Iterator<Item = (&'static str, u64)> {
    names().zip(machine.registers().iter().copied()).chain([("pc", *machine.pc())])
}

fn register_file(machine: &Machine) -> RegisterFile {
    let mut registers = RegisterFile::new(riscv64().registers());
    for (name, value) in values(machine) {
        registers.set_value(name, value);
    }
    registers
}

fn riscv64() -> &'static dyn Arch {
    arch::by_name("riscv64").expect("it is linked in")
}

/// The guest that is dumped.
struct Vm {
    machine: Arc<Mutex<Machine>>,
    gate: Arc<Gate>,
}

impl Guest for Vm {
    fn arch(&self) -> &'static dyn Arch {
        riscv64()
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::new(Ram { machine: Arc::clone(&self.machine), regions: [Region::ram(Gpa(0), RAM_LEN as u64)] })
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, vmcore::Error> {
        Ok(vec![register_file(&lock(&self.machine))])
    }

    fn stop(&self) -> Result<bool, vmcore::Error> {
        Ok(self.gate.close())
    }

    fn resume(&self) {
        self.gate.open();
    }

    fn completed(&self, event: &DumpCompleted) {
        let mut machine = lock(&self.machine);
        let mut facts: Vec<_> = values(&machine).map(|(name, value)| (name.to_owned(), value)).collect();
        let counter = machine.memory_mut().load64(&COUNTER).expect("it is in RAM");
        facts.push((format!("*{COUNTER:#x}"), counter));
        tell(event, &facts);
    }
}

/// The guest that gdb is served.
struct Interpreter {
    machine: Machine,
    decoder: Decoder,
}

impl Interpreter {
    /// What the next instruction touches: address, bytes, how.
    fn next_access(&mut self) -> Result<Option<(u64, usize, Access)>, ckb_vm::Error> {
        let pc = *self.machine.pc();
        let instruction = self.decoder.decode(self.machine.memory_mut(), pc)?;
        let load = |len| (Itype(instruction).rs1(), Itype(instruction).immediate_s(), len, Access::Read);
        let store = |len| (Stype(instruction).rs1(), Stype(instruction).immediate_s(), len, Access::Write);
        let (base, offset, len, access) = match extract_opcode(instruction) {
            insts::OP_LB_VERSION1 | insts::OP_LBU_VERSION1 => load(1),
            insts::OP_LH_VERSION1 | insts::OP_LHU_VERSION1 => load(2),
            insts::OP_LW_VERSION1 | insts::OP_LWU_VERSION1 => load(4),
            insts::OP_LD_VERSION1 => load(8),
            insts::OP_SB => store(1),
            insts::OP_SH => store(2),
            insts::OP_SW => store(4),
            insts::OP_SD => store(8),
            _ => return Ok(None),
        };
        let address = self.machine.registers()[base].wrapping_add_signed(offset.into());
        Ok(Some((address, len, access)))
    }
}

impl Processor for Interpreter {
    type State = ([u64; 32], u64);

    fn arch(&self) -> &'static dyn Arch {
        riscv64()
    }
    fn program_counter(&self) -> u64 {
        *self.machine.pc()
    }
    fn registers(&self) -> RegisterFile {
        register_file(&self.machine)
    }
    fn set_registers(&mut self, registers: &RegisterFile) {
        let value = |name| registers.value(name).expect("the table has it");
        let general: Vec<u64> = names().map(value).collect();
        self.restore((general.try_into().expect("there are 32"), value("pc")));
    }
    fn save(&self) -> Self::State {
        (self.machine.registers().try_into().expect("there are 32"), *self.machine.pc())
    }
    fn restore(&mut self, (general, pc): Self::State) {
        for (index, value) in general.into_iter().enumerate() {
            self.machine.set_register(index, value);
        }
        self.machine.update_pc(pc);
        self.machine.commit_pc();
    }
    fn memory(&self) -> impl Deref<Target = Vec<u8>> {
        &**self.machine.memory()
    }
    fn memory_mut(&mut self) -> impl DerefMut<Target = Vec<u8>> {
        self.decoder.reset_instructions_cache();
        &mut **self.machine.memory_mut()
    }

    fn step(&mut self, touches: &mut Vec<Touch>) -> Result<(), StopReason> {
        let accessed = self.next_access().map_err(|error| fault(&error))?;
        // Of an access outside memory nothing comes.
        if let Some((address, len, access)) = accessed
            && let Ok(start) = usize::try_from(address)
            && let Some(bytes) = self.machine.memory().get(start..start.saturating_add(len))
        {
            touches.push(Touch { address, access, before: bytes.to_vec() });
        }
        self.machine.step(&mut self.decoder).map_err(|error| fault(&error))?;
        match self.machine.running() {
            true => Ok(()),
            false => Err(StopReason::Exited(self.machine.exit_code().cast_unsigned())),
        }
    }
}

/// gdb's number of the signal for a mistake of the program.
fn fault(error: &ckb_vm::Error) -> StopReason {
    match error {
        ckb_vm::Error::MemOutOfBound => StopReason::Signal(11), // SIGSEGV
        _ => StopReason::Signal(4),                             // SIGILL
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let core = Core::new_with_memory(ISA_IMC, VERSION2, u64::MAX, RAM_LEN);
    let mut machine = DefaultMachineBuilder::new(core).build();
    let program: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
    machine.memory_mut().store_bytes(ENTRY, &program)?;
    machine.set_register(RA, ENTRY);
    machine.update_pc(ENTRY);
    machine.commit_pc();
    let mut decoder: Decoder = build_decoder::<u64>(ISA_IMC, VERSION2);
    if let Some(mode) = Mode::from_args()? {
        machine.memory_mut().store64(&LIMIT, &100)?;
        machine.set_running(true);
        return mode.run(Debuggee::new(Interpreter { machine, decoder }));
    }
    let vm = Vm { machine: Arc::new(Mutex::new(machine)), gate: Arc::default() };

    let (machine, gate) = (Arc::clone(&vm.machine), Arc::clone(&vm.gate));
    gate.run(move || {
        let mut machine = lock(&machine);
        for _ in 0..100 {
            machine.step(&mut decoder).expect("the program makes no mistake");
        }
    });
    dump_in_all_ways(Arc::new(vm), &gate)
}
