//! Debug information that is made up: lines of the source, and functions that are inlined.

mod guest;

use gimli::write::{
    Address, AttributeValue, Dwarf, EndianVec, LineProgram, LineString, Range, RangeList, Sections, Unit,
    UnitEntryId,
};
use gimli::{Encoding, Format, LineEncoding, LittleEndian, constants};
use guest::Guest;
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;
use vmcore_backtrace::{Backtrace, Image, Unwinder};
use vmcore_core::{Machine, ReadAt};

/// Where the kernel is linked, and how far from there it runs.
const LINKED: u64 = 0x1000_0000;
const SLIDE: u64 = 0x120_0000;
const STACK: u64 = 0x3000_0000;
/// Functions of 256 bytes each. The first is an assembler's.
const FUNCTIONS: [&str; 3] = ["_stext", "caller", "leaf"];

fn linked(name: &str) -> u64 {
    LINKED + 0x100 * FUNCTIONS.iter().position(|function| *function == name).expect("a function") as u64
}

/// What the compiler says of
/// ```text
/// kernel/leaf.c               include/inline.h
/// 10: caller()
/// 12:   leaf();
/// 20: leaf()
/// 22:   outer();              5: outer()
///                             6:   inner();
///                             8: inner()
///                             9:   the vCPU is here
/// ```
fn debug_info(version: u16) -> Vec<(String, Vec<u8>)> {
    let encoding = Encoding { format: Format::Dwarf32, version, address_size: 8 };
    let mut dwarf = Dwarf::new();
    let string = |text: &str| LineString::String(text.as_bytes().to_vec());
    let mut program = LineProgram::new(
        encoding,
        LineEncoding::default(),
        string("/build"),
        None,
        string("kernel/leaf.c"),
        None,
    );
    let root = program.default_directory();
    let file = program.add_file(string("kernel/leaf.c"), root, None);
    let folder = program.add_directory(string("include"));
    let header = program.add_file(string("inline.h"), folder, None);
    for (function, rows) in [
        ("caller", &[(0, file, 10, true), (4, file, 12, true)][..]),
        // The statement on line 9 begins where the vCPU is; what the last row says of it is what the compiler has moved there.
        ("leaf", &[(0, file, 20, true), (8, header, 7, true), (8, header, 9, true), (8, header, 6, false)]),
    ] {
        program.begin_sequence(Some(Address::Constant(linked(function))));
        for (offset, file, line, is_statement) in rows {
            let row = program.row();
            (row.address_offset, row.file, row.line, row.is_statement) =
                (*offset, *file, *line, *is_statement);
            program.generate_row();
        }
        program.end_sequence(0x100);
    }

    let mut unit = Unit::new(encoding, program);
    let root = unit.root();
    let mut add = |parent, tag, values: &[(constants::DwAt, AttributeValue)]| -> UnitEntryId {
        let id = unit.add(parent, tag);
        values.iter().for_each(|(name, value)| unit.get_mut(id).set(*name, value.clone()));
        id
    };
    let name = |name: &str| (constants::DW_AT_name, AttributeValue::String(name.as_bytes().to_vec()));
    let code = |begin, len| {
        [
            (constants::DW_AT_low_pc, AttributeValue::Address(Address::Constant(begin))),
            (constants::DW_AT_high_pc, AttributeValue::Udata(len)),
        ]
    };
    let function = constants::DW_TAG_subprogram;
    let [outer, inner] = ["outer", "inner"].map(|text| add(root, function, &[name(text)]));
    let inlined = |origin, file, line| {
        [
            (constants::DW_AT_abstract_origin, AttributeValue::UnitRef(origin)),
            (constants::DW_AT_call_file, AttributeValue::FileIndex(Some(file))),
            (constants::DW_AT_call_line, AttributeValue::Udata(line)),
        ]
    };
    let [begin, len] = code(linked("caller"), 0x100);
    add(root, function, &[name("caller"), begin, len]);
    let [begin, len] = code(linked("leaf"), 0x100);
    let leaf = add(root, function, &[name("leaf"), begin, len]);
    let block = add(leaf, constants::DW_TAG_lexical_block, &[]);
    let [origin, call_file, line] = inlined(inner, file, 21);
    let [begin, len] = code(linked("leaf"), 4);
    add(block, constants::DW_TAG_inlined_subroutine, &[origin, call_file, line, begin, len]);
    let [origin, call_file, line] = inlined(outer, file, 22);
    let parent = add(block, constants::DW_TAG_inlined_subroutine, &[origin, call_file, line]);
    let [origin, call_file, line] = inlined(inner, header, 6);
    let [begin, len] = code(linked("leaf") + 8, 4);
    add(parent, constants::DW_TAG_inlined_subroutine, &[origin, call_file, line, begin, len]);
    let at = linked("leaf");
    let ranges = [(4, 6), (8, 0x10)].map(|(begin, end)| Range::StartEnd {
        begin: Address::Constant(at + begin),
        end: Address::Constant(at + end),
    });
    let ranges = unit.ranges.add(RangeList(ranges.to_vec()));
    unit.get_mut(parent).set(constants::DW_AT_ranges, AttributeValue::RangeListRef(ranges));
    let all = ["caller", "leaf"]
        .map(|function| Range::StartLength { begin: Address::Constant(linked(function)), length: 0x100 });
    let all = unit.ranges.add(RangeList(all.to_vec()));
    unit.get_mut(root).set(constants::DW_AT_ranges, AttributeValue::RangeListRef(all));
    unit.get_mut(root).set(constants::DW_AT_low_pc, AttributeValue::Address(Address::Constant(0)));
    dwarf.units.add(unit);

    written(dwarf)
}

