//! What a note's descriptor means, as a table: bytes of the descriptor on one side, registers on the other.
//!
//! One table serves both ways: it writes a note from a [`RegisterFile`] and reads a register file from a note.

use crate::{Endianness, Note, RegisterFile, RegisterId, RegisterTable};
use std::ops::Range;

/// Where a note stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteScope {
    /// With the other notes of its vCPU.
    Vcpu,
    /// Behind the notes of all vCPUs, one a vCPU, matched by order.
    Machine,
}

/// When a note is written for a vCPU that does not bring it along.
#[derive(Clone, Copy, Debug)]
pub enum Emit {
    /// Always: readers need it to see the vCPU at all.
    Always,
    /// If any of these registers is known.
    IfAny(&'static [RegisterId]),
    /// Never: another program's, who gives it an owner or a layout that readers do not expect. It is read and carried along;
    /// the right note of the same registers is written beside it.
    Never,
}

/// What stands in a field of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// A register.
    Register(RegisterId),
    /// A register, and this number while it is not known: its initial state, also where a gate is closed.
    RegisterOr(RegisterId, u64),
    /// A fixed number; not checked when reading. Zeros of any width are space that no row names.
    Constant(u64),
    /// A fixed number that tells this layout from another of the same type: a descriptor that has another number here is
    /// not read.
    Tag(u64),
    /// Index of the vCPU + 1: what readers take for a thread id.
    VcpuNumber,
    /// Length of the whole descriptor.
    DescLen,
    /// A register that the layout of the note depends on.
    Units(Units),
    /// A bitmap of the gates ([`NoteField::gate`]) that are open.
    Gates,
    /// A register that says which gates there are, so that the descriptor reaches to the end of the last one. While it is
    /// not known: the bitmap of open gates, and these bits.
    RegisterOrGates(RegisterId, u64),
    /// 1 if the note of this owner and type is written too, else 0.
    HasNote(&'static str, u32),
}

/// Bytes of a descriptor and what stands there.
#[derive(Clone, Copy, Debug)]
pub struct NoteField {
    /// Bytes from the start of the descriptor.
    pub offset: usize,
    /// How many bytes.
    pub width: usize,
    /// What stands there, in the dump's byte order.
    pub value: FieldValue,
    /// Bits of the field that belong to the register, for fields of up to 8 bytes.
    pub mask: u64,
    /// Bit of the gate bitmap that says whether the field is stored; clear means that the register is in its initial
    /// state: zero, or the number of [`FieldValue::RegisterOr`].
    pub gate: Option<u8>,
    /// What is added to offset and width for each unit of the note.
    pub per_unit: PerUnit,
    /// Its byte order, where that is not the dump's.
    pub endianness: Option<Endianness>,
}

impl NoteField {
    /// A field without a mask and without a gate, in the dump's byte order, at a fixed place.
    #[must_use]
    pub const fn new(offset: usize, width: usize, value: FieldValue) -> Self {
        Self { offset, width, value, mask: u64::MAX, gate: None, per_unit: PerUnit::NONE, endianness: None }
    }

    /// The field, of which only the bits of `mask` are the register's.
    #[must_use]
    pub const fn masked(self, mask: u64) -> Self {
        Self { mask, ..self }
    }

    /// The field, stored only when gate `bit` is open.
    #[must_use]
    pub const fn gated(self, bit: u8) -> Self {
        Self { gate: Some(bit), ..self }
    }

    /// The field, whose place depends on how many units the note has.
    #[must_use]
    pub const fn per_unit(self, per_unit: PerUnit) -> Self {
        Self { per_unit, ..self }
    }

    /// The field, in this byte order whatever the dump's.
    #[must_use]
    pub const fn in_order(self, endianness: Endianness) -> Self {
        Self { endianness: Some(endianness), ..self }
    }

    /// The register that the field holds.
    #[must_use]
    pub const fn register(&self) -> Option<RegisterId> {
        match self.value {
            FieldValue::Register(id)
            | FieldValue::RegisterOr(id, _)
            | FieldValue::RegisterOrGates(id, _)
            | FieldValue::Units(Units { register: id, .. }) => Some(id),
            FieldValue::Constant(_)
            | FieldValue::Tag(_)
            | FieldValue::VcpuNumber
            | FieldValue::DescLen
            | FieldValue::Gates
            | FieldValue::HasNote(..) => None,
        }
    }

    /// What stands in the field while its register is not known.
    const fn initial(&self) -> u64 {
        if let FieldValue::RegisterOr(_, number) = self.value { number } else { 0 }
    }

