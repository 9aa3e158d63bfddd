//! Walks over stacks that are made up.

mod guest;

use guest::Guest;
use proptest::prelude::*;
use vmcore_backtrace::{Backtrace, End, Error, MAX_FRAMES, Unwinder};
use vmcore_core::Machine;

const CODE: u64 = 0x2000_0000;
const LIST: u64 = 0x1000_0000;
const STACK: u64 = 0x3000_0000;
const ORC_IP: u64 = 0x2100_0000;
const ORC: u64 = 0x2200_0000;
/// Functions of 256 bytes each.
const FUNCTIONS: [&str; 7] = ["T_stext", "tleaf", "tframed", "tirq_entry", "tidle", "Tstart", "T_etext"];

/// The address of a function's instruction.
fn at(name: &str, offset: u64) -> u64 {
    let index = FUNCTIONS.iter().position(|function| &function[1..] == name).expect("a function");
    CODE + 0x100 * index as u64 + offset
}

fn check(machine: &Machine, expected: &[&str], end: &str) {
    let backtrace = backtrace(machine);
    let line = |frame: &vmcore_backtrace::Frame| {
        let name = frame.location.as_ref().map_or_else(|| frame.pc.to_string(), ToString::to_string);
        format!("{name} by {}", frame.way.name())
    };
    let found: Vec<String> = backtrace.frames.iter().map(line).collect();
    assert_eq!(found, expected);
    assert_eq!(backtrace.end.to_string(), end);
}

fn backtrace(machine: &Machine) -> Backtrace {
    let unwinder = Unwinder::new(machine, None).expect("the architecture can do it");
    unwinder.backtrace(0).expect("there is a vCPU")
}

/// A kernel with its list of symbols.
fn kernel(guest: Guest, more: &[(u64, &str)]) -> Guest {
    let functions = FUNCTIONS.iter().map(|function| (at(&function[1..], 0), *function));
    let symbols: Vec<(u64, &str)> = functions.chain(more.iter().copied()).collect();
    guest.says(&format!("SYMBOL(_stext)={CODE:x}")).bytes(CODE, vec![0x90; 0x1000]).symbols(LIST, &symbols)
}

/// Types of ORC entries.
#[derive(Clone, Copy)]
enum Type {
    End,
    Call,
    Registers,
    Partial,
}

/// A kernel of x86_64 with ORC tables, in the layout of before Linux 6.3 or of since 6.4.
fn orc_kernel(is_new: bool) -> Guest {
    const SP: u16 = 5;
    const BP: u16 = 4;
    let mut entries: Vec<(u64, i16, i16, u16, Type)> = vec![
        (at("_stext", 0), 8, 0, SP, Type::Call),
        (at("leaf", 0), 8, 0, SP, Type::Call),
        (at("framed", 0), 8, 0, SP, Type::Call),
        (at("framed", 4), 16, -16, BP | 1 << 4, Type::Call),
        (at("irq_entry", 0), 0, 0, SP, Type::Registers),
        (at("irq_entry", 0x80), 0, 0, SP, Type::Partial),
        (at("idle", 0), 24, 0, SP, Type::Call),
        (at("start", 0), 0, 0, 0, Type::End),
        (at("_etext", 0), 0, 0, 0, Type::End),
    ];
    // Enough calls to tell the layout by.
    entries.splice(1..1, (1..=0xff).map(|offset| (at("_stext", offset), 8, 0, SP, Type::Call)));
    let (mut addresses, mut table) = (Vec::new(), Vec::new());
    for (index, (address, sp, bp, registers, kind)) in entries.iter().enumerate() {
        let own = ORC_IP + 4 * index as u64;
        addresses.extend(
            u32::try_from(address.wrapping_sub(own) & 0xffff_ffff).expect("it is small").to_le_bytes(),
        );
        let kind = match (kind, is_new) {
            (Type::Call, false) => 0,
            (Type::Registers, false) | (Type::End, true) => 1,
            (Type::Partial, false) | (Type::Call, true) => 2,
            (Type::Registers, true) => 3,
            (Type::End, false) | (Type::Partial, true) => 4,
        };
        table.extend([sp.to_le_bytes(), bp.to_le_bytes(), (registers | kind << 8).to_le_bytes()].concat());
    }
    let ends = [ORC_IP + addresses.len() as u64, ORC + table.len() as u64];
    let bounds = [
        (ORC_IP, "r__start_orc_unwind_ip"),
        (ends[0], "r__stop_orc_unwind_ip"),
        (ORC, "r__start_orc_unwind"),
        (ends[1], "r__stop_orc_unwind"),
    ];
    kernel(Guest::x86_64(), &bounds).bytes(ORC_IP, addresses).bytes(ORC, table)
}

