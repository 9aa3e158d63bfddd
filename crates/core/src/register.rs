//! The registers of an architecture as a table, and the values of one vCPU.

use gimli::Register as DwarfRegister;
use std::fmt;

/// What a register is for; `info` groups by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// General purpose.
    General,
    /// Program counter, flags.
    Control,
    /// Segment selectors, limits and attributes.
    Segment,
    /// Bases of segments and descriptor tables.
    SegmentBase,
    /// Control, debug and other system registers.
    System,
    /// Model-specific registers.
    Msr,
    /// Scalar floating point.
    Float,
    /// Vectors.
    Vector,
}

/// How gdb knows a register: one `<reg>` element of the target description.
///
/// gdb's number of the register is its place among the rows that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GdbRegister {
    /// Feature that lists it, as in `org.gnu.gdb.i386.core`.
    pub feature: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Its width on the wire in bits; may be more than the register has (selectors).
    pub bits: u16,
    /// gdb's type, as in `int64` or `code_ptr`.
    pub ty: &'static str,
    /// gdb's register group, where it is not the default.
    pub group: Option<&'static str>,
}

/// A row of a register table.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Architectural name in lower case.
    pub name: &'static str,
    /// Width in bits.
    pub bits: u16,
    /// What it is for.
    pub group: Group,
    /// Number in DWARF.
    pub dwarf: Option<DwarfRegister>,
    /// How gdb knows it.
    pub gdb: Option<GdbRegister>,
}

impl Register {
    /// Width in whole bytes: what a [`RegisterFile`] stores.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        self.bits.div_ceil(8) as usize
    }
}

/// A row that gdb knows. An empty `gdb_group` is gdb's default.
#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
#[must_use]
pub const fn gdb(
    name: &'static str,
    bits: u16,
    group: Group,
    dwarf: Option<DwarfRegister>,
    feature: &'static str,
    gdb_name: &'static str,
    gdb_bits: u16,
    ty: &'static str,
    gdb_group: &'static str,
) -> Register {
    let gdb_group = if gdb_group.is_empty() { None } else { Some(gdb_group) };
    let gdb = GdbRegister { feature, name: gdb_name, bits: gdb_bits, ty, group: gdb_group };
    Register { name, bits, group, dwarf, gdb: Some(gdb) }
}

/// A row that gdb does not know.
#[must_use]
pub const fn own(name: &'static str, bits: u16, group: Group, dwarf: Option<DwarfRegister>) -> Register {
    Register { name, bits, group, dwarf, gdb: None }
}

/// One bit or field of a `flags` type of gdb.
#[derive(Clone, Copy, Debug)]
pub struct GdbFlag {
    /// Its name; empty for reserved bits.
    pub name: &'static str,
    /// Lowest bit.
    pub start: u8,
    /// Highest bit.
    pub end: u8,
}

/// A type that a feature of the target description defines.
#[derive(Clone, Copy, Debug)]
pub enum GdbType {
    /// A set of named bits.
    Flags {
        /// Name of the type.
        id: &'static str,
        /// Its size in bytes.
        size: u8,
        /// Its bits.
        flags: &'static [GdbFlag],
    },
    /// A vector of a simpler type.
    Vector {
        /// Name of the type.
        id: &'static str,
        /// Type of an element.
        element: &'static str,
        /// How many.
        count: u16,
    },
    /// A choice of views on the same bits.
    Union {
        /// Name of the type.
        id: &'static str,
        /// Name and type of each view.
        fields: &'static [(&'static str, &'static str)],
    },
}

/// What gdb insists on in a feature of the target description that it knows.
///
/// gdb refuses a whole description for one register that such a feature lacks. Of features that it does not know it takes whatever
/// is there.
///
/// Source: gdb manual, "Standard Target Features"; gdb 13.1 `gdb/*-tdep.c`, which look each register up.
#[derive(Clone, Copy, Debug)]
pub struct GdbFeature {
    /// Its name, as in `org.gnu.gdb.i386.core`.
    pub name: &'static str,
    /// Whether gdb takes no description without it.
    pub is_mandatory: bool,
    /// Features that gdb wants beside it.
    pub needs: &'static [&'static str],
    /// gdb's names of the registers that our feature has beside those that gdb insists on.
    pub extra: &'static [&'static str],
}

