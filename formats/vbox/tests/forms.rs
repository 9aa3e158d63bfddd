//! Each form of the CPU record, written out by the offsets of the specification (`spec/vbox-core.md` section 3).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{core_of, descriptor, memory_of, note, open, options, write};
use vmcore_arch_x86_64 as _;
use vmcore_core::{Format, Gpa, Machine, RegionKind, Severity};
use vmcore_format_vbox::Vbox;

const V7: u32 = 7 << 24 | 10;
const RAM: &[u8] = &[0x5a; 0x2000];

/// Names of registers of 8 bytes, one after the other from an offset on.
type Run = (usize, &'static [&'static str]);

const CORE_GENERAL: Run = (
    0,
    &[
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "rip", "rsp", "rbp",
    ],
);
const DEBUG: &[&str] = &["dr0", "dr1", "dr2", "dr3", "", "", "dr6", "dr7"];
const CONTROL: &[&str] = &["cr0", "cr2", "cr3", "cr4"];
const MSRS: &[&str] = &["efer", "star", "pat", "lstar", "cstar", "sfmask", "kernel_gs_base"];
const SYSENTER: &[&str] = &["sysenter_cs", "sysenter_eip", "sysenter_esp"];
const CORE_SEGMENTS: [&str; 6] = ["cs", "ds", "es", "fs", "gs", "ss"];

/// How a segment's parts lie: base, limit, attributes, selector.
enum Parts {
    /// DBGFCORESEL.
    Core,
    /// CPUMSELREG.
    Checked,
    /// CPUMSELREGHID, its selector at another offset.
    Apart(usize),
}

/// A form: what stands where.
struct Form {
    name: &'static str,
    format: u32,
    version: u32,
    len: usize,
    runs: Vec<Run>,
    segments: Vec<(usize, &'static str, Parts)>,
    /// gdtr and idtr: offset of the limit, its width, offset of the base.
    tables: [(usize, usize, usize); 2],
    /// `cbExt` and the area; of CPUMCTX only FXSAVE.
    area: (Option<usize>, usize),
}

fn core(
    name: &'static str,
    format: u32,
    len: usize,
    runs: Vec<Run>,
    first: usize,
    area: (Option<usize>, usize),
) -> Form {
    let mut segments: Vec<(usize, &'static str, Parts)> = CORE_SEGMENTS
        .iter()
        .enumerate()
        .map(|(index, name)| (first + 24 * index, *name, Parts::Core))
        .collect();
    let gdt = first + 144 + 32 + 64;
    segments.extend([(gdt + 32, "ldt", Parts::Core), (gdt + 56, "tr", Parts::Core)]);
    let tables = [(gdt + 8, 4, gdt), (gdt + 24, 4, gdt + 16)];
    Form {
        name,
        format,
        version: 5 << 24,
        len,
        runs: [vec![CORE_GENERAL], runs].concat(),
        segments,
        tables,
        area,
    }
}

/// All of them, older ones in the forms of both kinds of hosts.
fn all() -> Vec<Form> {
    let late = |apic: &'static [&'static str]| -> Vec<Run> {
        vec![(136, &["rflags"]), (288, CONTROL), (320, DEBUG), (464, SYSENTER), (488, MSRS), (544, apic)]
    };
    let early: Vec<Run> = vec![
        (280, CONTROL),
        (312, DEBUG),
        (456, &["sysenter_esp"]),
        (464, MSRS),
        (520, &["apic_base", "xcr0"]),
    ];
    let v6: &[&str] = &["apic_base", "tsc_aux", "xcr0"];
    let mut forms = vec![
        core("v6", 0x1_0006, 8784, late(v6), 144, (Some(576), 592)),
        core("v6 of Windows", 0x1_0006, 8776, late(v6), 144, (Some(576), 584)),
        core("v5", 0x1_0005, 8768, late(&["apic_base", "xcr0"]), 144, (Some(568), 576)),
        core("v4", 0x1_0004, 8768, late(&["apic_base", "xcr0"]), 144, (Some(568), 576)),
        core("v3", 0x1_0003, 8752, early.clone(), 136, (Some(544), 560)),
        core("v3 of Windows", 0x1_0003, 8744, early.clone(), 136, (Some(544), 552)),
        core("v2", 0x1_0002, 8736, early, 136, (None, 544)),
    ];
    for (name, version, apic) in [("4.3", 0x0403_0028, &["apic_base"][..]), ("4.2", 0x0402_0026, &[])] {
        let general = &[
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
            "r14", "r15",
        ];
        forms.push(Form {
            name,
            format: 0x1_0000,
            version,
            len: 1088,
            runs: vec![
                (512, general),
                (784, &["rip", "rflags"]),
                (800, CONTROL),
                (832, DEBUG),
                (976, SYSENTER),
                (1000, MSRS),
                (1056, apic),
            ],
            segments: ["es", "cs", "ss", "ds", "fs", "gs"]
                .iter()
                .enumerate()
                .map(|(i, name)| (640 + 24 * i, *name, Parts::Checked))
                .chain([(928, "ldt", Parts::Checked), (952, "tr", Parts::Checked)])
                .collect(),
            tables: [(902, 2, 904), (918, 2, 920)],
            area: (None, 0),
        });
    }
    let selectors = [("es", 592), ("cs", 600), ("ss", 580), ("ds", 596), ("fs", 588), ("gs", 584)];
    forms.push(Form {
        name: "4.0",
        format: 0x1_0000,
        version: 0x0400_0000,
        len: 1024,
        runs: vec![
            (512, &["rdi", "rsi", "rbp", "rax", "rbx", "rdx", "rcx", "rsp"]),
            (608, &["rflags", "rip", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]),
            (784, CONTROL),
            (816, DEBUG),
            (912, SYSENTER),
            (936, MSRS),
        ],
        segments: selectors
            .iter()
            .enumerate()
            .map(|(i, (name, at))| (688 + 16 * i, *name, Parts::Apart(*at)))
            .chain([(992, "ldt", Parts::Apart(904)), (1008, "tr", Parts::Apart(908))])
            .collect(),
        tables: [(880, 2, 882), (892, 2, 894)],
        area: (None, 0),
    });
    forms
}

/// A number that no other register has; long mode where it matters, all components of XSAVE.
fn value_of(name: &str) -> u64 {
    match name {
        "efer" => 0xd01,
        "xcr0" => 0xe7,
        _ => name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        }),
    }
}