/// The sections by name.
fn written(mut dwarf: Dwarf) -> Vec<(String, Vec<u8>)> {
    let mut sections = Sections::new(EndianVec::new(LittleEndian));
    dwarf.write(&mut sections).expect("it can be written");
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let each = sections.for_each(|id, bytes| {
        found.push((id.name().to_owned(), bytes.slice().to_vec()));
        Ok::<(), ()>(())
    });
    each.expect("nothing fails");
    found
}

/// `.debug_aranges`: `len` bytes of code at `begin`, of the unit at `unit`.
fn addresses(unit: u8, begin: u64, len: u64) -> (String, Vec<u8>) {
    let tuples = [begin, len, 0, 0].map(u64::to_le_bytes).concat();
    // Version 2, addresses of 8 bytes without segments, and 4 bytes to a multiple of 16.
    let rest = [&[2, 0, unit, 0, 0, 0, 8, 0, 0, 0, 0, 0], tuples.as_slice()].concat();
    let len = u32::try_from(rest.len()).expect("it is small").to_le_bytes();
    (".debug_aranges".to_owned(), [&len, rest.as_slice()].concat())
}

/// How the sections are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Packing {
    None,
    Zlib,
    Zstandard,
}

impl Packing {
    /// With `Elf64_Chdr`.
    fn pack(self, bytes: &[u8]) -> Vec<u8> {
        let (kind, packed) = match self {
            Self::None => return bytes.to_vec(),
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).expect("memory suffices");
                (1, encoder.finish().expect("memory suffices"))
            }
            Self::Zstandard => (2, zstd::encode_all(bytes, 1).expect("memory suffices")),
        };
        [[kind, bytes.len() as u64, 1].map(u64::to_le_bytes).concat(), packed].concat()
    }
}

/// The file with these sections.
fn elf(sections: &[(String, Vec<u8>)], packing: Packing) -> Vec<u8> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = file.section_id(object::write::StandardSection::Text);
    file.append_section_data(text, &[0x90; 0x300], 16);
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
    for (name, bytes) in sections {
        let section = file.add_section(Vec::new(), name.clone().into_bytes(), SectionKind::Debug);
        let is_packed = packing != Packing::None;
        let sh_flags = if is_packed { object::elf::SHF_COMPRESSED } else { Default::default() };
        file.section_mut(section).flags = SectionFlags::Elf { sh_type: object::elf::SHT_PROGBITS, sh_flags };
        file.append_section_data(section, &packing.pack(bytes), 8);
    }
    let mut bytes = file.write().expect("the file can be written");
    // e_type: what the library writes is not linked yet (ET_REL), a kernel is (ET_EXEC).
    bytes[16] = 2;
    bytes
}

/// A kernel that runs: in `leaf`, which `caller` has called, which `_stext` has called.
fn machine() -> Machine {
    Guest::x86_64()
        .says(&format!("SYMBOL(_stext)={:x}", linked("_stext") + SLIDE))
        .register("rip", linked("leaf") + SLIDE + 8)
        .register("cs", 0x10)
        .register("rsp", STACK)
        .register("rbp", STACK)
        // The calls are the last instructions before other lines.
        .words(STACK, &[STACK + 0x10, linked("caller") + SLIDE + 5, 0, linked("_stext") + SLIDE + 0x100])
        .machine()
}