impl GdbFeature {
    /// One that a description must have.
    #[must_use]
    pub const fn mandatory(name: &'static str) -> Self {
        Self { is_mandatory: true, ..Self::optional(name) }
    }

    /// One that a description has with all its registers, or not at all.
    #[must_use]
    pub const fn optional(name: &'static str) -> Self {
        Self { name, is_mandatory: false, needs: &[], extra: &[] }
    }
}

/// Index of a row in its [`RegisterTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegisterId(pub u16);

impl RegisterId {
    /// The row as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All registers of an architecture, a row each.
#[derive(Debug)]
pub struct RegisterTable {
    /// gdb's name of the architecture, as in `i386:x86-64`.
    pub gdb_architecture: &'static str,
    /// The rows. Those that gdb knows come in gdb's order.
    pub rows: &'static [Register],
    /// Types that the target description defines, with the feature that they belong to.
    pub gdb_types: &'static [(&'static str, &'static [GdbType])],
    /// The features of the target description of which gdb wants to have all.
    pub gdb_features: &'static [GdbFeature],
    /// Name of the program counter.
    pub program_counter: &'static str,
    /// Name of the stack pointer.
    pub stack_pointer: &'static str,
}

impl RegisterTable {
    /// The row named `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<RegisterId> {
        let index = self.rows.iter().position(|row| row.name == name)?;
        u16::try_from(index).ok().map(RegisterId)
    }

    /// The row named `name`, for tables: a name that is not there stops the compiler.
    ///
    /// # Panics
    /// If there is no such row. Called in a constant, that is an error at compile time.
    #[must_use]
    pub const fn id(&self, name: &str) -> RegisterId {
        let mut index: u16 = 0;
        while (index as usize) < self.rows.len() {
            if str_eq(self.rows[index as usize].name, name) {
                return RegisterId(index);
            }
            index += 1;
        }
        panic!("no register of that name in the table")
    }

    /// The row of an id of this table.
    #[must_use]
    pub fn row(&self, id: RegisterId) -> Option<&'static Register> {
        self.rows.get(id.index())
    }

    /// gdb's `target.xml`: every row that gdb knows, in one document, features in the order of the rows.
    ///
    /// Source: gdb manual, "Target Description Format".
    #[must_use]
    pub fn target_description(&self) -> String {
        self.target_description_of(&self.gdb_rows(|_| true))
    }

    /// The rows that a target description has to list if nothing is to be said of registers that `is_known` says are not known:
    /// those that are, and those that gdb wants to have all the same ([`GdbFeature`]). gdb's numbers are their places here.
    #[must_use]
    pub fn gdb_rows(&self, is_known: impl Fn(RegisterId) -> bool) -> Vec<(RegisterId, &'static Register)> {
        let rows = || (0..).map(RegisterId).zip(self.rows);
        let rows = || rows().filter_map(|(id, row)| Some((id, row, row.gdb.as_ref()?)));
        // The feature that gdb does not take without the register.
        let bound = |gdb: &GdbRegister| {
            let feature = self.gdb_features.iter().find(|feature| feature.name == gdb.feature);
            feature.filter(|feature| !feature.extra.contains(&gdb.name)).map(|feature| feature.name)
        };
        let mandatory = self.gdb_features.iter().filter(|feature| feature.is_mandatory);
        let mut wanted: Vec<&str> = mandatory.map(|feature| feature.name).collect();
        wanted.extend(rows().filter(|(id, ..)| is_known(*id)).filter_map(|(.., gdb)| bound(gdb)));
        let with_others = self.gdb_features.iter().filter(|feature| wanted.contains(&feature.name));
        let needed: Vec<&str> = with_others.flat_map(|feature| feature.needs).copied().collect();
        wanted.extend(needed);
        let is_listed = |id: RegisterId, gdb: &GdbRegister| {
            is_known(id) || bound(gdb).is_some_and(|feature| wanted.contains(&feature))
        };
        rows().filter(|(id, _, gdb)| is_listed(*id, gdb)).map(|(id, row, _)| (id, row)).collect()
    }

    /// As [`RegisterTable::target_description`], of these rows alone.
    #[must_use]
    pub fn target_description_of(&self, rows: &[(RegisterId, &Register)]) -> String {
        let mut xml =
            String::from("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n");
        xml += &format!("  <architecture>{}</architecture>\n", self.gdb_architecture);
        let known = || rows.iter().filter_map(|(_, row)| row.gdb);
        let mut features: Vec<&str> = Vec::new();
        for gdb in known() {
            if !features.contains(&gdb.feature) {
                features.push(gdb.feature);
            }
        }
        for feature in features {
            xml += &format!("  <feature name=\"{feature}\">\n");
            let types = self.gdb_types.iter().filter(|(owner, _)| *owner == feature);
            for ty in types.flat_map(|(_, types)| *types) {
                push_gdb_type(&mut xml, ty);
            }
            for gdb in known().filter(|gdb| gdb.feature == feature) {
                let group = gdb.group.map(|group| format!(" group=\"{group}\"")).unwrap_or_default();
                let (name, bits, ty) = (gdb.name, gdb.bits, gdb.ty);
                xml += &format!("    <reg name=\"{name}\" bitsize=\"{bits}\" type=\"{ty}\"{group}/>\n");
            }
            xml += "  </feature>\n";
        }
        xml + "</target>\n"
    }
}

