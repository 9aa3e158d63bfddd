//! x86_64, and i386 guests of it.
//!
//! Source: Linux `arch/x86/include/uapi/asm/kvm.h`; Intel SDM volume 1, 13.4 (XSAVE area), volume 3, 3.4.5 (descriptors),
//! volume 4, chapter 2 (MSRs); AMD APM volume 2, appendix A.

use super::{KvmState, KvmStateMut};
use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_sregs2, kvm_xcrs, kvm_xsave,
};
use std::iter::zip;
use vmcore_core::{Endianness, FieldValue, RegisterFile, arch};

/// Sets a register that i386 has too: `rax` there is `eax`.
fn set(registers: &mut RegisterFile, name: &str, value: u64) {
    if !registers.set_value(name, value)
        && let Some(rest) = name.strip_prefix('r')
    {
        registers.set_value(&format!("e{rest}"), value);
    }
}

/// Takes over a register that i386 has too, if it is known.
fn take(registers: &RegisterFile, name: &str, value: &mut u64) {
    let of_i386 = || registers.value(&format!("e{}", name.strip_prefix('r')?));
    *value = registers.value(name).or_else(of_i386).unwrap_or(*value);
}

/// Takes over a register that is known and fits.
fn take_as<T: TryFrom<u64>>(registers: &RegisterFile, name: &str, value: &mut T) {
    if let Some(known) = registers.value(name).and_then(|known| T::try_from(known).ok()) {
        *value = known;
    }
}

fn set_bytes(registers: &mut RegisterFile, name: &str, value: &[u8]) {
    if let Some(id) = registers.table().find(name) {
        registers.set(id, value);
    }
}

fn take_bytes(registers: &RegisterFile, name: &str, value: &mut [u8]) {
    if let Some(known) = registers.table().find(name).and_then(|id| registers.get(id)) {
        let len = known.len().min(value.len());
        value[..len].copy_from_slice(&known[..len]);
    }
}

#[rustfmt::skip] // a table is read by column
fn general(regs: &mut kvm_regs) -> [(&'static str, &mut u64); 18] {
    [
        ("rax", &mut regs.rax), ("rbx", &mut regs.rbx), ("rcx", &mut regs.rcx), ("rdx", &mut regs.rdx),
        ("rsi", &mut regs.rsi), ("rdi", &mut regs.rdi), ("rsp", &mut regs.rsp), ("rbp", &mut regs.rbp),
        ("r8",  &mut regs.r8),  ("r9",  &mut regs.r9),  ("r10", &mut regs.r10), ("r11", &mut regs.r11),
        ("r12", &mut regs.r12), ("r13", &mut regs.r13), ("r14", &mut regs.r14), ("r15", &mut regs.r15),
        ("rip", &mut regs.rip), ("rflags", &mut regs.rflags),
    ]
}

impl KvmState for kvm_regs {
    fn copy_to(&self, registers: &mut RegisterFile) {
        for (name, value) in general(&mut self.clone()) {
            set(registers, name, *value);
        }
    }
}

impl KvmStateMut for kvm_regs {
    fn copy_from(&mut self, registers: &RegisterFile) {
        for (name, value) in general(self) {
            take(registers, name, value);
        }
    }
}

/// The parts of `kvm_sregs` and `kvm_sregs2` that are alike.
struct System<'a> {
    segments: Vec<(&'static str, &'a mut kvm_segment)>,
    tables: Vec<(&'static str, &'a mut kvm_dtable)>,
    control: Vec<(&'static str, &'a mut u64)>,
}

impl System<'_> {
    fn copy_to(self, registers: &mut RegisterFile) {
        for (name, segment) in self.segments {
            set_segment(registers, name, segment);
        }
        for (name, kvm_dtable { base, limit, .. }) in self.tables {
            registers.set_value(&format!("{name}_base"), *base);
            registers.set_value(&format!("{name}_limit"), (*limit).into());
        }
        for (name, value) in self.control {
            registers.set_value(name, *value);
        }
    }

    fn copy_from(self, registers: &RegisterFile) {
        for (name, segment) in self.segments {
            take_segment(registers, name, segment);
        }
        for (name, kvm_dtable { base, limit, .. }) in self.tables {
            take_as(registers, &format!("{name}_base"), base);
            take_as(registers, &format!("{name}_limit"), limit);
        }
        for (name, value) in self.control {
            take(registers, name, value);
        }
    }
}

