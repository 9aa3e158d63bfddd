//! gdb's target description of every architecture: read back it is the register table, and it is what QEMU tells gdb.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;
use vmcore::arch;
use vmcore_tests::target_description::{Description, Reg, of_qemu};

/// The feature whose registers differ between processors, so that we have some of them and in an order of our own.
const PARTIAL: &str = "org.qemu.gdb.arm.sys.regs";

fn is_partial(reg: &Reg) -> bool {
    reg.feature == PARTIAL
}

/// The files of `tests/gdb-registers`: name of the architecture, processor or nothing, rows.
fn files() -> BTreeMap<(String, String), Vec<(u32, Reg)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("gdb-registers");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tables = paths.filter(|path| path.extension().is_some_and(|extension| extension == "tsv"));
    let read = |path: std::path::PathBuf| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (arch, processor) = stem.split_once('-').unwrap_or((stem, ""));
        ((arch.to_owned(), processor.to_owned()), of_qemu(&std::fs::read_to_string(&path).unwrap()))
    };
    tables.map(read).collect()
}

#[test]
fn it_is_the_register_table() {
    for arch in arch::all() {
        let table = arch.registers();
        let description = Description::parse(&table.target_description());
        assert_eq!(description.architecture, table.gdb_architecture);
        let rows = table.rows.iter().map_while(|row| row.gdb);
        let expected: Vec<Reg> = rows
            .clone()
            .map(|gdb| Reg {
                name: gdb.name.to_owned(),
                bits: gdb.bits.into(),
                ty: gdb.ty.to_owned(),
                group: gdb.group.unwrap_or_default().to_owned(),
                feature: gdb.feature.to_owned(),
            })
            .collect();
        assert_eq!(description.registers, expected, "{}: gdb's number is the row", arch.name());
        for gdb in rows {
            assert!(gdb.bits > 0 && gdb.bits.is_multiple_of(8), "{}: {} in a packet", arch.name(), gdb.name);
        }
    }
}

#[test]
fn what_gdb_insists_on_is_in_the_table() {
    for arch in arch::all() {
        let table = arch.registers();
        let rows = || table.rows.iter().filter_map(|row| row.gdb);
        for feature in table.gdb_features {
            let name = |wanted: &str| format!("{}: {}, {wanted}", arch.name(), feature.name);
            assert!(rows().any(|gdb| gdb.feature == feature.name), "{}", name("which has no rows"));
            // Two architectures may share what is said of a feature.
            let all = || arch::all().iter().flat_map(|arch| arch.registers().rows).filter_map(|row| row.gdb);
            for extra in feature.extra {
                assert!(
                    all().any(|gdb| (gdb.feature, gdb.name) == (feature.name, *extra)),
                    "{}",
                    name(extra)
                );
            }
            for needed in feature.needs {
                assert!(table.gdb_features.iter().any(|other| other.name == *needed), "{}", name(needed));
            }
        }
        // The unwinder of any debugger begins there.
        let least = table.gdb_rows(|_| false);
        for needed in [table.program_counter, table.stack_pointer] {
            assert!(least.iter().any(|(_, row)| row.name == needed), "{}: {needed}", arch.name());
        }
    }
}

/// The rows of each feature but the partial one, features in the order of the rows.
fn whole_features<'a>(rows: impl IntoIterator<Item = &'a Reg>) -> Vec<(&'a str, Vec<&'a Reg>)> {
    let mut features: Vec<(&str, Vec<&Reg>)> = Vec::new();
    for reg in rows.into_iter().filter(|reg| !is_partial(reg)) {
        match features.iter_mut().find(|(name, _)| *name == reg.feature) {
            Some((_, rows)) => rows.push(reg),
            None => features.push((&reg.feature, vec![reg])),
        }
    }
    features
}

/// The features of the first processor, in its order, then those that another one has; each of them row by row. QEMU's
/// numbers have holes where other processors have more.
#[test]
fn gdb_is_told_what_qemu_tells_it() {
    let files = files();
    for arch in arch::all() {
        let name = arch.name();
        let of_arch: Vec<_> = files.iter().filter(|((arch, _), _)| arch == name).collect();
        // The keys are sorted: the file without a processor is the first.
        let theirs: Vec<_> = of_arch
            .iter()
            .map(|((_, processor), rows)| {
                assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "{name} {processor}");
                whole_features(rows.iter().map(|(_, reg)| reg))
            })
            .collect();
        assert!(of_arch.first().is_some_and(|((_, processor), _)| processor.is_empty()), "no {name}.tsv");
        let description = Description::parse(&arch.registers().target_description());
        let ours = whole_features(&description.registers);
        let names = |features: &[(&str, Vec<&Reg>)]| -> Vec<String> {
            features.iter().map(|(feature, _)| (*feature).to_owned()).collect()
        };
        assert!(names(&ours).starts_with(&names(&theirs[0])), "{name}: {:?}", names(&ours));
        for (feature, rows) in &ours {
            let of_qemu = theirs.iter().flatten().find(|(name, _)| name == feature);
            let (_, of_qemu) = of_qemu.unwrap_or_else(|| panic!("{name}: QEMU has no {feature}"));
            let different = rows.iter().zip(of_qemu).find(|(ours, theirs)| ours != theirs);
            assert_eq!(different, None, "{name}: ours and QEMU's");
            assert_eq!(rows.len(), of_qemu.len(), "{name} {feature}");
        }
    }
}

/// Registers of the partial feature are those of some processor.
#[test]
fn what_differs_between_processors_is_qemus_by_name() {
    let files = files();
    for arch in arch::all() {
        let of_arch = files.iter().filter(|((name, _), _)| name == arch.name());
        let theirs: Vec<&Reg> = of_arch.flat_map(|(_, rows)| rows).map(|(_, reg)| reg).collect();
        let ours = Description::parse(&arch.registers().target_description()).registers;
        for reg in ours.iter().filter(|reg| is_partial(reg)) {
            assert!(theirs.contains(&reg), "{}: QEMU has no {reg:?}", arch.name());
        }
    }
}

#[test]
fn every_file_is_of_an_architecture() {
    for (arch, processor) in files().into_keys() {
        assert!(arch::by_name(&arch).is_ok(), "{arch} {processor}");
    }
}
