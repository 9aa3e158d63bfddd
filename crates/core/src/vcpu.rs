//! One virtual processor: its registers, and the notes that it was read from.

use crate::{Arch, Endianness, FieldValue, Note, NoteScope, NoteTable, RegisterFile, own_note};
use std::ops::Range;

/// One virtual processor.
///
/// It holds its registers, and the notes that it was read from. Those are written again as they were, byte for
/// byte, as long as nobody changes a register ([`Vcpu::registers_mut`]); so converting a dump loses nothing, not
/// even what we do not understand.
#[derive(Clone, Debug, PartialEq)]
pub struct Vcpu {
    registers: RegisterFile,
    carried: Vec<Note>,
}

impl Vcpu {
    /// A vCPU with these registers and no notes of its own.
    #[must_use]
    pub fn new(registers: RegisterFile) -> Self {
        Self { registers, carried: Vec::new() }
    }

    /// Its registers.
    #[must_use]
    pub fn registers(&self) -> &RegisterFile {
        &self.registers
    }

    /// Its registers, to be changed: the notes that the vCPU came with no longer count.
    ///
    /// Notes of no register table are kept.
    pub fn registers_mut(&mut self, arch: &dyn Arch) -> &mut RegisterFile {
        self.carried.retain(|note| arch.notes().iter().all(|table| !table.matches(note)));
        &mut self.registers
    }

    /// Adds a register (least significant byte first) that its notes do not hold; one that is known stays.
    pub fn add_register(&mut self, name: &str, value: &[u8]) {
        if let Some(id) = self.registers.table().find(name).filter(|id| self.registers.get(*id).is_none()) {
            self.registers.set(id, value);
        }
    }

    /// The notes that it came with.
    #[must_use]
    pub fn carried(&self) -> &[Note] {
        &self.carried
    }

    /// The notes of this vCPU that stand at `scope`; `is_forced` names tables that must be among them.
    pub(crate) fn encode(
        &self,
        arch: &dyn Arch,
        index: usize,
        endianness: Endianness,
        scope: NoteScope,
        is_forced: impl Fn(&NoteTable) -> bool,
    ) -> Vec<Note> {
        let tables = arch.notes();
        let scope_of = |note: &Note| tables.iter().find(|table| table.matches(note)).map(|table| table.scope);
        let here = |note: &&Note| scope_of(note).unwrap_or(NoteScope::Vcpu) == scope;
        let is_written = |table: &&NoteTable| self.has(table, tables) || is_forced(table);
        let written: Vec<&NoteTable> = tables.iter().filter(is_written).collect();
        // What it came with keeps its order; what is new comes behind, but for the note that begins a vCPU.
        let mut notes: Vec<Note> = self.carried.iter().filter(here).cloned().collect();
        for table in written.iter().filter(|table| table.scope == scope && !self.carries(table)) {
            let note = table.encode(&self.registers, index, endianness, tables);
            let place = if std::ptr::eq(*table, &tables[0]) { 0 } else { notes.len() };
            notes.insert(place, note);
        }
        if scope == NoteScope::Machine {
            return notes;
        }
        self.say_in_own_note(&written, endianness, &mut notes);
        notes
    }

    /// Sees to it that `notes` say of all registers that none of `written` holds: what became known since they were read
    /// goes into our own note, which is written anew, unless it holds what we do not understand.
    fn say_in_own_note(&self, written: &[&NoteTable], endianness: Endianness, notes: &mut Vec<Note>) {
        let Some(own) = own_note::encode(&self.registers, written, endianness) else { return };
        let new_file = || RegisterFile::new(self.registers.table());
        let (mut wanted, mut said, mut place) = (new_file(), new_file(), None);
        own_note::decode(&own.desc, endianness, &mut wanted);
        for (index, note) in notes.iter().enumerate().filter(|(_, note)| own_note::matches(note, endianness))
        {
            // Of several the last counts.
            if own_note::decode(&note.desc, endianness, &mut said) {
                place = Some(index);
            }
        }
        if wanted.iter().all(|(id, _, value)| said.get(id) == Some(value)) {
            return;
        }
        match place {
            Some(index) => notes[index] = own,
            None => notes.push(own),
        }
    }

