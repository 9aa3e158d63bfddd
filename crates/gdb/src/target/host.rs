//! What LLDB asks of the machine.

/// When a watchpoint reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchpointReport {
    /// At the instruction that is about to touch the memory.
    Before,
    /// Behind it.
    After,
}

/// The machine: LLDB's `qHostInfo` and `qProcessInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'t> {
    /// Architecture, vendor, system, environment: as in `x86_64-unknown-linux-gnu`.
    pub triple: &'t str,
    /// Whether numbers have their most significant byte first.
    pub is_big_endian: bool,
    /// Bytes of a pointer.
    pub pointer_len: u8,
    /// Bytes of a page, if known.
    pub page_size: Option<u64>,
    /// Bits of a virtual address that count, if not all.
    pub address_bits: Option<u8>,
    /// When watchpoints report, if there are some.
    pub watchpoints: Option<WatchpointReport>,
    /// Version of the guest's system, if known: numbers and dots.
    pub os_version: Option<&'t str>,
}

/// A register: LLDB's `qRegisterInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterInfo<'t> {
    /// Its name in the target description.
    pub name: &'t str,
    /// The set that it is shown in, as in `General Purpose Registers`.
    pub set: &'t str,
    /// LLDB's word for its encoding: `uint`, `sint`, `ieee754` or `vector`.
    pub encoding: &'t str,
    /// LLDB's word for how it is shown: `hex`, `float`, `vector-uint8` and others.
    pub format: &'t str,
    /// Its role, if it has one: `pc`, `sp`, `fp`, `ra`, `flags`, `arg1` and so on.
    pub generic: Option<&'t str>,
    /// Its number in DWARF.
    pub dwarf: Option<u16>,
}
