//! Debug information of an ELF file: lines of the source, and functions that are inlined.
//!
//! ```text
//!  address ──► .debug_aranges ──► unit of .debug_info ──► function ──► what is inlined in it, and where that is called
//!                                        └──► program of .debug_line ──► the line of the innermost
//! ```
//!
//! A kernel has 200 MiB of it. Of `.debug_info` only the units of the addresses that are asked for are read, and once those that
//! `.debug_aranges` does not list, if an address is not in it. Crate `addr2line`
//! reads all of them, and follows as deep as a file nests its functions: of a hostile one, until the stack ends.
//!
//! Source: DWARF 5, sections 2.17 (ranges), 3.3.8 (inlined functions), 6.1.2 (addresses of units), 6.2 (lines).

mod unit;

use crate::section::Section;
use crate::{Error, Source};
use gimli::{DwarfSections, EndianSlice, Reader as _, RunTimeEndian, Section as _, SectionId, UnitRef};
use std::collections::HashSet;
use std::sync::OnceLock;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// How many units are looked at; Linux has some ten thousand at most.
const MAX_UNITS: usize = 1 << 16;
/// The longest unit; those of Linux have 2 MiB at most.
const MAX_UNIT_LEN: u64 = 1 << 24;
/// How much of `.debug_abbrev` a unit may use; those of Linux use 10 KiB.
const MAX_ABBREVIATIONS_LEN: usize = 1 << 16;
/// How many attributes and ranges are looked at for one answer.
const MAX_WORK: usize = 1 << 24;
/// The shortest: a header of DWARF 4, and one entry.
const MIN_UNIT_LEN: u64 = 12;
/// The sections that are read as a whole.
const SECTIONS: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// A function that an address is in, or that is inlined there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// `None` in an assembler's code.
    pub(crate) name: Option<String>,
    /// Where it stands: at the instruction, or at the call of what is inlined in it.
    pub(crate) source: Option<Source>,
}

/// The debug information of a file; it is read when something is asked.
#[derive(Debug)]
pub(crate) struct DebugInfo {
    endian: RunTimeEndian,
    info: Section,
    others: Vec<(SectionId, Section)>,
    loaded: OnceLock<Loaded>,
}

impl DebugInfo {
    /// That of a file whose sections `find` finds; `None` if it has none.
    pub(crate) fn find(
        find: impl Fn(&str) -> Result<Option<Section>, Error>,
        endian: RunTimeEndian,
    ) -> Result<Option<Self>, Error> {
        let Some(info) = find(SectionId::DebugInfo.name())? else { return Ok(None) };
        let mut others = Vec::new();
        for id in SECTIONS {
            others.extend(find(id.name())?.map(|section| (id, section)));
        }
        Ok(Some(Self { endian, info, others, loaded: OnceLock::new() }))
    }

    /// The functions of the code at `address` in the file's address space: the innermost first, all but the last inlined.
    ///
    /// Empty if nothing is known of that code.
    pub(crate) fn functions(&self, address: u64) -> Result<Vec<Function>, Error> {
        let loaded = self.loaded()?;
        match loaded.unit_at(address)? {
            Some(offset) => loaded.in_unit(offset, |unit| unit::functions(loaded, unit, address)),
            None => Ok(Vec::new()),
        }
    }

    fn loaded(&self) -> Result<&Loaded, Error> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let sections = DwarfSections::load(|id| {
            let section = self.others.iter().find(|(other, _)| *other == id);
            section.map_or(Ok(Vec::new()), |(_, section)| section.bytes())
        })?;
        let info = self.info.clone().unpacked()?;
        let mut loaded = Loaded {
            endian: self.endian,
            info,
            sections,
            code: Vec::new(),
            units: OnceLock::new(),
            other_code: OnceLock::new(),
        };
        loaded.code = loaded.addresses()?;
        Ok(self.loaded.get_or_init(|| loaded))
    }
}

/// How much may still be looked at for an answer: a few bytes can tell of a large list, and each of many functions of the same.
#[derive(Debug)]
struct Work(usize);

impl Default for Work {
    fn default() -> Self {
        Self(MAX_WORK)
    }
}

impl Work {
    fn spend(&mut self, count: usize) -> Result<(), Error> {
        let too_much = || Error::Unusable("has debug information that is too long for an answer".to_owned());
        self.0 = self.0.checked_sub(count).ok_or_else(too_much)?;
        Ok(())
    }
}

/// Code: where it begins, where it ends, and where its unit stands in `.debug_info`.
type Code = (u64, u64, u64);

/// What is read of it.
#[derive(Debug)]
struct Loaded {
    endian: RunTimeEndian,
    /// Not packed.
    info: Section,
    sections: DwarfSections<Vec<u8>>,
    /// By address, that of `.debug_aranges`.
    code: Vec<Code>,
    /// Where each unit begins, when it is needed.
    units: OnceLock<Vec<u64>>,
    /// By address, that of the units which are not in `.debug_aranges`, when it is needed.
    other_code: OnceLock<Vec<Code>>,
}

