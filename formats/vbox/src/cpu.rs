//! A CPU record and a register file: each made of the other, by the items of the record.
//!
//! A record that is made anew holds the registers that are known, and zeros. A record that was read is written again as it
//! was but for registers that have another value now: what nobody here understands stays.

use crate::record::{EXT_LEN, FXSAVE_LEN, Item, Part, Record};
use crate::xsave::{self, AVX, SSE, Slot, X87, XSTATE_BV};
use vmcore_core::{Endianness, RegisterFile, RegisterId, RegisterTable};

/// Attributes of a segment that VirtualBox and the register table have in common: all but bits 16 to 19 of the limit.
const ATTRIBUTES: u64 = 0xf0ff;
/// The register table has them where the second word of a descriptor does.
const ATTRIBUTES_SHIFT: u32 = 8;
/// Attributes of VirtualBox: nothing may be reached through the segment.
const UNUSABLE: u64 = 1 << 16;
/// Attributes of VirtualBox: the segment is present.
const PRESENT: u64 = 1 << 7;
/// Attributes of the register table: 64-bit code.
const LONG: u64 = 1 << 21;
/// EFER of a vCPU that runs 64-bit code: SYSCALL, long mode enabled and active.
const EFER_LONG: u64 = 0x501;
/// EFER: long mode is active.
const EFER_LMA: u64 = 1 << 10;
/// `CPUMSELREG_FLAGS_VALID`.
const CHECK_VALID: u64 = 1;

/// How the bytes of a field are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As they are, least significant first.
    Plain,
    /// As VirtualBox's attributes of a segment.
    Attributes,
    /// As a selector, for which the parts behind the check hold.
    Selector,
}

/// Where a record holds a register.
struct Field {
    register: RegisterId,
    at: usize,
    width: usize,
    kind: Kind,
    /// Where the check of the segment's hidden parts stands, if it has one.
    check: Option<usize>,
    /// Bit of `XSTATE_BV` that says whether the field is stored.
    gate: Option<u8>,
    /// What the register is if it is not stored.
    initial: u64,
}

/// A CPU record: its form and its bytes.
pub(crate) struct Cpu {
    record: &'static Record,
    bytes: Vec<u8>,
}

impl Cpu {
    /// The record of this length; `None` if there is no such form.
    pub(crate) fn of_bytes(bytes: &[u8], vbox_version: u32) -> Option<Self> {
        let record = Record::of_len(bytes.len(), vbox_version)?;
        Some(Self { record, bytes: bytes.to_vec() })
    }

    /// A record of that form that holds the registers that are known.
    pub(crate) fn new(record: &'static Record, registers: &RegisterFile) -> Self {
        let mut cpu = Self { record, bytes: vec![0; record.byte_len()] };
        cpu.open_area(registers);
        for field in cpu.fields(registers.table()) {
            if let Some(value) = registers.get(field.register) {
                cpu.put(&field, value);
            }
        }
        // Readers decide the mode of the guest by it; QEMU's own dumps lack it.
        let is_long_code = registers.value("cs_attr").is_some_and(|attributes| attributes & LONG != 0);
        if is_long_code && registers.value("efer").is_none() {
            cpu.put_word(registers.table(), "efer", EFER_LONG);
        }
        cpu
    }

    /// Its bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The registers that it holds.
    pub(crate) fn registers(&self, table: &'static RegisterTable) -> RegisterFile {
        let mut registers = RegisterFile::new(table);
        for field in self.fields(table) {
            if let Some(value) = self.get(&field) {
                registers.set(field.register, &value);
            }
        }
        registers
    }

    /// Takes over the registers that have another value than the record says.
    ///
    /// Zero is none for a register that the record does not say: other notes have no room for "unknown".
    pub(crate) fn update(&mut self, registers: &RegisterFile) {
        let said = self.registers(registers.table());
        for field in self.fields(registers.table()) {
            let Some(value) = registers.get(field.register) else { continue };
            let is_said = match said.get(field.register) {
                Some(found) => found == value,
                None => value.iter().all(|byte| *byte == 0),
            };
            if !is_said {
                self.open_gate(&field, registers.table());
                self.put(&field, value);
            }
        }
    }

    /// Whether the vCPU is in long mode.
    pub(crate) fn is_long(&self) -> bool {
        self.word("efer").is_some_and(|efer| efer & EFER_LMA != 0)
    }

    /// The value of a register of 8 bytes.
    fn word(&self, name: &str) -> Option<u64> {
        self.word_place(name).map(|at| self.number(at, 8))
    }

    fn word_place(&self, name: &str) -> Option<usize> {
        let mut place = None;
        visit(self.record.items, 0, &mut |at, item| {
            if let Item::Words(names) = item
                && let Some(index) = names.iter().position(|found| *found == name)
            {
                place = Some(at + 8 * index);
            }
        });
        place
    }

