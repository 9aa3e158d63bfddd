//! The VMCOREINFO note: the device by which a guest hands it over, and finding it without one.

#![forbid(unsafe_code)]

pub mod log;

pub use vmcore_core::Vmcoreinfo;
