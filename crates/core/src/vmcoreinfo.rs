//! The text of the VMCOREINFO note: what a Linux kernel tells dump tools about itself.
//!
//! Source: `spec/vmcoreinfo.md` sections 1 and 2; Linux `kernel/vmcore_info.c`.

use crate::{Error, Gva};

/// The most text that is read as a note; real ones have 2 to 4 KiB.
const MAX_LEN: usize = 1 << 20;

/// Parsed `KEY=VALUE` lines of a VMCOREINFO note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmcoreinfo {
    lines: Vec<(String, String)>,
}

impl Vmcoreinfo {
    /// Parses the descriptor of a VMCOREINFO note.
    ///
    /// It ends at the first NUL or after 1 MiB. Lines without `=` are passed over, bytes that are not UTF-8 are
    /// replaced, and of two lines with one key the first counts (as QEMU and makedumpfile read it).
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let text = &text[..text.len().min(MAX_LEN)];
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text = String::from_utf8_lossy(&text[..end]);
        let pairs = text.split('\n').filter_map(|line| line.split_once('='));
        Self { lines: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    /// The value of `key`, as it stands.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All lines in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// `NUMBER(name)`: hexadecimal after `0x`, else *signed decimal*, as two's complement.
    ///
    /// QEMU reads `NUMBER(phys_base)` as hexadecimal, which is wrong.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value("NUMBER", name)
    }

    /// `KIND(name)`, where `kind` is `NUMBER`, `OFFSET`, `SIZE` or `LENGTH`: all are written as [`Vmcoreinfo::number`].
    #[must_use]
    pub fn value(&self, kind: &str, name: &str) -> Option<u64> {
        let value = self.get(&format!("{kind}({name})"))?.trim();
        match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => decimal(value),
        }
    }

    /// `SYMBOL(name)`: a guest virtual address, hexadecimal without `0x`.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.hex(&format!("SYMBOL({name})"))
    }

    /// `SYMBOL(name)`; zero and all-ones count as absent.
    ///
    /// # Errors
    /// [`Error::NoKey`], with `what` needs it.
    pub fn need_symbol(&self, name: &str, what: &'static str) -> Result<Gva, Error> {
        let found = self.symbol(name).filter(|value| ![0, u64::MAX].contains(value));
        found.map(Gva).ok_or_else(|| Error::NoKey { key: format!("SYMBOL({name})"), what })
    }

    /// `KIND(name)`, where `kind` is `NUMBER`, `OFFSET`, `SIZE` or `LENGTH`.
    ///
    /// # Errors
    /// [`Error::NoKey`], with `what` needs it.
    pub fn need(&self, kind: &str, name: &str, what: &'static str) -> Result<u64, Error> {
        let found = self.value(kind, name);
        found.ok_or_else(|| Error::NoKey { key: format!("{kind}({name})"), what })
    }

    /// A key that is printed in hexadecimal without `0x`, such as `KERNELOFFSET`.
    #[must_use]
    pub fn hex(&self, key: &str) -> Option<u64> {
        u64::from_str_radix(self.get(key)?.trim(), 16).ok()
    }

    /// `OSRELEASE`: the release of the guest's kernel.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.get("OSRELEASE")
    }

    /// `PAGESIZE` in bytes, if it is a power of two from 4 KiB to 64 KiB.
    #[must_use]
    pub fn page_size(&self) -> Option<u64> {
        let size = self.get("PAGESIZE")?.trim().parse::<u64>().ok()?;
        (size.is_power_of_two() && (0x1000..=0x1_0000).contains(&size)).then_some(size)
    }
}

fn decimal(value: &str) -> Option<u64> {
    let number = value.parse::<i128>().ok()?;
    u64::try_from(number).ok().or_else(|| i64::try_from(number).ok().map(i64::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_in_its_own_base() {
        let text = b"OSRELEASE=6.1.0-56-amd64\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1290000\nnoise\n\
            NUMBER(phys_base)=-893386752\nNUMBER(PHYS_OFFSET)=0xffffbf5c00000000\nKERNELOFFSET=3000000\n\
            NUMBER(phys_base)=1\nCRASHTIME=17";
        let info = Vmcoreinfo::parse(text);
        assert_eq!(info.release(), Some("6.1.0-56-amd64"));
        assert_eq!(info.page_size(), Some(4096));
        assert_eq!(info.symbol("swapper_pg_dir"), Some(0x129_0000));
        assert_eq!(info.number("phys_base"), Some(0xffff_ffff_cac0_0000));
        assert_eq!(info.number("PHYS_OFFSET"), Some(0xffff_bf5c_0000_0000));
        assert_eq!(info.hex("KERNELOFFSET"), Some(0x300_0000));
        assert_eq!(info.get("CRASHTIME"), Some("17"), "the last line counts without a newline");
        assert_eq!(info.number("absent"), None);
    }

    #[test]
    fn odd_values_are_absent() {
        let info = Vmcoreinfo::parse(b"PAGESIZE=3\nSYMBOL(x)=zz\nNUMBER(y)=0x\0OSRELEASE=late\n\xff=1");
        assert_eq!(
            (info.page_size(), info.symbol("x"), info.number("y"), info.release()),
            (None, None, None, None)
        );
    }
}
