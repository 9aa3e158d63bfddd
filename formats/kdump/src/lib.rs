//! kdump-compressed dumps, as makedumpfile and QEMU write them.

#![forbid(unsafe_code)]

pub mod lzo;