    /// Where the field lies in a descriptor with so many units.
    #[must_use]
    pub const fn place(&self, units: usize) -> Range<usize> {
        let PerUnit { offset, width, align } = self.per_unit;
        let start = self.offset + (offset * units).next_multiple_of(align);
        start..start + self.width + width * units
    }
}

/// What the place of a field has for each unit of its note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerUnit {
    /// Bytes that are added to the offset for each unit.
    pub offset: usize,
    /// Bytes that are added to the width for each unit.
    pub width: usize,
    /// What all that is added to the offset is rounded up to a multiple of.
    pub align: usize,
}

impl PerUnit {
    /// A field at a fixed place.
    pub const NONE: Self = Self { offset: 0, width: 0, align: 1 };
}

/// A register that counts the units of a note whose fields grow with it: the length of the processor's vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// The register.
    pub register: RegisterId,
    /// What the descriptor states for each unit: 8 where the register counts words and the descriptor bytes.
    pub factor: u64,
    /// Every count is a multiple of this.
    pub step: u64,
    /// The largest count; also taken while the register is not known, so that there is room for every value.
    pub max: u64,
}

impl Units {
    /// The count, if there can be so many.
    fn check(&self, count: u64) -> Option<usize> {
        let is_possible = count != 0 && count <= self.max && count.is_multiple_of(self.step);
        usize::try_from(count).ok().filter(|_| is_possible)
    }

    /// The count that a descriptor states.
    fn stated(&self, number: u64) -> Option<usize> {
        let count = number.checked_div(self.factor).filter(|count| count * self.factor == number)?;
        self.check(count)
    }

    /// As many as the register says, or the most that there can be.
    fn of(&self, registers: &RegisterFile) -> Option<usize> {
        let known = registers.get(self.register).map(|bytes| Endianness::Little.decode(bytes));
        known.and_then(|count| self.check(count)).or_else(|| self.check(self.max))
    }
}

/// The layout of one kind of note.
#[derive(Debug)]
pub struct NoteTable {
    /// Owner, as in `CORE`.
    pub owner: &'static str,
    /// Type number.
    pub note_type: u32,
    /// Name of the type, as in `NT_PRSTATUS`.
    pub name: &'static str,
    /// Where it stands.
    pub scope: NoteScope,
    /// When it is written.
    pub emit: Emit,
    /// Length of the descriptor in bytes; a note with gates grows to the end of the last one that is open or that
    /// [`FieldValue::RegisterOrGates`] names, and a note with [`Units`] to the end of its last field.
    pub desc_len: usize,
    /// Offset of a `u32` that tells how much of the descriptor is meant, where there is such a field.
    pub size_field: Option<usize>,
    /// Offset of the `u64` bitmap of gates. Without one all fields are stored, whatever their gate.
    pub gates: Option<usize>,
    /// The fields.
    pub fields: &'static [NoteField],
}

impl NoteTable {
    /// Whether `note` is of this kind.
    #[must_use]
    pub fn matches(&self, note: &Note) -> bool {
        note.is(self.owner, self.note_type)
    }

    /// Whether a field of the note holds this register where readers look for it.
    #[must_use]
    pub fn holds(&self, id: RegisterId) -> bool {
        !matches!(self.emit, Emit::Never) && self.fields.iter().any(|field| field.register() == Some(id))
    }

    /// Whether these registers call for the note, but for those that `is_held` says stand in another one.
    pub fn is_called_for(&self, registers: &RegisterFile, is_held: impl Fn(RegisterId) -> bool) -> bool {
        match self.emit {
            Emit::Always => true,
            Emit::IfAny(ids) => ids.iter().any(|id| registers.get(*id).is_some() && !is_held(*id)),
            Emit::Never => false,
        }
    }

