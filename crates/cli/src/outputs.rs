//! The files that a dump is written to: one, or several that hold it together.

use crate::output::{self, Disk, Output};
use crate::text;
use anyhow::bail;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use vmcore::{Sink, Wrapper};

/// Outputs that are open but not complete. None of them gets its name before all of them are complete.
pub(crate) struct Outputs(Vec<Output>);

impl Outputs {
    /// Opens the output that the user calls `name` ([`Output::create`]), or, split in `count` files, those that are called
    /// `name.1` to `name.count`.
    pub(crate) fn create(name: &str, count: Option<u32>, replace: bool) -> anyhow::Result<Self> {
        let Some(count) = count else { return Ok(Self(vec![Output::create(name, replace)?])) };
        let is_other = |name: &str| {
            output::is_descriptor(name) || fs::metadata(name).is_ok_and(|found| !found.is_file())
        };
        let create = |number| {
            let share = format!("{name}.{number}");
            match [name, &share].into_iter().find(|name| is_other(name)) {
                Some(other) => bail!("--split cannot write to {other}: name a file with -o"),
                None => Output::create(&share, replace),
            }
        };
        (1..=count).map(create).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Its name, for messages: that of the only file, or those of the first and the last.
    pub(crate) fn name(&self) -> String {
        match &self.0[..] {
            [first, .., last] => format!("{} to {}", first.name(), last.name()),
            all => all.iter().map(Output::name).collect(),
        }
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(Output::name).collect()
    }

    /// Whether the dump can be opened under these names.
    pub(crate) fn are_files(&self) -> bool {
        self.0.iter().all(Output::is_file)
    }

    /// The sinks that write to them, each through a wrapper if there is one.
    pub(crate) fn sinks(&self, wrapper: Option<&'static dyn Wrapper>) -> Vec<Box<dyn Sink + '_>> {
        self.0.iter().map(|output| output.sink(wrapper)).collect()
    }

    /// Says which file system has not enough left, if all files together need `need` bytes, each as much as the others.
    pub(crate) fn shortage(&self, need: u64) -> anyhow::Result<Option<String>> {
        let each = need.div_ceil(self.0.len() as u64);
        let mut disks: BTreeMap<u64, (Disk, u64)> = BTreeMap::new();
        for output in &self.0 {
            if let Some(disk) = output.disk()? {
                let (_, need) = disks.entry(disk.device).or_insert_with(|| (disk, 0));
                *need = need.saturating_add(each);
            }
        }
        let short = disks.into_values().find(|(disk, need)| disk.free < *need);
        Ok(short.map(|(Disk { folder, free, .. }, need)| {
            let (free, need) = (text::size(free), text::size(need));
            format!("{} has {free} left, the dump may need {need}", folder.display())
        }))
    }

    /// Gives all complete files their names. If that fails for one, those that have theirs are removed again.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let mut named: Vec<PathBuf> = Vec::new();
        for output in self.0 {
            match output.commit() {
                Ok(path) => named.extend(path),
                Err(error) => {
                    let left = named.into_iter().filter(|path| fs::remove_file(path).is_err());
                    let stays = |error: anyhow::Error, path: PathBuf| {
                        error.context(format!("{} is left behind", path.display()))
                    };
                    return Err(left.fold(error, stays));
                }
            }
        }
        Ok(())
    }
}
