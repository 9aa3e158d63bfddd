//! Links the plugins. A plugin is not named by any code, so it would not be linked; this names each dependency of the
//! manifest: `pub use ::NAME;`.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let uses: String =
        dependencies(&fs::read_to_string("Cargo.toml")?).map(|name| format!("pub use ::{name};\n")).collect();
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
        let (name, _) = line.split_once(" = ")?;
        (table == "[dependencies]" && !name.starts_with('#')).then_some(name)
    })
}