    /// Writes the note of vCPU `vcpu_index`; `notes` are all tables of the architecture.
    ///
    /// Registers that are not known become 0, or the number of their [`FieldValue::RegisterOr`].
    #[must_use]
    pub fn encode(
        &self,
        registers: &RegisterFile,
        vcpu_index: usize,
        endianness: Endianness,
        notes: &[Self],
    ) -> Note {
        let open = self.open_gates(registers);
        let behind = |gates: u64| {
            move |field: &&NoteField| {
                self.gates.is_none() || field.gate.is_none_or(|bit| gates >> bit & 1 == 1)
            }
        };
        let room = open | self.stated_gates(registers);
        let units = self.units().and_then(|(_, units)| units.of(registers)).unwrap_or(0);
        let ends = self.fields.iter().filter(behind(room)).map(|field| field.place(units).end);
        let len = ends.fold(self.desc_len, usize::max);
        let mut desc = vec![0; len];
        for field in self.fields.iter().filter(behind(open)) {
            let dest = &mut desc[field.place(units)];
            let endianness = field.endianness.unwrap_or(endianness);
            if let Some(value) = field.register().and_then(|id| registers.get(id))
                && !matches!(field.value, FieldValue::Units(_))
            {
                encode_register(value, field, endianness, dest);
                continue;
            }
            let number = match field.value {
                FieldValue::Units(Units { factor, .. }) => factor * units as u64,
                FieldValue::Register(_) | FieldValue::RegisterOr(..) => field.initial(),
                FieldValue::Gates => open,
                FieldValue::RegisterOrGates(_, always) => open | always,
                FieldValue::Constant(number) | FieldValue::Tag(number) => number,
                FieldValue::VcpuNumber => vcpu_index as u64 + 1,
                FieldValue::DescLen => len as u64,
                FieldValue::HasNote(owner, note_type) => {
                    let wanted = |table: &&Self| table.owner == owner && table.note_type == note_type;
                    u64::from(
                        notes
                            .iter()
                            .find(wanted)
                            .is_some_and(|table| table.is_called_for(registers, |_| false)),
                    )
                }
            };
            endianness.encode(number, dest);
        }
        Note::new(self.owner, self.note_type, desc)
    }

    /// Takes over the registers that the note holds; what it does not hold stays as it is.
    ///
    /// A descriptor may be shorter or longer than the table says: fields that are there count.
    pub fn decode(&self, desc: &[u8], endianness: Endianness, registers: &mut RegisterFile) {
        let stated = self.size_field.and_then(|offset| endianness.u32_at(desc, offset));
        let valid = stated
            .and_then(|size| usize::try_from(size).ok())
            .map_or(desc.len(), |size| size.min(desc.len()));
        let bitmap =
            self.gates.and_then(|offset| Some(endianness.decode(desc[..valid].get(offset..offset + 8)?)));
        let is_open = |field: &NoteField| match (self.gates, field.gate) {
            // A note that ends before its bitmap does not say what is stored.
            (Some(_), Some(bit)) => Some(bitmap? >> bit & 1 == 1),
            _ => Some(true),
        };
        let word =
            |field: &NoteField| Some(endianness.decode(desc[..valid].get(field.place(0))?) & field.mask);
        let is_other = |field: &NoteField| matches!(field.value, FieldValue::Tag(number) if word(field).is_some_and(|found| found != number));
        if self.fields.iter().any(is_other) {
            return;
        }
        let units = self.units().and_then(|(field, units)| {
            let count = units.stated(word(field)?)?;
            registers.set(units.register, &count.to_le_bytes());
            Some(count)
        });
        for field in self.fields {
            let (Some(id), Some(is_open)) = (field.register(), is_open(field)) else { continue };
            if matches!(field.value, FieldValue::Units(_)) {
                continue; // counted above
            }
            // Where a field with a place of its own for each count lies is not known without the count.
            let place = match units {
                None if field.per_unit != PerUnit::NONE => continue,
                units => field.place(units.unwrap_or(0)),
            };
            match desc[..valid].get(place) {
                // A closed gate says that the component is in its initial state, but only a note that has room
                // for the component says so: a shorter one knows nothing of it.
                Some(_) if !is_open => registers.set(id, &field.initial().to_le_bytes()),
                Some(bytes) => {
                    let mut value = bytes.to_vec();
                    if field.endianness.unwrap_or(endianness) == Endianness::Big {
                        value.reverse();
                    }
                    for (byte, mask) in value.iter_mut().zip(field.mask.to_le_bytes()) {
                        *byte &= mask;
                    }
                    registers.set(id, &value);
                }
                None => {}
            }
        }
    }

    /// The first field that states how many units there are.
    fn units(&self) -> Option<(&NoteField, &Units)> {
        self.fields.iter().find_map(|field| match &field.value {
            FieldValue::Units(units) => Some((field, units)),
            _ => None,
        })
    }

    fn open_gates(&self, registers: &RegisterFile) -> u64 {
        let known = |field: &&NoteField| field.register().is_some_and(|id| registers.get(id).is_some());
        self.fields.iter().filter(known).filter_map(|field| field.gate).fold(0, |open, bit| open | 1 << bit)
    }