macro_rules! system_registers {
    ($state:ty) => {
        impl<'a> From<&'a mut $state> for System<'a> {
            #[rustfmt::skip] // a table is read by column
            fn from(state: &'a mut $state) -> Self {
                Self {
                    segments: vec![
                        ("cs", &mut state.cs), ("ds", &mut state.ds), ("es", &mut state.es), ("fs", &mut state.fs),
                        ("gs", &mut state.gs), ("ss", &mut state.ss), ("tr", &mut state.tr), ("ldt", &mut state.ldt),
                    ],
                    tables: vec![("gdt", &mut state.gdt), ("idt", &mut state.idt)],
                    control: vec![
                        ("cr0", &mut state.cr0), ("cr2", &mut state.cr2), ("cr3", &mut state.cr3), ("cr4", &mut state.cr4),
                        ("cr8", &mut state.cr8), ("efer", &mut state.efer), ("apic_base", &mut state.apic_base),
                    ],
                }
            }
        }

        impl KvmState for $state {
            fn copy_to(&self, registers: &mut RegisterFile) {
                System::from(&mut self.clone()).copy_to(registers);
            }
        }

        impl KvmStateMut for $state {
            fn copy_from(&mut self, registers: &RegisterFile) {
                System::from(self).copy_from(registers);
            }
        }
    };
}

system_registers!(kvm_sregs);
system_registers!(kvm_sregs2);

fn set_segment(registers: &mut RegisterFile, name: &str, segment: &mut kvm_segment) {
    let selector = segment.selector.into();
    // Those of the task and of the local descriptor table are no registers that a program sees.
    if !registers.set_value(name, selector) {
        registers.set_value(&format!("{name}_selector"), selector);
    }
    registers.set_value(&format!("{name}_base"), segment.base);
    registers.set_value(&format!("{name}_limit"), segment.limit.into());
    // None, and so not present, of a segment that is not usable.
    let is_usable = segment.unusable == 0;
    let attributes = attributes(segment).into_iter().filter(|_| is_usable);
    let word = attributes.fold(0, |word, (bits, shift, _)| word | u64::from(*bits) << shift);
    registers.set_value(&format!("{name}_attr"), word);
}

fn take_segment(registers: &RegisterFile, name: &str, segment: &mut kvm_segment) {
    take_as(registers, name, &mut segment.selector);
    take_as(registers, &format!("{name}_selector"), &mut segment.selector);
    take_as(registers, &format!("{name}_base"), &mut segment.base);
    take_as(registers, &format!("{name}_limit"), &mut segment.limit);
    // A segment that is not usable has none, and keeps what it has.
    if let Some(word) = registers.value(&format!("{name}_attr")).filter(|word| *word != 0) {
        segment.unusable = 0;
        for (bits, shift, mask) in attributes(segment) {
            *bits = (word >> shift).to_le_bytes()[0] & mask;
        }
    }
}

/// The attributes, and their places in a descriptor's second word: the lowest bit, and what is left of it there.
#[rustfmt::skip] // a table is read by column
fn attributes(segment: &mut kvm_segment) -> [(&mut u8, u32, u8); 8] {
    [
        (&mut segment.type_,    8, 0xf),
        (&mut segment.s,       12, 1),
        (&mut segment.dpl,     13, 3),
        (&mut segment.present, 15, 1),
        (&mut segment.avl,     20, 1),
        (&mut segment.l,       21, 1),
        (&mut segment.db,      22, 1),
        (&mut segment.g,       23, 1),
    ]
}

impl KvmState for kvm_fpu {
    fn copy_to(&self, registers: &mut RegisterFile) {
        for (index, value) in self.fpr.iter().enumerate() {
            set_bytes(registers, &format!("st{index}"), value);
        }
        for (index, value) in self.xmm.iter().enumerate() {
            set_bytes(registers, &format!("xmm{index}"), value);
        }
        #[rustfmt::skip]
        let rows = [
            ("fcw", self.fcw.into()), ("fsw", self.fsw.into()), ("ftw", self.ftwx.into()), ("fop", self.last_opcode.into()),
            ("fip", self.last_ip), ("fdp", self.last_dp), ("mxcsr", self.mxcsr.into()),
        ];
        for (name, value) in rows {
            registers.set_value(name, value);
        }
    }
}

impl KvmStateMut for kvm_fpu {
    fn copy_from(&mut self, registers: &RegisterFile) {
        for (index, value) in self.fpr.iter_mut().enumerate() {
            // A register of x87 has 10 bytes of the 16.
            take_bytes(registers, &format!("st{index}"), value);
        }
        for (index, value) in self.xmm.iter_mut().enumerate() {
            take_bytes(registers, &format!("xmm{index}"), value);
        }
        take_as(registers, "fcw", &mut self.fcw);
        take_as(registers, "fsw", &mut self.fsw);
        take_as(registers, "ftw", &mut self.ftwx);
        take_as(registers, "fop", &mut self.last_opcode);
        take_as(registers, "fip", &mut self.last_ip);
        take_as(registers, "fdp", &mut self.last_dp);
        take_as(registers, "mxcsr", &mut self.mxcsr);
    }
}

impl KvmState for kvm_xcrs {
    fn copy_to(&self, registers: &mut RegisterFile) {
        let count = usize::try_from(self.nr_xcrs).unwrap_or(0).min(self.xcrs.len());
        if let Some(entry) = self.xcrs[..count].iter().find(|entry| entry.xcr == 0) {
            registers.set_value("xcr0", entry.value);
        }
    }
}

