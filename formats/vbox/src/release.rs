//! The releases of VirtualBox whose form can be written.
//!
//! Source: `spec/vbox-core.md` section 1.

use crate::header::{OWNERS, OWNERS_2010, Owners};
use crate::record::{CORE_2, CORE_3, CORE_5, CORE_6, CPUMCTX_40, CPUMCTX_42, CPUMCTX_43, Record};
use vmcore_core::Variant;

/// A form that releases wrote, in the name of the last of them.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The name of the form, as in `--format`.
    pub name: &'static str,
    /// [`crate::header::CoreDescriptor::format_version`].
    pub format_version: u32,
    /// [`crate::header::CoreDescriptor::vbox_version`].
    pub vbox_version: u32,
    /// What the notes' owners are called.
    pub owners: Owners,
    /// Its CPU record.
    pub record: &'static Record,
}

/// A version of VirtualBox as one number.
#[must_use]
pub const fn version(major: u8, minor: u8, build: u16) -> u32 {
    (major as u32) << 24 | (minor as u32) << 16 | build as u32
}

const fn release(
    name: &'static str,
    format_version: u32,
    vbox_version: u32,
    owners: Owners,
    record: &'static Record,
) -> Release {
    Release { name, format_version, vbox_version, owners, record }
}

/// The form of today.
pub static CURRENT: &Release = &RELEASES[0];

#[rustfmt::skip] // a table is read by column
/// All forms, the latest first. The last was never released, but readers of it are.
pub static RELEASES: [Release; 8] = [
    release("vbox-7.0",   0x0001_0006, version(7, 0, 10), OWNERS,      &CORE_6),
    release("vbox-6.1",   0x0001_0005, version(6, 1, 50), OWNERS,      &CORE_5),
    release("vbox-5.0",   0x0001_0003, version(5, 0, 40), OWNERS,      &CORE_3),
    release("vbox-5.0.0", 0x0001_0002, version(5, 0, 0),  OWNERS,      &CORE_2),
    release("vbox-4.3",   0x0001_0000, version(4, 3, 40), OWNERS,      &CPUMCTX_43),
    release("vbox-4.2",   0x0001_0000, version(4, 2, 38), OWNERS,      &CPUMCTX_42),
    release("vbox-4.1",   0x0001_0000, version(4, 1, 44), OWNERS,      &CPUMCTX_40),
    release("vbox-2010",  0x0001_0000, version(3, 2, 51), OWNERS_2010, &CPUMCTX_40),
];

/// Their names.
pub(crate) static VARIANTS: [Variant; RELEASES.len()] = {
    let mut variants = [Variant { name: "", compression: None, wrapper: None }; RELEASES.len()];
    let mut index = 0;
    while index < variants.len() {
        variants[index].name = RELEASES[index].name;
        index += 1;
    }
    variants
};

/// The release of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|release| release.name == name)
}
