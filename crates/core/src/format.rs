//! What a dump format must say, and the registry of those that are linked in.

use crate::registry::{names, registry, unknown};
use crate::{Class, Error, Gpa, Layout, Machine, ReadAt, Region, RegionKind, read_at};
use std::sync::Arc;

/// What a format can hold; `vmcore list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The widths of structures that it knows.
    pub classes: &'static [Class],
    /// Whether it knows both byte orders.
    pub both_endians: bool,
    /// Whether it can hold virtual addresses.
    pub paging: bool,
    /// Whether it can hold a range of memory only.
    pub range: bool,
    /// Whether it can be written to a pipe.
    pub streaming: bool,
}

/// Which memory a dump is to hold: QMP's `begin` and `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeFilter {
    /// First address.
    pub begin: Gpa,
    /// Bytes; not zero. It may reach past the end of RAM.
    pub len: u64,
}

impl RangeFilter {
    /// The part of `[gpa, gpa + len)` that the filter lets through, as start and length.
    #[must_use]
    pub fn clip(&self, gpa: Gpa, len: u64) -> Option<(Gpa, u64)> {
        let start = gpa.max(self.begin);
        let end = gpa.0.saturating_add(len).min(self.begin.0.saturating_add(self.len));
        end.checked_sub(start.0).filter(|len| *len > 0).map(|len| (start, len))
    }
}

/// How a dump is to be written.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Only this range of memory.
    pub range: Option<RangeFilter>,
    /// Give memory the virtual addresses that the guest's page tables say.
    pub paging: bool,
    /// This class instead of the one that the guest calls for.
    pub class: Option<Class>,
}

impl DumpOptions {
    /// The RAM of `machine` that is to be dumped: regions in ascending order, clipped.
    ///
    /// # Errors
    /// [`Error::Range`] if the filter leaves nothing.
    pub fn select(&self, machine: &Machine) -> Result<Vec<Region>, Error> {
        let ram = machine.memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
        let Some(filter) = self.range else { return Ok(ram.copied().collect()) };
        let clipped = ram.filter_map(|region| filter.clip(region.gpa, region.len));
        let selected: Vec<Region> = clipped.map(|(gpa, len)| Region::ram(gpa, len)).collect();
        if selected.is_empty() {
            return Err(Error::Range {
                what: "the range holds no guest memory",
                start: filter.begin.0,
                len: filter.len,
            });
        }
        Ok(selected)
    }
}

/// A dump format: how a file of it is told from others, read, and laid out.
///
/// `open` is the inverse of `plan`: what it does not understand it carries along, so that it can be written again.
pub trait Format: Send + Sync {
    /// Its name, as in `--format`.
    fn name(&self) -> &'static str;

    /// Other names that mean it.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it is, in a line.
    fn description(&self) -> &'static str;

    /// What it can hold.
    fn abilities(&self) -> Abilities;

    /// Whether a file that begins with `head` (at most [`HEAD_LEN`] bytes) is of this format. Never fails.
    fn probe(&self, head: &[u8]) -> bool;

    /// Reads what the dump says of its guest; its memory stays in the file.
    ///
    /// A dump that is cut off or odd is opened as far as it goes, with [`crate::Finding`]s.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Invalid`] and so on where there is no sense in going on; [`Error::Io`].
    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error>;

    /// Plans the file that holds `machine`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::TooLarge`] where the format cannot hold it, [`Error::Range`] where the
    /// options leave nothing, and errors of reading page tables.
    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error>;
}

/// How much of a file [`Format::probe`] sees.
pub const HEAD_LEN: usize = 4096;

registry! {
    /// The registration of a format.
    FormatPlugin of Format by name, "The formats that are linked in, by name."
}

/// The format with this name or alias.
///
/// # Errors
/// [`Error::Unknown`] with the names that there are.
pub fn by_name(name: &str) -> Result<&'static dyn Format, Error> {
    let found =
        all().iter().copied().find(|format| format.name() == name || format.aliases().contains(&name));
    found.ok_or_else(|| unknown("format", name, all().iter().map(|format| format.name())))
}

/// Opens a dump in whatever format it is.
///
/// # Errors
/// [`Error::UnknownFormat`] if no format recognizes it, [`Error::Io`], and what [`Format::open`] returns.
pub fn open(file: Arc<dyn ReadAt>) -> Result<(&'static dyn Format, Machine), Error> {
    let len = file.byte_len().min(HEAD_LEN as u64);
    let head = read_at::read_vec(&*file, 0, len, "the head of the file")?;
    let Some(format) = all().iter().copied().find(|format| format.probe(&head)) else {
        let head = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let known = names(all().iter().map(|format| format.name()));
        return Err(Error::UnknownFormat {
            head: if head.is_empty() { "nowhere: it is empty".into() } else { head },
            known,
        });
    };
    Ok((format, format.open(file)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_clips_regions() {
        let check = |filter: (u64, u64), expected: &[(u64, u64)]| {
            let filter = RangeFilter { begin: Gpa(filter.0), len: filter.1 };
            let regions = [(0, 0xa000), (0x10_0000, 0x1000)];
            let clipped: Vec<_> =
                regions.iter().filter_map(|(gpa, len)| filter.clip(Gpa(*gpa), *len)).collect();
            assert_eq!(
                clipped.iter().map(|(gpa, len)| (gpa.0, *len)).collect::<Vec<_>>(),
                expected,
                "{filter:?}"
            );
        };
        check((0x9000, 0xf_8000), &[(0x9000, 0x1000), (0x10_0000, 0x1000)]);
        check((0xa000, 0x1000), &[]);
        check((0x1800, 0x801), &[(0x1800, 0x801)]);
        check((0x10_0fff, u64::MAX), &[(0x10_0fff, 1)]);
    }

    #[test]
    fn an_empty_registry_says_so() {
        assert!(by_name("elf").unwrap_err().to_string().contains("no plugins are linked in"));
        assert!(open(Arc::new(vec![0x7f, 0x45])).unwrap_err().to_string().contains("it begins 7f 45"));
    }
}