    /// Sets a register of 8 bytes, if the record and the guest have it.
    fn put_word(&mut self, table: &RegisterTable, name: &str, value: u64) {
        if let Some(at) = self.word_place(name).filter(|_| table.find(name).is_some()) {
            self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }

    fn number(&self, at: usize, width: usize) -> u64 {
        Endianness::Little.decode(&self.bytes[at..at + width])
    }

    /// All registers that this record holds, by its form and by what it says of its XSAVE area.
    fn fields(&self, table: &RegisterTable) -> Vec<Field> {
        let mut fields = Vec::new();
        visit(self.record.items, 0, &mut |at, item| match item {
            Item::Words(names) => {
                for (index, name) in names.iter().enumerate() {
                    push(&mut fields, table, name, at + 8 * index, 8, Kind::Plain);
                }
            }
            Item::Segment(parts, name) => push_segment(&mut fields, table, parts, name, at),
            Item::FxSave => push_slots(&mut fields, table, fxsave(table), at, false),
            Item::Ext => {
                let len = self.area_len();
                let has_header = len >= xsave::HEADER_END;
                if len >= FXSAVE_LEN {
                    push_slots(&mut fields, table, fxsave(table), at, has_header);
                }
                let components = self.word("xcr0").unwrap_or(0);
                let behind = [xsave::UPPER_YMM, xsave::family(len)].into_iter().flatten();
                let is_there = |slot: &&Slot| {
                    let end = slot.registers().last().map_or(0, |(_, start)| start + slot.width);
                    has_header && end <= len && slot.component.is_some_and(|bit| components >> bit & 1 == 1)
                };
                push_slots(&mut fields, table, behind.filter(is_there), at, true);
            }
            Item::ExtLen | Item::Skip(_) | Item::Items(_) => {}
        });
        fields
    }

    /// Where the XSAVE area and its length stand.
    fn area(&self) -> (Option<usize>, Option<usize>) {
        let (mut area, mut len) = (None, None);
        visit(self.record.items, 0, &mut |at, item| match item {
            Item::Ext => area = Some(at),
            Item::ExtLen => len = Some(at),
            Item::Words(_) | Item::Segment(..) | Item::FxSave | Item::Skip(_) | Item::Items(_) => {}
        });
        (area, len)
    }

    /// How many bytes of the XSAVE area are valid. 5.0.0 did not say it.
    fn area_len(&self) -> usize {
        let (_, len) = self.area();
        len.map_or(EXT_LEN, |at| usize::try_from(self.number(at, 4)).unwrap_or(EXT_LEN).min(EXT_LEN))
    }

    /// Makes an XSAVE area for the registers that are known, with its components in their initial state.
    fn open_area(&mut self, registers: &RegisterFile) {
        let (Some(area), len_place) = self.area() else { return };
        let table = registers.table();
        let mut known = Vec::new();
        let slots = [xsave::UPPER_YMM, xsave::INTEL].into_iter().flatten();
        push_slots(&mut known, table, fxsave(table).chain(slots), area, true);
        known.retain(|field| registers.get(field.register).is_some());
        if known.is_empty() {
            return;
        }
        let gates = known.iter().filter_map(|field| field.gate).fold(0, |gates, bit| gates | 1 << bit);
        let offered = registers.value("xcr0").unwrap_or(u64::MAX);
        let mut components = gates & offered | 1 << X87 | 1 << SSE;
        if len_place.is_none() {
            // Without its length nobody knows where AVX-512 is.
            components &= 1 << X87 | 1 << SSE | 1 << AVX;
        }
        if let Some(at) = len_place {
            let len = u32::try_from(xsave::len_of(components)).unwrap_or(0);
            self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
        self.bytes[area + XSTATE_BV..][..8].copy_from_slice(&components.to_le_bytes());
        // Which components the area has is told by XCR0.
        self.put_word(table, "xcr0", registers.value("xcr0").unwrap_or(components));
        for field in self.fields(table) {
            if field.initial != 0 {
                self.put(&field, &field.initial.to_le_bytes());
            }
        }
    }

    /// Sees to it that a field is stored: the others of its component then are, too.
    fn open_gate(&mut self, field: &Field, table: &RegisterTable) {
        if self.is_stored(field) {
            return;
        }
        let (Some(bit), (Some(area), _)) = (field.gate, self.area()) else { return };
        let bitmap = self.number(area + XSTATE_BV, 8) | 1 << bit;
        self.bytes[area + XSTATE_BV..][..8].copy_from_slice(&bitmap.to_le_bytes());
        for other in self.fields(table).iter().filter(|other| other.gate == Some(bit)) {
            self.put(other, &other.initial.to_le_bytes());
        }
    }

    fn is_stored(&self, field: &Field) -> bool {
        let bitmap = || self.area().0.map_or(u64::MAX, |area| self.number(area + XSTATE_BV, 8));
        field.gate.is_none_or(|bit| bitmap() >> bit & 1 == 1)
    }

    /// Whether the hidden parts of a segment hold for its selector, which stands 4 bytes before the check.
    fn is_checked(&self, check: usize) -> bool {
        let [selector, valid, flags] = [check - 4, check, check + 2].map(|at| self.number(at, 2));
        flags & CHECK_VALID != 0 && valid == selector
    }

    /// What a field holds, least significant byte first.
    fn get(&self, field: &Field) -> Option<Vec<u8>> {
        if !self.is_stored(field) {
            return Some(field.initial.to_le_bytes().to_vec());
        }
        let bytes = &self.bytes[field.at..field.at + field.width];
        match (field.kind, field.check) {
            (Kind::Plain | Kind::Attributes, Some(check)) if !self.is_checked(check) => None,
            (Kind::Attributes, _) => {
                let attributes = Endianness::Little.decode(bytes);
                let hidden = if attributes & UNUSABLE == 0 { 0 } else { PRESENT };
                let attributes = (attributes & ATTRIBUTES & !hidden) << ATTRIBUTES_SHIFT;
                Some(attributes.to_le_bytes().to_vec())
            }
            (Kind::Plain | Kind::Selector, _) => Some(bytes.to_vec()),
        }
    }

    /// Writes a register, least significant byte first.
    fn put(&mut self, field: &Field, value: &[u8]) {
        let was_checked = field.check.is_some_and(|check| self.is_checked(check));
        let target = &mut self.bytes[field.at..field.at + field.width];
        if field.kind == Kind::Attributes {
            let attributes = Endianness::Little.decode(value) >> ATTRIBUTES_SHIFT & ATTRIBUTES;
            let unusable = if attributes & PRESENT == 0 { UNUSABLE } else { 0 };
            let rest = Endianness::Little.decode(target) & !(ATTRIBUTES | UNUSABLE);
            Endianness::Little.encode(rest | attributes | unusable, target);
        } else {
            let len = value.len().min(target.len());
            target.fill(0);
            target[..len].copy_from_slice(&value[..len]);
        }
        // A hidden part that is known holds for the selector, and goes on to do so for another one.
        if let Some(check) = field.check.filter(|_| was_checked || field.kind != Kind::Selector) {
            let flags = self.number(check + 2, 2) | CHECK_VALID;
            self.bytes.copy_within(check - 4..check - 2, check);
            Endianness::Little.encode(flags, &mut self.bytes[check + 2..check + 4]);
        }
    }
}

/// Shows all items that hold none, with their offsets; they begin at `at`. Gives where they end.
fn visit(items: &'static [Item], mut at: usize, show: &mut impl FnMut(usize, &'static Item)) -> usize {
    for item in items {
        match item {
            Item::Items(items) => at = visit(items, at, show),
            item => {
                show(at, item);
                at += item.byte_len();
            }
        }
    }
    at
}

/// The row of a register that goes by its 64-bit name: 32-bit guests have most of them under another one.
fn find(table: &RegisterTable, name: &str) -> Option<RegisterId> {
    table.find(name).or_else(|| table.find(&format!("e{}", name.strip_prefix('r')?)))
}

/// Adds a field, if the guest has the register.
fn push(fields: &mut Vec<Field>, table: &RegisterTable, name: &str, at: usize, width: usize, kind: Kind) {
    if let Some(register) = find(table, name) {
        fields.push(Field { register, at, width, kind, check: None, gate: None, initial: 0 });
    }
}

fn push_segment(fields: &mut Vec<Field>, table: &RegisterTable, parts: &[Part], name: &str, at: usize) {
    let first = fields.len();
    let (mut place, mut check) = (at, None);
    for part in parts {
        match part {
            Part::Selector => {
                let own =
                    if table.find(name).is_some() { name.to_owned() } else { format!("{name}_selector") };
                push(fields, table, &own, place, 2, Kind::Selector);
            }
            Part::Base => push(fields, table, &format!("{name}_base"), place, 8, Kind::Plain),
            Part::Limit(width) => push(fields, table, &format!("{name}_limit"), place, *width, Kind::Plain),
            Part::Attributes => push(fields, table, &format!("{name}_attr"), place, 4, Kind::Attributes),
            Part::Check => check = Some(place),
            Part::Gap(_) => {}
        }
        place += part.byte_len();
    }
    fields[first..].iter_mut().for_each(|field| field.check = check);
}

/// The image of FXSAVE, with the pointers as the guest's code has them.
fn fxsave(table: &RegisterTable) -> impl Iterator<Item = &'static Slot> {
    let is_wide = find(table, "fip").and_then(|id| table.row(id)).is_some_and(|row| row.bits > 32);
    xsave::FXSAVE.iter().chain(if is_wide { xsave::POINTERS_64 } else { xsave::POINTERS_32 })
}

fn push_slots<'a>(
    fields: &mut Vec<Field>,
    table: &RegisterTable,
    slots: impl Iterator<Item = &'a Slot>,
    area: usize,
    has_gates: bool,
) {
    for slot in slots {
        for (name, at) in slot.registers() {
            let Some(register) = table.find(&name) else { continue };
            fields.push(Field {
                register,
                at: area + at,
                width: slot.width,
                kind: Kind::Plain,
                check: None,
                gate: slot.component.filter(|_| has_gates),
                initial: slot.initial,
            });
        }
    }
}
