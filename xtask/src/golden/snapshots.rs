//! Every insta snapshot of the workspace, and the seeds of the fuzz targets: deleted, then written by the tests themselves.
//!
//! Deleting first finds the orphans: a file that no test writes again belongs to no test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The folders that hold crates with snapshots.
const FOLDERS: [&str; 5] = ["tests", "crates", "arch", "formats", SEEDS];

/// The folder of the fuzz targets' seeds, all of whose files tests write.
const SEEDS: &str = "fuzz/seeds";

/// Path and content of every `.snap` file and of every seed, as they are now.
type Snapshots = BTreeMap<PathBuf, Vec<u8>>;

/// Regenerates all snapshots; the number of those that are not what they were. With `check`, or when the tests fail,
/// the old ones are put back.
pub(super) fn golden(repo: &Path, check: bool) -> Result<usize> {
    let before = PutBack { snapshots: collect(repo)?, repo, armed: true };
    for path in before.snapshots.keys() {
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    // Doc tests are left out: they have no snapshots, and each is a program to link.
    let status = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--quiet", "--lib", "--bins", "--tests"])
        .envs([("INSTA_UPDATE", "always"), ("INSTA_OUTPUT", "none")])
        .current_dir(repo)
        .status()
        .context("running cargo test")?;
    ensure!(status.success(), "the tests fail, so the snapshots stay as they were");

    let after = collect(repo)?;
    let differences = compare(repo, &before.snapshots, &after);
    if !check {
        before.keep_the_new();
    }
    Ok(differences)
}

/// Prints a line for each difference and counts them.
fn compare(repo: &Path, before: &Snapshots, after: &Snapshots) -> usize {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut count = 0;
    for path in paths {
        let what = match (before.get(path), after.get(path)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => super::fixtures::first_difference(old, new),
            (Some(_), None) => "no test writes it".to_owned(),
            (None, _) => "is new".to_owned(),
        };
        println!("{}: {what}", path.strip_prefix(repo).unwrap_or(path).display());
        count += 1;
    }
    count
}

fn collect(repo: &Path) -> Result<Snapshots> {
    let mut found = Snapshots::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|name| repo.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if kind.is_file()
                && (path.extension().is_some_and(|extension| extension == "snap")
                    || path.starts_with(repo.join(SEEDS)))
            {
                let content = fs::read(&path)?;
                found.insert(path, content);
            }
        }
    }
    Ok(found)
}

/// Puts the snapshots back as they were, unless told that the new ones shall stay.
struct PutBack<'a> {
    snapshots: Snapshots,
    repo: &'a Path,
    armed: bool,
}

impl PutBack<'_> {
    fn keep_the_new(mut self) {
        self.armed = false;
    }

    fn put_back(&self) -> Result<()> {
        for path in collect(self.repo)?.keys().filter(|path| !self.snapshots.contains_key(*path)) {
            fs::remove_file(path)?;
        }
        for (path, content) in &self.snapshots {
            if fs::read(path).ok().as_ref() != Some(content) {
                fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.put_back()
        {
            println!("the old snapshots could not be put back: {error:#}; git has them");
        }
    }
}
