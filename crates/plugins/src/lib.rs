//! All architectures and formats of vmcore: whoever depends on this crate has them linked. The facade's feature `all` does.
//!
//! A plugin registers itself, so nothing here names one but the manifest: a line of it is a plugin. Each is here under its
//! own name, too, as in `vmcore_plugins::x86_64`.

#![forbid(unsafe_code)]
// A plugin that the build script overlooks would not be linked, silently.
#![warn(unused_crate_dependencies)]

include!(concat!(env!("OUT_DIR"), "/plugins.rs"));
