use super::*;
use crate::{Engine, buffer_len};
use vmcore_arch_s390x as _;
use vmcore_arch_x86_64 as _;
use vmcore_core::{Finding, Region, Run as MemoryRun, RunState, Unreadable};

const TEXT: u64 = 0xffff_ffff_8100_0000;
/// The stack of the first vCPU: one page, with nothing around it.
const STACK: u64 = 0xffff_c900_0000_4000;
const STACK_GPA: u64 = 0x80_0000;
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
const FIRST: ThreadId = ThreadId::of_vcpu(0);

fn demo() -> Machine {
    vmcore_synth::demo::machine("x86_64").expect("the demo guest")
}

fn target(is_writable: bool) -> MachineTarget {
    let options = MachineOptions { is_writable, ..MachineOptions::default() };
    MachineTarget::new(demo(), &options).expect("a target")
}

fn find(target: &MachineTarget, name: &str) -> Option<u32> {
    let description = target.description(0, "target.xml").expect("a description");
    let description = std::str::from_utf8(description).expect("text");
    let mut names = description.split("<reg name=\"").skip(1);
    let place = names.position(|rest| rest.split('"').next() == Some(name))?;
    u32::try_from(place).ok()
}

fn number(target: &MachineTarget, name: &str) -> u32 {
    find(target, name).expect("a register")
}

fn register(target: &mut MachineTarget, name: &str) -> (Presence, Vec<u8>) {
    let number = number(target, name);
    let mut value = vec![0xee; target.register_len(FIRST, number).expect("a length")];
    let presence = target.read_register(FIRST, number, &mut value).expect("a register");
    (presence, value)
}

#[test]
fn registers_are_as_gdb_wants_them_in_the_order_of_the_guest() {
    let mut target = target(false);
    assert_eq!(register(&mut target, "rip"), (Presence::Known, (TEXT + 0x1234).to_le_bytes().to_vec()));
    assert_eq!(register(&mut target, "cs"), (Presence::Known, vec![0x10, 0, 0, 0]), "16 bits in gdb's 32");
    assert_eq!(register(&mut target, "st0").0, Presence::Unknown, "gdb insists on it");
    assert_eq!(find(&target, "xmm0"), None, "and not on this one");
    assert_eq!(target.expedited(FIRST), [number(&target, "rip"), number(&target, "rsp")]);

    let guest = vmcore_synth::guest("s390x").expect("linked in").ram(0..0x1000);
    let guest = guest.vcpu(|registers| assert!(registers.set_value("pswa", 0x1122)));
    let mut target =
        MachineTarget::new(guest.build().expect("a machine"), &MachineOptions::default()).expect("a target");
    assert_eq!(register(&mut target, "pswa"), (Presence::Known, 0x1122_u64.to_be_bytes().to_vec()));
}

#[test]
fn memory_is_that_of_the_page_tables_and_ends_where_they_end() {
    let mut target = target(false);
    let mut text = [0; 5];
    assert_eq!(target.read_memory(FIRST, TEXT, &mut text), Ok(5));
    assert_eq!(&text, b"Hello");
    let mut page = [0xee; 0x40];
    assert_eq!(target.read_memory(FIRST, STACK + 0xfe0, &mut page), Ok(0x20), "behind it is a guard page");
    assert_eq!(page[..8], (STACK + 0xff0).to_le_bytes());
    assert_eq!(target.read_memory(FIRST, STACK + 0x1000, &mut page), Err(Error::FAULT));
    assert_eq!(target.read_memory(FIRST, u64::MAX, &mut page), Err(Error::FAULT));
    // Pages of 2 MiB that follow each other, as one piece.
    let mut both = vec![0; 0x40_0000];
    assert_eq!(target.read_memory(FIRST, DIRECT_MAP + 0x10_0000, &mut both), Ok(both.len()));
    let mut expected = vec![0; both.len()];
    target.machine().memory.read_at(Gpa(0x10_0000), &mut expected).expect("memory");
    assert_eq!(both, expected);
    let memory = target.physical_memory().expect("physical memory");
    assert_eq!(memory.read(STACK_GPA + 0xfe0, &mut page), Ok(0x40), "which has no guard pages");
    assert_eq!(memory.read(0xa_0000 - 8, &mut page), Ok(8), "the hole of VGA");
    assert_eq!(memory.read(0xa_0000, &mut page), Err(Error::FAULT));
    assert_eq!(memory.read(u64::MAX, &mut page), Err(Error::FAULT));
}

