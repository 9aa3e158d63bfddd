//! The tables of an architecture, as a person reads them.

use vmcore::{Arch, Emit, FieldValue, NoteField, NoteTable, PerUnit, Register, RegisterId};

/// A line a register, then a block a note with a line a field: offset, width, what stands there.
#[must_use]
pub fn text(arch: &dyn Arch) -> String {
    let table = arch.registers();
    let rows = table.rows;
    let mut text =
        format!("program counter {}, stack pointer {}\n\n", table.program_counter, table.stack_pointer);
    text += &aligned(&rows.iter().map(register).collect::<Vec<_>>());
    for note in arch.notes() {
        text += &format!("\n{}\n", heading(note, rows));
        text += &aligned(&note.fields.iter().map(|row| field(note, row, rows)).collect::<Vec<_>>());
    }
    text
}

fn register(row: &Register) -> Vec<String> {
    let dwarf = row.dwarf.map_or("-".to_owned(), |number| number.0.to_string());
    let gdb = row.gdb.map_or("-", |gdb| gdb.name);
    let group = format!("{:?}", row.group);
    vec![
        row.name.to_owned(),
        format!("{:>4}", row.bits),
        group,
        format!("dwarf {dwarf}"),
        format!("gdb {gdb}"),
    ]
}

fn heading(note: &NoteTable, rows: &[Register]) -> String {
    let NoteTable { owner, note_type, name, scope, desc_len, .. } = note;
    let emit = match note.emit {
        Emit::Always => "always".to_owned(),
        Emit::Never => "never".to_owned(),
        Emit::IfAny(ids) => {
            format!("if any of {}", ids.iter().map(|id| name_of(rows, *id)).collect::<Vec<_>>().join(" "))
        }
    };
    format!("{owner}/{note_type:#x} {name}: {desc_len} bytes, {scope:?}, written {emit}")
}

fn field(note: &NoteTable, field: &NoteField, rows: &[Register]) -> Vec<String> {
    let register = |id| name_of(rows, id);
    let mut value = match field.value {
        FieldValue::Register(id) => register(id).to_owned(),
        FieldValue::RegisterOr(id, number) => format!("{} or {number:#x}", register(id)),
        FieldValue::RegisterOrGates(id, always) => format!("{} or Gates | {always:#x}", register(id)),
        FieldValue::Units(units) => {
            format!(
                "{} * {}, step {}, at most {}",
                units.factor,
                register(units.register),
                units.step,
                units.max
            )
        }
        FieldValue::Constant(number) => number.to_string(),
        FieldValue::Tag(number) => format!("{number} in this layout"),
        FieldValue::HasNote(owner, note_type) => format!("whether {owner}/{note_type:#x} is written"),
        FieldValue::VcpuNumber | FieldValue::DescLen | FieldValue::Gates => format!("{:?}", field.value),
    };
    if field.mask != u64::MAX {
        value += &format!(" & {:#x}", field.mask);
    }
    if let Some(bit) = field.gate.filter(|_| note.gates.is_some()) {
        value += &format!(" if component {bit}");
    }
    if field.per_unit != PerUnit::NONE {
        let PerUnit { offset, width, align } = field.per_unit;
        value += &format!(", a unit {offset} {width} align {align}");
    }
    if let Some(order) = field.endianness {
        value += &format!(", {order}");
    }
    vec![format!("{:>6}", field.offset), format!("{:>4}", field.width), value]
}

fn name_of(rows: &[Register], id: RegisterId) -> &'static str {
    rows.get(id.index()).map_or("?", |row| row.name)
}

/// Cells in columns that are as wide as they must be.
fn aligned(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        widths.resize(widths.len().max(line.len()), 0);
        widths.iter_mut().zip(line).for_each(|(width, cell)| *width = cell.len().max(*width));
    }
    let line = |cells: &Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