/// `struct pt_regs` of x86_64: what is not named is 0.
fn pt_regs(pc: u64, cs: u64, sp: u64, rbp: u64) -> [u64; 21] {
    let mut words = [0; 21];
    (words[4], words[16], words[17], words[19]) = (rbp, pc, cs, sp);
    words
}

#[test]
fn orc_leads_through_calls_frames_and_interrupts() {
    for is_new in [false, true] {
        let interrupted = STACK + 0x800;
        let regs = pt_regs(at("idle", 0), 0x10, interrupted, 0);
        let machine = orc_kernel(is_new)
            .register("rip", at("leaf", 0x10))
            .register("cs", 0x10)
            .register("rsp", STACK)
            .register("rbp", STACK + 0x40)
            .words(STACK, &[at("framed", 0x20)])
            .words(STACK + 0x40, &[0, at("irq_entry", 0x10)])
            .words(STACK + 0x50, &regs)
            .words(interrupted, &[0, 0, at("start", 0x99)])
            .machine();
        let frames = [
            "leaf+0x10 by registers",
            "framed+0x20 by orc",
            "irq_entry+0x10 by orc",
            "idle+0x0 by interrupt frame",
            "start+0x99 by orc",
        ];
        check(&machine, &frames, "the outermost frame");
    }
}

#[test]
fn a_call_of_a_null_pointer_leads_to_who_made_it() {
    let lost = |pc| {
        orc_kernel(true)
            .register("rip", pc)
            .register("cs", 0x10)
            .register("rsp", STACK)
            .register("rbp", 0xffff_ffff_0000_0000)
            .words(STACK, &[at("framed", 2), at("start", 0x99)])
            .machine()
    };
    let frames = ["0x0 by registers", "framed+0x2 by orc", "start+0x99 by orc"];
    check(&lost(0), &frames, "the outermost frame");
    // Of another place where there is no code nothing is known, and the frame pointer is no firmware's.
    let end = backtrace(&lost(1)).end;
    assert!(!end.is_complete(), "{end}");
}

#[test]
fn a_program_that_has_entered_the_kernel_is_where_a_backtrace_ends() {
    // What the processor saves, without the rest.
    let regs = pt_regs(0x40_1234, 0x33, 0x7fff_0000, 0);
    let machine = orc_kernel(true)
        .register("rip", at("irq_entry", 0x90))
        .register("cs", 0x10)
        .register("rsp", STACK)
        .words(STACK, &regs[16..])
        .machine();
    check(&machine, &["irq_entry+0x90 by registers"], "entered from a program at 0x401234");
    let machine = orc_kernel(true)
        .register("rip", 0x40_1234)
        .register("cs", 0x33)
        .register("rsp", 0x7fff_0000)
        .machine();
    check(&machine, &["0x401234 by registers"], "the vCPU runs a program");
}

#[test]
fn code_that_no_table_knows_ends_a_backtrace() {
    let machine = orc_kernel(true)
        .register("rip", 0x2000_8000)
        .register("cs", 0x10)
        .register("rsp", STACK)
        .register("rbp", STACK)
        .words(STACK, &[1, 2])
        .machine();
    let end = "the frame pointer leads to a return address that is none of the kernel's: 0x2";
    check(&machine, &["0x20008000 by registers"], end);
}

#[test]
fn frame_records_and_the_link_register_lead_on_aarch64() {
    let signed = at("framed", 0x30) & !(0x7f << 48) | 0x15 << 48;
    let machine = kernel(Guest::aarch64(), &[])
        .register("pc", at("leaf", 8))
        .register("pstate", 5)
        .register("x29", STACK)
        .register("x30", at("_stext", 4))
        .words(STACK, &[STACK + 0x40, signed])
        .words(STACK + 0x40, &[STACK + 0x80, at("idle", 0x100)])
        .words(STACK + 0x80, &[0, 0])
        .machine();
    let frames = [
        "leaf+0x8 by registers",
        "_stext+0x4 by link register",
        "framed+0x30 by frame record",
        "idle+0x100 by frame record",
    ];
    check(&machine, &frames, "the outermost frame");
}