/// The record of a form, and what its registers are.
fn record_of(form: &Form) -> (Vec<u8>, Vec<(String, u64)>) {
    let (mut bytes, mut expected) = (vec![0; form.len], Vec::new());
    let mut put = |at: usize, width: usize, name: String| {
        let value = value_of(&name) & (u64::MAX >> (64 - 8 * width));
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        expected.push((name, value));
    };
    for (at, names) in &form.runs {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            put(at + 8 * index, 8, (*name).to_owned());
        }
    }
    for (name, (limit, width, base)) in ["gdt", "idt"].iter().zip(form.tables) {
        put(limit, width, format!("{name}_limit"));
        put(base, 8, format!("{name}_base"));
    }
    let mut attributes = Vec::new();
    let mut checks = Vec::new();
    for (at, name, parts) in &form.segments {
        let (base, limit, attribute, selector) = match parts {
            Parts::Core => (*at, at + 8, at + 12, at + 16),
            Parts::Checked => (at + 8, at + 16, at + 20, *at),
            Parts::Apart(selector) => (*at, at + 8, at + 12, *selector),
        };
        put(base, 8, format!("{name}_base"));
        put(limit, 4, format!("{name}_limit"));
        let own = if ["ldt", "tr"].contains(name) { format!("{name}_selector") } else { (*name).to_owned() };
        put(selector, 2, own);
        attributes.push((attribute, *name));
        if matches!(parts, Parts::Checked) {
            checks.push(*at);
        }
    }
    for (at, name) in attributes {
        // 64-bit code, present, with bits of the limit; the task is unusable.
        let (stored, shown) = if name == "tr" { (0x1_008b_u32, 0x0b00) } else { (0xaf9b, 0xa0_9b00) };
        bytes[at..at + 4].copy_from_slice(&stored.to_le_bytes());
        expected.push((format!("{name}_attr"), shown));
    }
    for at in checks {
        bytes.copy_within(at..at + 2, at + 4);
        bytes[at + 6] = 1;
    }
    let (len_at, area) = form.area;
    let mut put = |at: usize, width: usize, name: &str, value: u64| {
        bytes[area + at..area + at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        expected.push((name.to_owned(), value));
    };
    put(0, 2, "fcw", 0x37f);
    put(4, 1, "ftw", 0x80);
    put(8, 8, "fip", 0xffff_ffff_8123_4567);
    put(24, 4, "mxcsr", 0x1fa0);
    put(32 + 7 * 16, 8, "st7", 0x7777);
    put(160 + 15 * 16, 8, "xmm15", 0x1515);
    if form.len > 2000 {
        put(576 + 15 * 16, 8, "ymmh15", 0xaaaa);
        bytes[area + 512] = 0xe7;
    }
    if let Some(at) = len_at {
        let mut put = |at: usize, name: &str, value: u64| {
            bytes[area + at..area + at + 8].copy_from_slice(&value.to_le_bytes());
            expected.push((name.to_owned(), value));
        };
        put(1088 + 56, "k7", 0x77);
        put(1152 + 15 * 32, "zmmh15", 0xbbbb);
        put(1664 + 15 * 64, "zmm31", 0x3131);
        bytes[at..at + 2].copy_from_slice(&2688_u16.to_le_bytes());
    }
    (bytes, expected)
}

