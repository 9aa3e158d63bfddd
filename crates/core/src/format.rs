//! What a dump format must say, and the registry of those that are linked in.

use crate::registry::{names, registry, unknown};
use crate::{Class, Error, Gpa, Layout, Machine, ReadAt, Region, RegionKind, read_at, wrapper};
use std::sync::Arc;

/// What a format can hold; `vmcore list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The widths of structures that it knows.
    pub classes: &'static [Class],
    /// Whether it knows both byte orders.
    pub both_endians: bool,
    /// Whether it can hold registers and notes; else memory is all that is left of a guest.
    pub registers: bool,
    /// Whether it can hold virtual addresses.
    pub paging: bool,
    /// Whether it can hold a range of memory only.
    pub range: bool,
    /// Whether it can be written to a pipe as it is, without a wrapper.
    pub streaming: bool,
    /// Whether memory is in segments: each gap in it takes a header, and many gaps make a dump slow to read.
    pub segments: bool,
    /// Whether a reader can tell memory that is missing or was left out from memory of zeros.
    pub gaps: bool,
    /// Whether a dump can lie in several files, each with a [`Share`] of the pages.
    pub shares: bool,
    /// How it can compress pages; the first is the default. Empty if it does not.
    pub compressions: &'static [Compression],
}

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// zlib, RFC 1950.
    Zlib,
    /// LZO1X.
    Lzo,
    /// Snappy, raw.
    Snappy,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Zlib, Self::Lzo, Self::Snappy, Self::Zstd, Self::None];

    /// Its name, as in `--compress`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Lzo => "lzo",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

/// Another name of a format, and what it says beside the format.
///
/// A format whose variants are laid out differently goes by [`DumpOptions::variant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The name, as in `--format`; where QEMU has one, QEMU's.
    pub name: &'static str,
    /// How pages are compressed.
    pub compression: Option<Compression>,
    /// The [`crate::Wrapper`] around it.
    pub wrapper: Option<&'static str>,
}

/// One of several files that hold a dump together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub index: u32,
    /// Of how many; not 0.
    pub count: u32,
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
    /// How pages are compressed; else by the format's default.
    pub compression: Option<Compression>,
    /// How hard, in the compressor's own scale; else fast.
    pub level: Option<i32>,
    /// Also memory behind the end of RAM, as of firmware, that readers stumble over.
    pub all_memory: bool,
    /// Only a share of the pages: the file is one of several ([`Abilities::shares`]).
    pub share: Option<Share>,
    /// The [`Variant::name`] by which the format was asked for, if it was one.
    pub variant: Option<&'static str>,
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
            return Err(Error::Range { what: EMPTY_RANGE, start: filter.begin.0, len: filter.len });
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

    /// Other names of it, and what they mean.
    fn variants(&self) -> &'static [Variant] {
        &[]
    }

    /// What it is, in a line.
    fn description(&self) -> &'static str;

    /// What it can hold.
    fn abilities(&self) -> Abilities;

    /// Whether a file that begins with `head` (at most [`HEAD_LEN`] bytes) is of this format. Never fails.
    fn probe(&self, head: &[u8]) -> bool;

    /// Whether files of other formats have this one's form, too, and hold more than it knows of: then those formats are
    /// asked first.
    fn is_general(&self) -> bool {
        false
    }

    /// Reads what the dump says of its guest; its memory stays in the file.
    ///
    /// A dump that is cut off or odd is opened as far as it goes, with [`crate::Finding`]s.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Invalid`] and so on where there is no sense in going on; [`Error::Io`].
    fn open(&self, file: Arc<dyn ReadAt>) -> Result<Machine, Error>;

    /// Reads a dump that lies in several files, in any order.
    ///
    /// # Errors
    /// As [`Format::open`]; [`Error::Unsupported`] for formats that know no such thing.
    fn open_shares(&self, files: Vec<Arc<dyn ReadAt>>) -> Result<Machine, Error> {
        let found = format!("{} files in format {}", files.len(), self.name());
        Err(Error::Unsupported { what: "a dump in several files", found })
    }

    /// Plans the file that holds `machine`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::TooLarge`] where the format cannot hold it, [`Error::Range`] where the
    /// options leave nothing, and errors of reading page tables.
    fn plan(&self, machine: &Machine, options: &DumpOptions) -> Result<Layout, Error>;
}