#[test]
fn interrupt_frames_of_aarch64_are_found_by_their_record() {
    let mut regs = [0; 34];
    (regs[29], regs[30], regs[31], regs[32], regs[33]) =
        (STACK + 0x800, at("start", 0x10), STACK + 0x700, at("idle", 0), 5);
    for (distance, record) in [(304, vec![regs[29], regs[32]]), (296, vec![0, 0, 2])] {
        let machine = kernel(Guest::aarch64(), &[])
            .register("pc", at("irq_entry", 0x20))
            .register("pstate", 5)
            .register("x29", STACK + distance)
            .register("x30", at("irq_entry", 0x10))
            .words(STACK, &regs)
            .words(STACK + distance, &record)
            .words(STACK + 0x800, &[0, 0])
            .machine();
        let frames =
            ["irq_entry+0x20 by registers", "idle+0x0 by interrupt frame", "start+0x10 by link register"];
        check(&machine, &frames, "the outermost frame");
    }
}

#[test]
fn what_the_kernel_has_unmapped_since_it_started_still_has_a_name() {
    let gone = CODE + 0x8000;
    let machine = kernel(Guest::aarch64(), &[(gone, "Tstart_kernel"), (gone + 0x1000, "T_einittext")])
        .register("pc", at("leaf", 0))
        .register("pstate", 5)
        .register("x29", STACK)
        .words(STACK, &[STACK + 0x10, gone + 4, STACK + 0x20, gone + 0x2000, 0, 0])
        .machine();
    let end = "the frame pointer leads to a return address that is none of the kernel's: 0x2000a000";
    check(&machine, &["leaf+0x0 by registers", "start_kernel+0x4 by frame record"], end);
}

#[test]
fn a_chain_that_bites_its_tail_ends() {
    let machine = kernel(Guest::aarch64(), &[])
        .register("pc", at("leaf", 0))
        .register("pstate", 5)
        .register("x29", STACK)
        .words(STACK, &[STACK + 0x10, at("idle", 4), STACK, at("idle", 4)])
        .machine();
    let backtrace = backtrace(&machine);
    assert!(matches!(backtrace.end, End::Repeats), "{}", backtrace.end);
    assert_eq!(backtrace.frames.len(), 3, "each place once");
}

#[test]
fn without_names_frames_are_numbers() {
    let machine = Guest::aarch64()
        .register("pc", 0x5000)
        .register("pstate", 5)
        .register("x29", STACK)
        .words(STACK, &[0, 0x6000])
        .bytes(0x5000, vec![0; 0x2000])
        .machine();
    let unwinder = Unwinder::new(&machine, None).unwrap();
    let error = unwinder.symbols().err().map(Error::to_string).unwrap_or_default();
    assert!(error.contains("SYMBOL(kallsyms_num_syms)"), "{error}");
    check(&machine, &["0x5000 by registers", "0x6000 by frame record"], "the outermost frame");
}

/// A frame of s390x on a packed stack, which has nothing but its back chain and the return address of what it calls.
fn s390x_frame(next: u64, return_address: u64) -> Vec<u64> {
    let mut words = vec![0; 20];
    (words[17], words[19]) = (return_address, next);
    words
}

