//! What the workspace is made of, by the rules of `deny.toml`: licenses, duplicates, sources; and that no dependency needs a newer Rust.
//!
//! This is the part of `cargo deny` that needs neither the network nor minutes of compiling: it reads what cargo knows already.

use crate::run::{output, repository};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

/// `deny.toml`, as far as it is checked here.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

/// Licenses that one crate may have besides.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    krate: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

/// A version that may be there beside another one, as in `syn@2`.
#[derive(Debug, Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    krate: String,
}

/// The breaches of the rules; `metadata` is cargo's.
pub(crate) fn check(metadata: &Value) -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join("deny.toml")).context("reading deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let compiled = compiled()?;
    let packages: Vec<Package<'_>> = packages.iter().map(Package::of).collect::<Result<_>>()?;
    let packages: Vec<_> = packages.into_iter().filter(|package| compiled.contains(&package.id())).collect();
    let own = packages.iter().filter(|package| package.source.is_none());
    let rust = own.filter_map(|package| package.rust).min().context("no crate of ours has a rust-version")?;

    let mut wrong = duplicates(&packages, &rules.bans.skip);
    for package in &packages {
        let Package { name, license, .. } = package;
        if !rules.licenses.allows(name, license) {
            wrong.push(format!("{name} has the license `{license}`"));
        }
        if package.source.is_some_and(|source| source != CRATES_IO) {
            wrong.push(format!("{name} is not of crates.io"));
        }
        if let Some((major, minor)) = package.rust.filter(|needed| *needed > rust) {
            wrong.push(format!(
                "{name} needs Rust {major}.{minor}, our rust-version is {}.{}",
                rust.0, rust.1
            ));
        }
    }
    Ok(wrong)
}

/// Name and version of each crate that some target and feature compiles. What cargo calls metadata, and Cargo.lock, have more: optional
/// dependencies of dependencies that nobody has asked for.
fn compiled() -> Result<BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--workspace",
        "--all-features",
        "--edges=all",
        "--target=all",
        "--prefix=none",
        "--locked",
    ]);
    let tree = output(cargo.current_dir(repository()))?;
    let id = |line: &str| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    let ids: BTreeSet<String> = tree.lines().filter_map(id).collect();
    ensure!(ids.iter().any(|id| id.starts_with("vmcore v")), "cargo tree does not name our crates");
    Ok(ids)
}

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is looked at of a package.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    license: &'a str,
    /// None for a crate of ours.
    source: Option<&'a str>,
    /// The least Rust that it says it needs, as in (1, 88).
    rust: Option<(u32, u32)>,
}

impl<'a> Package<'a> {
    fn of(package: &'a Value) -> Result<Self> {
        Ok(Self {
            name: package["name"].as_str().context("a package without a name")?,
            version: package["version"].as_str().context("a package without a version")?,
            license: package["license"].as_str().unwrap_or_default(),
            source: package["source"].as_str(),
            rust: package["rust_version"].as_str().and_then(|version| {
                let mut parts = version.split('.').map(str::parse);
                Some((parts.next()?.ok()?, parts.next()?.ok()?))
            }),
        })
    }

    /// As cargo's tree writes it.
    fn id(&self) -> String {
        format!("{} v{}", self.name, self.version)
    }

    /// The part of the version that another one may not replace: `2` of 2.0.119, `0.4` of 0.4.3.
    fn line(&self) -> &'a str {
        let dots = if self.version.starts_with("0.") { 2 } else { 1 };
        self.version.match_indices('.').nth(dots - 1).map_or(self.version, |(at, _)| &self.version[..at])
    }
}

impl Licenses {
    fn allows(&self, name: &str, license: &str) -> bool {
        let license = license.replace('/', " OR ").replace(['(', ')'], " ");
        let more = self.exceptions.iter().filter(|exception| exception.krate == name);
        let allowed: Vec<&String> =
            self.allow.iter().chain(more.flat_map(|exception| &exception.allow)).collect();
        // Each part that AND joins needs one allowed choice. Only that form occurs; another one is for a person to read.
        let mut parts = license.split(" AND ");
        parts.all(|part| part.split(" OR ").any(|choice| allowed.iter().any(|name| *name == choice.trim())))
    }
}

/// Crates that are there in several versions.
fn duplicates(packages: &[Package<'_>], skip: &[Skip]) -> Vec<String> {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let is_skipped = skip.iter().any(|skip| skip.krate == format!("{}@{}", package.name, package.line()));
        if !is_skipped {
            lines.entry(package.name).or_default().push(package.version);
        }
    }
    let several = lines.iter().filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| format!("{name} is there in several versions: {}", versions.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Licenses {
        let exceptions = vec![Exception { krate: "tool".to_owned(), allow: vec!["MPL-2.0".to_owned()] }];
        Licenses { allow: vec!["MIT".to_owned(), "Zlib".to_owned()], exceptions }
    }

    #[test]
    fn one_choice_of_each_part_is_enough() {
        let rows = [
            ("MIT", true),
            ("GPL-2.0", false),
            ("MIT OR GPL-2.0", true),
            ("MIT/GPL-2.0", true),
            ("(MIT OR GPL-2.0) AND Zlib", true),
            ("MIT AND GPL-2.0", false),
            ("MPL-2.0", false),
            ("", false),
        ];
        for (license, expected) in rows {
            assert_eq!(rules().allows("crate", license), expected, "{license}");
        }
        assert!(rules().allows("tool", "MPL-2.0"));
    }

    #[test]
    fn a_second_version_is_a_duplicate() {
        let package = |version| Package { name: "syn", version, license: "MIT", source: None, rust: None };
        let packages = [package("2.0.1"), package("3.0.0")];
        assert_eq!(duplicates(&packages, &[]), ["syn is there in several versions: 2.0.1, 3.0.0"]);
        assert_eq!(duplicates(&packages, &[Skip { krate: "syn@2".to_owned() }]), [""; 0]);
        assert_eq!(package("0.4.3").line(), "0.4");
    }
}
