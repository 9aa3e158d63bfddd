//! What a dump must hold, found out without any code of the crates that are tested.

pub(crate) mod bitmap;
pub(crate) mod compare;
pub(crate) mod core_file;
pub(crate) mod makedumpfile;
pub(crate) mod pages;
pub(crate) mod qemu;
pub(crate) mod stub;
pub(crate) mod walk;