fn has(machine: &Machine, form: &Form, expected: &[(String, u64)]) {
    let registers = machine.vcpus[1].registers();
    for (name, value) in expected {
        assert_eq!(registers.value(name), Some(*value), "{name} in {}", form.name);
    }
}

/// Every register that `machine` knows of a vCPU is in `back`; the notes behind VirtualBox's may say more (`orig_rax`).
fn knows(back: &Machine, machine: &Machine, index: usize, name: &str) {
    let found = back.vcpus[index].registers();
    for (id, row, value) in machine.vcpus[index].registers().iter() {
        assert_eq!(found.get(id), Some(value), "{} in {name}", row.name);
    }
}

/// The core that VirtualBox would write, of two vCPUs.
fn file_of(form: &Form) -> (Vec<u8>, Vec<(String, u64)>) {
    let (record, expected) = record_of(form);
    let mut other = record.clone();
    other[form.area.1 + 2] ^= 1;
    let notes = [
        note(b"VBCORE", 0xb00, &descriptor(form.format, form.version, 2)),
        note(b"VBCPU", 0xb01, &other),
        note(b"VBCPU", 0xb01, &record),
    ];
    (core_of(62, &notes.concat(), &[(0, 0x2000, RAM), (0xa_0000, 0x2_0000, &[])]), expected)
}

#[test]
fn every_form_is_read() {
    for form in all() {
        let (bytes, expected) = file_of(&form);
        assert!(Vbox.probe(&bytes[..bytes.len().min(4096)]));
        let machine = open(&bytes).unwrap();
        assert!(machine.findings.is_empty(), "{}: {:?}", form.name, machine.findings);
        assert_eq!(machine.vcpus.len(), 2);
        has(&machine, &form, &expected);
        assert_eq!(machine.vcpus[1].registers().value("tsc_aux").is_some(), form.name.starts_with("v6"));
        assert_eq!(
            machine.vcpus[1].registers().value("apic_base").is_some(),
            !["4.2", "4.0"].contains(&form.name)
        );
    }
}

#[test]
fn every_form_is_written_again_as_it_was() {
    for form in all() {
        let (bytes, expected) = file_of(&form);
        let machine = open(&bytes).unwrap();
        let again = write(&machine, &options(None)).unwrap();
        // VirtualBox's notes are the same bytes; the others stand behind them.
        let notes = 64 + 56 * 3;
        let len = 44 + 2 * (20 + form.len);
        assert!(again[notes..notes + len] == bytes[notes..notes + len], "{}", form.name);
        let back = open(&again).unwrap();
        has(&back, &form, &expected);
        knows(&back, &machine, 0, form.name);
        assert_eq!(write(&back, &options(None)).unwrap(), again, "{}", form.name);
        let kinds: Vec<RegionKind> = back.memory.regions().iter().map(|region| region.kind).collect();
        assert_eq!(kinds, [RegionKind::Ram, RegionKind::Mmio]);
        let mut page = [1; 16];
        assert_eq!(back.memory.read_at(Gpa(0xa_0000), &mut page).unwrap().byte_len(), 16);
    }
}