/// What is wrong with a range that leaves nothing ([`Error::Range`]).
pub const EMPTY_RANGE: &str = "the range holds no guest memory";

/// How much of a file [`Format::probe`] sees.
pub const HEAD_LEN: usize = 4096;

registry! {
    /// The registration of a format.
    FormatPlugin of Format by name, "The formats that are linked in, by name."
}

/// The format with this name, or with a variant of this name.
///
/// # Errors
/// [`Error::Unknown`] with the names that there are.
pub fn by_name(name: &str) -> Result<&'static dyn Format, Error> {
    let has_name = |format: &&dyn Format| {
        format.name() == name || format.variants().iter().any(|variant| variant.name == name)
    };
    let found = all().iter().copied().find(has_name);
    found.ok_or_else(|| unknown("format", name, all().iter().map(|format| format.name())))
}

/// A dump that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The name of its format.
    pub format: &'static str,
    /// The name of the wrapper around it.
    pub wrapper: Option<&'static str>,
    /// Its guest.
    pub machine: Machine,
}

/// Opens a dump in whatever format it is, also through a [`crate::Wrapper`].
///
/// Several files are the shares of one dump ([`Format::open_shares`]), in any order.
///
/// # Errors
/// [`Error::UnknownFormat`] if no format recognizes it, [`Error::Io`], and what [`Format::open`] returns.
pub fn open(files: Vec<Arc<dyn ReadAt>>) -> Result<Opened, Error> {
    open_with(files, |head| {
        let fitting = all().iter().copied().filter(|format| format.probe(head));
        // Of several the first.
        let found = fitting.min_by_key(|format| format.is_general());
        found.ok_or_else(|| {
            let head = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            Error::UnknownFormat { head, known: names(all().iter().map(|format| format.name())) }
        })
    })
}

/// As [`open`], in the format named `name`, whatever the dump looks like.
///
/// # Errors
/// [`Error::Unknown`] if there is no such format, [`Error::Io`], and what [`Format::open`] returns.
pub fn open_as(files: Vec<Arc<dyn ReadAt>>, name: &str) -> Result<Opened, Error> {
    let format = by_name(name)?;
    open_with(files, |_| Ok(format))
}

fn open_with(
    mut files: Vec<Arc<dyn ReadAt>>,
    format_of: impl Fn(&[u8]) -> Result<&'static dyn Format, Error>,
) -> Result<Opened, Error> {
    let mut findings = Vec::new();
    let mut wrapper = None;
    let mut head = Vec::new();
    for file in &mut files {
        if let Some((name, inside)) = wrapper::open(file)? {
            *file = inside.file;
            findings.extend(inside.findings);
            wrapper = Some(name);
        }
        head = head_of(&**file)?;
    }
    let format = format_of(&head)?;
    let mut machine = match <[_; 1]>::try_from(files) {
        Ok([file]) => format.open(file)?,
        Err(files) => format.open_shares(files)?,
    };
    findings.append(&mut machine.findings);
    machine.findings = findings;
    Ok(Opened { format: format.name(), wrapper, machine })
}

pub(crate) fn head_of(file: &dyn ReadAt) -> Result<Vec<u8>, Error> {
    read_at::read_vec(file, 0, file.byte_len().min(HEAD_LEN as u64), "the head of the file")
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
        assert!(open(vec![Arc::new(vec![0x7f, 0x45])]).unwrap_err().to_string().contains("it begins 7f 45"));
    }
}
