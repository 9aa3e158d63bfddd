//! gdb's target description against the registers that QEMU 10.0.2 shows.
//!
//! `data/qemu-10.0.2-*.tsv` are its rows, from the documents that it serves: of a Cortex-A57, and of `-cpu max` on a machine
//! with EL2 and EL3.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use vmcore_arch_aarch64::registers::TABLE;

const CORTEX_A57: &str = include_str!("data/qemu-10.0.2-cortex-a57.tsv");
const MAX: &str = include_str!("data/qemu-10.0.2-max.tsv");

/// A `<reg>` element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reg {
    number: usize,
    name: String,
    bits: String,
    ty: String,
    group: String,
    feature: String,
}

fn of_qemu(tsv: &str) -> Vec<Reg> {
    let row = |line: &str| {
        let [number, name, bits, ty, group, feature] =
            line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        Reg { number: number.parse().unwrap(), name, bits, ty, group, feature }
    };
    tsv.lines().skip(1).map(row).collect()
}

/// The registers of our `target.xml`, numbered as gdb numbers them.
fn ours() -> Vec<Reg> {
    let attribute = |line: &str, name: &str| {
        let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
        line[start..].split('"').next().map(str::to_owned)
    };
    let (mut feature, mut regs) = (String::new(), Vec::new());
    for line in TABLE.target_description().lines().map(str::trim) {
        if line.starts_with("<feature ") {
            feature = attribute(line, "name").unwrap();
        }
        if line.starts_with("<reg ") {
            let of = |name| attribute(line, name).unwrap_or_default();
            regs.push(Reg {
                number: regs.len(),
                name: of("name"),
                bits: of("bitsize"),
                ty: of("type"),
                group: of("group"),
                feature: feature.clone(),
            });
        }
    }
    regs
}

#[test]
fn core_and_floating_point_are_qemus_row_by_row() {
    let theirs = of_qemu(CORTEX_A57);
    let same = theirs.iter().filter(|reg| !reg.feature.ends_with("sys.regs")).count();
    assert_eq!(same, 68);
    assert_eq!(ours()[..same], theirs[..same]);
}

/// Their numbers differ between processors; all else is as QEMU says.
#[test]
fn the_other_registers_are_qemus_by_name() {
    let theirs: BTreeMap<String, Reg> =
        [MAX, CORTEX_A57].into_iter().flat_map(of_qemu).map(|reg| (reg.name.clone(), reg)).collect();
    for reg in &ours()[68..] {
        let their = theirs.get(&reg.name).unwrap_or_else(|| panic!("QEMU has no {}", reg.name));
        assert_eq!(*reg, Reg { number: reg.number, ..their.clone() });
    }
}

#[test]
fn names_are_qemus_in_lower_case_but_for_pstate_and_the_names_of_aarch32() {
    let rows = TABLE.rows.iter().filter_map(|row| Some((row.name, row.gdb?.name)));
    let other: Vec<_> = rows.filter(|(name, gdb)| gdb.to_lowercase() != *name).collect();
    let expected = [
        ("pstate", "cpsr"),
        ("sctlr_el1", "SCTLR"),
        ("amair_el1", "AMAIR0"),
        ("vbar_el1", "VBAR"),
        ("cpacr_el1", "CPACR"),
        ("cntkctl_el1", "CNTKCTL"),
    ];
    assert_eq!(other, expected);
}
