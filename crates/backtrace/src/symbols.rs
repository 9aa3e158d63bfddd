//! Names of addresses.

use crate::Error;
use std::collections::HashMap;
use vmcore_core::Gva;

/// A name and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it begins.
    pub gva: Gva,
    /// How many bytes it has; 0 if that is not known: it then reaches to the next.
    pub len: u64,
    /// Its name.
    pub name: String,
    /// Whether it is code.
    pub is_code: bool,
}

/// An address as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Name of the function.
    pub name: String,
    /// Bytes from its begin; what is inlined has none.
    pub offset: Option<u64>,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.offset.map_or(Ok(()), |offset| write!(f, "+{offset:#x}"))
    }
}

/// A line of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path of the file as the compiler was given it: mostly from the top of the kernel's source.
    pub file: String,
    /// Number of the line, from 1.
    pub line: u64,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Symbols by address and by name.
#[derive(Debug, Default)]
pub struct SymbolTable {
    /// Code by address; of several names of one address the best.
    code: Vec<Symbol>,
    /// The first of each name.
    by_name: HashMap<String, Gva>,
}

impl SymbolTable {
    /// A table of these symbols; of those that name one address, the first counts.
    #[must_use]
    pub fn new(symbols: impl IntoIterator<Item = Symbol>) -> Self {
        let mut table = Self::default();
        for symbol in symbols {
            table.by_name.entry(symbol.name.clone()).or_insert(symbol.gva);
            if symbol.is_code {
                table.code.push(symbol);
            }
        }
        // Stable: the first of an address stays the first.
        table.code.sort_by_key(|symbol| symbol.gva);
        table.code.dedup_by_key(|symbol| symbol.gva);
        table
    }

    /// Where the symbol named `name` begins.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Gva> {
        self.by_name.get(name).copied()
    }

    /// [`SymbolTable::find`] for what cannot do without.
    pub(crate) fn need(&self, name: &'static str) -> Result<Gva, Error> {
        self.find(name).ok_or(Error::NoSymbol(name))
    }

    /// The code that an address belongs to.
    #[must_use]
    pub fn code_at(&self, gva: Gva) -> Option<&Symbol> {
        let index = self.code.partition_point(|symbol| symbol.gva <= gva).checked_sub(1)?;
        let symbol = self.code.get(index)?;
        // Nothing tells where the last one ends.
        let is_inside = match symbol.len {
            0 => index + 1 < self.code.len(),
            len => gva.0 - symbol.gva.0 < len,
        };
        is_inside.then_some(symbol)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_code_before_it() {
        let symbol =
            |gva, len, name: &str, is_code| Symbol { gva: Gva(gva), len, name: name.to_owned(), is_code };
        let table = SymbolTable::new([
            symbol(0x2000, 0, "second", true),
            symbol(0x1000, 0x10, "first", true),
            symbol(0x1000, 0x10, "alias", true),
            symbol(0x1800, 8, "data", false),
            symbol(0x3000, 0, "end", true),
        ]);
        let at = |gva| table.code_at(Gva(gva)).map(|symbol| symbol.name.as_str());
        assert_eq!(
            [0xfff, 0x1000, 0x100f, 0x1010, 0x1800, 0x2fff, 0x3000, u64::MAX].map(at),
            [None, Some("first"), Some("first"), None, None, Some("second"), None, None]
        );
        assert_eq!((table.find("data"), table.find("alias")), (Some(Gva(0x1800)), Some(Gva(0x1000))));
        assert_eq!((table.find("none"), table.len()), (None, 5));
    }
}