#[test]
fn a_register_that_changes_changes_its_bytes_alone() {
    for form in all() {
        let (bytes, _) = file_of(&form);
        let mut machine = open(&bytes).unwrap();
        let arch = machine.arch.unwrap();
        for (name, value) in [("rbx", 0x1234), ("cs", 0x33), ("xmm3", 0x5678)] {
            machine.vcpus[1].registers_mut(arch).set_value(name, value);
        }
        let back = open(&write(&machine, &options(None)).unwrap()).unwrap();
        knows(&back, &machine, 1, form.name);
        assert_eq!(back.vcpus[1].registers().value("cs_attr"), Some(0xa0_9b00), "{}", form.name);
    }
}

#[test]
fn a_form_that_is_asked_for_is_written() {
    for form in all() {
        let (bytes, _) = file_of(&form);
        let machine = open(&bytes).unwrap();
        for (name, len, format) in [
            ("vbox-7.0", 8784, 0x1_0006_u32),
            ("vbox-6.1", 8768, 0x1_0005),
            ("vbox-5.0", 8752, 0x1_0003),
            ("vbox-5.0.0", 8736, 0x1_0002),
            ("vbox-4.3", 1088, 0x1_0000),
            ("vbox-4.2", 1088, 0x1_0000),
            ("vbox-4.1", 1024, 0x1_0000),
        ] {
            let core = write(&machine, &options(Some(name))).unwrap();
            let notes = 64 + 56 * 3;
            let word = |at: usize| u32::from_le_bytes(core[notes + at..notes + at + 4].try_into().unwrap());
            assert_eq!(
                (word(0), word(4), word(8), word(20), word(24)),
                (6, 24, 0xb00, 0xc01a_c0de, format),
                "{name}"
            );
            assert_eq!((word(44), word(48), word(52)), (5, len, 0xb01), "{name}");
            let back = open(&core).unwrap();
            knows(&back, &machine, 1, name);
            assert_eq!(memory_of_ram(&back), memory_of_ram(&machine));
        }
        let core = write(&machine, &options(Some("vbox-2010"))).unwrap();
        assert_eq!(&core[64 + 56 * 3 + 12..][..12], b"VBOXCORE\0\0\0\0");
        assert_eq!(&core[64 + 56 * 3 + 48 + 12..][..8], b"VBOXCPU\0");
        assert_eq!(open(&core).unwrap().vcpus.len(), 2);
    }
}

fn memory_of_ram(machine: &Machine) -> Vec<u8> {
    let mut bytes = vec![0; 0x2000];
    assert!(machine.memory.read_at(Gpa(0), &mut bytes).unwrap().is_empty());
    bytes
}

#[test]
fn a_32_bit_guest_has_32_bit_registers() {
    let form = &all()[0];
    let (mut record, _) = record_of(form);
    record[488..496].fill(0); // EFER
    let notes =
        [note(b"VBCORE", 0xb00, &descriptor(0x1_0006, V7, 1)), note(b"VBCPU", 0xb01, &record)].concat();
    let bytes = core_of(62, &notes, &[(0, 0x2000, RAM)]);
    let machine = open(&bytes).unwrap();
    assert_eq!(machine.arch.unwrap().name(), "i386");
    let registers = machine.vcpus[0].registers();
    assert_eq!(registers.value("eax"), Some(value_of("rax") & 0xffff_ffff));
    assert_eq!((registers.value("fip"), registers.value("fiseg")), (Some(0x8123_4567), Some(0xffff)));
    let again = write(&machine, &options(None)).unwrap();
    let len = 44 + 20 + form.len;
    assert!(again[64 + 112..][..len] == bytes[64 + 112..][..len]);
    assert_eq!(open(&again).unwrap().arch.unwrap().name(), "i386");
}

