//! A [`Machine`] as a target: a dump, or a guest that stands still.
//!
//! vCPUs are threads. Registers are those of the architecture's table that gdb knows. Those that no vCPU has are not even listed,
//! unless gdb insists on them; then, and where another vCPU has them, they are shown as unavailable. Memory is that of the chosen vCPU's page tables, or physical. Nothing is made up: what the dump does not hold, and
//! what was left out of it, cannot be read.
//!
//! Source: `spec/gdb-rsp.md` sections 5 and 6.

mod areas;
mod monitor;
mod overlay;
mod registers;

pub use monitor::{Command, Run};
pub use registers::TableRegisters;

use monitor::Commands;

use crate::{
    Area, Error, Host, MemoryRegions, Monitor, Offsets, PhysicalMemory, Presence, Program, Stop, StopReason,
    Target, ThreadId,
};
use areas::Areas;
use core::fmt;
use overlay::OverlayMemory;
use std::cell::OnceCell;
use std::sync::Arc;
use vmcore_core::arch::Access;
use vmcore_core::{
    Arch, Class, Endianness, Gpa, Gva, Kernel, Machine, PhysMemory, RegisterFile, Translation, Vcpu,
};

/// What is known of a machine beside itself, and what a client may do with it.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Index of the vCPU that is shown first, and why the guest stands still: of a crashed guest the vCPU that crashed.
    pub stop: (usize, StopReason),
    /// Whether a client may write registers and memory. It writes into a copy, which is gone with the target.
    pub is_writable: bool,
    /// Where the first segment of the kernel's file lies: what KASLR has done.
    pub kernel_start: Option<u64>,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self { stop: (0, StopReason::TRAP), is_writable: false, kernel_start: None }
    }
}

/// A machine that a client looks at.
pub struct MachineTarget {
    /// With what the client has written to its registers and its memory.
    machine: Machine,
    arch: &'static dyn Arch,
    /// What gdb knows of the registers.
    registers: TableRegisters,
    /// Whether there are registers at all, or only a thread that gdb cannot do without.
    has_vcpus: bool,
    /// What a client has written.
    overlay: Option<Arc<OverlayMemory>>,
    stop: (usize, StopReason),
    kernel_start: Option<u64>,
    triple: String,
    os_version: Option<String>,
    page_size: u64,
    commands: Commands,
    /// Asked where the registers do not lead to page tables, and found then.
    kernel: OnceCell<Option<Kernel>>,
    /// What the page tables of the vCPU that was asked last map.
    areas: Option<(usize, Areas)>,
    /// The page that was translated last: of which vCPU, from where on, and where it lies.
    last: Option<(usize, u64, Translation)>,
}

