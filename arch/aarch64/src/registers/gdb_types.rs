//! The types of gdb's target description: views of a vector.
//!
//! Source: `spec/gdb-registers/types.tsv`, as QEMU 10.0.2 sends them.

use super::FPU;
use vmcore_core::register::GdbType;

pub(super) const AARCH64: &[(&str, &[GdbType])] = &[(FPU, VECTORS)];

const VECTORS: &[GdbType] = &[
    GdbType::Vector { id: "v2d", element: "ieee_double", count: 2 },
    GdbType::Vector { id: "v2u", element: "uint64", count: 2 },
    GdbType::Vector { id: "v2i", element: "int64", count: 2 },
    GdbType::Vector { id: "v4f", element: "ieee_single", count: 4 },
    GdbType::Vector { id: "v4u", element: "uint32", count: 4 },
    GdbType::Vector { id: "v4i", element: "int32", count: 4 },
    GdbType::Vector { id: "v8u", element: "uint16", count: 8 },
    GdbType::Vector { id: "v8i", element: "int16", count: 8 },
    GdbType::Vector { id: "v16u", element: "uint8", count: 16 },
    GdbType::Vector { id: "v16i", element: "int8", count: 16 },
    GdbType::Vector { id: "v1u", element: "uint128", count: 1 },
    GdbType::Vector { id: "v1i", element: "int128", count: 1 },
    GdbType::Union { id: "vnd", fields: &[("f", "v2d"), ("u", "v2u"), ("s", "v2i")] },
    GdbType::Union { id: "vns", fields: &[("f", "v4f"), ("u", "v4u"), ("s", "v4i")] },
    GdbType::Union { id: "vnh", fields: &[("u", "v8u"), ("s", "v8i")] },
    GdbType::Union { id: "vnb", fields: &[("u", "v16u"), ("s", "v16i")] },
    GdbType::Union { id: "vnq", fields: &[("u", "v1u"), ("s", "v1i")] },
    GdbType::Union {
        id: "aarch64v",
        fields: &[("d", "vnd"), ("s", "vns"), ("h", "vnh"), ("b", "vnb"), ("q", "vnq")],
    },
];
