//! x86_64, and i386 guests of it.
//!
//! Source: Linux `arch/x86/include/uapi/asm/kvm.h`; Intel SDM volume 1, 13.4 (XSAVE area), volume 3, 3.4.5 (descriptors),
//! volume 4, chapter 2 (MSRs); AMD APM volume 2, appendix A.

use super::KvmState;
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

fn set_bytes(registers: &mut RegisterFile, name: &str, value: &[u8]) {
    if let Some(id) = registers.table().find(name) {
        registers.set(id, value);
    }
}

impl KvmState for kvm_regs {
    fn copy_to(&self, registers: &mut RegisterFile) {
        #[rustfmt::skip]
        let rows = [
            ("rax", self.rax), ("rbx", self.rbx), ("rcx", self.rcx), ("rdx", self.rdx),
            ("rsi", self.rsi), ("rdi", self.rdi), ("rsp", self.rsp), ("rbp", self.rbp),
            ("r8",  self.r8),  ("r9",  self.r9),  ("r10", self.r10), ("r11", self.r11),
            ("r12", self.r12), ("r13", self.r13), ("r14", self.r14), ("r15", self.r15),
            ("rip", self.rip), ("rflags", self.rflags),
        ];
        for (name, value) in rows {
            set(registers, name, value);
        }
    }
}

/// `kvm_sregs` and `kvm_sregs2` begin with the same fields.
macro_rules! system_registers {
    ($state:ty) => {
        impl KvmState for $state {
            fn copy_to(&self, registers: &mut RegisterFile) {
                #[rustfmt::skip]
                let segments = [
                    ("cs", &self.cs), ("ds", &self.ds), ("es", &self.es), ("fs", &self.fs),
                    ("gs", &self.gs), ("ss", &self.ss), ("tr", &self.tr), ("ldt", &self.ldt),
                ];
                for (name, segment) in segments {
                    set_segment(registers, name, segment);
                }
                for (name, kvm_dtable { base, limit, .. }) in [("gdt", self.gdt), ("idt", self.idt)] {
                    registers.set_value(&format!("{name}_base"), base);
                    registers.set_value(&format!("{name}_limit"), limit.into());
                }
                #[rustfmt::skip]
                let rows = [
                    ("cr0", self.cr0), ("cr2", self.cr2), ("cr3", self.cr3), ("cr4", self.cr4), ("cr8", self.cr8),
                    ("efer", self.efer), ("apic_base", self.apic_base),
                ];
                for (name, value) in rows {
                    registers.set_value(name, value);
                }
            }
        }
    };
}

system_registers!(kvm_sregs);
system_registers!(kvm_sregs2);

fn set_segment(registers: &mut RegisterFile, name: &str, segment: &kvm_segment) {
    let selector = segment.selector.into();
    // Those of the task and of the local descriptor table are no registers that a program sees.
    if !registers.set_value(name, selector) {
        registers.set_value(&format!("{name}_selector"), selector);
    }
    registers.set_value(&format!("{name}_base"), segment.base);
    registers.set_value(&format!("{name}_limit"), segment.limit.into());
    registers.set_value(&format!("{name}_attr"), attributes(segment));
}

/// The attributes as a descriptor's second word has them; none, and so not present, of a segment that is not usable.
fn attributes(segment: &kvm_segment) -> u64 {
    if segment.unusable != 0 {
        return 0;
    }
    #[rustfmt::skip] // a table is read by column
    let bits = [
        (segment.type_,    8),
        (segment.s,       12),
        (segment.dpl,     13),
        (segment.present, 15),
        (segment.avl,     20),
        (segment.l,       21),
        (segment.db,      22),
        (segment.g,       23),
    ];
    bits.iter().fold(0, |word, (bits, shift)| word | u64::from(*bits) << shift)
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

#[cfg(all(test, feature = "x86_64"))]
mod tests;
