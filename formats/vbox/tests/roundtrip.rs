//! Reading is the inverse of writing, and no input is dangerous.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{core_of, descriptor, forms, memory_of, note, open, options, write};
use proptest::prelude::*;
use vmcore_arch_x86_64 as _;
use vmcore_core::{DumpOptions, Format, Gpa, Gva, Machine, Note, RangeFilter, RunState};
use vmcore_format_vbox::Vbox;
use vmcore_synth::strategy::machines;

fn form() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(forms())
}

/// Its memory, its registers and its notes: what is known of `machine` is in `back`.
fn same(back: &Machine, machine: &Machine) -> Result<(), TestCaseError> {
    prop_assert!(memory_of(back) == memory_of(machine));
    prop_assert_eq!(back.memory.regions(), machine.memory.regions());
    prop_assert_eq!(back.identity.elf_machine, machine.identity.elf_machine);
    prop_assert_eq!(back.vcpus.len(), machine.vcpus.len());
    Ok(())
}

proptest! {
    #[test]
    fn a_core_of_any_form_gives_back_the_machine(machine in machines(), form in form()) {
        let bytes = write(&machine, &options(form))?;
        prop_assert!(Vbox.probe(&bytes[..bytes.len().min(4096)]));
        let back = open(&bytes)?;
        same(&back, &machine)?;
        prop_assert!(back.findings.is_empty(), "{:?}", back.findings);
        // The notes of other cores hold all that is known. Those of VirtualBox are carried where they are not of today.
        let (ours, others): (Vec<Note>, _) = back.encode_notes().into_iter().partition(is_vbox);
        prop_assert_eq!(others, machine.encode_notes());
        let is_carried = form.is_some_and(|form| form != "vbox-7.0");
        prop_assert_eq!(ours.len(), if is_carried { 1 + machine.vcpus.len() } else { 0 });
        // Zeros for registers that are not known may become known zeros; then nothing changes any more.
        let again = write(&back, &DumpOptions::default())?;
        prop_assert_eq!(again.len(), bytes.len());
        prop_assert!(write(&open(&again)?, &DumpOptions::default())? == again, "written again, it is another");
    }

    /// Without the notes of other cores, as VirtualBox writes them, all that the record has room for comes back.
    #[test]
    fn a_record_gives_back_the_registers(machine in machines(), form in form()) {
        let bytes = write(&machine, &options(form))?;
        let bytes = bare(&bytes, machine.vcpus.len());
        let back = open(&bytes)?;
        prop_assert_eq!(back.vcpus.len(), machine.vcpus.len());
        // Whether the guest is in long mode is told by EFER alone.
        let is_same_table = back.arch.map(|arch| arch.name()) == machine.arch.map(|arch| arch.name());
        for (back, vcpu) in back.vcpus.iter().zip(&machine.vcpus).filter(|_| is_same_table) {
            for name in ["rax", "r15", "rip", "cs", "ss_limit", "gs_base", "cr3", "dr7", "idt_base", "ldt_selector", "tr_base", "kernel_gs_base", "eax", "eip", "esp"] {
                let Some(value) = vcpu.registers().value(name) else { continue };
                let is_short = name == "ss_limit" && vcpu.registers().value("ss").is_none();
                prop_assert!(is_short || back.registers().value(name) == Some(value), "{}", name);
            }
        }
        // And goes through the notes of other cores without loss.
        let again = write(&back, &DumpOptions::default())?;
        prop_assert!(bare(&again, machine.vcpus.len())[120..] == bytes[120..]);
    }

    #[test]
    fn a_range_is_clipped(machine in machines(), begin in 0..0x8000_u64, len in 1..0x8000_u64) {
        let range = Some(RangeFilter { begin: Gpa(begin), len });
        let Ok(bytes) = write(&machine, &DumpOptions { range, ..DumpOptions::default() }) else { return Ok(()) };
        for (gpa, bytes) in memory_of(&open(&bytes)?) {
            let mut expected = vec![0; bytes.len()];
            prop_assert!(gpa >= begin && gpa + bytes.len() as u64 <= begin + len);
            prop_assert!(machine.memory.read_at(Gpa(gpa), &mut expected)?.is_empty());
            prop_assert!(bytes == expected);
        }
    }

    #[test]
    fn a_mutated_core_never_panics(
        machine in machines(),
        form in form(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = write(&machine, &options(form))?;
        // Mostly in what is not memory.
        let head = bytes.len().min(64 + 56 * 8 + 12_000);
        for (index, value) in flips {
            bytes[index.index(head)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        use_it(&bytes);
    }

    /// Whole fields of the headers and the first notes replaced by values that hurt.
    #[test]
    fn hostile_fields(
        machine in machines(),
        form in form(),
        field in 0..400usize,
        width in prop::sample::select(vec![2usize, 4, 8]),
        value in prop::sample::select(vec![0u64, 1, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX, u64::MAX - 0xfff, 0xffff_ffff, 0xffff]),
    ) {
        let mut bytes = write(&machine, &options(form))?;
        let at = (field * 2).min(bytes.len() - 8);
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        use_it(&bytes);
    }

    #[test]
    fn any_record_is_written_again_as_it_was(
        record in prop::sample::select(vec![1024_usize, 1088, 8736, 8744, 8752, 8768, 8776, 8784]),
        head in prop::collection::vec(any::<u8>(), 1500),
        ext_len in prop::sample::select(vec![0_u32, 512, 576, 832, 1088, 2440, 2688, 2696, 8192, u32::MAX]),
        version in prop::sample::select(vec![0x0402_0000_u32, 0x0403_0000]),
    ) {
        let mut desc = head.repeat(6);
        desc.truncate(record);
        for at in [544, 568, 576].into_iter().filter(|_| record > 2000) {
            desc[at..at + 4].copy_from_slice(&ext_len.to_le_bytes());
        }
        let notes = [note(b"VBCORE", 0xb00, &descriptor(0x1_0000, version, 1)), note(b"VBCPU", 0xb01, &desc)].concat();
        let machine = open(&core_of(62, &notes, &[]))?;
        let again = write(&machine, &DumpOptions::default())?;
        prop_assert!(again[120..120 + notes.len()] == notes);
        let once_more = write(&open(&again)?, &DumpOptions::default())?;
        prop_assert!(once_more == again);
    }
}

fn is_vbox(note: &Note) -> bool {
    [&b"VBCORE"[..], b"VBCPU", b"VBOXCORE", b"VBOXCPU"].contains(&note.owner())
}

/// A core with VirtualBox's own notes alone, and without memory.
fn bare(core: &[u8], vcpus: usize) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(core[at..at + 4].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(core[56..58].try_into().unwrap()));
    let start = 64 + 56 * count;
    let mut end = start;
    for _ in 0..=vcpus {
        end += 12 + word(end).next_multiple_of(4) + word(end + 4);
    }
    core_of(u16::from_le_bytes([core[18], core[19]]), &core[start..end], &[])
}

/// Does with a core what the command does with it.
fn use_it(bytes: &[u8]) {
    let _ = Vbox.probe(&bytes[..bytes.len().min(4096)]);
    let Ok(machine) = open(bytes) else { return };
    let mut buf = [0; 64];
    for region in machine.memory.regions().iter().take(20) {
        let _ = machine.memory.read_at(region.gpa, &mut buf);
        let _ = machine.memory.run_at(region.gpa, 0x1000);
    }
    for (index, _) in machine.vcpus.iter().enumerate() {
        let _ = machine.read_virtual(index, Gva(0xffff_ffff_8100_0000), &mut buf);
    }
    let _ = (machine.encode_notes(), machine.vmcoreinfo(), machine.dump_info());
    for form in forms() {
        let _ = Vbox.plan(&machine, &options(form));
    }
}

#[test]
fn a_truncated_core_is_opened_as_far_as_it_goes() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let good = write(&machine, &DumpOptions::default()).unwrap();
    let back = open(&good[..good.len() - 0x2345]).unwrap();
    let end = machine.memory.regions()[1].end().0;
    let mut bytes = [0xff; 0x3000];
    let unreadable = back.memory.read_at(Gpa(end - 0x3000), &mut bytes).unwrap();
    assert_eq!(unreadable.ranges(), [end - 0x2345..end]);
    assert_eq!(back.memory.run_at(Gpa(end - 0x2345), 0x10).state, RunState::Missing);
    assert!(
        back.findings[0].text.starts_with("the dump is cut off: memory from 0x1ffdcbb on"),
        "{:?}",
        back.findings
    );
    // Within the second record: the first vCPU is left.
    let back = open(&good[..64 + 56 * 3 + 44 + 8804 + 100]).unwrap();
    assert_eq!((back.vcpus.len(), back.memory.regions().len()), (1, 2));
    assert_eq!(back.vcpus[0].registers().value("rip"), machine.vcpus[0].registers().value("rip"));
    let texts: Vec<&str> = back.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert!(texts.contains(&"the core is to have 2 vCPUs, it has the registers of 1"), "{texts:?}");
    // Within the headers: an error that says where.
    let error = open(&good[..100]).unwrap_err().to_string();
    assert_eq!(error, "program headers at offset 0x40: 168 bytes are needed, 36 are left");
}

#[test]
fn what_is_no_core_of_virtualbox_is_refused() {
    let check = |bytes: &[u8], expected: &str| {
        let error = open(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        bytes.to_vec()
    };
    let mut wrong = descriptor(0x1_0006, 0, 0);
    wrong[0] ^= 1;
    check(
        &core_of(62, &note(b"VBCORE", 0xb00, &wrong), &[]),
        "the magic of VirtualBox's core descriptor at offset 0x8c is 0xc01ac0df, expected 0xc01ac0de",
    );
    let plain = check(&core_of(62, &note(b"CORE\0", 1, &[0; 336]), &[]), "without VirtualBox's notes");
    assert!(!Vbox.probe(&plain));
    check(b"\x7fELF\x01\x01\x01", "ELF header");
    check(&[0; 64], "ELF identification");
}

#[test]
fn more_program_headers_than_the_head_has_room_for() {
    for count in [60_u64, 100, 0xfffd] {
        let mut guest = vmcore_synth::guest("x86_64").unwrap().vcpu(vmcore_synth::spell_names);
        for index in 0..count {
            guest = guest.ram(index * 0x20..index * 0x20 + 0x10);
        }
        let machine = guest.build().unwrap();
        let bytes = write(&machine, &DumpOptions::default()).unwrap();
        assert!(Vbox.probe(&bytes[..4096]), "{count} ranges");
        let back = open(&bytes).unwrap();
        assert_eq!((back.memory.regions().len() as u64, back.vcpus.len()), (count, 1));
        // The headers of other cores tell: they have no access rights, or virtual addresses.
        for (at, value) in [(64 + 56 + 4, 0), (64 + 112 + 16, 1), (64 + 56 + 48, 1)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(Vbox.probe(&other[..4096]), count == 60, "{count} ranges");
        }
    }
    let mut guest = vmcore_synth::guest("x86_64").unwrap();
    for index in 0..0xfffe {
        guest = guest.ram(index * 0x20..index * 0x20 + 0x10);
    }
    let error = Vbox.plan(&guest.build().unwrap(), &DumpOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "ranges of memory in a VirtualBox core: 65534 is more than 65533");
}

#[test]
fn a_number_of_65535_headers_means_just_that() {
    let ranges: Vec<(u64, u64, &[u8])> = (0..0xfffe).map(|index| (index * 0x1000, 0x1000, &[][..])).collect();
    let notes = note(b"VBCORE", 0xb00, &descriptor(0x1_0006, 0, 0));
    let bytes = core_of(62, &notes, &ranges);
    assert_eq!(bytes[56..58], [0xff, 0xff]);
    assert_eq!(open(&bytes).unwrap().memory.regions().len(), 0xfffe);
}