#[test]
fn back_chains_of_s390x_lead_through_interrupts_to_a_program() {
    let (main, user) = (STACK + 0x1000, STACK + 0x2000);
    // struct pt_regs: pswm, pswa, r0 to r15.
    let regs = |mask, pc, link, sp| {
        let mut words = vec![0; 20];
        (words[1], words[2], words[17], words[18]) = (mask, pc, link, sp);
        words
    };
    let machine = kernel(Guest::s390x(), &[])
        .register("pswa", at("leaf", 8))
        .register("pswm", 0x0404_c001_8000_0000)
        .register("r14", at("leaf", 4))
        .register("r15", STACK)
        .words(STACK, &s390x_frame(STACK + 0x100, 0))
        .words(STACK + 0x100, &s390x_frame(STACK + 0x200, at("framed", 0x10)))
        .words(STACK + 0x200, &s390x_frame(0, at("irq_entry", 0x10)))
        .words(STACK + 0x2a0, &regs(0x0706_c001_8000_0000, at("idle", 0), at("start", 0x10), main))
        // `idle` has a frame, and has called nothing: where its return address would be is an older one.
        .words(main, &s390x_frame(main + 0x100, 0))
        .words(main + 0x100, &s390x_frame(user, at("idle", 0x30)))
        .words(user, &s390x_frame(0, at("_stext", 0x20)))
        .words(user + 0xa0, &regs(0x0705_2001_8000_0000, 0x40_1234, 0, 0x7fff_0000))
        .machine();
    let frames = [
        "leaf+0x8 by registers",
        "framed+0x10 by frame record",
        "irq_entry+0x10 by frame record",
        "idle+0x0 by interrupt frame",
        "start+0x10 by link register",
        "_stext+0x20 by frame record",
    ];
    check(&machine, &frames, "entered from a program at 0x401234");
    // Behind the last frame of a thread of the kernel is nothing.
    let machine = kernel(Guest::s390x(), &[])
        .register("pswa", at("leaf", 8))
        .register("r15", STACK)
        .words(STACK, &s390x_frame(STACK + 0x100, 0))
        .words(STACK + 0x100, &s390x_frame(0, at("start", 0x10)))
        .words(STACK + 0x1a0, &[0; 20])
        .machine();
    check(&machine, &["leaf+0x8 by registers", "start+0x10 by frame record"], "the outermost frame");
}

#[test]
fn interrupt_frames_of_ppc64_are_found_by_their_marker() {
    // "regshere", and "REGS" as kernels of either byte order have written it.
    for (frame_len, marker) in
        [(112, 0x7265_6773_6865_7265), (112, 0x5347_4552), (48, 0x5347_4552), (48, 0x5245_4753)]
    {
        let mut entry = vec![0; frame_len / 8 + 44];
        (entry[0], entry[frame_len / 8 - 2]) = (STACK + 0x800, marker);
        let regs = frame_len / 8;
        // gpr[1], nip, msr, link
        (entry[regs + 1], entry[regs + 32], entry[regs + 33], entry[regs + 36]) =
            (STACK + 0x800, at("idle", 0x10), 0x8000_0000_0000_9033, at("start", 0x10));
        let machine = kernel(Guest::ppc64(), &[])
            .register("nip", at("irq_entry", 0x20))
            .register("msr", 0x8000_0000_0000_1033)
            .register("r1", STACK)
            .words(STACK, &entry)
            .words(STACK + 0x800, &[STACK + 0x900])
            .words(STACK + 0x900, &[0, 0, at("start", 0x10)])
            .machine();
        let frames =
            ["irq_entry+0x20 by registers", "idle+0x10 by interrupt frame", "start+0x10 by frame record"];
        check(&machine, &frames, "the outermost frame");
    }
}

#[test]
fn interrupts_of_riscv64_are_found_by_their_handler() {
    let handler = CODE + 0x8000;
    let more = [(handler, "Thandle_exception"), (handler + 0x100, "Tend")];
    let regs = STACK + 0x80;
    // struct pt_regs: epc, ra, sp, and s0 as the ninth. Where the privilege level is not saved, code of kernels is high.
    const HIGH: u64 = 0xffff_ffff_8000_0000;
    let interrupted = [HIGH + 0x10, 0, HIGH + 0x800, 0, 0, 0, 0, 0, HIGH + 0x820];
    let entered = [0x40_1234, 0, 0x7fff_0000, 0, 0, 0, 0, 0, 0x7fff_0020];
    let frames = ["0xffffffff80000010 by interrupt frame", "start+0x10 by frame record"];
    for (saved, more_frames, end) in [
        (interrupted, &frames[..], "the outermost frame"),
        (entered, &[], "entered from a program at 0x401234"),
    ] {
        let mut saved = saved.to_vec();
        saved.resize(36, 0);
        let machine = kernel(Guest::riscv64(), &more)
            .bytes(handler, vec![0; 0x100])
            .register("pc", at("leaf", 8))
            .register("priv", 1)
            .register("fp", regs)
            .words(STACK + 0x70, &[HIGH + 0x820, handler + 0x10])
            .words(regs, &saved)
            .bytes(HIGH, vec![0; 0x810])
            .words(HIGH + 0x810, &[0, at("start", 0x10)])
            .machine();
        let frames = ["leaf+0x8 by registers", "handle_exception+0x10 by frame record"];
        check(&machine, &[&frames, more_frames].concat(), end);
    }
}

