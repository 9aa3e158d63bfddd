//! `ckb-vm`, an interpreter of RV64 that has its memory itself: the dumper looks into the machine, which is locked for that.

#![forbid(unsafe_code)]

use ckb_vm::decoder::{Decoder, build_decoder};
use ckb_vm::machine::VERSION2;
use ckb_vm::registers::{RA, REGISTER_ABI_NAMES};
use ckb_vm::{
    CoreMachine, DefaultCoreMachine, DefaultMachine, DefaultMachineBuilder, FlatMemory, ISA_IMC, Memory,
    SupportMachine,
};
use std::error::Error;
use std::sync::{Arc, Mutex};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::memory::read_by_region;
use vmcore::{Arch, Gpa, PhysMemory, Region, RegisterFile, Unreadable, arch};
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

type Core = DefaultCoreMachine<u64, FlatMemory<u64>>;
type Machine = DefaultMachine<Core>;

const RAM_LEN: usize = 1 << 20;
const ENTRY: u64 = 0x1000;
/// Where the program counts.
const COUNTER: u64 = 0x8000;
const PROGRAM: [u32; 5] = [
    0x0000_82b7, //       lui  t0, 0x8
    0x0001_0137, //       lui  sp, 0x10
    0x0015_0513, // loop: addi a0, a0, 1
    0x00a2_b023, //       sd   a0, 0(t0)
    0xff9f_f06f, //       j    loop
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

struct Vm {
    machine: Arc<Mutex<Machine>>,
    gate: Arc<Gate>,
}

impl Vm {
    /// All registers, by their names in the ABI, where x8 is called `fp`.
    fn values(&self) -> Vec<(&'static str, u64)> {
        let machine = lock(&self.machine);
        let names = REGISTER_ABI_NAMES.map(|name| if name == "s0" { "fp" } else { name });
        let general = names.into_iter().zip(machine.registers().iter().copied());
        general.chain([("pc", *machine.pc())]).collect()
    }
}

impl Guest for Vm {
    fn arch(&self) -> &'static dyn Arch {
        arch::by_name("riscv64").expect("it is linked in")
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::new(Ram { machine: Arc::clone(&self.machine), regions: [Region::ram(Gpa(0), RAM_LEN as u64)] })
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
        let mut facts: Vec<_> =
            self.values().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let counter = lock(&self.machine).memory_mut().load64(&COUNTER).expect("it is in RAM");
        facts.push((format!("*{COUNTER:#x}"), counter));
        tell(event, &facts);
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
    let vm = Vm { machine: Arc::new(Mutex::new(machine)), gate: Arc::default() };

    let (machine, gate) = (Arc::clone(&vm.machine), Arc::clone(&vm.gate));
    let mut decoder: Decoder = build_decoder::<u64>(ISA_IMC, VERSION2);
    gate.run(move || {
        let mut machine = lock(&machine);
        for _ in 0..100 {
            machine.step(&mut decoder).expect("the program makes no mistake");
        }
    });
    dump_in_all_ways(Arc::new(vm), &gate)
}
