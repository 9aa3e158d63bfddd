//! A VMM of the rust-vmm family: memory of `vm-memory`, a vCPU of KVM.
//!
//! Where there is no /dev/kvm, or with `no-kvm` behind the folder, its vCPU is made up: the same structures, set by hand.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::error::Error;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmcore::dump::{DumpCompleted, Guest};
use vmcore::kvm::KvmState;
use vmcore::kvm::x86_64::{MSRS, Xsave};
use vmcore::vm_memory::GuestRam;
use vmcore::{Arch, PhysMemory, RegisterFile, arch};
use vmcore_examples::{Gate, dump_in_all_ways, lock, tell};

type Ram = GuestMemoryMmap<()>;

const RAM_LEN: usize = 2 << 20;
const ENTRY: u64 = 0x1000;
const STACK: u64 = 0x7000;
/// Where the program counts.
const COUNTER: u64 = 0x8000;
/// Page tables: one entry on each level, and a page of 2 MiB.
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;

#[rustfmt::skip]
const PROGRAM: [u8; 15] = [
    0x48, 0xff, 0xc0,                               // loop: inc  rax
    0x48, 0x89, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, //       mov  [0x8000], rax
    0xe6, 0x10,                                     //       out  0x10, al   ; back to the VMM, which may want to stop us
    0xeb, 0xf1,                                     //       jmp  loop
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

/// A vCPU in 64-bit mode at the program's first instruction.
fn initial_state(mut sregs: kvm_sregs) -> (kvm_regs, kvm_sregs) {
    let data = kvm_segment {
        selector: 0x18,
        limit: u32::MAX,
        type_: 3,
        s: 1,
        present: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.cs = kvm_segment { selector: 0x10, type_: 0xb, l: 1, db: 0, ..data };
    sregs.cr0 = 0x8000_0011; // PG, ET, PE
    sregs.cr3 = PML4;
    sregs.cr4 = 1 << 5; // PAE
    sregs.efer = 0x500; // LMA, LME
    (kvm_regs { rip: ENTRY, rsp: STACK, rflags: 2, ..Default::default() }, sregs)
}

enum Vcpu {
    Kvm { vcpu: VcpuFd, cpuid: CpuId, _vm: VmFd },
    MadeUp { regs: kvm_regs, sregs: Box<kvm_sregs> },
}

impl Vcpu {
    fn new(ram: &Ram) -> Result<Self, Box<dyn Error>> {
        let is_unwanted = std::env::args().nth(2).is_some_and(|arg| arg == "no-kvm");
        let Some(kvm) = Kvm::new().ok().filter(|_| !is_unwanted) else {
            let (regs, sregs) = initial_state(kvm_sregs::default());
            return Ok(Self::MadeUp { regs, sregs: Box::new(sregs) });
        };
        let vm = kvm.create_vm()?;
        map(&vm, ram)?;
        let vcpu = vm.create_vcpu(0)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        vcpu.set_cpuid2(&cpuid)?;
        let (regs, sregs) = initial_state(vcpu.get_sregs()?);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&regs)?;
        Ok(Self::Kvm { vcpu, cpuid, _vm: vm })
    }

    /// Once around the loop.
    fn run(&mut self, ram: &Ram) {
        match self {
            Self::Kvm { vcpu, .. } => match vcpu.run() {
                Ok(VcpuExit::IoOut(0x10, _)) => {}
                other => panic!("the vCPU has left its program: {other:?}"),
            },
            Self::MadeUp { regs, .. } => {
                regs.rax += 1;
                ram.write_obj(regs.rax, GuestAddress(COUNTER)).expect("it is in RAM");
            }
        }
    }

    fn regs(&self) -> Result<kvm_regs, kvm_ioctls::Error> {
        match self {
            Self::Kvm { vcpu, .. } => vcpu.get_regs(),
            Self::MadeUp { regs, .. } => Ok(*regs),
        }
    }

    /// All that KVM tells, and a dump can hold.
    fn copy_to(&self, registers: &mut RegisterFile) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.regs()?.copy_to(registers);
        match self {
            Self::MadeUp { sregs, .. } => sregs.copy_to(registers),
            Self::Kvm { vcpu, cpuid, .. } => {
                vcpu.get_sregs()?.copy_to(registers);
                let (area, xcrs) = (vcpu.get_xsave()?, vcpu.get_xcrs()?);
                Xsave { area: &area, xcrs: &xcrs, cpuid: cpuid.as_slice() }.copy_to(registers);
                vcpu.get_debug_regs()?.copy_to(registers);
                let entries = MSRS.map(|(index, _)| kvm_msr_entry { index, ..Default::default() });
                // One by one: KVM stops at the first that the vCPU has not.
                for entry in entries {
                    let mut msrs = Msrs::from_entries(&[entry])?;
                    if vcpu.get_msrs(&mut msrs)? == 1 {
                        msrs.as_slice().copy_to(registers);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Gives the VM its memory.
#[expect(unsafe_code, reason = "KVM maps memory that only its user can vouch for")]
fn map(vm: &VmFd, ram: &Ram) -> Result<(), Box<dyn Error>> {
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};
    for (slot, region) in (0..).zip(ram.iter()) {
        let mapping = kvm_bindings::kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.get_host_address(MemoryRegionAddress(0))? as u64,
            flags: 0,
        };
        // SAFETY: the mapping lives as long as `ram`, of which the thread that runs the vCPU holds a reference.
        unsafe { vm.set_user_memory_region(mapping)? };
    }
    Ok(())
}

struct Vmm {
    vcpu: Arc<Mutex<Vcpu>>,
    ram: Arc<Ram>,
    gate: Arc<Gate>,
}

impl Guest for Vmm {
    fn arch(&self) -> &'static dyn Arch {
        arch::by_name("x86_64").expect("it is linked in")
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
    let vmm = Vmm { vcpu: Arc::new(Mutex::new(vcpu)), ram, gate: Arc::default() };

    let (vcpu, ram, gate) = (Arc::clone(&vmm.vcpu), Arc::clone(&vmm.ram), Arc::clone(&vmm.gate));
    gate.run(move || lock(&vcpu).run(&ram));
    dump_in_all_ways(Arc::new(vmm), &gate)
}
