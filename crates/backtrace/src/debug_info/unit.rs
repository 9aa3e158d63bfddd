//! What a unit says of an address.

use super::{Function, Loaded, Slice, Work};
use crate::{Error, Source};
use gimli::{AttributeValue, Range, UnitOffset, UnitRef, constants};

type Entry<'a> = gimli::DebuggingInformationEntry<Slice<'a>>;

/// How deep functions are inlined that are shown.
const MAX_INLINED: usize = 64;
/// The longest program of lines; those of Linux have 200 KiB.
const MAX_LINES_LEN: usize = 1 << 24;
/// How many references lead to a name: from what is inlined to the function, and from there to its declaration.
const MAX_REFERENCES: u32 = 4;
/// How much of a name is taken.
const MAX_TEXT_LEN: usize = 4096;

/// The functions of the code at `address`, of which this is the unit: the innermost first, all but the last inlined.
pub(super) fn functions(
    loaded: &Loaded,
    unit: UnitRef<'_, Slice<'_>>,
    address: u64,
) -> Result<Vec<Function>, Error> {
    let found = entries(unit, address)?;
    let mut source = line(unit, address)?;
    if found.is_empty() {
        return Ok(vec![Function { name: None, source }]);
    }
    let mut functions = Vec::new();
    for entry in found.iter().rev() {
        functions.push(Function { name: name(loaded, unit, entry, MAX_REFERENCES)?, source });
        source = call(unit, entry)?;
    }
    Ok(functions)
}

/// The entries of the function at `address` and of what is inlined there, the outermost first.
fn entries<'a>(unit: UnitRef<'_, Slice<'a>>, address: u64) -> Result<Vec<Entry<'a>>, Error> {
    let mut found: Vec<Entry<'_>> = Vec::new();
    let mut work = Work::default();
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        work.spend(1 + entry.attrs().len())?;
        let tag = match (found.first(), found.last()) {
            // Behind the function's own entries.
            (Some(function), _) if entry.depth() <= function.depth() => break,
            (_, Some(last)) if entry.depth() <= last.depth() => continue,
            (Some(_), _) => constants::DW_TAG_inlined_subroutine,
            (None, _) => constants::DW_TAG_subprogram,
        };
        if entry.tag() == tag {
            let ranges = ranges(unit, entry, &mut work)?;
            if ranges.iter().any(|range| (range.begin..range.end).contains(&address)) {
                found.push(entry.clone());
            }
        }
        if found.len() > MAX_INLINED {
            break;
        }
    }
    Ok(found)
}

/// Where the code of an entry is.
pub(super) fn ranges<'s>(
    unit: UnitRef<'_, Slice<'s>>,
    entry: &Entry<'s>,
    work: &mut Work,
) -> Result<Vec<Range>, Error> {
    if let Some(value) = entry.attr_value(constants::DW_AT_ranges)
        && let Some(offset) = unit.attr_ranges_offset(value)?
    {
        // Entries that are no range count, too.
        let mut raw = unit.raw_ranges(offset)?;
        while raw.next()?.is_some() {
            work.spend(1)?;
        }
        let mut ranges = unit.ranges(offset)?;
        let mut found = Vec::new();
        while let Some(range) = ranges.next()? {
            found.push(range);
        }
        return Ok(found);
    }
    let Some(begin) = entry.attr_value(constants::DW_AT_low_pc) else { return Ok(Vec::new()) };
    let Some(begin) = unit.attr_address(begin)? else { return Ok(Vec::new()) };
    let end = match entry.attr_value(constants::DW_AT_high_pc) {
        Some(AttributeValue::Udata(len)) => Some(begin.saturating_add(len)),
        Some(value) => unit.attr_address(value)?,
        None => None,
    };
    Ok(end.into_iter().map(|end| Range { begin, end }).collect())
}

/// The name of a function.
fn name<'s>(
    loaded: &Loaded,
    unit: UnitRef<'_, Slice<'s>>,
    entry: &Entry<'s>,
    references: u32,
) -> Result<Option<String>, Error> {
    if let Some(value) = entry.attr_value(constants::DW_AT_name) {
        return Ok(Some(text(unit.attr_string(value)?)));
    }
    let Some(references) = references.checked_sub(1) else { return Ok(None) };
    let to = entry.attr_value(constants::DW_AT_abstract_origin);
    match to.or_else(|| entry.attr_value(constants::DW_AT_specification)) {
        Some(AttributeValue::UnitRef(offset)) => name(loaded, unit, &unit.entry(offset)?, references),
        Some(AttributeValue::DebugInfoRef(offset)) => {
            let start = loaded.unit_around(offset.0 as u64)?;
            // It is not before the start of its unit.
            let offset = UnitOffset(offset.0 - usize::try_from(start).unwrap_or(offset.0));
            loaded.in_unit(start, |other| name(loaded, other, &other.entry(offset)?, references))
        }
        _ => Ok(None),
    }
}

/// Where something inlined is called.
fn call(unit: UnitRef<'_, Slice<'_>>, entry: &Entry<'_>) -> Result<Option<Source>, Error> {
    let line = entry.attr_value(constants::DW_AT_call_line).and_then(|value| value.udata_value());
    let file = match entry.attr_value(constants::DW_AT_call_file) {
        Some(AttributeValue::FileIndex(file)) => Some(file),
        _ => None,
    };
    match file.zip(line) {
        Some((file, line)) => source(unit, file, line),
        None => Ok(None),
    }
}

/// The line of an instruction.
fn line(unit: UnitRef<'_, Slice<'_>>, address: u64) -> Result<Option<Source>, Error> {
    let Some(program) = unit.line_program.clone() else { return Ok(None) };
    if program.header().unit_length() > MAX_LINES_LEN {
        return Err(Error::Unusable(format!("has a program of lines of more than {MAX_LINES_LEN} bytes")));
    }
    let mut rows = program.rows();
    let mut last: Option<gimli::LineRow> = None;
    while let Some((_, row)) = rows.next_row()? {
        // A row is of all instructions up to that of the next.
        if let Some(last) = last
            && (last.address()..row.address()).contains(&address)
        {
            let line = last.line().map(std::num::NonZeroU64::get);
            return line.map_or(Ok(None), |line| source(unit, last.file_index(), line));
        }
        // Of several rows of one instruction the last is right, but one where a statement begins is better: as gdb does it.
        let is_worse =
            |last: gimli::LineRow| last.address() == row.address() && last.is_stmt() && !row.is_stmt();
        if row.end_sequence() {
            last = None;
        } else if !last.is_some_and(is_worse) {
            last = Some(*row);
        }
    }
    Ok(None)
}

/// A line of the file with this number in the unit.
fn source(unit: UnitRef<'_, Slice<'_>>, file: u64, line: u64) -> Result<Option<Source>, Error> {
    let Some(program) = &unit.line_program else { return Ok(None) };
    let Some(entry) = program.header().file(file) else { return Ok(None) };
    let mut path = text(unit.attr_string(entry.path_name())?);
    // Folder 0 is that in which the compiler ran: it tells nothing of the source.
    if entry.directory_index() != 0
        && !path.starts_with('/')
        && let Some(folder) = entry.directory(program.header())
    {
        path = format!("{}/{path}", text(unit.attr_string(folder)?));
    }
    Ok(Some(Source { file: path, line }))
}

fn text(bytes: Slice<'_>) -> String {
    let bytes = bytes.slice();
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_LEN)]).into_owned()
}