    /// Takes over a note that the vCPU came with, and the registers in it.
    pub(crate) fn take(&mut self, table: &NoteTable, note: Note, endianness: Endianness) {
        let mut read = RegisterFile::new(self.registers.table());
        table.decode(&note.desc, endianness, &mut read);
        // Two notes may hold one register (QEMU's and NT_PRSTATUS). The first counts.
        for (id, _, value) in read.iter() {
            if self.registers.get(id).is_none() {
                self.registers.set(id, value);
            }
        }
        self.carried.push(note);
    }

    /// Lets go of the notes that can be written anew: they came in byte order `from`, and another one is right.
    ///
    /// Those that nobody understands are kept: their bytes are all that is known of them.
    pub(crate) fn release_notes(&mut self, arch: &dyn Arch, from: Endianness) {
        self.registers_mut(arch);
        let table = self.registers.table();
        self.carried.retain(|note| {
            !own_note::matches(note, from)
                || !own_note::decode(&note.desc, from, &mut RegisterFile::new(table))
        });
    }

    /// What the notes that it came with say its number is, counted from 1.
    pub(crate) fn number(&self, arch: &dyn Arch, endianness: Endianness) -> Option<u64> {
        let mut places = self.carried.iter().filter_map(|note| Some((note, number_place(note, arch)?)));
        places.find_map(|(note, place)| Some(endianness.decode(note.desc.get(place)?)))
    }

    /// Lets the notes that it came with say that it is number `number`, counted from 1.
    pub(crate) fn set_number(&mut self, arch: &dyn Arch, endianness: Endianness, number: u64) {
        for note in &mut self.carried {
            if let Some(field) = number_place(note, arch).and_then(|place| note.desc.get_mut(place)) {
                endianness.encode(number, field);
            }
        }
    }

    /// Takes over a note that no table of the architecture knows.
    ///
    /// `false` if it is our own and holds registers that the architecture lacks.
    pub(crate) fn take_unknown(&mut self, note: Note, endianness: Endianness) -> bool {
        let is_understood = !own_note::matches(&note, endianness)
            || own_note::decode(&note.desc, endianness, &mut self.registers);
        self.carried.push(note);
        is_understood
    }

    /// Whether a note of this kind is among its notes, brought along or called for.
    pub(crate) fn has(&self, table: &NoteTable, tables: &[NoteTable]) -> bool {
        self.carries(table) || self.calls_for(table, tables)
    }

    /// Whether it came with a note of this kind.
    fn carries(&self, table: &NoteTable) -> bool {
        self.carried.iter().any(|note| table.matches(note))
    }

    /// Whether its registers call for a note of this kind, which it did not come with.
    ///
    /// A register that a note holds already calls for no other note: a dump that has it in one place gets no second.
    fn calls_for(&self, table: &NoteTable, tables: &[NoteTable]) -> bool {
        let is_held = |id| tables.iter().any(|other| self.carries(other) && other.holds(id));
        !self.carries(table) && table.is_called_for(&self.registers, is_held)
    }
}