fn push_gdb_type(xml: &mut String, ty: &GdbType) {
    match ty {
        GdbType::Flags { id, size, flags } => {
            *xml += &format!("    <flags id=\"{id}\" size=\"{size}\">\n");
            for GdbFlag { name, start, end } in *flags {
                *xml += &format!("      <field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>\n");
            }
            *xml += "    </flags>\n";
        }
        GdbType::Vector { id, element, count } => {
            *xml += &format!("    <vector id=\"{id}\" type=\"{element}\" count=\"{count}\"/>\n");
        }
        GdbType::Union { id, fields } => {
            *xml += &format!("    <union id=\"{id}\">\n");
            for (name, ty) in *fields {
                *xml += &format!("      <field name=\"{name}\" type=\"{ty}\"/>\n");
            }
            *xml += "    </union>\n";
        }
    }
}

const fn str_eq(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The registers of one vCPU: a value for each row of a table, or nothing where the value is not known.
///
/// Values are kept least significant byte first, whatever the guest's byte order.
#[derive(Clone)]
pub struct RegisterFile {
    table: &'static RegisterTable,
    values: Vec<u8>,
    present: Vec<bool>,
}

impl RegisterFile {
    /// A file in which no register is known.
    #[must_use]
    pub fn new(table: &'static RegisterTable) -> Self {
        let len = table.rows.iter().map(Register::byte_len).sum();
        Self { table, values: vec![0; len], present: vec![false; table.rows.len()] }
    }

    /// The table that the values belong to.
    #[must_use]
    pub fn table(&self) -> &'static RegisterTable {
        self.table
    }

    fn slot(&self, id: RegisterId) -> std::ops::Range<usize> {
        let start = self.table.rows.iter().take(id.index()).map(Register::byte_len).sum();
        start..start + self.table.row(id).map_or(0, Register::byte_len)
    }

    /// The value, least significant byte first, or `None` if it is not known.
    #[must_use]
    pub fn get(&self, id: RegisterId) -> Option<&[u8]> {
        if !*self.present.get(id.index())? {
            return None;
        }
        self.values.get(self.slot(id))
    }

    /// Sets a value, least significant byte first.
    ///
    /// Shorter input is extended with zeros, of longer input the low bytes are taken, and bits above the
    /// register's width are dropped. An id of another table is ignored.
    pub fn set(&mut self, id: RegisterId, value: &[u8]) {
        let Some(row) = self.table.row(id) else { return };
        let slot = self.slot(id);
        let dest = &mut self.values[slot];
        dest.fill(0);
        let len = dest.len().min(value.len());
        dest[..len].copy_from_slice(&value[..len]);
        if let (Some(last), extra @ 1..) = (dest.last_mut(), row.bits % 8) {
            *last &= (1 << extra) - 1;
        }
        self.present[id.index()] = true;
    }

    /// The low 64 bits of the register named `name`, or `None` if it is not known.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        let bytes = self.get(self.table.find(name)?)?;
        Some(crate::Endianness::Little.decode(bytes.get(..8).unwrap_or(bytes)))
    }

    /// Sets the register named `name` and tells whether the table has it.
    pub fn set_value(&mut self, name: &str, value: u64) -> bool {
        let Some(id) = self.table.find(name) else { return false };
        self.set(id, &value.to_le_bytes());
        true
    }

    /// The known registers in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (RegisterId, &'static Register, &[u8])> {
        (0..).map(RegisterId).zip(self.table.rows).filter_map(|(id, row)| Some((id, row, self.get(id)?)))
    }
}

