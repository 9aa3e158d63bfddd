//! How stacks of arm are walked: by tables of the program alone, as its compilers do not agree on frame records.

use vmcore_core::StackRules;

/// CPSR's mode bits, and the mode of programs.
const MODE: u64 = 0x1f;
const USER: u64 = 0x10;

pub(crate) static RULES: StackRules = StackRules {
    is_in_program: |registers| Some(registers.value("cpsr")? & MODE == USER),
    link_register: Some("lr"),
    // Bit 0 says that the caller is Thumb code.
    return_address: |_, address| address & !1,
    cfa_above_stack_pointer: 0,
    record: None,
    interrupt_frame: None,
    orc_registers: &[],
};
