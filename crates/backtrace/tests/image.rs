//! ELF files that are made up: symbols, build id and call-frame information of a kernel.

mod guest;

use gimli::write::{
    Address, CallFrameInstruction, CommonInformationEntry, DebugFrame, EhFrame, EndianVec, Expression,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian, X86_64};
use guest::Guest;
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use proptest::prelude::*;
use std::sync::Arc;
use vmcore_backtrace::{Error, Identification, Image, Unwinder, image};
use vmcore_core::{Machine, ReadAt};

/// Where the kernel is linked, and how far from there it runs.
const LINKED: u64 = 0x1000_0000;
const SLIDE: u64 = 0x120_0000;
const STACK: u64 = 0x3000_0000;
const BUILD_ID: [u8; 4] = [0xca, 0xfe, 0x01, 0x20];
/// Functions of 256 bytes each.
const FUNCTIONS: [&str; 5] = ["_stext", "leaf", "trampoline", "framed", "outermost"];

fn linked(name: &str) -> u64 {
    LINKED + 0x100 * FUNCTIONS.iter().position(|function| *function == name).expect("a function") as u64
}

/// The rules of each function; `.eh_frame` has its own version.
fn frames(version: u16) -> FrameTable {
    let encoding = Encoding { format: Format::Dwarf32, version, address_size: 8 };
    let mut table = FrameTable::default();
    let cie = |rules: &[CallFrameInstruction]| {
        let mut cie = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
        rules.iter().for_each(|rule| cie.add_instruction(rule.clone()));
        cie
    };
    let at_call = [CallFrameInstruction::Cfa(X86_64::RSP, 8), CallFrameInstruction::Offset(X86_64::RA, -8)];
    let usual = table.add_cie(cie(&at_call));
    let mut trampoline = cie(&at_call);
    trampoline.signal_trampoline = true;
    let trampoline = table.add_cie(trampoline);
    let last = table.add_cie(cie(&[
        CallFrameInstruction::Cfa(X86_64::RSP, 8),
        CallFrameInstruction::Undefined(X86_64::RA),
    ]));
    let mut add = |cie, name, rules: &[(u32, CallFrameInstruction)]| {
        let mut fde = FrameDescriptionEntry::new(Address::Constant(linked(name)), 0x100);
        rules.iter().for_each(|(offset, rule)| fde.add_instruction(*offset, rule.clone()));
        table.add_fde(cie, fde);
    };
    // push %rbx; sub $16, %rsp
    let leaf = [
        (1, CallFrameInstruction::CfaOffset(16)),
        (1, CallFrameInstruction::Offset(X86_64::RBX, -16)),
        (5, CallFrameInstruction::CfaOffset(32)),
    ];
    add(usual, "leaf", &leaf);
    add(trampoline, "trampoline", &[]);
    // The frame is found by rbx, through memory.
    let mut expression = Expression::new();
    expression.op_breg(X86_64::RBX, 8);
    expression.op_deref();
    let framed = [(4, CallFrameInstruction::CfaExpression(expression))];
    add(usual, "framed", &framed);
    add(last, "outermost", &[]);
    table
}

