//! Dump levels: which pages of a guest are worth keeping, found with nothing but its memory and its VMCOREINFO.

#![forbid(unsafe_code)]