/// Memory of which a page was left out.
struct Filtered(Arc<dyn PhysMemory>);

impl PhysMemory for Filtered {
    fn regions(&self) -> &[Region] {
        self.0.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, vmcore_core::Error> {
        let mut unreadable = self.0.read_at(gpa, buf)?;
        let (from, to) = (gpa.0.max(STACK_GPA), (gpa.0 + buf.len() as u64).min(STACK_GPA + 0x1000));
        unreadable.add(Gpa(from), to.saturating_sub(from));
        Ok(unreadable)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> MemoryRun {
        let is_left_out = (STACK_GPA..STACK_GPA + 0x1000).contains(&gpa.0);
        MemoryRun { len: max.min(8), state: if is_left_out { RunState::Excluded } else { RunState::Data } }
    }

    fn fault_at(&self, _: Gpa) -> Option<Finding> {
        None
    }
}

#[test]
fn what_was_left_out_is_an_error_and_no_zeros() {
    let mut machine = demo();
    machine.memory = Arc::new(Filtered(machine.memory));
    for is_writable in [false, true] {
        let options = MachineOptions { is_writable, ..MachineOptions::default() };
        let mut target = MachineTarget::new(machine.clone(), &options).expect("a target");
        let mut word = [0xee; 8];
        assert_eq!(target.read_memory(FIRST, STACK, &mut word), Err(Error::FAULT));
        assert_eq!(target.read_memory(FIRST, DIRECT_MAP + STACK_GPA - 4, &mut word), Ok(4));
        assert!(target.write_memory(FIRST, STACK, &word).is_err(), "the rest of the page is not known");
        let mut said = String::new();
        target.command(FIRST, &format!("translate {STACK:#x}"), &mut said).expect("a command");
        assert!(said.contains("left out of the dump"), "{said}");
    }
}

#[test]
fn nothing_is_written_unless_it_may_be() {
    let mut target = target(false);
    let rax = number(&target, "rax");
    assert_eq!(target.write_register(FIRST, rax, &[0; 8]), Err(READ_ONLY));
    assert_eq!(target.write_memory(FIRST, TEXT, b"J"), Err(READ_ONLY));
    assert_eq!(target.physical_memory().expect("physical memory").write(0x1000, b"J"), Err(READ_ONLY));
}

#[test]
fn what_is_written_is_of_this_target_alone() {
    let machine = demo();
    let options = MachineOptions { is_writable: true, ..MachineOptions::default() };
    let mut target = MachineTarget::new(machine.clone(), &options).expect("a target");
    let before = machine.vcpus[0].registers().value("rax");
    let rax = number(&target, "rax");
    assert_eq!(target.write_register(FIRST, rax, &7_u64.to_le_bytes()), Ok(()));
    assert_eq!(register(&mut target, "rax"), (Presence::Known, 7_u64.to_le_bytes().to_vec()));
    // Over the border of two blocks.
    let across = DIRECT_MAP + 0x30_1ffc;
    assert_eq!(target.write_memory(FIRST, across, b"12345678"), Ok(()));
    let mut word = [0; 10];
    assert_eq!(target.read_memory(FIRST, across - 1, &mut word), Ok(10));
    assert_eq!(&word[1..9], b"12345678");
    let mut below = [0; 8];
    machine.memory.read_at(Gpa(0x30_1ffc), &mut below).expect("memory");
    assert_ne!(&below, b"12345678");
    assert_eq!(machine.vcpus[0].registers().value("rax"), before);
    // All or nothing: the second half is the guard page.
    assert_eq!(target.write_memory(FIRST, STACK + 0xffc, b"12345678"), Err(Error::FAULT));
    let mut end = [0; 4];
    assert_eq!(target.read_memory(FIRST, STACK + 0xffc, &mut end), Ok(4));
    assert_ne!(&end, b"1234");
    // Page tables count as they are written: the stack's page table entry goes.
    let mut said = String::new();
    target.command(FIRST, &format!("translate {STACK:#x}"), &mut said).expect("a command");
    assert!(said.contains("0x800000"), "{said}");
    let cr3 = number(&target, "cr3");
    assert_eq!(target.write_register(FIRST, cr3, &0x1000_u64.to_le_bytes()), Ok(()));
    assert!(target.read_memory(FIRST, TEXT, &mut end).is_err(), "there are no page tables there");
    let mut said = String::new();
    target.command(FIRST, &format!("translate {TEXT:#x}"), &mut said).expect("a command");
    assert!(said.contains("is not mapped"), "commands go by what was written, too: {said}");
}

/// A machine whose vCPU does not say where its page tables are.
fn without_page_tables() -> Machine {
    let demo = demo();
    let arch = demo.arch.expect("linked in");
    let mut registers = RegisterFile::new(arch.registers());
    assert!(registers.set_value("rip", TEXT));
    let mut machine = Machine::new(arch, Arc::clone(&demo.memory), vec![registers]);
    machine.guest_note.clone_from(&demo.guest_note);
    machine.notes.clone_from(&demo.notes);
    machine
}

#[test]
fn the_kernel_is_asked_where_registers_do_not_lead_to_page_tables() {
    for is_writable in [false, true] {
        let options = MachineOptions { is_writable, ..MachineOptions::default() };
        let mut target = MachineTarget::new(without_page_tables(), &options).expect("a target");
        let mut text = [0; 5];
        assert_eq!(target.read_memory(FIRST, TEXT, &mut text), Ok(5), "writable: {is_writable}");
        assert_eq!(&text, b"Hello");
    }
}

#[test]
fn what_the_guest_says_of_itself_is_no_command_to_a_client() {
    for (release, expected) in [
        ("6.1.0-50-cloud-amd64", Some("6.1.0")),
        ("6.12.", Some("6.12")),
        ("6$#00;endian:big", Some("6")),
        ("#", None),
    ] {
        assert_eq!(version(release).as_deref(), expected);
    }
    let hostile = Command {
        usage: "say",
        help: "what the guest says",
        run: Arc::new(|_, _, _, out| out.write_str("a\tb\x1b[2J\u{9b}\r\nü\n")),
    };
    let mut said = String::new();
    target(false).with_commands(&[hostile]).command(FIRST, "say", &mut said).expect("a command");
    assert_eq!(said, "a\tb\\u{1b}[2J\\u{9b}\\r\nü\n");
}

#[test]
fn areas_are_those_of_the_page_tables() {
    let mut target = target(false);
    let regions = target.memory_regions().expect("regions");
    let area = regions.area(FIRST, STACK + 8).expect("an area");
    assert_eq!((area.start, area.last), (STACK, STACK + 0xfff));
    assert_eq!(area.permissions, Some([true; 3]));
    // The pages of the direct map that follow each other are one.
    let area = regions.area(FIRST, DIRECT_MAP + 0x1234).expect("an area");
    assert_eq!((area.start, area.last), (DIRECT_MAP + 0x1000, DIRECT_MAP + 0x1ff_ffff));
    let hole = regions.area(FIRST, STACK - 1).expect("an area");
    assert_eq!((hole.last, hole.permissions), (STACK - 1, None));
}

#[test]
fn areas_end_where_other_things_are_permitted() {
    let options = MachineOptions { is_writable: true, ..MachineOptions::default() };
    let mut target = MachineTarget::new(demo(), &options).expect("a target");
    // The entry of the second 2 MiB of the direct map: not to be written to, nor executed.
    let tables = 0x10_0000;
    let entry = (0..0x10_0000_u64).step_by(8).map(|at| tables + at).find(|at| {
        let mut bytes = [0; 8];
        target.machine().memory.read_at(Gpa(*at), &mut bytes).expect("memory");
        u64::from_le_bytes(bytes) == 0x20_0083
    });
    let entry = entry.expect("a page of 2 MiB");
    let memory = target.physical_memory().expect("physical memory");
    memory.write(entry, &(1_u64 << 63 | 0x20_0081).to_le_bytes()).expect("a write");
    let regions = target.memory_regions().expect("regions");
    let mut area = |gva| regions.area(FIRST, gva).expect("an area");
    let [first, second, third] = [0, 0x20_0000, 0x40_0000].map(|offset| area(DIRECT_MAP + offset));
    assert_eq!((first.last, first.permissions), (DIRECT_MAP + 0x1f_ffff, Some([true; 3])));
    assert_eq!((second.last, second.permissions), (DIRECT_MAP + 0x3f_ffff, Some([true, false, false])));
    assert_eq!((third.start, third.permissions), (DIRECT_MAP + 0x40_0000, Some([true; 3])));
}

#[test]
fn a_crashed_vcpu_comes_first() {
    let options = MachineOptions { stop: (1, CRASHED), ..MachineOptions::default() };
    let target = MachineTarget::new(demo(), &options).expect("a target");
    assert_eq!(target.stop().thread, ThreadId::of_vcpu(1));
    let info = |index| {
        let mut text = String::new();
        target.thread_info(ThreadId::of_vcpu(index), &mut text).expect("a text");
        text
    };
    assert_eq!([info(0), info(1)], ["CPU#0", "CPU#1 [crashed]"]);
}

#[test]
fn a_machine_without_vcpus_is_a_thread_without_registers_in_the_kernel() {
    let mut machine = demo();
    machine.vcpus.clear();
    let options = MachineOptions { is_writable: true, ..MachineOptions::default() };
    let mut target = MachineTarget::new(machine.clone(), &options).expect("a target");
    assert_eq!((target.thread(0), target.thread(1)), (Some(FIRST), None));
    assert_eq!(target.stop().thread, FIRST);
    assert_eq!(register(&mut target, "rip"), (Presence::Known, vec![0; 8]), "gdb does not connect without");
    assert_eq!(register(&mut target, "rsp").0, Presence::Unknown);
    let mut text = [0; 5];
    assert_eq!(target.read_memory(FIRST, TEXT, &mut text), Ok(5));
    assert_eq!(&text, b"Hello");
    assert!(target.read_memory(FIRST, 0x1000, &mut text).is_err(), "no program is known");
    assert_eq!(target.physical_memory().expect("physical memory").read(STACK_GPA, &mut text), Ok(5));
    let mut said = String::new();
    target.command(FIRST, &format!("translate {TEXT:#x}"), &mut said).expect("a command");
    assert!(said.contains("lies at 0x1000000,"), "{said}");

    machine.guest_note = None;
    let mut target = MachineTarget::new(machine.clone(), &options).expect("a target");
    let error = target.read_memory(FIRST, TEXT, &mut text).expect_err("nobody knows of page tables");
    assert!(error.text.contains("VMCOREINFO"), "{error:?}");
    assert_eq!(target.physical_memory().expect("physical memory").read(STACK_GPA, &mut text), Ok(5));

    machine.arch = None;
    let error = MachineTarget::new(machine, &options).expect_err("nobody knows what a register is");
    assert!(matches!(error, vmcore_core::Error::UnknownArch { elf_machine: 62, .. }), "{error}");
}

#[test]
fn commands_are_found_by_their_beginning() {
    let echo = Command {
        usage: "trumpet WORDS",
        help: "says them",
        run: Arc::new(|_, vcpu, words, out| writeln!(out, "{vcpu}: {words}")),
    };
    let mut target = target(false).with_commands(&[echo]);
    let mut run = |command: &str| {
        let mut said = String::new();
        target.command(ThreadId::of_vcpu(1), command, &mut said).map(|()| said)
    };
    assert_eq!(run("trumpet  of the  elephant "), Ok("1: of the  elephant\n".to_owned()));
    assert_eq!(run("tru x"), Ok("1: x\n".to_owned()));
    assert!(run("tr x").is_err(), "translate begins so, too");
    assert!(run("reboot").is_err());
    let help = run("").expect("help");
    assert_eq!(run("help"), Ok(help.clone()));
    for command in ["translate ADDR", "trumpet WORDS", "vmcoreinfo", "help"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(run("vmcoreinfo").expect("a note").contains("OSRELEASE=6.1.0-demo\n"));
    assert!(run("translate here").expect("usage").starts_with("usage: "));
}

/// The whole way: bytes of a client, bytes for it.
#[test]
fn a_client_sees_the_machine() {
    let mut engine = Engine::new(vec![0; buffer_len(0x1000)]);
    let mut target = target(false);
    let mut ask = |body: &str| {
        let sum = body.bytes().fold(0, u8::wrapping_add);
        let packet = format!("${body}#{sum:02x}");
        let mut replies = Vec::new();
        let mut rest = packet.as_bytes();
        while !rest.is_empty() {
            rest = engine.receive(rest, &mut target, &mut |reply| replies.extend_from_slice(reply));
        }
        String::from_utf8(replies).expect("text")
    };
    assert!(ask("?").contains("T05thread:01;"));
    assert!(ask("mffffffff81000000,5").contains("48656c6c6f"));
    assert!(ask("mffffc90000005000,8").contains("E14"));
    assert!(ask("Mffffffff81000000,1:00").contains("E01"));
    assert!(ask("qXfer:features:read:target.xml:0,800").contains("i386:x86-64"));
    assert!(ask("qOffsets").contains("$#00"), "nobody has told where the kernel's file begins");
}