impl PartialEq for RegisterFile {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.table, other.table)
            && self.present == other.present
            && self.iter().zip(other.iter()).all(|(a, b)| a.2 == b.2)
    }
}

impl fmt::Debug for RegisterFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(_, row, value)| (row.name, Hex(value)))).finish()
    }
}

/// A register's value as a hexadecimal number, all its digits shown.
#[derive(Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reg(name: &'static str, bits: u16) -> Register {
        Register { name, bits, group: Group::General, dwarf: None, gdb: None }
    }
    static TABLE: RegisterTable = RegisterTable {
        gdb_architecture: "test",
        rows: &[reg("a", 64), reg("b", 12), reg("c", 128)],
        gdb_types: &[],
        gdb_features: &[],
        program_counter: "a",
        stack_pointer: "a",
    };
    const B: RegisterId = TABLE.id("b");

    #[test]
    fn absent_is_not_zero() {
        let mut file = RegisterFile::new(&TABLE);
        assert_eq!(file.value("b"), None);
        file.set(B, &[0xff, 0xff, 0xff]);
        assert_eq!(file.value("b"), Some(0xfff), "bits above the width are dropped");
        assert_eq!(file.value("a"), None);
        assert!(file.set_value("c", 7));
        assert!(!file.set_value("d", 7));
        assert_eq!(file.iter().map(|(_, row, _)| row.name).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(Hex(file.get(B).unwrap()).to_string(), "0x0fff");
    }

    #[test]
    fn a_description_without_what_is_not_known_has_what_gdb_insists_on() {
        const fn row(name: &'static str, feature: &'static str) -> Register {
            gdb(name, 64, Group::General, None, feature, name, 64, "int", "")
        }
        static TABLE: RegisterTable = RegisterTable {
            gdb_architecture: "test",
            rows: &[
                row("pc", "core"),
                row("r0", "core"),
                row("cr", "core"),
                reg("hidden", 64),
                row("f0", "fpu"),
                row("f1", "fpu"),
                row("v0", "vector"),
                row("s0", "system"),
                row("s1", "system"),
            ],
            gdb_types: &[],
            gdb_features: &[
                GdbFeature { extra: &["cr"], ..GdbFeature::mandatory("core") },
                GdbFeature::optional("fpu"),
                GdbFeature { needs: &["fpu"], ..GdbFeature::optional("vector") },
            ],
            program_counter: "pc",
            stack_pointer: "r0",
        };
        let check = |known: &[&str], expected: &[&str]| {
            let rows = TABLE.gdb_rows(|id| known.contains(&TABLE.row(id).unwrap().name));
            assert_eq!(rows.iter().map(|(_, row)| row.name).collect::<Vec<_>>(), expected, "{known:?}");
            let description = TABLE.target_description_of(&rows);
            assert_eq!(description.matches("<reg ").count(), expected.len());
            for feature in ["fpu", "vector", "system"] {
                let is_there = rows.iter().any(|(_, row)| row.gdb.is_some_and(|gdb| gdb.feature == feature));
                assert_eq!(description.contains(feature), is_there, "{feature}");
            }
        };
        check(&[], &["pc", "r0"]);
        check(&["r0", "cr", "hidden"], &["pc", "r0", "cr"]);
        check(&["f1", "s1"], &["pc", "r0", "f0", "f1", "s1"]);
        check(&["v0"], &["pc", "r0", "f0", "f1", "v0"]);
    }
}
