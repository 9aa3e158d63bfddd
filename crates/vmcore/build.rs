//! Links the plugins that are chosen one by one. A plugin is not named by any code, so it would not be linked; this names
//! each of them: `pub use ::NAME;`. A feature of this crate, and the dependency behind it, are named as the plugin.

use std::{env, fs, io, path::Path};

/// Features that are no plugin.
const NOT_PLUGINS: &[&str] =
    &["default", "all", "backtrace", "demo", "filter", "gdb", "kvm", "qemu", "serde", "vm_memory"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let features =
        env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()));
    let mut plugins: Vec<String> =
        features.filter(|feature| !NOT_PLUGINS.contains(&feature.as_str())).collect();
    plugins.sort_unstable();
    let uses: String = plugins.iter().map(|name| format!("pub use ::{name};\n")).collect();
    let folder = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&folder).join("plugins.rs"), uses)
}
