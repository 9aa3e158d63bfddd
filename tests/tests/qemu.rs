//! Our notes, registers, page tables and segments against those of QEMU, on its own dumps of our own guests.
//!
//! Where QEMU is wrong, the difference is asserted, with its reason (`spec/arch-notes.md` section 9).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use vmcore::{
    Class, DumpOptions, Error, Gpa, Gva, Machine, Mapping, MappingList, Note, NoteScope, RegionKind,
    Severity, Vcpu,
};
use vmcore_tests::{dump, names, open, text, write};

fn open_dump(name: &str) -> Machine {
    open(dump(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// RAM of a machine, region by region.
fn memory(machine: &Machine) -> Vec<(u64, Vec<u8>)> {
    let ram = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    let read = |region: &vmcore::Region| {
        let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
        assert!(machine.memory.read_at(region.gpa, &mut bytes).unwrap().is_empty());
        (region.gpa.0, bytes)
    };
    ram.map(read).collect()
}

#[test]
fn converting_qemus_dumps_loses_nothing() {
    for name in names(".elf.gz") {
        let theirs = open_dump(&name);
        let bytes = write(&theirs, &DumpOptions::default()).unwrap();
        let ours = open(bytes.clone()).unwrap();
        assert!(memory(&ours) == memory(&theirs), "{name}");
        assert_eq!(ours.encode_notes(), theirs.encode_notes(), "{name}");
        // A mapping that crosses regions has become several; together they say the same.
        assert_eq!(merged(&ours.mappings), merged(&theirs.mappings), "{name}");
        assert_eq!(ours.identity.elf_machine, theirs.identity.elf_machine, "{name}");
        assert!(
            write(&ours, &DumpOptions::default()).unwrap() == bytes,
            "{name}: converting again changes nothing"
        );
        // What keeps makedumpfile from reading QEMU's dumps is gone, and nothing new is there.
        let texts = |machine: &Machine| {
            machine.findings.iter().map(|finding| finding.text.clone()).collect::<Vec<_>>()
        };
        assert!(texts(&theirs).iter().any(|text| text.starts_with("e_ehsize is 8")), "{name}");
        assert!(texts(&theirs).iter().any(|text| text.contains("makedumpfile does not find them")), "{name}");
        assert!(theirs.findings.iter().all(|finding| finding.severity == Severity::Note), "{name}");
        assert_eq!(texts(&ours), Vec::<String>::new(), "{name}");
    }
}

fn merged(mappings: &[Mapping]) -> Vec<Mapping> {
    let mut list = MappingList::default();
    mappings.iter().for_each(|mapping| list.add(*mapping).unwrap());
    list.into_sorted()
}

/// All notes of a dump as they stand in the file, found by the offsets of the gABI.
fn raw_notes(file: &[u8]) -> Vec<u8> {
    let word = |at: usize, len: usize| {
        file[at..at + len].iter().rev().fold(0_usize, |word, byte| word << 8 | usize::from(*byte))
    };
    let (phoff, offset, len) = if file[4] == 2 { (word(32, 8), 8, 8) } else { (word(28, 4), 4, 4) };
    let filesz = if file[4] == 2 { 32 } else { 16 };
    assert_eq!(word(phoff, 4), 4, "the first program header is PT_NOTE");
    let start = word(phoff + offset, len);
    file[start..start + word(phoff + filesz, len)].to_vec()
}

#[test]
fn notes_taken_over_from_qemu_stay_as_they_are() {
    for name in names(".elf.gz") {
        let theirs = dump(&name);
        let ours = write(&open(theirs.clone()).unwrap(), &DumpOptions::default()).unwrap();
        let (ours, mut theirs) = (raw_notes(&ours), raw_notes(&theirs));
        if name == "note-qemu7" {
            // QEMU copies the guest's own note with the guest's own padding, which this guest makes visible.
            let guest_note = theirs.windows(10).position(|bytes| bytes == b"VMCOREINFO").unwrap();
            assert_ne!(std::mem::take(&mut theirs[guest_note + 11]), 0);
            let padding = ours.len() - (guest_note + 12 + 0xed);
            theirs.truncate(ours.len() - padding);
            theirs.resize(ours.len(), 0);
        }
        let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!((ours.len(), first), (theirs.len(), None), "{name}");
    }
}

/// Notes made from nothing but the registers, against the ones that QEMU made.
#[test]
fn our_own_notes_are_qemus_but_for_its_defects() {
    for name in names(".elf.gz") {
        let machine = open_dump(&name);
        let arch = machine.arch.unwrap();
        for (index, vcpu) in machine.vcpus.iter().enumerate() {
            for theirs in vcpu.carried() {
                let table = arch.notes().iter().find(|table| table.matches(theirs)).unwrap();
                let mut ours =
                    table.encode(vcpu.registers(), index, machine.identity.endianness, arch.notes());
                let mut theirs = theirs.clone();
                forgive(&mut ours, &mut theirs, table.scope);
                assert_eq!(ours.desc, theirs.desc, "{name}, vCPU {index}, {}", table.name);
            }
        }
    }
}

/// Sets equal what differs for a known reason.
fn forgive(ours: &mut Note, theirs: &mut Note, scope: NoteScope) {
    if scope == NoteScope::Machine {
        // Of a segment's flags, QEMU writes the whole second word of the descriptor; under TCG that has pieces of base
        // and limit in it, under KVM it has not. We write the attributes. Of the descriptor tables, which are no
        // segments, only base and limit mean anything.
        for segment in 0..10 {
            let (selector, flags) = (152 + 24 * segment, 160 + 24 * segment);
            for (byte, mask) in theirs.desc[flags..flags + 4].iter_mut().zip(0x00f0_ff00_u32.to_le_bytes()) {
                *byte &= if segment < 8 { mask } else { 0 };
            }
            if segment >= 8 {
                theirs.desc[selector..selector + 4].fill(0);
            }
        }
        return;
    }
    // orig_rax is no register of a CPU. QEMU writes 0, the number of a system call; nobody was in one.
    let orig = if ours.desc.len() == 336 { 232..240 } else { 116..120 };
    let all_ones = vec![0xff; orig.len()];
    // Taken over from QEMU it is 0 here too; a vCPU that never heard of it says "none".
    assert!(theirs.desc[orig.clone()].iter().all(|byte| *byte == 0));
    assert!(ours.desc[orig.clone()] == theirs.desc[orig.clone()] || ours.desc[orig] == all_ones);
}

#[test]
fn registers_are_what_the_monitor_says() {
    for name in names(".registers.txt") {
        let machine = open_dump(&name);
        let text = text(&format!("{name}.registers.txt"));
        let cpus: Vec<&str> = text.split("CPU#").skip(1).collect();
        assert_eq!(cpus.len(), machine.vcpus.len(), "{name}");
        for (vcpu, text) in machine.vcpus.iter().zip(cpus) {
            let mut compared = 0;
            for (shown, registers) in [
                ("RAX", &["rax"][..]),
                ("RBX", &["rbx"]),
                ("RSP", &["rsp"]),
                ("R8 ", &["r8"]),
                ("R15", &["r15"]),
                ("RIP", &["rip"]),
                ("RFL", &["rflags"]),
                ("EAX", &["eax"]),
                ("ESP", &["esp"]),
                ("EIP", &["eip"]),
                ("EFL", &["eflags"]),
                ("CR0", &["cr0"]),
                ("CR2", &["cr2"]),
                ("CR3", &["cr3"]),
                ("CR4", &["cr4"]),
            ] {
                let Some((_, value)) = text.split_once(&format!("{shown}=")) else { continue };
                let value = u64::from_str_radix(value.split_whitespace().next().unwrap(), 16).unwrap();
                assert_eq!(vcpu.registers().value(registers[0]), Some(value), "{name} {shown}");
                compared += 1;
            }
            assert!(compared >= 8, "{name}: only {compared} registers were found in the text");
            compare_segments(&name, vcpu, text);
        }
    }
}

/// Lines such as `CS =0018 0000000000000000 ffffffff 00bf9b00 DPL=0 CS64`.
fn compare_segments(name: &str, vcpu: &Vcpu, text: &str) {
    for (shown, register) in [("CS ", "cs"), ("SS ", "ss"), ("GS ", "gs"), ("TR ", "tr")] {
        let (_, line) = text.split_once(&format!("\n{shown}=")).unwrap();
        let numbers: Vec<u64> =
            line.split_whitespace().take(4).map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        let selector = if register == "tr" { "tr_selector".to_owned() } else { register.to_owned() };
        let value = |what: &str| vcpu.registers().value(&format!("{register}_{what}")).unwrap();
        let ours = [vcpu.registers().value(&selector).unwrap(), value("base"), value("limit"), value("attr")];
        assert_eq!(
            ours[..],
            [numbers[0], numbers[1], numbers[2], numbers[3] & 0xf0_ff00],
            "{name} {register}"
        );
    }
}

#[test]
fn translations_are_those_of_qemus_mmu() {
    let mut count = 0;
    for name in names(".gva2gpa.tsv") {
        let machine = open_dump(&name);
        for line in text(&format!("{name}.gva2gpa.tsv")).lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            let (cpu, gva) = (cells[0].parse().unwrap(), Gva(hex(cells[1])));
            match (machine.translate(cpu, gva), cells[2]) {
                (Ok(ours), theirs) => {
                    assert_eq!(Some(ours.gpa), (theirs != "-").then(|| Gpa(hex(theirs))), "{name} {line}")
                }
                (Err(Error::NotMapped { .. } | Error::NotCanonical { .. }), "-") => {}
                (Err(error), _) => panic!("{name} {line}: {error}"),
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count} addresses were compared");
}

/// QEMU's own list of all leaves, `info tlb`.
#[test]
fn the_list_of_mappings_is_that_of_qemus_walk() {
    for name in names(".tlb.txt") {
        let machine = open_dump(&name);
        let mappings = machine.page_table_mappings().unwrap();
        let text = text(&format!("{name}.tlb.txt"));
        let mut count = 0;
        for line in text.lines().filter(|line| !line.starts_with("CPU#")) {
            let Some((gva, rest)) = line.split_once(": ") else { continue };
            let hex = |text: &str| u64::from_str_radix(text, 16);
            let (Ok(gva), Ok(gpa)) = (hex(gva), hex(rest.split_whitespace().next().unwrap())) else {
                continue;
            };
            // `qemu-system-i386` prints the no-execute bit as a part of the address.
            let gpa = gpa & 0x7fff_ffff_ffff_ffff;
            if name.starts_with("pse32") && gva == 0xc800_0000 {
                // `info tlb` drops the bits of a PSE-36 entry above 4 GiB; `gva2gpa`, compared above, does not.
                assert!(holds(&mappings, gva, 0x5a_0040_0000), "{name}");
                continue;
            }
            assert!(holds(&mappings, gva, gpa), "{name} {line}: {mappings:x?}");
            count += 1;
        }
        assert!(count > 0 || mappings.is_empty(), "{name}");
    }
}

fn holds(mappings: &[Mapping], gva: u64, gpa: u64) -> bool {
    mappings.iter().any(|m| gva.checked_sub(m.gva.0).is_some_and(|at| at < m.len && m.gpa.0 + at == gpa))
}

/// `--paging` against QEMU's: what it lists, we list; what it lists wrongly, we list right.
#[test]
fn paging_dumps_are_qemus_but_for_its_defects() {
    for name in names("-paging.elf.gz") {
        let theirs = open_dump(&format!("{name}-paging"));
        let machine = open_dump(&name);
        let ours =
            open(write(&machine, &DumpOptions { paging: true, ..DumpOptions::default() }).unwrap()).unwrap();
        if machine.vcpus.iter().all(|vcpu| vcpu.registers().value("cr0").unwrap() >> 31 == 0) {
            assert_eq!((ours.mappings.len(), theirs.mappings.len()), (0, 0), "{name}: no vCPU has paging on");
            continue;
        }
        let bits = if name.starts_with("long5") { 57 } else { 48 };
        let mut wrong = BTreeMap::new();
        for mapping in &theirs.mappings {
            for at in (0..mapping.len).step_by(0x1000) {
                let (gva, gpa) = (mapping.gva.0 + at, mapping.gpa.0 + at);
                // Only memory that is there can be listed; QEMU lists large pages as a whole.
                let is_ram = machine.memory.regions().iter().any(|region| region.contains(Gpa(gpa)));
                if !is_ram || holds(&ours.mappings, gva, gpa) {
                    continue;
                }
                wrong.insert(gva, gpa);
            }
        }
        for (gva, gpa) in wrong {
            // Defect 1: the sign bits of the kernel's half on addresses of the user's half.
            let user_half = gva & ((1 << (bits - 1)) - 1);
            let is_sign = gva >> (bits - 1) & 1 == 0 && holds(&ours.mappings, user_half, gpa);
            // Defect 2: a mapping whose earlier part came later lost its physical start.
            let is_shifted = name.starts_with("smp") && (gpa & !0x1fff) == 0x20_2000 & !0x1fff;
            assert!(is_sign || is_shifted, "{name}: QEMU maps {gva:#x} to {gpa:#x}");
        }
        // Nothing of RAM is out of reach, mapped or not.
        assert!(memory(&ours) == memory_merged(&machine), "{name}");
    }
}

/// Memory with adjacent regions as one: a dump with virtual addresses does not keep them apart.
fn memory_merged(machine: &Machine) -> Vec<(u64, Vec<u8>)> {
    let mut merged: Vec<(u64, Vec<u8>)> = Vec::new();
    for (gpa, bytes) in memory(machine) {
        match merged.last_mut() {
            Some((start, block)) if *start + block.len() as u64 == gpa => block.extend(bytes),
            _ => merged.push((gpa, bytes)),
        }
    }
    merged
}

#[test]
fn the_defects_of_paging_dumps_are_not_ours() {
    let ours = |name: &str| open_dump(name).page_table_mappings().unwrap();
    let long4 = ours("long4-qemu7");
    assert!(holds(&long4, 0x40_0000, 0x10_7000), "addresses of the user's half stay there");
    assert!(
        holds(&long4, 0xffff_ffff_8020_0000, 0x20_0000),
        "a leaf with software bits above bit 51 is mapped"
    );
    let smp = ours("smp-qemu7");
    assert!(
        holds(&smp, 0x40_1000, 0x20_1000) && holds(&smp, 0x40_2000, 0x20_2000),
        "the physical start moves too"
    );
    // A page of 1 GiB over 4 MiB of RAM: QEMU stores its first 768 KiB, we give each region its own segment.
    let machine = open_dump("long4-qemu7");
    let paged =
        open(write(&machine, &DumpOptions { paging: true, ..DumpOptions::default() }).unwrap()).unwrap();
    for region in machine.memory.regions() {
        assert!(holds(&paged.mappings, 0xffff_8880_0000_0000 + region.gpa.0, region.gpa.0), "{region:?}");
    }
}

#[test]
fn ranges_clip_as_qemus_do() {
    for (clipped, whole, begin, len) in [
        ("long4-qemu7-inside", "long4-qemu7", 0x17_e123, 0x6a1),
        ("long4-qemu7-across", "long4-qemu7", 0xe_fedd, 0x1_0246),
        ("long4-q35-qemu7-across", "long4-q35-qemu7", 0xe_fedd, 0x1_0246),
    ] {
        let range = Some(vmcore::RangeFilter { begin: Gpa(begin), len });
        let ours = write(&open_dump(whole), &DumpOptions { range, ..DumpOptions::default() }).unwrap();
        let (ours, theirs) = (open(ours).unwrap(), open_dump(clipped));
        assert!(memory(&ours) == memory(&theirs), "{clipped}");
        assert_eq!(ours.memory.regions(), theirs.memory.regions(), "{clipped}");
    }
}

#[test]
fn the_class_follows_the_addresses_not_the_end_of_the_bios() {
    let class =
        |name: &str| open(write(&open_dump(name), &DumpOptions::default()).unwrap()).unwrap().identity.class;
    // QEMU writes ELFCLASS64 for every PC, because the ROM *ends* at 4 GiB.
    assert_eq!(open_dump("flat32-qemu7").identity.class, Class::Elf64);
    assert_eq!(class("flat32-qemu7"), Class::Elf32);
    assert_eq!(class("pae32-i386-qemu7"), Class::Elf32);
    assert_eq!(class("pse32-split-qemu7"), Class::Elf64, "there is memory above 4 GiB");
    assert_eq!(class("long4-qemu7"), Class::Elf64);
}

#[test]
fn the_guests_note_comes_along() {
    let machine = open_dump("note-qemu7");
    let info = machine.vmcoreinfo().unwrap();
    assert!(info.release().is_some() && info.page_size() == Some(0x1000));
    let notes = machine.encode_notes();
    assert!(notes.last().unwrap().is_vmcoreinfo());
}