#[test]
fn the_area_of_amd_is_told_by_its_length() {
    let form = &all()[0];
    let (mut record, _) = record_of(form);
    let area = form.area.1;
    record[area + 576..].fill(0);
    record[576..578].copy_from_slice(&2440_u16.to_le_bytes());
    record[560..562].copy_from_slice(&0x2e7_u16.to_le_bytes());
    record[area + 512..area + 514].copy_from_slice(&0x2e7_u16.to_le_bytes());
    for (at, value) in [(832, 1_u8), (896, 2), (1408, 3), (2432, 4)] {
        record[area + at] = value;
    }
    let notes =
        [note(b"VBCORE", 0xb00, &descriptor(0x1_0006, V7, 1)), note(b"VBCPU", 0xb01, &record)].concat();
    let machine = open(&core_of(62, &notes, &[])).unwrap();
    let values = ["k0", "zmmh0", "zmm16", "pkru"].map(|name| machine.vcpus[0].registers().value(name));
    assert_eq!(values, [Some(1), Some(2), Some(3), Some(4)]);
    // A length that nobody knows: what lies at the same place in all processors.
    record[576..578].copy_from_slice(&2500_u16.to_le_bytes());
    let notes =
        [note(b"VBCORE", 0xb00, &descriptor(0x1_0006, V7, 1)), note(b"VBCPU", 0xb01, &record)].concat();
    let machine = open(&core_of(62, &notes, &[])).unwrap();
    let values = ["k0", "zmmh0", "ymmh0", "xmm0"].map(|name| machine.vcpus[0].registers().value(name));
    assert_eq!(values, [None, None, Some(0), Some(0)]);
}

/// Hidden parts that do not hold for the selector, a component in its initial state, no floating point at all.
#[test]
fn what_a_record_does_not_say_is_not_known() {
    let forms = all();
    let form = forms.iter().find(|form| form.name == "4.3").unwrap();
    let (mut record, _) = record_of(form);
    record[664 + 4] ^= 8; // ValidSel of CS
    let notes =
        [note(b"VBCORE", 0xb00, &descriptor(0x1_0000, form.version, 1)), note(b"VBCPU", 0xb01, &record)]
            .concat();
    let bytes = core_of(62, &notes, &[]);
    let machine = open(&bytes).unwrap();
    let registers = machine.vcpus[0].registers();
    assert_eq!(["cs_base", "cs_limit", "cs_attr"].map(|name| registers.value(name)), [None; 3]);
    assert!(registers.value("cs").is_some() && registers.value("ds_base").is_some());
    assert!(write(&machine, &options(None)).unwrap()[64 + 56..][..notes.len()] == notes);

    let form = &forms[0];
    let (mut record, _) = record_of(form);
    record[form.area.1 + 512] = 0b110; // x87 in its initial state
    let check = |record: &[u8], expected: [Option<u64>; 3]| {
        let notes =
            [note(b"VBCORE", 0xb00, &descriptor(0x1_0006, V7, 1)), note(b"VBCPU", 0xb01, record)].concat();
        let machine = open(&core_of(62, &notes, &[])).unwrap();
        let found = ["fcw", "st7", "xmm15"].map(|name| machine.vcpus[0].registers().value(name));
        assert_eq!(found, expected);
        assert!(write(&machine, &options(None)).unwrap()[64 + 56..][..notes.len()] == notes);
    };
    check(&record, [Some(0x37f), Some(0), Some(0x1515)]);
    record[576..580].fill(0); // cbExt
    check(&record, [None; 3]);
}

