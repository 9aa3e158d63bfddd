//! A VMM of the rust-vmm family: memory of `vm-memory`, a vCPU of KVM.
//!
//! Where there is no /dev/kvm, or with `no-kvm` at the end of the command line, its vCPU is made up: the same structures, set by hand. gdb can
//! look at such a one, and change it, but not let it run.

mod debuggee;
mod patches;
mod vcpu;

use debuggee::Debuggee;
use std::error::Error;
use std::sync::{Arc, Mutex};
use vcpu::{Exit, Vcpu};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::vm_memory::GuestRam;
use vmcore::{Arch, PhysMemory, RegisterFile, arch};
use vmcore_examples::gdb::Mode;
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

type Ram = GuestMemoryMmap<()>;

const RAM_LEN: usize = 2 << 20;
const ENTRY: u64 = 0x1000;
const STACK: u64 = 0x7000;
/// Where the program counts.
const COUNTER: u64 = 0x8000;
/// How far it does; 0 is never reached.
const LIMIT: u64 = 0x8008;
/// Page tables: one entry on each level, and a page of 2 MiB.
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;

#[rustfmt::skip]
const PROGRAM: [u8; 31] = [
    0x31, 0xc0,                               //        xor  eax, eax
    0xe8, 0x0e, 0x00, 0x00, 0x00,             // loop:  call count
    0xe6, 0x10,                               //        out  0x10, al       ; back to the VMM, which may want to stop us
    0x3b, 0x04, 0x25, 0x08, 0x80, 0x00, 0x00, //        cmp  eax, [0x8008]
    0x75, 0xf0,                               //        jne  loop
    0xe6, 0xf4,                               //        out  0xf4, al       ; exit with status al
    0xf4,                                     //        hlt
    0xff, 0xc0,                               // count: inc  eax
    0x89, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, //        mov  [0x8000], eax
    0xc3,                                     //        ret
];

/// Memory with the program and its page tables.
fn memory() -> Result<Ram, Box<dyn Error>> {
    let ram = Ram::from_ranges(&[(GuestAddress(0), RAM_LEN)])?;
    ram.write_slice(&PROGRAM, GuestAddress(ENTRY))?;
    const PRESENT_WRITABLE: u64 = 3;
    const PAGE_SIZE: u64 = 1 << 7;
    for (at, entry) in [(PML4, PDPT), (PDPT, PD), (PD, PAGE_SIZE)] {
        ram.write_obj(entry | PRESENT_WRITABLE, GuestAddress(at))?;
    }
    Ok(ram)
}

fn x86_64() -> &'static dyn Arch {
    arch::by_name("x86_64").expect("it is linked in")
}

/// The guest that is dumped.
struct Vmm {
    vcpu: Arc<Mutex<Vcpu>>,
    ram: Arc<Ram>,
    gate: Arc<Gate>,
}

impl Guest for Vmm {
    fn arch(&self) -> &'static dyn Arch {
        x86_64()
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::new(GuestRam::new(Arc::clone(&self.ram)).expect("physical memory"))
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, vmcore::Error> {
        let mut registers = RegisterFile::new(self.arch().registers());
        let copied = lock(&self.vcpu).copy_to(&mut registers);
        copied.map_err(|source| vmcore::Error::Source { scheme: "kvm", source })?;
        Ok(vec![registers])
    }

    fn stop(&self) -> Result<bool, vmcore::Error> {
        Ok(self.gate.close())
    }

    fn resume(&self) {
        self.gate.open();
    }

    fn completed(&self, event: &DumpCompleted) {
        let regs = lock(&self.vcpu).regs().expect("KVM has told them before");
        let counter: u64 = self.ram.read_obj(GuestAddress(COUNTER)).expect("it is in RAM");
        let facts = [
            ("rip".to_owned(), regs.rip),
            ("rsp".to_owned(), regs.rsp),
            ("rax".to_owned(), regs.rax),
            ("cs".to_owned(), 0x10),
            (format!("*{COUNTER:#x}"), counter),
            (format!("*{ENTRY:#x}"), self.ram.read_obj(GuestAddress(ENTRY)).expect("it is in RAM")),
        ];
        tell(event, &facts);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let ram = Arc::new(memory()?);
    let vcpu = Vcpu::new(&ram)?;
    if let Some(mode) = Mode::from_args()? {
        ram.write_obj(100u32, GuestAddress(LIMIT))?;
        return mode.run(Debuggee::new(vcpu, ram)?);
    }
    let vmm = Vmm { vcpu: Arc::new(Mutex::new(vcpu)), ram, gate: Arc::default() };

    let (vcpu, gate) = (Arc::clone(&vmm.vcpu), Arc::clone(&vmm.gate));
    gate.run(move || match lock(&vcpu).run() {
        Exit::Looped => {}
        other => panic!("the vCPU has left its program: {other:?}"),
    });
    dump_in_all_ways(Arc::new(vmm), &gate)
}
