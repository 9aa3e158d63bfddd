//! How stacks of aarch64 are walked.
//!
//! Source: AAPCS64, section 6.4.6 ("The Frame Pointer"); Arm ARM (DDI 0487), chapter D8.9 ("Pointer authentication");
//! Linux `arch/arm64/include/asm/ptrace.h` (`struct pt_regs`), `stacktrace/frame.h`.

use vmcore_core::{FrameRecord, InterruptFrame, InterruptLink, RegisterFile, StackRules};

/// The bits of PSTATE that name the exception level; 0 is EL0, where programs run, also those of 32 bits.
const LEVEL: u64 = 0xf;
/// The bit that tells an address of the kernel from one of a program, whatever signs it.
const HALF: u32 = 55;
/// Bits of an address where `TCR_EL1` is not known.
const BITS: u64 = 48;

pub(crate) static RULES: StackRules = StackRules {
    is_in_program: |registers| Some(registers.value("pstate")? & LEVEL == 0),
    link_register: Some("x30"),
    return_address,
    cfa_above_stack_pointer: 0,
    // Compilers put it at the bottom of the frame: the caller's stack pointer is somewhere above.
    record: Some(FrameRecord {
        pointer: "x29",
        next: 0,
        return_address: 8,
        is_in_caller: false,
        stack_pointer: None,
    }),
    interrupt_frame: Some(InterruptFrame {
        #[rustfmt::skip] // in the order of memory
        registers: &[
            ("x0", 0), ("x1", 8), ("x2", 16), ("x3", 24), ("x4", 32), ("x5", 40), ("x6", 48), ("x7", 56),
            ("x8", 64), ("x9", 72), ("x10", 80), ("x11", 88), ("x12", 96), ("x13", 104), ("x14", 112), ("x15", 120),
            ("x16", 128), ("x17", 136), ("x18", 144), ("x19", 152), ("x20", 160), ("x21", 168), ("x22", 176), ("x23", 184),
            ("x24", 192), ("x25", 200), ("x26", 208), ("x27", 216), ("x28", 224), ("x29", 232), ("x30", 240), ("sp", 248),
            ("pc", 256), ("pstate", 264),
        ],
        // Up to Linux 6.12, and since (FRAME_META_TYPE_PT_REGS).
        links: &[InterruptLink::Repeated { at: 304 }, InterruptLink::Marked { at: 296, word: 2 }],
    }),
    orc_registers: &[],
};

/// Takes away the pointer authentication code, which fills the bits that no address has.
fn return_address(registers: &RegisterFile, address: u64) -> u64 {
    let is_kernel = address >> HALF & 1 == 1;
    // T0SZ in bits 5:0, T1SZ in bits 21:16: how many high bits an address does not have.
    let unused = registers.value("tcr_el1").map(|tcr| if is_kernel { tcr >> 16 & 0x3f } else { tcr & 0x3f });
    let bits = unused.filter(|unused| *unused != 0).map_or(BITS, |unused| 64 - unused);
    let high = u64::MAX << bits;
    if is_kernel { address | high } else { address & !high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::TABLE;

    #[test]
    fn a_signature_is_taken_away() {
        let mut registers = RegisterFile::new(&TABLE);
        let check = |registers: &RegisterFile, signed, address| {
            assert_eq!(return_address(registers, signed), address, "{signed:#x}");
        };
        check(&registers, 0x5db8_8000_1012_3458, 0xffff_8000_1012_3458);
        check(&registers, 0xffff_8000_1012_3458, 0xffff_8000_1012_3458);
        check(&registers, 0x2f00_aaaa_1234_5678, 0x0000_aaaa_1234_5678);
        registers.set_value("tcr_el1", 25 << 16 | 25);
        check(&registers, 0x5db8_80c0_1012_3458, 0xffff_ffc0_1012_3458);
    }
}