impl fmt::Debug for MachineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineTarget").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl MachineTarget {
    /// A target that is `machine`.
    ///
    /// A machine without vCPUs is one thread that no register is known of, but for a program counter of 0: clients need both to
    /// look at memory. Its virtual memory is the kernel's, if VMCOREINFO tells of it.
    ///
    /// # Errors
    /// [`vmcore_core::Error::UnknownArch`] if its architecture is not linked in.
    pub fn new(mut machine: Machine, options: &MachineOptions) -> Result<Self, vmcore_core::Error> {
        let arch = machine.known_arch("serving a machine to gdb")?;
        let has_vcpus = !machine.vcpus.is_empty();
        if !has_vcpus {
            machine.vcpus.push(Vcpu::new(RegisterFile::new(arch.registers())));
        }
        let overlay = options.is_writable.then(|| Arc::new(OverlayMemory::new(Arc::clone(&machine.memory))));
        if let Some(overlay) = &overlay {
            machine.memory = Arc::clone(overlay) as Arc<dyn PhysMemory>;
        }
        let info = arch.dump_info(&machine);
        let is_known = |id| machine.vcpus.iter().any(|vcpu| vcpu.registers().get(id).is_some());
        Ok(Self {
            arch,
            has_vcpus,
            registers: TableRegisters::known(arch.registers(), machine.identity.endianness, is_known),
            overlay,
            stop: (options.stop.0.min(machine.vcpus.len() - 1), options.stop.1),
            kernel_start: options.kernel_start,
            triple: format!("{}-unknown-linux-gnu", info.uts_machine),
            os_version: machine.vmcoreinfo().and_then(|info| version(info.release()?)),
            page_size: info.page_size,
            commands: Commands::default(),
            kernel: OnceCell::new(),
            areas: None,
            last: None,
            machine,
        })
    }

    /// Adds commands for gdb's `monitor`.
    #[must_use]
    pub fn with_commands(mut self, commands: &[Command]) -> Self {
        self.commands.add(commands);
        self
    }

    /// The machine, with what a client has written to its registers and its memory.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn vcpu_of(thread: ThreadId) -> usize {
        thread.thread as usize - 1
    }

    fn registers_of(&self, index: usize) -> Result<&RegisterFile, Error> {
        self.machine.vcpus.get(index).map(Vcpu::registers).ok_or(Error::FAULT)
    }

    /// Where the bytes from `address` on lie, as vCPU `index` sees them.
    fn translate(&mut self, index: usize, address: u64) -> Result<Translation, Error> {
        if let Some((vcpu, start, page)) = self.last
            && vcpu == index
            && let Some(inside) = address.checked_sub(start).filter(|inside| *inside < page.len)
        {
            return Ok(Translation { gpa: Gpa(page.gpa.0 + inside), len: page.len - inside, ..page });
        }
        let found = self.machine.translate_or_ask(&self.kernel, index, Gva(address));
        let found = found.map_err(|error| error_of(&error))?;
        self.last = Some((index, address, found));
        Ok(found)
    }

    /// The pages around `address`, and behind it up to `last`, that permit the same: first and last address, and what they permit.
    /// Page tables without protection, and memory without page tables, forbid nothing.
    fn alike(&mut self, index: usize, address: u64, last: u64) -> Result<(u64, u64, Option<Access>), Error> {
        let Translation { len, access, .. } = self.translate(index, address)?;
        let mut end = address.saturating_add(len - 1);
        for _ in 0..MAX_ALIKE {
            let next = end.checked_add(1).filter(|next| *next <= last);
            let Some(next) = next else { break };
            match self.translate(index, next) {
                Ok(page) if page.access == access => end = next.saturating_add(page.len - 1),
                _ => break,
            }
        }
        Ok((address & !(self.page_size - 1), end.min(last), access))
    }

    /// Calls `piece` with the parts of `len` bytes at a virtual address that lie together in physical memory, until it says that
    /// it could not do all: where, and which part of the bytes. Tells how many bytes are done.
    fn for_pieces(
        &mut self,
        thread: ThreadId,
        address: u64,
        len: usize,
        mut piece: impl FnMut(&Self, Gpa, core::ops::Range<usize>) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let index = Self::vcpu_of(thread);
        let mut done = 0;
        while done < len {
            let Some(from) = address.checked_add(done as u64) else { break };
            let at = match self.translate(index, from) {
                Ok(at) => at,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            // Pages that follow each other in both spaces are one piece.
            let mut step = at.len;
            while step < (len - done) as u64
                && let Some(next) = from.checked_add(step)
                && let Ok(next) = self.translate(index, next)
                && at.gpa.checked_add(step) == Some(next.gpa)
            {
                step += next.len;
            }
            let step = usize::try_from(step).unwrap_or(usize::MAX).min(len - done);
            match piece(self, at.gpa, done..done + step) {
                Ok(count) => {
                    done += count;
                    if count < step {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// The most pages that are told of at once: a client asks for the next ones.
const MAX_ALIKE: usize = 1 << 16;

/// The version that a kernel's release begins with, as `6.1.0` of `6.1.0-50-cloud-amd64`: more LLDB does not understand. The guest
/// says it, and a reply has no room for whatever it likes.
fn version(release: &str) -> Option<String> {
    let end = release.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(release.len());
    let version = release[..end].trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

/// How a failure of reading looks to a client.
fn error_of(error: &vmcore_core::Error) -> Error {
    let text = match error {
        vmcore_core::Error::NoRegister { .. } => {
            "neither the registers nor VMCOREINFO lead to page tables that map it"
        }
        vmcore_core::Error::Unsupported { .. } => "these page tables are not supported",
        _ => "",
    };
    Error { text, ..Error::FAULT }
}

/// Copies physical memory into `buf` up to the first byte that is not there; tells how many bytes.
fn read_physical(memory: &dyn PhysMemory, gpa: Gpa, buf: &mut [u8]) -> Result<usize, Error> {
    let unreadable = memory.read_at(gpa, buf).map_err(|_| Error::FAULT)?;
    let end = unreadable.ranges().first().map_or(buf.len() as u64, |range| range.start - gpa.0);
    match usize::try_from(end) {
        Ok(0) | Err(_) => Err(Error::FAULT),
        Ok(len) => Ok(len),
    }
}

impl Target for MachineTarget {
    fn thread(&self, index: usize) -> Option<ThreadId> {
        let index = u32::try_from(index).ok().filter(|_| index < self.machine.vcpus.len())?;
        Some(ThreadId::of_vcpu(index))
    }

    fn stop(&self) -> Stop {
        let (index, reason) = self.stop;
        Stop { thread: ThreadId::of_vcpu(u32::try_from(index).unwrap_or_default()), reason }
    }

    fn description(&self, _: u32, annex: &str) -> Option<&[u8]> {
        self.registers.description(annex)
    }

    fn g_count(&self, _: ThreadId) -> u32 {
        self.registers.count()
    }

    fn register_len(&self, _: ThreadId, number: u32) -> Option<usize> {
        self.registers.value_len(number)
    }

    fn read_register(&mut self, thread: ThreadId, number: u32, value: &mut [u8]) -> Result<Presence, Error> {
        let presence = self.registers.read(self.registers_of(Self::vcpu_of(thread))?, number, value)?;
        if presence == Presence::Unknown
            && !self.has_vcpus
            && self.registers.program_counter() == Some(number)
        {
            // gdb 13 lets go of a target whose program counter is unavailable.
            value.fill(0);
            return Ok(Presence::Known);
        }
        Ok(presence)
    }

    fn write_register(&mut self, thread: ThreadId, number: u32, value: &[u8]) -> Result<(), Error> {
        if self.overlay.is_none() {
            return Err(READ_ONLY);
        }
        let vcpu = self.machine.vcpus.get_mut(Self::vcpu_of(thread)).ok_or(Error::FAULT)?;
        self.registers.write(vcpu.registers_mut(self.arch), number, value)?;
        // It may be one of the page tables'.
        (self.last, self.areas) = (None, None);
        Ok(())
    }

    fn expedited(&self, _: ThreadId) -> &[u32] {
        self.registers.expedited()
    }

    fn read_memory(&mut self, thread: ThreadId, address: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.for_pieces(thread, address, buf.len(), |target, gpa, piece| {
            read_physical(&*target.machine.memory, gpa, &mut buf[piece])
        })
    }

    fn write_memory(&mut self, thread: ThreadId, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(overlay) = self.overlay.clone() else { return Err(READ_ONLY) };
        // All or nothing: first see that all of it is there.
        let mut pieces = Vec::new();
        let done = self.for_pieces(thread, address, bytes.len(), |_, gpa, piece| {
            let len = piece.len();
            pieces.push((gpa, piece));
            Ok(len)
        })?;
        if done < bytes.len() {
            return Err(Error::FAULT);
        }
        overlay.write(pieces.into_iter().map(|(gpa, piece)| (gpa, &bytes[piece])))?;
        // It may be a page table.
        (self.last, self.areas) = (None, None);
        Ok(())
    }

    fn thread_name(&self, thread: ThreadId, name: &mut dyn fmt::Write) -> fmt::Result {
        if !self.has_vcpus {
            return name.write_str("memory");
        }
        write!(name, "vCPU {}", Self::vcpu_of(thread))
    }

    fn thread_info(&self, thread: ThreadId, text: &mut dyn fmt::Write) -> fmt::Result {
        if !self.has_vcpus {
            return text.write_str("the dump has no registers");
        }
        let index = Self::vcpu_of(thread);
        let crashed = if self.stop == (index, CRASHED) { " [crashed]" } else { "" };
        write!(text, "CPU#{index}{crashed}")
    }

    fn physical_memory(&mut self) -> Option<&mut dyn PhysicalMemory> {
        Some(self)
    }

    fn memory_regions(&mut self) -> Option<&mut dyn MemoryRegions> {
        Some(self)
    }

    fn monitor(&mut self) -> Option<&mut dyn Monitor> {
        Some(self)
    }

    fn host(&self) -> Option<Host<'_>> {
        Some(Host {
            triple: &self.triple,
            is_big_endian: self.machine.identity.endianness == Endianness::Big,
            pointer_len: if self.machine.identity.class == Class::Elf64 { 8 } else { 4 },
            page_size: Some(self.page_size),
            address_bits: None,
            watchpoints: None,
            os_version: self.os_version.as_deref(),
        })
    }

    fn program(&mut self) -> Option<&mut dyn Program> {
        Some(self)
    }
}

/// Why a guest stands still that has crashed: gdb's number of `SIGSEGV`.
pub const CRASHED: StopReason = StopReason::Signal(11);

const READ_ONLY: Error = Error::refused("a dump is not written to, unless it is served as writable");

impl PhysicalMemory for MachineTarget {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let len = u64::MAX.wrapping_sub(gpa).saturating_add(1);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(buf.len());
        read_physical(&*self.machine.memory, Gpa(gpa), &mut buf[..len])
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        let overlay = self.overlay.as_ref().ok_or(READ_ONLY)?;
        overlay.write(core::iter::once((Gpa(gpa), bytes)))?;
        (self.last, self.areas) = (None, None);
        Ok(())
    }
}

impl MemoryRegions for MachineTarget {
    fn area(&mut self, thread: ThreadId, address: u64) -> Result<Area, Error> {
        let index = Self::vcpu_of(thread);
        if self.areas.as_ref().is_none_or(|(vcpu, _)| *vcpu != index) {
            let areas = Areas::of(self.arch, self.registers_of(index)?, &*self.machine.memory);
            self.areas = Some((index, areas.map_err(|error| error_of(&error))?));
        }
        let (_, areas) = self.areas.as_ref().ok_or(Error::FAULT)?;
        let (start, last, is_mapped) = areas.around(address);
        if !is_mapped {
            return Ok(Area { start, last, permissions: None });
        }
        let (first, last, access) = self.alike(index, address, last)?;
        let permissions = access.map_or([true; 3], |access| [access.read, access.write, access.execute]);
        Ok(Area { start: first.max(start), last, permissions: Some(permissions) })
    }
}

impl Monitor for MachineTarget {
    fn command(&mut self, thread: ThreadId, command: &str, out: &mut dyn fmt::Write) -> Result<(), Error> {
        self.commands.run(&self.machine, Self::vcpu_of(thread), command, out)
    }
}

impl Program for MachineTarget {
    fn offsets(&self) -> Option<Offsets> {
        self.kernel_start.map(Offsets::Segment)
    }
}

#[cfg(test)]
mod tests;