#[test]
fn a_frame_pointer_of_the_firmware_ends_a_backtrace() {
    const HIGH: u64 = 0xffff_ffff_8000_0000;
    let machine = Guest::riscv64()
        .register("pc", HIGH + 0x100)
        .register("priv", 1)
        .register("fp", HIGH + 0x1010)
        .bytes(HIGH, vec![0; 0x1000])
        .words(HIGH + 0x1000, &[0x8004_8f30, HIGH + 0x200])
        .machine();
    let end = "the frame pointer is that of whoever has entered the kernel: 0x80048f30";
    check(&machine, &["0xffffffff80000100 by registers", "0xffffffff80000200 by frame record"], end);
}

#[test]
fn names_without_end_are_given_up() {
    let guest = Guest::aarch64()
        .says(&format!("SYMBOL(_stext)={CODE:x}"))
        .register("pc", at("leaf", 0))
        .symbols(LIST, &[(CODE, "T_stext")]);
    let mut machine = guest.bytes(LIST + 0x50_0000, [1, b'x'].repeat(0x2_0000)).machine();
    // 131072 names, each of one token: the last, of 1000 characters.
    let text = String::from_utf8(machine.guest_note.take().expect("there is one").desc).expect("it is text");
    let moved = text.replace(&format!("{:x}", LIST + 0x2_0000), &format!("{:x}", LIST + 0x50_0000));
    machine.guest_note = Some(vmcore_core::Note::new("VMCOREINFO", 0, moved.into_bytes()));
    let table = LIST + 0x4_0000 + 0x300;
    let index = LIST + 0x3_0000 + 2 * u64::from(b'x');
    let mut changes = vec![(index, 0), (index + 1, 3)];
    changes.extend((0..1000).map(|place| (table + place, b'x')));
    changes.extend(0x2_0000_u32.to_le_bytes().into_iter().zip(LIST..).map(|(byte, at)| (at, byte)));
    guest::change(&mut machine, changes);
    let unwinder = Unwinder::new(&machine, None).expect("the architecture can do it");
    let error = unwinder.symbols().expect_err("it is too much").to_string();
    assert!(error.starts_with("the text of the names at 0x10500000 is 0x40000"), "{error}");
}

/// Words of a stack, of which many are addresses of the stack itself or of code.
fn words() -> impl Strategy<Value = Vec<u64>> {
    let word = prop_oneof![
        4 => (0..64_u64).prop_map(|index| STACK + 8 * index),
        4 => (0..0x700_u64).prop_map(|offset| CODE + offset),
        1 => any::<u64>(),
        1 => 0..4_u64,
    ];
    prop::collection::vec(word, 64)
}

proptest! {
    /// Whatever lies on the stack, the walk ends within its bounds.
    #[test]
    fn any_stack_is_walked_to_an_end(stack in words(), registers in prop::array::uniform4(0..64_u64), pc in 0..0x700_u64) {
        let [a, b, c, d] = registers.map(|index| STACK + 8 * index);
        let x86 = orc_kernel(pc % 2 == 0).register("cs", 0x10).register("rip", CODE + pc).register("rsp", a);
        let arm = kernel(Guest::aarch64(), &[]).register("pstate", 5).register("pc", CODE + pc).register("sp", a);
        for machine in [
            x86.register("rbp", b + c % 2).words(STACK, &stack).machine(),
            arm.register("x29", b).register("x30", d).words(STACK, &stack).machine(),
        ] {
            let backtrace = backtrace(&machine);
            prop_assert!((1..=MAX_FRAMES).contains(&backtrace.frames.len()));
        }
    }

    /// Whatever a kernel says of its list of symbols, and whatever lies there, reading it ends.
    #[test]
    fn any_list_of_symbols_is_read_to_an_end(flips in prop::collection::vec((0..0x5_0000_u64, any::<u8>()), 1..8)) {
        let mut machine = kernel(Guest::aarch64(), &[]).machine();
        guest::change(&mut machine, flips.into_iter().map(|(place, byte)| (LIST + place, byte)));
        let _ = Unwinder::new(&machine, None);
    }
}
