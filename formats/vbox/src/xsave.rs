//! The XSAVE area of a CPU record: which registers stand where.
//!
//! ```text
//! 0        24     28          32      160       512        520         576
//! ┌────────┬──────┬───────────┬───────┬─────────┬──────────┬───────────┬─────────────────────────────────────┐
//! │ x87    │mxcsr │mxcsr_mask │ st0-7 │ xmm0-15 │ XSTATE_BV│ 0 ...     │ AVX, AVX-512, PKRU: by the processor│
//! └────────┴──────┴───────────┴───────┴─────────┴──────────┴───────────┴─────────────────────────────────────┘
//! ```
//!
//! Where the last ones stand is the host's processor's choice, and the record does not say it: the length of the area does.
//!
//! Source: `spec/vbox-core.md` section 3.3; Intel SDM volume 1, chapter 13; GDB `i387-tdep.c`.

use crate::record::FXSAVE_LEN;

/// Components: bits of XCR0 and of `XSTATE_BV`.
pub(crate) const X87: u8 = 0;
pub(crate) const SSE: u8 = 1;
pub(crate) const AVX: u8 = 2;
pub(crate) const OPMASK: u8 = 5;
pub(crate) const ZMM_HI256: u8 = 6;
pub(crate) const HI16_ZMM: u8 = 7;
pub(crate) const PKRU: u8 = 9;

/// Where `XSTATE_BV` stands: which components are stored; the others are in their initial state.
pub(crate) const XSTATE_BV: usize = FXSAVE_LEN;
/// Length of the FXSAVE image and the header behind it.
pub(crate) const HEADER_END: usize = 576;

/// A register, or several of one width whose names end in numbers.
pub(crate) struct Slot {
    /// The name; with a number behind it if there are several.
    pub(crate) name: &'static str,
    /// The numbers, half-open; of a register without a number 0 and 0.
    pub(crate) numbers: (usize, usize),
    /// Bytes from the start of the area.
    pub(crate) at: usize,
    /// Bytes of one.
    pub(crate) width: usize,
    /// Bytes from one to the next.
    pub(crate) stride: usize,
    /// The component that it belongs to; MXCSR belongs to two and is always stored.
    pub(crate) component: Option<u8>,
    /// Its initial state.
    pub(crate) initial: u64,
}

impl Slot {
    const fn one(name: &'static str, at: usize, width: usize, component: u8) -> Self {
        Self { name, numbers: (0, 0), at, width, stride: width, component: Some(component), initial: 0 }
    }

    const fn many(
        name: &'static str,
        numbers: (usize, usize),
        at: usize,
        [width, stride]: [usize; 2],
        component: u8,
    ) -> Self {
        Self { name, numbers, at, width, stride, component: Some(component), initial: 0 }
    }

    const fn initially(self, initial: u64) -> Self {
        Self { initial, ..self }
    }

    const fn always(self) -> Self {
        Self { component: None, ..self }
    }

    /// Each register with its offset.
    pub(crate) fn registers(&self) -> impl Iterator<Item = (String, usize)> {
        let Self { name, numbers: (first, end), at, stride, .. } = *self;
        let one = (first == end).then(|| (name.to_owned(), at));
        one.into_iter().chain((first..end).map(move |n| (format!("{name}{n}"), at + stride * (n - first))))
    }
}

#[rustfmt::skip] // a table is read by column
/// The image of FXSAVE64 but for the pointers; a 32-bit guest has 8 of the vectors.
pub(crate) const FXSAVE: &[Slot] = &[
    Slot::one("fcw", 0, 2, X87).initially(0x37f), // as FNINIT sets it
    Slot::one("fsw", 2, 2, X87),
    Slot::one("ftw", 4, 1, X87),
    Slot::one("fop", 6, 2, X87),
    Slot::one("mxcsr", 24, 4, SSE).always().initially(0x1f80),
    Slot::one("mxcsr_mask", 28, 4, SSE).always(),
    Slot::many("st", (0, 8), 32, [10, 16], X87),
    Slot::many("xmm", (0, 16), 160, [16, 16], SSE),
];
/// Last instruction and operand of 64-bit code.
pub(crate) const POINTERS_64: &[Slot] = &[Slot::one("fip", 8, 8, X87), Slot::one("fdp", 16, 8, X87)];
/// Those of 32-bit code, with their segments.
pub(crate) const POINTERS_32: &[Slot] = &[
    Slot::one("fip", 8, 4, X87),
    Slot::one("fiseg", 12, 2, X87),
    Slot::one("fdp", 16, 4, X87),
    Slot::one("foseg", 20, 2, X87),
];
/// The same place in all processors.
pub(crate) const UPPER_YMM: &[Slot] = &[Slot::many("ymmh", (0, 16), 576, [16, 16], AVX)];
/// Intel's processors, which leave the places of MPX free.
pub(crate) const INTEL: &[Slot] = &avx512(1088, 1152, 1664, 2688);
/// AMD's, which never had MPX.
pub(crate) const AMD: &[Slot] = &avx512(832, 896, 1408, 2432);

const fn avx512(opmask: usize, zmm_hi256: usize, hi16_zmm: usize, pkru: usize) -> [Slot; 4] {
    [
        Slot::many("k", (0, 8), opmask, [8, 8], OPMASK),
        Slot::many("zmmh", (0, 16), zmm_hi256, [32, 32], ZMM_HI256),
        Slot::many("zmm", (16, 32), hi16_zmm, [64, 64], HI16_ZMM),
        Slot::one("pkru", pkru, 4, PKRU),
    ]
}

/// Lengths of the area, by which families of processors are told apart.
const MPX_LEN: usize = 1088;
const AVX_LEN: usize = 832;
const AVX512_LEN: usize = 2688;
const PKRU_LEN: usize = 2696;
const AMD_LEN: usize = 2440;

/// The places of AVX-512 and PKRU in an area of this length; none where nobody knows them.
pub(crate) fn family(area_len: usize) -> &'static [Slot] {
    match area_len {
        MPX_LEN | AVX512_LEN | PKRU_LEN => INTEL,
        AMD_LEN => AMD,
        _ => &[],
    }
}

/// Length of the area that holds these components, as Intel's processors have it.
pub(crate) fn len_of(components: u64) -> usize {
    let has = |component: u8| components >> component & 1 == 1;
    if has(PKRU) {
        PKRU_LEN
    } else if has(OPMASK) || has(ZMM_HI256) || has(HI16_ZMM) {
        AVX512_LEN
    } else if has(AVX) {
        AVX_LEN
    } else {
        HEADER_END
    }
}