    /// The gates that the register of a [`FieldValue::RegisterOrGates`] names.
    fn stated_gates(&self, registers: &RegisterFile) -> u64 {
        let stated = |field: &NoteField| match field.value {
            FieldValue::RegisterOrGates(id, _) => registers.get(id),
            _ => None,
        };
        let values = self.fields.iter().filter_map(stated);
        values.map(|bytes| Endianness::Little.decode(bytes)).fold(0, |gates, value| gates | value)
    }
}

fn encode_register(value: &[u8], field: &NoteField, endianness: Endianness, dest: &mut [u8]) {
    let len = value.len().min(dest.len());
    dest[..len].copy_from_slice(&value[..len]);
    for (byte, mask) in dest.iter_mut().zip(field.mask.to_le_bytes()) {
        *byte &= mask;
    }
    if endianness == Endianness::Big {
        dest.reverse();
    }
}

// What the tables of an architecture are written with: constants all of them, so that a wrong name or count stops the compiler.

/// `width` bytes at `offset` that hold the register named `name`.
#[must_use]
pub const fn reg(table: &RegisterTable, offset: usize, width: usize, name: &str) -> NoteField {
    NoteField::new(offset, width, FieldValue::Register(table.id(name)))
}

/// Registers that follow each other, `stride` bytes apart.
#[must_use]
pub const fn run<const N: usize>(
    table: &RegisterTable,
    offset: usize,
    width: usize,
    stride: usize,
    names: [&str; N],
) -> [NoteField; N] {
    let mut fields = [NoteField::new(0, 0, FieldValue::Constant(0)); N];
    let mut index = 0;
    while index < N {
        fields[index] = reg(table, offset + stride * index, width, names[index]);
        index += 1;
    }
    fields
}

/// Registers that follow each other without a gap, `width` bytes each, and in the table too, where `first` is the first.
#[must_use]
pub const fn run_from<const N: usize>(
    table: &RegisterTable,
    offset: usize,
    width: usize,
    first: &str,
) -> [NoteField; N] {
    let mut fields = [NoteField::new(0, 0, FieldValue::Constant(0)); N];
    let ids = ids_from::<N>(table, first);
    let mut index = 0;
    while index < N {
        fields[index] = NoteField::new(offset + width * index, width, FieldValue::Register(ids[index]));
        index += 1;
    }
    fields
}

/// The fields, each behind the gate `bit`.
#[must_use]
pub const fn gated<const N: usize>(mut fields: [NoteField; N], bit: u8) -> [NoteField; N] {
    let mut index = 0;
    while index < N {
        fields[index] = fields[index].gated(bit);
        index += 1;
    }
    fields
}

/// One list of several.
///
/// # Panics
/// If `N` is not the sum of their lengths. Called in a constant, that is an error at compile time.
#[must_use]
pub const fn join<const N: usize>(lists: &[&[NoteField]]) -> [NoteField; N] {
    let mut fields = [NoteField::new(0, 0, FieldValue::Constant(0)); N];
    let (mut list, mut filled) = (0, 0);
    while list < lists.len() {
        let mut index = 0;
        while index < lists[list].len() {
            fields[filled] = lists[list][index];
            filled += 1;
            index += 1;
        }
        list += 1;
    }
    assert!(filled == N, "N is the number of fields");
    fields
}

/// The ids of the registers that follow each other in the table from `first` on.
#[must_use]
pub const fn ids_from<const N: usize>(table: &RegisterTable, first: &str) -> [RegisterId; N] {
    let mut ids = [table.id(first); N];
    let mut index = 1;
    while index < N {
        ids[index] = RegisterId(ids[index - 1].0 + 1);
        index += 1;
    }
    ids
}

/// The ids of the registers of these names.
#[must_use]
pub const fn ids<const N: usize>(table: &RegisterTable, names: [&str; N]) -> [RegisterId; N] {
    let mut ids = [RegisterId(0); N];
    let mut index = 0;
    while index < N {
        ids[index] = table.id(names[index]);
        index += 1;
    }
    ids
}

/// The ids of the registers that the fields hold.
///
/// # Panics
/// If a field holds none. Called in a constant, that is an error at compile time.
#[must_use]
pub const fn registers_of<const N: usize>(fields: &[NoteField; N]) -> [RegisterId; N] {
    let mut ids = [RegisterId(0); N];
    let mut index = 0;
    while index < N {
        ids[index] = fields[index].register().expect("each of the fields holds a register");
        index += 1;
    }
    ids
}
