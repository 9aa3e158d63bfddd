//! Where everything stands in a core.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{options, write};
use proptest::prelude::*;
use vmcore_arch_x86_64 as _;
use vmcore_core::{Class, DumpOptions, Fill, Format, Gpa, Machine, Share};
use vmcore_format_vbox::Vbox;
use vmcore_synth::strategy::machines;

proptest! {
    #[test]
    fn extents_tile_the_file(machine in machines()) {
        let layout = Vbox.plan(&machine, &DumpOptions::default())?;
        let end = layout.extents().iter().try_fold(0, |end, extent| (extent.offset == end).then_some(end + extent.len));
        prop_assert_eq!(end, Some(layout.file_len()));
    }

    #[test]
    fn headers_point_at_the_extents_that_they_name(machine in machines()) {
        let layout = Vbox.plan(&machine, &DumpOptions::default())?;
        let bytes = write(&machine, &DumpOptions::default())?;
        let named = |name| layout.extents().iter().filter(move |extent| extent.name == name);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let notes = named("notes").next().map(|extent| (extent.offset, extent.len));
        prop_assert_eq!(Some((word(64 + 8), word(64 + 32))), notes);
        prop_assert_eq!(usize::from(bytes[56]), 1 + named("memory").count());
        for (index, extent) in named("memory").enumerate() {
            let at = 64 + 56 * (index + 1);
            prop_assert_eq!(&extent.fill, &Fill::Memory(Gpa(word(at + 24))));
            prop_assert_eq!([8, 16, 32, 40, 48].map(|field| word(at + field)), [extent.offset, 0, extent.len, extent.len, 0]);
            prop_assert_eq!(word(at), 4 << 32 | 1, "readable memory");
        }
    }
}

#[test]
fn a_snapshot_of_the_demo_guest() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    insta::assert_snapshot!("demo", Vbox.plan(&machine, &DumpOptions::default()).unwrap());
    let mut text = String::new();
    for variant in Vbox.variants() {
        text += &format!("{}\n{}", variant.name, notes(&machine, variant.name));
    }
    insta::assert_snapshot!("notes", text);
}

/// VirtualBox's notes as a dump of their bytes: 32 a line, without the lines that are all zeros.
fn notes(machine: &Machine, variant: &'static str) -> String {
    let layout = Vbox.plan(machine, &options(Some(variant))).unwrap();
    let Fill::Bytes(bytes) = &layout.extents()[2].fill else { panic!("the third extent are the notes") };
    let first = bytes.windows(5).position(|window| window == b"CORE\0").unwrap_or(bytes.len());
    let lines = bytes[..first].chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0));
    lines
        .map(|(index, line)| {
            format!(
                "{:#06x} {}\n",
                32 * index,
                line.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            )
        })
        .collect()
}

#[test]
fn what_the_format_has_no_place_for() {
    let machine = vmcore_synth::demo::machine("x86_64").unwrap();
    let check = |machine: &Machine, options: DumpOptions, expected: &str| {
        assert_eq!(Vbox.plan(machine, &options).unwrap_err().to_string(), expected);
    };
    let none = DumpOptions::default;
    check(
        &machine,
        DumpOptions { paging: true, ..none() },
        "a list of virtual addresses is not supported: a VirtualBox core has none",
    );
    let share = Some(Share { index: 0, count: 2 });
    check(
        &machine,
        DumpOptions { share, ..none() },
        "a dump in several files is not supported: a VirtualBox core says nothing of the others",
    );
    let class = Some(Class::Elf32);
    check(
        &machine,
        DumpOptions { class, ..none() },
        "a VirtualBox core of 32-bit structures is not supported: they are 64-bit for every guest",
    );
    let mut other = machine;
    other.identity.elf_machine = 183;
    other.arch = None;
    check(
        &other,
        none(),
        "a VirtualBox core of anything but x86 is not supported: a guest of ELF machine 183",
    );
}
