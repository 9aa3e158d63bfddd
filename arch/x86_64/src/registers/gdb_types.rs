//! The types of gdb's target description: which bits of a register have a name.
//!
//! Source: `spec/gdb-registers/types.tsv`, as QEMU 10.0.2 sends them.

use super::CORE;
use vmcore_core::register::{GdbFlag, GdbType};

type Types = &'static [(&'static str, &'static [GdbType])];

pub(super) const X86_64: Types = &[(CORE, VECTORS), (CORE, FLAGS_64)];
pub(super) const I386: Types = &[(CORE, VECTORS), (CORE, FLAGS_32)];

const fn flag(name: &'static str, start: u8, end: u8) -> GdbFlag {
    GdbFlag { name, start, end }
}

const VECTORS: &[GdbType] = &[
    GdbType::Vector { id: "v4f", element: "ieee_single", count: 4 },
    GdbType::Vector { id: "v2d", element: "ieee_double", count: 2 },
    GdbType::Vector { id: "v16i8", element: "int8", count: 16 },
    GdbType::Vector { id: "v8i16", element: "int16", count: 8 },
    GdbType::Vector { id: "v4i32", element: "int32", count: 4 },
    GdbType::Vector { id: "v2i64", element: "int64", count: 2 },
    GdbType::Union {
        id: "vec128",
        fields: &[
            ("v4_float", "v4f"),
            ("v2_double", "v2d"),
            ("v16_int8", "v16i8"),
            ("v8_int16", "v8i16"),
            ("v4_int32", "v4i32"),
            ("v2_int64", "v2i64"),
            ("uint128", "uint128"),
        ],
    },
];

const FLAGS_64: &[GdbType] = &[
    GdbType::Flags { id: "x64_eflags", size: 4, flags: EFLAGS },
    GdbType::Flags { id: "x64_cr0", size: 8, flags: CR0 },
    GdbType::Flags { id: "x64_cr3", size: 8, flags: CR3_64 },
    GdbType::Flags { id: "x64_cr4", size: 8, flags: CR4 },
    GdbType::Flags { id: "x64_efer", size: 8, flags: EFER },
    GdbType::Flags { id: "x64_mxcsr", size: 4, flags: MXCSR },
];

const FLAGS_32: &[GdbType] = &[
    GdbType::Flags { id: "i386_eflags", size: 4, flags: EFLAGS },
    GdbType::Flags { id: "i386_cr0", size: 4, flags: CR0 },
    GdbType::Flags { id: "i386_cr3", size: 4, flags: CR3_32 },
    GdbType::Flags { id: "i386_cr4", size: 4, flags: CR4 },
    GdbType::Flags { id: "i386_efer", size: 4, flags: EFER },
    GdbType::Flags { id: "i386_mxcsr", size: 4, flags: MXCSR },
];

/// `eflags`.
#[rustfmt::skip] // bits from the highest to the lowest
const EFLAGS: &[GdbFlag] = &[
    flag("", 22, 31), flag("ID", 21, 21), flag("VIP", 20, 20), flag("VIF", 19, 19), flag("AC", 18, 18),
    flag("VM", 17, 17), flag("RF", 16, 16), flag("", 15, 15), flag("NT", 14, 14), flag("IOPL", 12, 13),
    flag("OF", 11, 11), flag("DF", 10, 10), flag("IF", 9, 9), flag("TF", 8, 8), flag("SF", 7, 7),
    flag("ZF", 6, 6), flag("", 5, 5), flag("AF", 4, 4), flag("", 3, 3), flag("PF", 2, 2), flag("", 1, 1),
    flag("CF", 0, 0),
];

/// `cr0`.
#[rustfmt::skip] // bits from the highest to the lowest
const CR0: &[GdbFlag] = &[
    flag("PG", 31, 31), flag("CD", 30, 30), flag("NW", 29, 29), flag("AM", 18, 18), flag("WP", 16, 16),
    flag("NE", 5, 5), flag("ET", 4, 4), flag("TS", 3, 3), flag("EM", 2, 2), flag("MP", 1, 1),
    flag("PE", 0, 0),
];

/// `cr3` of x86_64.
#[rustfmt::skip] // bits from the highest to the lowest
const CR3_64: &[GdbFlag] = &[
    flag("PDBR", 12, 63), flag("PCID", 0, 11),
];

/// `cr3` of i386.
#[rustfmt::skip] // bits from the highest to the lowest
const CR3_32: &[GdbFlag] = &[
    flag("PDBR", 12, 31), flag("PCID", 0, 11),
];

/// `cr4`.
#[rustfmt::skip] // bits from the highest to the lowest
const CR4: &[GdbFlag] = &[
    flag("PKE", 22, 22), flag("SMAP", 21, 21), flag("SMEP", 20, 20), flag("OSXSAVE", 18, 18),
    flag("PCIDE", 17, 17), flag("FSGSBASE", 16, 16), flag("SMXE", 14, 14), flag("VMXE", 13, 13),
    flag("LA57", 12, 12), flag("UMIP", 11, 11), flag("OSXMMEXCPT", 10, 10), flag("OSFXSR", 9, 9),
    flag("PCE", 8, 8), flag("PGE", 7, 7), flag("MCE", 6, 6), flag("PAE", 5, 5), flag("PSE", 4, 4),
    flag("DE", 3, 3), flag("TSD", 2, 2), flag("PVI", 1, 1), flag("VME", 0, 0),
];

/// `efer`.
#[rustfmt::skip] // bits from the highest to the lowest
const EFER: &[GdbFlag] = &[
    flag("TCE", 15, 15), flag("FFXSR", 14, 14), flag("LMSLE", 13, 13), flag("SVME", 12, 12),
    flag("NXE", 11, 11), flag("LMA", 10, 10), flag("LME", 8, 8), flag("SCE", 0, 0),
];

/// `mxcsr`, from the lowest bit up.
#[rustfmt::skip] // bits from the highest to the lowest
const MXCSR: &[GdbFlag] = &[
    flag("IE", 0, 0), flag("DE", 1, 1), flag("ZE", 2, 2), flag("OE", 3, 3), flag("UE", 4, 4),
    flag("PE", 5, 5), flag("DAZ", 6, 6), flag("IM", 7, 7), flag("DM", 8, 8), flag("ZM", 9, 9),
    flag("OM", 10, 10), flag("UM", 11, 11), flag("PM", 12, 12), flag("FZ", 15, 15),
];