/// The file, with its call-frame information in the section of this name.
fn elf(section: &str) -> Vec<u8> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = file.section_id(object::write::StandardSection::Text);
    file.append_section_data(text, &[0x90; 0x500], 16);
    for name in FUNCTIONS {
        file.add_symbol(Symbol {
            name: name.into(),
            value: linked(name),
            size: 0x100,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    let note = file.add_section(
        file.segment_name(StandardSegment::Data).to_vec(),
        b".note.gnu.build-id".to_vec(),
        SectionKind::Note,
    );
    let words = [4, u32::try_from(BUILD_ID.len()).expect("it is small"), 3].map(u32::to_le_bytes).concat();
    file.append_section_data(note, &[&words[..], b"GNU\0", &BUILD_ID].concat(), 4);
    let bytes = if section == ".eh_frame" {
        let mut out = EhFrame::from(EndianVec::new(LittleEndian));
        frames(1).write_eh_frame(&mut out).expect("frames can be written");
        out.0.into_vec()
    } else {
        let mut out = DebugFrame::from(EndianVec::new(LittleEndian));
        frames(4).write_debug_frame(&mut out).expect("frames can be written");
        out.0.into_vec()
    };
    let section = file.add_section(Vec::new(), section.as_bytes().to_vec(), SectionKind::Debug);
    file.section_mut(section).flags = SectionFlags::None;
    file.append_section_data(section, &bytes, 8);
    let mut bytes = file.write().expect("the file can be written");
    // e_type: what the library writes is not linked yet (ET_REL), a kernel is (ET_EXEC).
    bytes[16] = 2;
    bytes
}

/// The file without its table of symbols.
fn stripped(mut bytes: Vec<u8>) -> Vec<u8> {
    let number = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    // e_shoff, e_shnum; sh_type of SHT_SYMTAB becomes SHT_PROGBITS.
    let (table, count) = (number(&bytes, 0x28, 8), number(&bytes, 0x3c, 2));
    for at in (0..count).map(|index| table + 64 * index + 4) {
        if number(&bytes, at, 4) == 2 {
            bytes[at] = 1;
        }
    }
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Image, Error> {
    let file: Arc<dyn ReadAt> = Arc::new(bytes);
    Image::open(&file)
}

/// A kernel that runs, and its stack.
fn machine() -> Machine {
    guest().machine()
}

fn guest() -> Guest {
    let runs = |name, offset| linked(name) + SLIDE + offset;
    Guest::x86_64()
        .says(&format!("SYMBOL(_stext)={:x}", runs("_stext", 0)))
        .says("BUILD-ID=cafe0120")
        .register("rip", runs("leaf", 8))
        .register("cs", 0x10)
        .register("rsp", STACK)
        .register("rbx", 7)
        // leaf's frame: 16 bytes, rbx, return address. The trampoline's: the pc at which `framed` was interrupted.
        .words(STACK, &[0, 0, STACK + 0x100, runs("trampoline", 1), runs("framed", 0x80)])
        .words(STACK + 0x108, &[STACK + 0x200])
        .words(STACK + 0x1f8, &[runs("outermost", 0x100)])
}

#[test]
fn call_frame_information_of_either_section_leads_on() {
    for section in [".debug_frame", ".eh_frame"] {
        let image = open(elf(section)).expect("the file is sound");
        let machine = machine();
        assert_eq!(image.identify(&machine), Identification::Same);
        let unwinder = Unwinder::new(&machine, Some(&image)).expect("the architecture is the same");
        assert_eq!(unwinder.slide(), Some(SLIDE));
        let backtrace = unwinder.backtrace(0).expect("there is a vCPU");
        let line = |frame: &vmcore_backtrace::Frame| {
            let name = frame.location.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{name} by {}, sp {:#x}", frame.way.name(), frame.stack_pointer.map_or(0, |gva| gva.0))
        };
        let found: Vec<String> = backtrace.frames.iter().map(line).collect();
        let expected = [
            "leaf+0x8 by registers, sp 0x30000000",
            "trampoline+0x1 by call-frame information, sp 0x30000020",
            "framed+0x80 by call-frame information, sp 0x30000028",
            // Its last instruction is the call.
            "outermost+0x100 by call-frame information, sp 0x30000200",
        ];
        assert_eq!(found, expected, "{section}");
        assert_eq!(backtrace.end.to_string(), "the outermost frame");
    }
}

#[test]
fn a_stripped_file_leaves_the_names_to_the_kernel() {
    let image = open(stripped(elf(".eh_frame"))).expect("the file is sound");
    assert!(image.has_call_frames() && !image.has_symbols());
    let names = FUNCTIONS.map(|name| (linked(name) + SLIDE, format!("T{name}")));
    let mut symbols = names.each_ref().map(|(gva, name)| (*gva, name.as_str())).to_vec();
    symbols.push((linked("outermost") + SLIDE + 0x100, "T_etext"));
    let machine = guest().says(&format!("KERNELOFFSET={SLIDE:x}")).symbols(LINKED, &symbols).machine();
    let unwinder = Unwinder::new(&machine, Some(&image)).expect("the architecture is the same");
    assert_eq!(unwinder.symbols().err().map(Error::to_string), None);
    let backtrace = unwinder.backtrace(0).expect("there is a vCPU");
    let names: Vec<_> =
        backtrace.frames.iter().flat_map(|frame| &frame.location).map(|location| &location.name).collect();
    assert_eq!(names, ["leaf", "trampoline", "framed", "outermost"]);
}

#[test]
fn a_file_of_another_kernel_is_told() {
    let image = open(elf(".eh_frame")).unwrap();
    let machine = Guest::x86_64().says("BUILD-ID=CAFE0121").machine();
    let other = Identification::Other { guest: "cafe0121".to_owned(), file: "cafe0120".to_owned() };
    assert_eq!(image.identify(&machine), other);
    assert_eq!(image.identify(&Guest::x86_64().machine()), Identification::Unknown);
    let machine = Guest::aarch64().register("pc", 0).machine();
    let error = Unwinder::new(&machine, Some(&image)).expect_err("another architecture").to_string();
    assert_eq!(error, "the ELF file is of machine 62, the dump of machine 183 (aarch64)");
}

#[test]
fn what_is_no_vmlinux_is_refused() {
    let check = |bytes: &[u8], expected: &str| {
        let error = open(bytes.to_vec()).expect_err("it cannot be used").to_string();
        assert_eq!(error, expected);
    };
    check(b"#!/bin/sh\n", "the header of the ELF file");
    let mut module = elf(".eh_frame");
    module[16] = 1;
    check(&module, "the ELF file is not linked: a kernel's module, perhaps");
    let mut dump = elf(".eh_frame");
    dump[16] = 4;
    check(&dump, "the ELF file is a core: a dump, not the kernel's file");
    check(&elf(".eh_frame")[..100], "the headers of the ELF file");
}

#[test]
fn gdb_is_told_the_same_slide() {
    let image = open(elf(".eh_frame")).unwrap();
    let info = machine().vmcoreinfo().unwrap();
    assert_eq!(image::gdb_command("vmlinux", image.slide(&info)), "symbol-file -o 0x1200000 vmlinux");
}

proptest! {
    /// A damaged file is refused, or leads to some end.
    #[test]
    fn a_damaged_file_never_panics(
        is_debug in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = elf(if is_debug { ".debug_frame" } else { ".eh_frame" });
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(image) = open(bytes) {
            let machine = machine();
            if let Ok(unwinder) = Unwinder::new(&machine, Some(&image)) {
                unwinder.backtrace(0).expect("there is a vCPU");
            }
        }
    }
}
