//! Links the plugins. A plugin is not named by any code, so it would not be linked; this names each dependency of the
//! manifest: `pub use ::NAME;`.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml")?;
    let uses: String =
        dependencies(&manifest).map(|name| format!("pub use ::{};\n", name.replace('-', "_"))).collect();
    let folder = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&folder).join("plugins.rs"), uses)
}

/// The names of the dependencies: keys of `[dependencies]`, or, as `cargo package` writes the manifest anew, tables of their
/// own. One that is overlooked is an unused dependency, of which rustc warns.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut table = "";
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            table = line;
            return line.strip_prefix("[dependencies.")?.strip_suffix(']');
        }
        let (key, _) =
            line.split_once('=').filter(|_| table == "[dependencies]" && !line.starts_with('#'))?;
        // The crate behind `name.workspace = true`, too.
        key.trim().split('.').next()
    })
}
