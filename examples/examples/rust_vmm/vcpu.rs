//! The vCPU: one of KVM, or one that is made up of the same structures.

use crate::{COUNTER, ENTRY, PML4, Ram, STACK};
use kvm_bindings::{
    CpuId, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_debug_exit_arch, kvm_guest_debug, kvm_guest_debug_arch, kvm_msr_entry,
    kvm_regs, kvm_segment, kvm_signal_mask, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::error::Error;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};
use vmcore::RegisterFile;
use vmcore::kvm::x86_64::{MSRS, Xsave};
use vmcore::kvm::{KvmState, KvmStateMut};
use vmcore_examples::gdb::DebugRegisters;

/// Why a vCPU has come back.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The program is once around its loop.
    Looped,
    /// The program has ended with this status.
    Ended(u8),
    /// It has executed one instruction.
    Stepped,
    /// What KVM was told to stop at.
    Debug(kvm_debug_exit_arch),
    /// Another thread wants it.
    Woken,
    /// Anything else: it cannot go on.
    Lost(String),
}

/// Ports that the program writes to: once around its loop, and at its end.
const LOOP_PORT: u16 = 0x10;
const EXIT_PORT: u16 = 0xf4;

/// What wakes a vCPU. It is blocked everywhere but in `KVM_RUN`.
const WAKE: Signal = Signal::SIGUSR1;

pub(crate) enum Vcpu {
    Kvm { vcpu: VcpuFd, cpuid: CpuId, signals: SignalFd, _vm: VmFd },
    MadeUp { regs: kvm_regs, sregs: Box<kvm_sregs>, ram: Arc<Ram> },
}

impl Vcpu {
    /// A vCPU at the program's first instruction: of KVM, where it is there and wanted. The thread that asks for it is the one to run it.
    pub(crate) fn new(ram: &Arc<Ram>) -> Result<Self, Box<dyn Error>> {
        let is_unwanted = std::env::args().any(|arg| arg == "no-kvm");
        let Some(kvm) = Kvm::new().ok().filter(|_| !is_unwanted) else {
            let (regs, sregs) = initial_state(kvm_sregs::default());
            return Ok(Self::MadeUp { regs, sregs: Box::new(sregs), ram: Arc::clone(ram) });
        };
        let vm = kvm.create_vm()?;
        map(&vm, ram)?;
        let vcpu = vm.create_vcpu(0)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        vcpu.set_cpuid2(&cpuid)?;
        let (regs, sregs) = initial_state(vcpu.get_sregs()?);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&regs)?;
        Ok(Self::Kvm { signals: wake_signals(&vcpu)?, vcpu, cpuid, _vm: vm })
    }

    /// Whether it executes instructions.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Kvm { .. })
    }

    /// Runs until it comes back.
    pub(crate) fn run(&mut self) -> Exit {
        match self {
            Self::Kvm { vcpu, signals, .. } => enter(vcpu).unwrap_or_else(|| {
                // The signal has done its work. There is none if another one has interrupted.
                signals.read_signal().map_or_else(|error| Exit::Lost(error.to_string()), |_| Exit::Woken)
            }),
            Self::MadeUp { regs, ram, .. } => {
                regs.rax += 1;
                let counted = ram.write_obj(regs.rax, GuestAddress(COUNTER));
                counted.map_or_else(|error| Exit::Lost(error.to_string()), |()| Exit::Looped)
            }
        }
    }

    /// Lets KVM finish the instruction with which it came back, and execute no other.
    pub(crate) fn finish(&mut self) -> Exit {
        let Self::Kvm { vcpu, .. } = self else { return Exit::Stepped };
        vcpu.set_kvm_immediate_exit(1);
        let exit = enter(vcpu);
        vcpu.set_kvm_immediate_exit(0);
        exit.unwrap_or(Exit::Stepped)
    }

    /// What another thread calls so that [`Self::run`] comes back, now or when it is called next. The thread that asks for it is the one to
    /// run the vCPU.
    pub(crate) fn waker(&self) -> Box<dyn Fn() + Send> {
        let thread = pthread_self();
        match self {
            // It fails if the thread has ended, and with it the vCPU.
            Self::Kvm { .. } => Box::new(move || pthread_kill(thread, WAKE).unwrap_or_default()),
            Self::MadeUp { .. } => Box::new(|| ()),
        }
    }

    /// Says what [`Exit::Debug`] is to come of: `int3`, the debug registers, the next instruction.
    pub(crate) fn set_debug(
        &self,
        registers: &DebugRegisters,
        is_step: bool,
    ) -> Result<(), kvm_ioctls::Error> {
        let Self::Kvm { vcpu, .. } = self else { return Ok(()) };
        let mut control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
        if !registers.is_empty() {
            control |= KVM_GUESTDBG_USE_HW_BP;
        }
        if is_step {
            control |= KVM_GUESTDBG_SINGLESTEP;
        }
        let arch = kvm_guest_debug_arch { debugreg: registers.values() };
        vcpu.set_guest_debug(&kvm_guest_debug { control, pad: 0, arch })
    }

    pub(crate) fn regs(&self) -> Result<kvm_regs, kvm_ioctls::Error> {
        match self {
            Self::Kvm { vcpu, .. } => vcpu.get_regs(),
            Self::MadeUp { regs, .. } => Ok(*regs),
        }
    }

    /// All that KVM tells, and a dump can hold.
    pub(crate) fn copy_to(&self, registers: &mut RegisterFile) -> Result<(), Box<dyn Error + Send + Sync>> {
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

    /// Sets the registers of instructions, of control, and of x87 and SSE. Others stay as they are.
    pub(crate) fn copy_from(&mut self, registers: &RegisterFile) -> Result<(), kvm_ioctls::Error> {
        match self {
            Self::Kvm { vcpu, .. } => {
                let (mut regs, mut sregs, mut fpu) = (vcpu.get_regs()?, vcpu.get_sregs()?, vcpu.get_fpu()?);
                regs.copy_from(registers);
                sregs.copy_from(registers);
                fpu.copy_from(registers);
                vcpu.set_sregs(&sregs)?;
                vcpu.set_fpu(&fpu)?;
                vcpu.set_regs(&regs)
            }
            Self::MadeUp { regs, sregs, .. } => {
                regs.copy_from(registers);
                sregs.copy_from(registers);
                Ok(())
            }
        }
    }
}