/// Where a note holds the number of its vCPU, if it does.
fn number_place(note: &Note, arch: &dyn Arch) -> Option<Range<usize>> {
    let table = arch.notes().iter().find(|table| table.matches(note))?;
    let field = table.fields.iter().find(|field| field.value == FieldValue::VcpuNumber)?;
    Some(field.place(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::SeenTables;
    use crate::memory::BlockMemory;
    use crate::{
        DumpInfo, Emit, Error, FieldValue, Group, Gva, Identity, Machine, MappingList, NoteField, PhysMemory,
        Register, RegisterId, RegisterTable, Translation,
    };
    use std::sync::Arc;

    const fn reg(name: &'static str) -> Register {
        Register { name, bits: 32, group: Group::General, dwarf: None, gdb: None }
    }
    static TABLE: RegisterTable = RegisterTable {
        gdb_architecture: "test",
        rows: &[reg("pc"), reg("system"), reg("hidden")],
        gdb_types: &[],
        gdb_features: &[],
        program_counter: "pc",
        stack_pointer: "pc",
    };
    const SYSTEM: RegisterId = TABLE.id("system");
    const fn note(
        name: &'static str,
        note_type: u32,
        scope: NoteScope,
        emit: Emit,
        fields: &'static [NoteField],
    ) -> NoteTable {
        NoteTable {
            owner: "CORE",
            note_type,
            name,
            scope,
            emit,
            desc_len: 8,
            size_field: None,
            gates: None,
            fields,
        }
    }
    static NOTES: [NoteTable; 3] = [
        note(
            "FIRST",
            1,
            NoteScope::Vcpu,
            Emit::Always,
            &[NoteField::new(0, 4, FieldValue::Register(TABLE.id("pc")))],
        ),
        note(
            "SECOND",
            2,
            NoteScope::Machine,
            Emit::IfAny(&[SYSTEM]),
            &[NoteField::new(4, 4, FieldValue::Register(SYSTEM))],
        ),
        note(
            "FOREIGN",
            3,
            NoteScope::Vcpu,
            Emit::Never,
            &[NoteField::new(0, 4, FieldValue::Register(SYSTEM))],
        ),
    ];

    struct Test;
    crate::inventory::submit! { crate::ArchPlugin(&Test) }
    impl Arch for Test {
        fn name(&self) -> &'static str {
            "test"
        }
        fn elf_machine(&self) -> u16 {
            0x7e57
        }
        fn uts_machines(&self) -> &'static [&'static str] {
            &["test"]
        }
        fn registers(&self) -> &'static RegisterTable {
            &TABLE
        }
        fn notes(&self) -> &'static [NoteTable] {
            &NOTES
        }
        fn endianness(&self, machine: &Machine) -> Endianness {
            let is_big = |vcpu: &Vcpu| vcpu.registers().value("pc") == Some(0xb16);
            if machine.vcpus.iter().any(is_big) { Endianness::Big } else { machine.identity.endianness }
        }
        fn dump_info(&self, machine: &Machine) -> DumpInfo {
            let Identity { class, endianness, elf_flags, .. } = machine.identity;
            DumpInfo {
                class,
                endianness,
                elf_flags,
                page_size: 0x1000,
                phys_base: 0,
                uts_machine: "test",
                device_window: 0..0,
            }
        }
        fn translate(&self, _: &RegisterFile, _: &dyn PhysMemory, gva: Gva) -> Result<Translation, Error> {
            Err(Error::NotCanonical { gva, bits: 0 })
        }
        fn mappings(
            &self,
            _: &RegisterFile,
            _: &dyn PhysMemory,
            _: &mut SeenTables,
            _: &mut MappingList,
        ) -> Result<(), Error> {
            Ok(())
        }
    }

    /// Owner and type of each note, as text.
    fn kinds(machine: &Machine) -> String {
        let kind = |note: &Note| format!("{}/{:x}", String::from_utf8_lossy(note.owner()), note.note_type);
        machine.encode_notes().iter().map(kind).collect::<Vec<_>>().join(" ")
    }

    fn machine(vcpus: &[&[(&str, u64)]]) -> Machine {
        let file = |values: &&[(&str, u64)]| {
            let mut file = RegisterFile::new(&TABLE);
            assert!(values.iter().all(|(name, value)| file.set_value(name, *value)));
            file
        };
        Machine::new(&Test, Arc::new(BlockMemory::default()), vcpus.iter().map(file).collect())
    }

    #[test]
    fn notes_behind_all_vcpus_are_written_for_each_vcpu_before_the_last() {
        assert_eq!(
            kinds(&machine(&[&[("pc", 1)], &[("system", 2)], &[]])),
            "CORE/1 CORE/1 CORE/1 CORE/2 CORE/2"
        );
    }

    #[test]
    fn a_register_without_a_note_goes_into_our_own() {
        let mut machine = machine(&[&[("pc", 1)]]);
        machine.vcpus[0].add_register("hidden", &[7]);
        machine.vcpus[0].add_register("pc", &[9]);
        assert_eq!(kinds(&machine), "CORE/1 VMCORE/564d0001");
        let back = Machine::from_notes(machine.identity, machine.memory.clone(), machine.encode_notes());
        let registers = back.vcpus[0].registers();
        assert_eq!(
            (registers.value("hidden"), registers.value("pc"), registers.value("system")),
            (Some(7), Some(1), None)
        );
    }

    /// Nobody writes several notes of ours for one vCPU; they are carried too, and a change goes into the one that counts.
    #[test]
    fn own_notes_are_carried_until_a_register_is_changed() {
        let own = |value: u8| {
            let entry = [6, 4, b'h', b'i', b'd', b'd', b'e', b'n', value, 0, 0, 0];
            let desc = [&[1, 0, 0, 0, 1, 0, 0, 0], &entry[..], b"tail"].concat();
            Note::new(own_note::OWNER, own_note::NT_VMCORE_REGISTERS, desc)
        };
        let notes = vec![Note::new("CORE", 1, vec![0; 8]), own(1), own(2)];
        let identity = machine(&[]).identity;
        let read = |notes| Machine::from_notes(identity, Arc::new(BlockMemory::default()), notes);
        let mut machine = read(notes.clone());
        assert_eq!(machine.encode_notes(), notes);
        machine.vcpus[0].registers_mut(&Test).set_value("hidden", 3);
        let back = read(machine.encode_notes());
        assert_eq!(back.vcpus[0].registers().value("hidden"), Some(3));
    }

    #[test]
    fn notes_are_carried_until_a_register_is_changed() {
        let desc = vec![1, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
        let notes = vec![Note::new("CORE", 1, desc.clone()), Note::new("ODD", 5, vec![1])];
        let mut machine =
            Machine::from_notes(machine(&[]).identity, Arc::new(BlockMemory::default()), notes.clone());
        assert_eq!(machine.encode_notes(), notes, "bytes that no field names are kept");
        machine.vcpus[0].registers_mut(&Test).set_value("pc", 2);
        let changed = [Note::new("CORE", 1, vec![2, 0, 0, 0, 0, 0, 0, 0]), Note::new("ODD", 5, vec![1])];
        assert_eq!(machine.encode_notes(), changed, "the note that begins a vCPU comes first");
    }

    #[test]
    fn a_note_of_ours_from_the_future_is_carried() {
        let future = Note::new(
            own_note::OWNER,
            own_note::NT_VMCORE_REGISTERS,
            vec![1, 0, 0, 0, 1, 0, 0, 0, 3, 1, b'n', b'e', b'w', 5],
        );
        let notes = vec![Note::new("CORE", 1, vec![0; 8]), future];
        let machine =
            Machine::from_notes(machine(&[]).identity, Arc::new(BlockMemory::default()), notes.clone());
        assert_eq!(machine.encode_notes(), notes);
        assert_eq!(machine.findings.len(), 1);
    }

    #[test]
    fn a_note_that_is_never_written_is_carried_and_the_right_one_stands_beside_it() {
        let notes =
            vec![Note::new("CORE", 1, vec![0; 8]), Note::new("CORE", 3, vec![7, 0, 0, 0, 0, 0, 0, 0])];
        let machine = Machine::from_notes(machine(&[]).identity, Arc::new(BlockMemory::default()), notes);
        assert_eq!(machine.vcpus[0].registers().value("system"), Some(7));
        assert_eq!(kinds(&machine), "CORE/1 CORE/3 CORE/2");
        assert_eq!(machine.encode_notes()[2].desc, [0, 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn the_byte_order_of_the_guest_counts_more_than_that_of_its_dump() {
        let memory = Arc::new(BlockMemory::default());
        let mut little = machine(&[&[("pc", 0xb16), ("hidden", 7)]]);
        assert_eq!(little.identity.endianness, Endianness::Little);
        let mut notes = little.encode_notes();
        notes.push(Note::new("ODD", 5, vec![1, 2]));
        let big = Machine::from_notes(little.identity, memory.clone(), notes);
        assert_eq!(big.identity.endianness, Endianness::Big);
        assert_eq!(big.findings.len(), 1);
        assert_eq!(big.vcpus[0].registers(), little.vcpus[0].registers());
        // What nobody understands stays as it is.
        assert_eq!(kinds(&big), "CORE/1 ODD/5 VMCORE/564d0001");
        little.identity.endianness = Endianness::Big;
        let written = little.encode_notes();
        assert_eq!(big.encode_notes().iter().filter(|note| written.contains(note)).count(), 2);
        // A dump in the right order is not touched.
        let again = Machine::from_notes(big.identity, memory, big.encode_notes());
        assert_eq!((again.encode_notes(), again.findings.len()), (big.encode_notes(), 0));
    }
}
