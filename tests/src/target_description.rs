//! gdb's target description, read as gdb reads it, and the rows of QEMU's.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::collections::BTreeMap;

/// A `<reg>` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reg {
    /// Its name.
    pub name: String,
    /// Its width.
    pub bits: u32,
    /// Its type.
    pub ty: String,
    /// Its group; empty where gdb chooses.
    pub group: String,
    /// The feature that lists it.
    pub feature: String,
}

/// What a document says.
#[derive(Debug, Default)]
pub struct Description {
    /// gdb's name of the architecture.
    pub architecture: String,
    /// The registers; gdb's number is the index, as no element states its own.
    pub registers: Vec<Reg>,
    /// Size in bits of each type that a feature defines: feature, id.
    pub types: BTreeMap<(String, String), u32>,
}

impl Description {
    /// Reads a document: `target` with one `architecture` and `feature`s of types and registers.
    ///
    /// # Panics
    /// If gdb would not take it: ill-formed XML, an element where it does not belong or without an attribute that it needs, a
    /// type that is defined twice, or only behind its first use, or larger than its bits.
    #[must_use]
    pub fn parse(xml: &str) -> Self {
        let mut reader = Reader::from_str(xml);
        reader.config_mut().check_end_names = true;
        let mut description = Self::default();
        let mut path: Vec<String> = Vec::new();
        let mut feature = String::new();
        // The type whose fields are read, and the size of a union so far.
        let mut open: Option<(String, u32)> = None;
        loop {
            let event = reader.read_event().expect("well-formed XML");
            match &event {
                Event::Start(element) | Event::Empty(element) => {
                    let name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
                    let parents: Vec<&str> = path.iter().map(String::as_str).collect();
                    match (parents.as_slice(), name.as_str()) {
                        ([], "target") | (["target"], "architecture") => {}
                        (["target"], "feature") => feature = attribute(element, "name"),
                        (["target", "feature"], "reg") => description.push_register(element, &feature),
                        (["target", "feature"], "vector") => {
                            let bits = description.size_of(&feature, &attribute(element, "type"));
                            let bits = bits.expect("a vector's elements have a size");
                            description.define(&feature, element, bits * number(element, "count"));
                        }
                        (["target", "feature"], "flags") => {
                            let bits = 8 * number(element, "size");
                            description.define(&feature, element, bits);
                            open = Some((attribute(element, "id"), bits));
                        }
                        (["target", "feature"], "union") => open = Some((attribute(element, "id"), 0)),
                        (["target", "feature", "flags"], "field") => {
                            let (start, end) = (number(element, "start"), number(element, "end"));
                            let (id, bits) = open.as_ref().expect("a field is inside of its type");
                            assert!(start <= end && end < *bits, "{id}: bits {start} to {end} of {bits}");
                        }
                        (["target", "feature", "union"], "field") => {
                            let bits = description.size_of(&feature, &attribute(element, "type"));
                            let (_, size) = open.as_mut().expect("a field is inside of its type");
                            *size = bits.expect("a view has a size").max(*size);
                        }
                        (parents, name) => panic!("<{name}> in {parents:?}"),
                    }
                    if matches!(event, Event::Start(_)) {
                        path.push(name);
                    }
                }
                Event::End(_) => {
                    if let Some((id, bits)) = open.take_if(|_| path.len() == 3)
                        && path[2] == "union"
                    {
                        description.insert_type(&feature, &id, bits);
                    }
                    path.pop();
                }
                Event::Text(text) => {
                    let text = text.decode().expect("UTF-8");
                    if path.last().is_some_and(|name| name == "architecture") {
                        description.architecture += text.trim();
                    } else {
                        assert_eq!(text.trim(), "", "text in {path:?}");
                    }
                }
                Event::Decl(_) | Event::DocType(_) => {}
                Event::Eof => break,
                other => panic!("{other:?} in a target description"),
            }
        }
        assert!(path.is_empty(), "the document ends in {path:?}");
        description
    }

    fn push_register(&mut self, element: &BytesStart<'_>, feature: &str) {
        let reg = Reg {
            name: attribute(element, "name"),
            bits: number(element, "bitsize"),
            ty: attribute(element, "type"),
            group: optional(element, "group").unwrap_or_default(),
            feature: feature.to_owned(),
        };
        assert_eq!(optional(element, "regnum"), None, "{}: its number is its place", reg.name);
        if let Some(bits) = self.size_of(feature, &reg.ty) {
            assert_eq!(bits, reg.bits, "{} of type {}", reg.name, reg.ty);
        }
        self.registers.push(reg);
    }

    fn define(&mut self, feature: &str, element: &BytesStart<'_>, bits: u32) {
        self.insert_type(feature, &attribute(element, "id"), bits);
    }

    fn insert_type(&mut self, feature: &str, id: &str, bits: u32) {
        let old = self.types.insert((feature.to_owned(), id.to_owned()), bits);
        assert_eq!(old, None, "{feature} defines {id} twice");
    }

    /// Bits of a type that `feature` may use; `None` if they are those of its register.
    ///
    /// Source: gdb manual, "Predefined Target Types".
    fn size_of(&self, feature: &str, ty: &str) -> Option<u32> {
        let own = self.types.get(&(feature.to_owned(), ty.to_owned())).copied();
        own.or_else(|| match ty {
            "int" | "float" | "code_ptr" | "data_ptr" => None,
            "bool" => Some(1),
            "int8" | "uint8" => Some(8),
            "int16" | "uint16" | "ieee_half" | "bfloat16" => Some(16),
            "int24" | "uint24" => Some(24),
            "int32" | "uint32" | "ieee_single" => Some(32),
            "int64" | "uint64" | "ieee_double" => Some(64),
            "i387_ext" => Some(80),
            "arm_fpa_ext" => Some(96),
            "int128" | "uint128" => Some(128),
            _ => panic!("{feature}: the type {ty} is not defined"),
        })
    }
}

fn optional(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).expect("well-formed attributes")?;
    Some(attribute.unescape_value().expect("known entities").into_owned())
}

fn attribute(element: &BytesStart<'_>, name: &str) -> String {
    optional(element, name).unwrap_or_else(|| panic!("{element:?} has no {name}"))
}

fn number(element: &BytesStart<'_>, name: &str) -> u32 {
    attribute(element, name).parse().unwrap_or_else(|_| panic!("{element:?}: {name} is no number"))
}

/// A file of `tests/gdb-registers`: QEMU's rows, with gdb's number of each.
///
/// # Panics
/// If a row has other columns than `number name bits type group feature`.
#[must_use]
pub fn of_qemu(tsv: &str) -> Vec<(u32, Reg)> {
    let row = |line: &str| {
        let columns: [String; 6] =
            line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().expect("six columns");
        let [number, name, bits, ty, group, feature] = columns;
        let number_of = |text: &str| text.parse().expect("a number");
        (number_of(&number), Reg { name, bits: number_of(&bits), ty, group, feature })
    };
    tsv.lines().skip(1).map(row).collect()
}
