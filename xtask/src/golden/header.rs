//! The header of the C interface, which cbindgen makes of the crate.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cbindgen::{Builder, Config};

/// Makes the header anew, and tells whether it is not what it was; with `check` it stays.
pub(super) fn golden(repo: &Path, check: bool) -> Result<bool> {
    let (krate, path) = (repo.join("crates/capi"), repo.join("crates/capi/include/vmcore.h"));
    let config = Config::from_file(krate.join("cbindgen.toml")).map_err(anyhow::Error::msg)?;
    let bindings = Builder::new().with_config(config).with_src(krate.join("src/lib.rs")).generate();
    let mut header = Vec::new();
    bindings.context("the header of the C interface")?.write(&mut header);
    let before = fs::read(&path).unwrap_or_default();
    if header == before {
        return Ok(false);
    }
    println!("crates/capi/include/vmcore.h: {}", super::fixtures::first_difference(&before, &header));
    if !check {
        fs::write(&path, header).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(true)
}