fn backtrace(file: Vec<u8>) -> Option<Backtrace> {
    let file: Arc<dyn ReadAt> = Arc::new(file);
    let image = Image::open(&file).ok()?;
    let machine = machine();
    let unwinder = Unwinder::new(&machine, Some(&image)).ok()?;
    unwinder.backtrace(0).ok()
}

fn check(file: Vec<u8>, expected: &[&str]) {
    let backtrace = backtrace(file).expect("the file is sound");
    let line = |frame: &vmcore_backtrace::Frame| {
        let name = frame.location.as_ref().map(ToString::to_string).unwrap_or_default();
        let source = frame.source.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{name} at {source} by {}", frame.way.name())
    };
    let found: Vec<String> = backtrace.frames.iter().map(line).collect();
    assert_eq!(found, expected);
    assert!(backtrace.source_error.is_none(), "{:?}", backtrace.source_error);
}

#[test]
fn lines_and_inlined_functions_are_those_of_the_compiler() {
    let frames = [
        "inner at include/inline.h:9 by inlined",
        "outer at include/inline.h:6 by inlined",
        "leaf+0x8 at kernel/leaf.c:22 by registers",
        "caller+0x5 at kernel/leaf.c:12 by frame record",
        "_stext+0x100 at  by frame record",
    ];
    for version in [4, 5] {
        let mut sections = debug_info(version);
        for packing in [Packing::None, Packing::Zlib, Packing::Zstandard] {
            check(elf(&sections, packing), &frames);
        }
        sections.push(addresses(0, linked("caller"), 0x200));
        check(elf(&sections, Packing::None), &frames);
        // As Clang does it: other units are listed.
        sections.pop();
        sections.push(addresses(0xff, linked("_stext") - 0x100, 0x100));
        check(elf(&sections, Packing::None), &frames);
    }
}

#[test]
fn what_is_damaged_leaves_the_frames() {
    let mut sections = debug_info(5);
    for (name, bytes) in &mut sections {
        if name == ".debug_abbrev" {
            bytes.truncate(8);
        }
    }
    let backtrace = backtrace(elf(&sections, Packing::None)).expect("the rest is sound");
    assert_eq!(backtrace.frames.len(), 3);
    let error = backtrace.source_error.expect("it is said").with_causes();
    assert!(error.starts_with("DWARF of the ELF file: "), "{error}");
}

#[test]
fn what_would_take_too_long_is_given_up() {
    // Each of many functions has the same long list of ranges.
    let encoding = Encoding { format: Format::Dwarf32, version: 5, address_size: 8 };
    let mut unit = Unit::new(encoding, LineProgram::none());
    let list =
        (0..0x8000).map(|index| Range::StartLength { begin: Address::Constant(16 * index), length: 1 });
    let list = unit.ranges.add(RangeList(list.collect()));
    for _ in 0..0x1000 {
        let function = unit.add(unit.root(), constants::DW_TAG_subprogram);
        unit.get_mut(function).set(constants::DW_AT_ranges, AttributeValue::RangeListRef(list));
    }
    let root = unit.root();
    let (begin, len) = (Address::Constant(linked("_stext")), AttributeValue::Udata(0x300));
    unit.get_mut(root).set(constants::DW_AT_low_pc, AttributeValue::Address(begin));
    unit.get_mut(root).set(constants::DW_AT_high_pc, len);
    let mut dwarf = Dwarf::new();
    dwarf.units.add(unit);
    let backtrace = backtrace(elf(&written(dwarf), Packing::None)).expect("the rest is sound");
    let error = backtrace.source_error.expect("it is said").to_string();
    assert_eq!(error, "the ELF file has debug information that is too long for an answer");
}

proptest! {
    /// A damaged file is refused, or leads to some end.
    #[test]
    fn damaged_debug_information_never_panics(
        version in 4..=5_u16,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut sections = debug_info(version);
        for (section, place, byte) in flips {
            let section = section.index(sections.len());
            let bytes = &mut sections[section].1;
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        backtrace(elf(&sections, Packing::None));
    }
}
