//! Random machines for property tests.

use crate::guest;
use proptest::prelude::*;
use vmcore_core::{Gpa, Machine, Note, RangeFilter, RegisterId, arch};

/// A region of guest memory: where it begins and what is in it.
type Block = (u64, Vec<u8>);

/// RAM in a few regions: adjacent, apart, unsorted, of odd lengths, partly zero, also above 4 GiB.
pub fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6000),
        (1..20_000usize).prop_map(|len| vec![0; len]),
        (1..6usize).prop_map(|pages| vec![0x5a; pages * 0x1000]),
    ];
    let gap = prop_oneof![Just(0), Just(0x1000), 0..0x3000u64, Just(0x1_0000_0000)];
    let regions = prop::collection::vec((gap, content), 1..7).prop_map(|parts| {
        let mut at = 0;
        let mut place = |(gap, bytes): (u64, Vec<u8>)| {
            let start = at + gap;
            at = start + bytes.len() as u64;
            (start, bytes)
        };
        parts.into_iter().map(&mut place).collect::<Vec<Block>>()
    });
    regions.prop_shuffle()
}

/// Notes that no table knows.
fn unknown_notes() -> impl Strategy<Value = Vec<Note>> {
    let note = ("[A-Z]{1,9}", 0x5000_0000..0x5000_0010u32, prop::collection::vec(any::<u8>(), 0..50));
    prop::collection::vec(note.prop_map(|(owner, note_type, desc)| Note::new(&owner, note_type, desc)), 0..3)
}

/// Machines of every architecture that is linked in, with random memory and registers.
///
/// # Panics
/// If no architecture is linked in.
pub fn machines() -> impl Strategy<Value = Machine> {
    let names: Vec<&'static str> = arch::all().iter().map(|arch| arch.name()).collect();
    let vcpus = prop::collection::vec(prop::collection::vec(any::<Option<u64>>(), 200), 0..4);
    let vmcoreinfo = prop::option::of("OSRELEASE=[0-9.]{1,9}\nPAGESIZE=4096\n");
    (prop::sample::select(names), blocks(), vcpus, unknown_notes(), vmcoreinfo).prop_map(
        |(name, blocks, vcpus, notes, vmcoreinfo)| {
            let mut builder = guest(name).expect("the name comes from the registry");
            for (start, bytes) in &blocks {
                builder = builder.ram(*start..start + bytes.len() as u64).fill(*start, bytes);
            }
            for values in vcpus {
                builder = builder.vcpu(|registers| {
                    for (id, value) in (0..registers.table().rows.len()).zip(values) {
                        if let (Ok(id), Some(value)) = (u16::try_from(id), value) {
                            registers.set(RegisterId(id), &value.to_le_bytes());
                        }
                    }
                });
            }
            if let Some(text) = vmcoreinfo {
                builder = builder.vmcoreinfo(&text);
            }
            let mut machine = builder.build().expect("the blocks are disjoint");
            machine.notes = notes;
            machine
        },
    )
}

/// A range of the memory of such a machine, at or around the edges of its regions too.
pub fn range_of(machine: &Machine) -> impl Strategy<Value = RangeFilter> + use<> {
    let edges: Vec<u64> =
        machine.memory.regions().iter().flat_map(|region| [region.gpa.0, region.end().0]).collect();
    let near = move || {
        (prop::sample::select(edges.clone()), -2..3i64).prop_map(|(edge, by)| edge.saturating_add_signed(by))
    };
    (near(), near()).prop_map(|(a, b)| RangeFilter { begin: Gpa(a.min(b)), len: a.abs_diff(b).max(1) })
}
