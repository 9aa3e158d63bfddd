//! How plugins register themselves, and how they are found.
//!
//! [`inventory`] gathers what the linked crates submit, in the linker's order; each registry sorts by name, once.

/// Declares a kind of plugin in the module that calls it: the type that is submitted, and `all()`.
macro_rules! registry {
    ($(#[$doc:meta])* $plugin:ident of $kind:ident by $name:ident, $all_doc:literal) => {
        $(#[$doc])*
        pub struct $plugin(pub &'static dyn $kind);

        inventory::collect!($plugin);

        impl std::fmt::Debug for $plugin {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($plugin)).field(&self.0).finish()
            }
        }

        impl std::fmt::Debug for dyn $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.$name())
            }
        }

        #[doc = $all_doc]
        #[must_use]
        pub fn all() -> &'static [&'static dyn $kind] {
            static REGISTRY: std::sync::LazyLock<Vec<&'static dyn $kind>> = std::sync::LazyLock::new(|| {
                let mut all: Vec<_> = inventory::iter::<$plugin>.into_iter().map(|plugin| plugin.0).collect();
                all.sort_by_key(|plugin| plugin.$name());
                all
            });
            &REGISTRY
        }
    };
}
pub(crate) use registry;

use crate::Error;

/// The error that says that no plugin answers to `name`, and which there are.
pub(crate) fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    Error::Unknown { what, name: name.to_owned(), known: names(known) }
}

/// Names for an error message; an empty registry says what is wrong with the build.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none (no plugins are linked in)".to_owned() } else { names.join(", ") }
}