/// `KVM_RUN`; none if it was interrupted.
fn enter(vcpu: &mut VcpuFd) -> Option<Exit> {
    Some(match vcpu.run() {
        Ok(VcpuExit::IoOut(LOOP_PORT, _)) => Exit::Looped,
        Ok(VcpuExit::IoOut(EXIT_PORT, [status, ..])) => Exit::Ended(*status),
        Ok(VcpuExit::Debug(debug)) => Exit::Debug(debug),
        Ok(other) => Exit::Lost(format!("{other:?}")),
        Err(error) if error.errno() == Errno::EINTR as i32 => return None,
        Err(error) => Exit::Lost(error.to_string()),
    })
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

/// Gives the VM its memory.
#[expect(unsafe_code, reason = "KVM maps memory that only its user can vouch for")]
fn map(vm: &VmFd, ram: &Ram) -> Result<(), Box<dyn Error>> {
    for (slot, region) in (0..).zip(ram.iter()) {
        let mapping = kvm_userspace_memory_region {
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

/// `struct kvm_signal_mask` with what follows it: the signals that are blocked in `KVM_RUN`, a bit each.
#[repr(C)]
struct SignalMask {
    head: kvm_signal_mask,
    blocked: [u8; 8],
}

nix::ioctl_write_ptr!(kvm_set_signal_mask, kvm_bindings::KVMIO, 0x8b, kvm_signal_mask);

/// Lets [`WAKE`] end `KVM_RUN`, also if it comes before that begins: blocked elsewhere, it waits. So none is lost, and no handler is needed.
#[expect(unsafe_code, reason = "kvm-ioctls does not have this ioctl")]
fn wake_signals(vcpu: &VcpuFd) -> Result<SignalFd, Box<dyn Error>> {
    let signals = SigSet::from(WAKE);
    signals.thread_block()?;
    let mask = SignalMask { head: kvm_signal_mask { len: 8, ..Default::default() }, blocked: [0; 8] };
    // SAFETY: the ioctl reads the structure and, behind it, as many bytes as its `len` says.
    unsafe { kvm_set_signal_mask(vcpu.as_raw_fd(), (&raw const mask).cast())? };
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK)?)
}
