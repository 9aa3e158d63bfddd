//! The target description of a gdb stub: which registers it has, and their numbers.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Files that a description may include, and how deep.
const MAX_FILES: usize = 64;
const MAX_DEPTH: u32 = 4;

/// A register of the stub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Its name there, as in `TTBR0_EL1`.
    pub(super) name: String,
    /// Its number in the `p` packet.
    pub(super) number: u64,
}

/// Reads the description `target.xml`, whose files `fetch` gives.
pub(super) fn registers<E>(mut fetch: impl FnMut(&str) -> Result<String, E>) -> Result<Vec<Described>, E> {
    let mut reading = Reading { found: Vec::new(), next: 0, files: 0 };
    reading.file("target.xml", 0, &mut fetch)?;
    Ok(reading.found)
}

struct Reading {
    found: Vec<Described>,
    /// The number of a register that does not state its own.
    next: u64,
    files: usize,
}

impl Reading {
    fn file<E>(
        &mut self,
        name: &str,
        depth: u32,
        fetch: &mut impl FnMut(&str) -> Result<String, E>,
    ) -> Result<(), E> {
        self.files += 1;
        if self.files > MAX_FILES || depth > MAX_DEPTH {
            return Ok(());
        }
        let text = fetch(name)?;
        let mut reader = Reader::from_str(&text);
        // What is behind an error in it stays unknown, as are registers that it does not describe.
        while let Ok(event) = reader.read_event() {
            match event {
                Event::Eof => break,
                Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                    b"reg" => self.register(&element),
                    b"include" => {
                        if let Some(href) = attribute(&element, "href") {
                            self.file(&href, depth + 1, fetch)?;
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn register(&mut self, element: &BytesStart<'_>) {
        let stated = attribute(element, "regnum").and_then(|number| number.parse().ok());
        let number = stated.unwrap_or(self.next);
        self.next = number.saturating_add(1);
        if let Some(name) = attribute(element, "name") {
            self.found.push(Described { name, number });
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok()??;
    String::from_utf8(attribute.value.into_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: impl Fn(&str) -> &'static str) -> Vec<(String, u64)> {
        let found = registers(|name| Ok::<_, ()>(file(name).to_owned())).unwrap();
        found.into_iter().map(|register| (register.name, register.number)).collect()
    }

    #[test]
    fn registers_are_numbered_on_unless_they_say_otherwise() {
        let found = read(|name| match name {
            "target.xml" => {
                "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target><architecture>aarch64</architecture>\
                 <xi:include href=\"core.xml\"/><xi:include href=\"system.xml\"/></target>"
            }
            "core.xml" => {
                "<feature name=\"core\"><reg name=\"x0\" bitsize=\"64\"/><!-- <reg name=\"no\"/> --><reg name=\"pc\"></reg></feature>"
            }
            _ => "<feature><reg name=\"SCTLR\" regnum=\"70\"/><reg name=\"TCR_EL1\"/></feature>",
        });
        let expected = [("x0", 0), ("pc", 1), ("SCTLR", 70), ("TCR_EL1", 71)];
        assert_eq!(found, expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn a_description_without_end_is_read_in_part() {
        assert_eq!(read(|_| "<target><reg name=\"r\"/><xi:include href=\"again\"/><reg name=").len(), 5);
        assert_eq!(read(|_| "").len(), 0);
    }
}