impl Loaded {
    fn slice<'a>(&self, bytes: &'a [u8]) -> Slice<'a> {
        EndianSlice::new(bytes, self.endian)
    }

    /// Where the unit of the code at `address` stands.
    fn unit_at(&self, address: u64) -> Result<Option<u64>, Error> {
        let find = |code: &[Code]| {
            let before = code.partition_point(|(begin, ..)| *begin <= address);
            let (_, end, offset) = *code.get(before.checked_sub(1)?)?;
            (address < end).then_some(offset)
        };
        find(&self.code).map_or_else(|| Ok(find(self.other_code()?)), |unit| Ok(Some(unit)))
    }

    /// By `.debug_aranges`.
    fn addresses(&self) -> Result<Vec<Code>, Error> {
        let mut found = Vec::new();
        let dwarf = self.sections.borrow(|bytes| self.slice(bytes));
        let mut headers = dwarf.debug_aranges.headers();
        while let Some(header) = headers.next()? {
            let mut entries = header.entries();
            while let Some(entry) = entries.next()? {
                let range = entry.range();
                found.push((range.begin, range.end, header.debug_info_offset().0 as u64));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// By what the units say themselves: Clang puts those of the assembler alone into `.debug_aranges`.
    fn other_code(&self) -> Result<&[Code], Error> {
        if let Some(code) = self.other_code.get() {
            return Ok(code);
        }
        let listed: HashSet<u64> = self.code.iter().map(|(.., offset)| *offset).collect();
        let mut found = Vec::new();
        let mut work = Work::default();
        for offset in self.units()?.iter().filter(|offset| !listed.contains(offset)) {
            self.in_unit(*offset, |unit| {
                let mut entries = unit.entries();
                let Some(root) = entries.next_dfs()? else { return Ok(()) };
                let ranges = unit::ranges(unit, root, &mut work)?;
                found.extend(ranges.into_iter().map(|range| (range.begin, range.end, *offset)));
                Ok(())
            })?;
        }
        found.sort_unstable();
        Ok(self.other_code.get_or_init(|| found))
    }

    /// Where the unit begins that has the byte at `offset` of `.debug_info`.
    fn unit_around(&self, offset: u64) -> Result<u64, Error> {
        let units = self.units()?;
        let before = units.partition_point(|start| *start <= offset);
        let unit = before.checked_sub(1).and_then(|index| units.get(index)).copied();
        Ok(unit.ok_or(gimli::Error::NoEntryAtGivenOffset(offset))?)
    }

    /// Where each unit begins.
    fn units(&self) -> Result<&[u64], Error> {
        if let Some(units) = self.units.get() {
            return Ok(units);
        }
        let mut found = Vec::new();
        let mut offset = 0;
        while offset < self.info.len() {
            if found.len() == MAX_UNITS {
                return Err(Error::Unusable(format!("has more than {MAX_UNITS} units of debug information")));
            }
            found.push(offset);
            offset = offset.saturating_add(self.unit_len(offset)?);
        }
        Ok(self.units.get_or_init(|| found))
    }

    /// Length of the unit at `offset`, its header included.
    fn unit_len(&self, offset: u64) -> Result<u64, Error> {
        let head = self.info.part(offset, MIN_UNIT_LEN)?;
        let (len, format) = self.slice(&head).read_initial_length()?;
        Ok((len as u64).saturating_add(u64::from(format.initial_length_size())))
    }

    /// What `look` finds in the unit at `offset`.
    fn in_unit<T>(
        &self,
        offset: u64,
        look: impl FnOnce(UnitRef<'_, Slice<'_>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let len = self.unit_len(offset)?;
        if len > MAX_UNIT_LEN {
            return Err(Error::Unusable(format!(
                "has a unit of {len} bytes, at most {MAX_UNIT_LEN} can be looked into"
            )));
        }
        let bytes = self.info.part(offset, len)?;
        let mut dwarf = self.sections.borrow(|bytes| self.slice(bytes));
        dwarf.debug_info = self.slice(&bytes).into();
        let header = dwarf.units().next()?.ok_or(gimli::Error::MissingUnitDie)?;
        // Its own abbreviations end long before.
        let abbreviations = dwarf.debug_abbrev.reader().slice();
        let end =
            header.debug_abbrev_offset().0.saturating_add(MAX_ABBREVIATIONS_LEN).min(abbreviations.len());
        dwarf.debug_abbrev = self.slice(&abbreviations[..end]).into();
        let unit = dwarf.unit(header)?;
        look(UnitRef::new(&dwarf, &unit))
    }
}