#[test]
fn a_record_of_unknown_length_leaves_the_memory() {
    let notes = [
        note(b"VBCORE", 0xb00, &descriptor(0x1_0007, V7, 2)),
        note(b"VBCPU", 0xb01, &[7; 9000]),
        note(b"VBCPU", 0xb01, &record_of(&all()[0]).0),
    ];
    let bytes = core_of(62, &notes.concat(), &[(0, 0x2000, RAM)]);
    let machine = open(&bytes).unwrap();
    assert_eq!(memory_of(&machine), [(0, RAM.to_vec())]);
    assert_eq!(machine.vcpus[0].registers().iter().count(), 0);
    assert_eq!(machine.vcpus[1].registers().value("rax"), Some(value_of("rax")));
    let texts: Vec<&str> = machine.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(texts, ["the registers of vCPU 0 are in a form of 9000 bytes that is not known"]);
    assert_eq!(machine.findings[0].severity, Severity::Error);
    assert!(write(&machine, &options(None)).unwrap()[64 + 112..][..notes.concat().len()] == notes.concat());
}

#[test]
fn the_forms_of_september_2010() {
    let form = all().pop().unwrap();
    let (record, expected) = record_of(&form);
    let mut early = [0_u8; 32];
    early[..4].copy_from_slice(&0xc01a_c0de_u32.to_le_bytes());
    early[8..12].copy_from_slice(&0x0302_0033_u32.to_le_bytes());
    early[24] = 2;
    let cpus = [note(b"VBOXCPU\0", 0xb01, &record), note(b"VBOXCPU\0", 0xb01, &record)].concat();
    let ranges: Vec<u8> = (1..=3).flat_map(|page: u8| vec![page; 0x1000]).collect();
    for (core, says_so) in [
        (note(b"VBOXCORE\0", 0xb00, &descriptor(0x1_0000, 0x0302_0033, 2)), false),
        (note(b"VBOXCORE\0", 0xb00, &early), false),
        (Vec::new(), true),
    ] {
        let notes = [core, cpus.clone()].concat();
        let mut bytes =
            core_of(62, &notes, &[(0, 0x2000, &ranges[..0x2000]), (0x10_0000, 0x1000, &ranges[0x2000..])]);
        let good = open(&bytes).unwrap();
        assert_eq!(good.findings.len(), usize::from(says_so), "{:?}", good.findings);
        has(&good, &form, &expected);
        assert_eq!(
            memory_of(&good),
            [(0, ranges[..0x2000].to_vec()), (0x10_0000, ranges[0x2000..].to_vec())]
        );
        assert!(Vbox.probe(&bytes[..4096]));
        // As r32341 wrote them: without counting the headers of memory.
        for at in [64 + 56 + 8, 64 + 112 + 8] {
            let offset = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) - 112;
            bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        }
        let shifted = open(&bytes).unwrap();
        assert_eq!(memory_of(&shifted), memory_of(&good));
        assert!(shifted.findings.iter().any(|finding| finding.text.contains("0x70 bytes further back")));
        assert!(shifted.findings.iter().all(|finding| finding.severity == Severity::Note));
        // And with the first page all over.
        let data = bytes.len() - 0x3000;
        bytes.copy_within(data..data + 0x1000, data + 0x1000);
        let copied = open(&bytes).unwrap();
        let lost = "in 1 of 2 ranges every page is a copy of the first";
        assert!(copied.findings.iter().any(|f| f.severity == Severity::Error && f.text.starts_with(lost)));
    }
}

#[test]
fn notes_of_others_are_kept_and_those_of_reven_read() {
    let (record, _) = record_of(&all()[0]);
    let reven =
        [0x6264_7570_634e_5652_u64, 24, 5].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let ours = [
        note(b"VBCORE", 0xb00, &descriptor(0x1_0006, V7, 1)),
        note(b"VBCPU", 0xb01, &record),
        note(b"VBCPU", 0xbeef, &reven),
    ]
    .concat();
    let notes = [ours.clone(), note(b"ODD\0", 0x5000_0000, &[1, 2, 3])].concat();
    let machine = open(&core_of(3, &notes, &[])).unwrap();
    // The header tells what VirtualBox was built for, not what the guest is.
    assert_eq!(machine.arch.unwrap().name(), "x86_64");
    assert_eq!(machine.vcpus[0].registers().value("cr8"), Some(5));
    let again = write(&machine, &options(None)).unwrap();
    assert!(again[64 + 56..][..ours.len()] == ours);
    let back = open(&again).unwrap();
    assert_eq!(back.notes, machine.notes);
    assert!(back.notes.iter().any(|note| note.is("ODD", 0x5000_0000)));
}
