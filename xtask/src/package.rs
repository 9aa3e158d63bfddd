//! That each crate can be published: all of them are packaged, and each package has what it needs.
//!
//! That the packages also compile takes minutes, so it is for the one who publishes: `cargo package --workspace` does it.

use crate::run::{any_output, output, printed, repository};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The texts of our licenses, which a package has to carry: in each crate a link to those of the workspace.
pub(crate) const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// The step of continuous integration.
pub(crate) fn check() -> Result<()> {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("the output of cargo metadata")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    // Publishing is forbidden where the list of registries is empty.
    let packages: Vec<&Value> = packages
        .iter()
        .filter(|package| package["publish"].as_array().is_none_or(|list| !list.is_empty()))
        .collect();
    ensure!(!packages.is_empty(), "no crate can be published");

    let folder = tempfile::tempdir()?;
    let mut command = cargo();
    command.args(["package", "--no-verify", "--allow-dirty", "--locked", "--target-dir"]).arg(folder.path());
    for package in &packages {
        command.args(["--package", package["name"].as_str().context("a package without a name")?]);
    }
    let out = any_output(&mut command)?;
    let said = printed(&out);
    ensure!(out.status.success() && !said.contains("warning:"), "cargo package:\n{said}");
    packages.iter().try_for_each(|package| complete(package, &folder.path().join("package")))
}

fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(repository());
    command
}

/// A package has what those look for who find it.
fn complete(package: &Value, folder: &Path) -> Result<()> {
    let text = |field: &str| package[field].as_str().unwrap_or_default();
    let (name, version) = (text("name"), text("version"));
    for field in ["description", "license", "repository", "readme", "rust_version"] {
        ensure!(!text(field).is_empty(), "{name} has no {field}");
    }
    for field in ["keywords", "categories"] {
        let count = package[field].as_array().map_or(0, Vec::len);
        // The registry takes no more.
        ensure!((1..=5).contains(&count), "{name} has {count} {field}");
    }
    let archive = folder.join(format!("{name}-{version}.crate"));
    let files = output(Command::new("tar").arg("-tzf").arg(archive))?;
    for file in LICENSES.into_iter().chain(["README.md"]) {
        let path = format!("{name}-{version}/{file}");
        ensure!(files.lines().any(|found| found == path), "the package of {name} has no {file}");
    }
    Ok(())
}