impl KvmState for kvm_debugregs {
    fn copy_to(&self, registers: &mut RegisterFile) {
        let names = ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"];
        for (name, value) in zip(names, self.db.into_iter().chain([self.dr6, self.dr7])) {
            registers.set_value(name, value);
        }
    }
}

/// Model-specific registers that a dump has a place for: indices for `KVM_GET_MSRS`, and names.
#[rustfmt::skip] // a table is read by column
pub const MSRS: [(u32, &str); 23] = [
    (0x0000_0010, "tsc"),
    (0x0000_001b, "apic_base"),
    (0x0000_0048, "spec_ctrl"),
    (0x0000_009e, "smbase"),
    (0x0000_0174, "sysenter_cs"),
    (0x0000_0175, "sysenter_esp"),
    (0x0000_0176, "sysenter_eip"),
    (0x0000_017a, "mcg_status"),
    (0x0000_01a0, "misc_enable"),
    (0x0000_0277, "pat"),
    (0x0000_02ff, "mtrr_def_type"),
    (0x0000_06e0, "tsc_deadline"),
    (0x0000_06e1, "pkrs"),
    (0x0000_0da0, "xss"),
    (0xc000_0080, "efer"),
    (0xc000_0081, "star"),
    (0xc000_0082, "lstar"),
    (0xc000_0083, "cstar"),
    (0xc000_0084, "sfmask"),
    (0xc000_0100, "fs_base"),
    (0xc000_0101, "gs_base"),
    (0xc000_0102, "kernel_gs_base"),
    (0xc000_0103, "tsc_aux"),
];

impl KvmState for [kvm_msr_entry] {
    fn copy_to(&self, registers: &mut RegisterFile) {
        for entry in self {
            if let Some((_, name)) = MSRS.iter().find(|(index, _)| *index == entry.index) {
                registers.set_value(name, entry.data);
            }
        }
    }
}

/// The XSAVE area of `KVM_GET_XSAVE`, and what says which components it has and where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Xsave<'a> {
    /// The area.
    pub area: &'a kvm_xsave,
    /// What `KVM_GET_XCRS` returns. Components that the guest has not enabled in XCR0 are not copied.
    pub xcrs: &'a kvm_xcrs,
    /// What `KVM_GET_SUPPORTED_CPUID` returns. Processors of Intel and AMD differ in where they have the components behind AVX; if
    /// leaf 0xd is not among them, they are where Intel's have them.
    pub cpuid: &'a [kvm_cpuid_entry2],
}

/// Components that every vCPU has: x87 and SSE.
const LEGACY: u64 = 3;

impl KvmState for Xsave<'_> {
    /// By the architecture's table of `NT_X86_XSTATE`, whose descriptor is such an area, as Intel's processors lay it out.
    fn copy_to(&self, registers: &mut RegisterFile) {
        let area: Vec<u8> = self.area.region.iter().flat_map(|word| word.to_le_bytes()).collect();
        let arch = arch::all().iter().find(|arch| std::ptr::eq(arch.registers(), registers.table()));
        let tables = arch.map_or(&[][..], |arch| arch.notes());
        let Some(table) = tables.iter().find(|table| table.name == "NT_X86_XSTATE") else { return };
        let mut standard = area.clone();
        let leaf = self.cpuid.iter().filter(|entry| entry.function == 0xd);
        for entry in leaf.filter(|entry| (2..64).contains(&entry.index)) {
            // EAX is the component's size, EBX its place; bit 0 of ECX says that it has none in this form of the area.
            let fields = table.fields.iter().filter(|field| field.gate.map(u32::from) == Some(entry.index));
            let (Some(to), 0) = (fields.map(|field| field.offset).min(), entry.ecx & 1) else { continue };
            let (Ok(from), Ok(len)) = (usize::try_from(entry.ebx), usize::try_from(entry.eax)) else {
                continue;
            };
            let from = from..from.saturating_add(len);
            if let (Some(from), Some(to)) = (area.get(from), standard.get_mut(to..to.saturating_add(len))) {
                to.copy_from_slice(from);
            }
        }
        let mut read = RegisterFile::new(registers.table());
        table.decode(&standard, Endianness::Little, &mut read);
        // The area's own copy of XCR0 is the host's.
        self.xcrs.copy_to(registers);
        let xcr0 = registers.value("xcr0").unwrap_or(0) | LEGACY;
        for field in table.fields.iter().filter(|field| field.gate.is_none_or(|bit| xcr0 >> bit & 1 != 0)) {
            let Some(id) = field.register() else { continue };
            if let (Some(value), false) =
                (read.get(id), matches!(field.value, FieldValue::RegisterOrGates(..)))
            {
                registers.set(id, value);
            }
        }
    }
}

#[cfg(all(test, any(feature = "all", feature = "x86_64")))]
mod tests;
