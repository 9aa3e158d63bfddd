//! What each packet does: the handlers of the table, by what they are about.

pub(crate) mod breakpoints;
pub(crate) mod control;
pub(crate) mod files;
pub(crate) mod lldb;
pub(crate) mod memory;
pub(crate) mod program;
pub(crate) mod qemu;
pub(crate) mod query;
pub(crate) mod registers;
pub(crate) mod run;
pub(crate) mod tags;
pub(crate) mod threads;
pub(crate) mod transfer;
