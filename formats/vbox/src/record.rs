//! The CPU records: what each release of VirtualBox wrote of a vCPU, item by item, in the order of the file.
//!
//! Registers go by their names in the table of x86_64. Offsets follow from the items; those that the specification states
//! are asserted behind each record.
//!
//! Source: `spec/vbox-core.md` sections 3.1, 3.2, 3.4 and 3.5; VirtualBox `include/VBox/vmm/dbgfcorefmt.h` (since 5.0) and
//! `cpumctx.h` (before).

use Item::{Ext, ExtLen, FxSave, Items, Segment, Skip, Words};
use Part::{Attributes, Base, Check, Gap, Limit, Selector};

/// What stands in a record.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// Registers of 8 bytes each.
    Words(&'static [&'static str]),
    /// The parts of a segment register or of the register of a descriptor table.
    Segment(&'static [Part], &'static str),
    /// The image of FXSAVE.
    FxSave,
    /// How many bytes of the XSAVE area are valid: `cbExt`, a `u32`.
    ExtLen,
    /// The XSAVE area, not compacted.
    Ext,
    /// Bytes that no register has: padding, copies, registers that only look like some (DR4, DR5, XCR1).
    Skip(usize),
    /// Further items.
    Items(&'static [Item]),
}

/// A part of a segment register, of which the guest sees the selector only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The selector, 2 bytes.
    Selector,
    /// The address of the first byte, 8 bytes.
    Base,
    /// The offset of the last byte, whatever the granularity, in so many bytes.
    Limit(usize),
    /// The attributes, 4 bytes.
    Attributes,
    /// For which selector the parts behind it hold, and whether they do: 2 bytes each.
    Check,
    /// Padding.
    Gap(usize),
}

/// Length of the image of FXSAVE.
pub const FXSAVE_LEN: usize = 512;
/// Length of the XSAVE area.
pub const EXT_LEN: usize = 8192;

impl Part {
    /// How many bytes it has.
    #[must_use]
    pub const fn byte_len(self) -> usize {
        match self {
            Self::Selector => 2,
            Self::Base => 8,
            Self::Attributes | Self::Check => 4,
            Self::Limit(len) | Self::Gap(len) => len,
        }
    }
}

impl Item {
    /// How many bytes it has.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        match self {
            Words(names) => 8 * names.len(),
            Segment(parts, _) => parts_len(parts),
            FxSave => FXSAVE_LEN,
            ExtLen => 4,
            Ext => EXT_LEN,
            Skip(len) => *len,
            Items(items) => items_len(items),
        }
    }
}

const fn parts_len(parts: &[Part]) -> usize {
    let (mut len, mut index) = (0, 0);
    while index < parts.len() {
        len += parts[index].byte_len();
        index += 1;
    }
    len
}

/// How many bytes the items have together.
#[must_use]
pub const fn items_len(items: &[Item]) -> usize {
    let (mut len, mut index) = (0, 0);
    while index < items.len() {
        len += items[index].byte_len();
        index += 1;
    }
    len
}

/// `DBGFCORESEL`.
const CORE_SEL: &[Part] = &[Base, Limit(4), Attributes, Selector, Gap(6)];
/// `DBGFCOREXDTR`.
const CORE_XDTR: &[Part] = &[Base, Limit(4), Gap(4)];
/// `CPUMSELREG` of 4.2 and 4.3.
const SEL_REG: &[Part] = &[Selector, Gap(2), Check, Base, Limit(4), Attributes];
/// `CPUMSELREGHID`, whose selector stands elsewhere.
const SEL_HIDDEN: &[Part] = &[Base, Limit(4), Attributes];
/// A selector alone.
const SEL: &[Part] = &[Selector, Gap(2)];
/// `VBOXGDTR` and `VBOXIDTR`, as the instructions load them.
const XDTR: &[Part] = &[Limit(2), Base];
const _: () = assert!(parts_len(CORE_SEL) == 24 && parts_len(SEL_REG) == 24 && parts_len(SEL_HIDDEN) == 16);
const _: () = assert!(parts_len(CORE_XDTR) == 16 && parts_len(XDTR) == 10);

// DBGFCORECPU, since 5.0.

const CORE_GENERAL: Item = Words(&[
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
    "rsp", "rbp",
]);
const CORE_SYSTEM: Item = Items(&[
    Segment(CORE_SEL, "cs"),
    Segment(CORE_SEL, "ds"),
    Segment(CORE_SEL, "es"),
    Segment(CORE_SEL, "fs"),
    Segment(CORE_SEL, "gs"),
    Segment(CORE_SEL, "ss"),
    CONTROL,
    DEBUG,
    Segment(CORE_XDTR, "gdt"),
    Segment(CORE_XDTR, "idt"),
    Segment(CORE_SEL, "ldt"),
    Segment(CORE_SEL, "tr"),
]);
const CONTROL: Item = Words(&["cr0", "cr2", "cr3", "cr4"]);
/// DR4 and DR5 are other names of DR6 and DR7.
const DEBUG: Item = Items(&[Words(&["dr0", "dr1", "dr2", "dr3"]), Skip(16), Words(&["dr6", "dr7"])]);
const SYSENTER: Item = Words(&["sysenter_cs", "sysenter_eip", "sysenter_esp"]);
/// A union by mistake: of the three registers the last one that was written is left.
const SYSENTER_UNION: Item = Words(&["sysenter_esp"]);
const MSRS: Item = Words(&["efer", "star", "pat", "lstar", "cstar", "sfmask", "kernel_gs_base"]);
/// XCR0, and XCR1, which no processor has.
const XCRS: Item = Items(&[Words(&["xcr0"]), Skip(8)]);

/// One form of the record.
#[derive(Debug)]
pub struct Record {
    /// What the field calls it.
    pub name: &'static str,
    /// Its items.
    pub items: &'static [Item],
}

impl Record {
    /// Its length in bytes.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        items_len(self.items)
    }

    /// The record of this length, by which they are told apart.
    ///
    /// `vbox_version` is [`crate::header::CoreDescriptor::vbox_version`]: 4.2 and 4.3 wrote as many bytes, but one register
    /// more.
    #[must_use]
    pub fn of_len(len: usize, vbox_version: u32) -> Option<&'static Self> {
        let fits = |record: &&&Self| record.byte_len() == len;
        let found = RECORDS.iter().find(fits).copied();
        let is_old = vbox_version < crate::release::version(4, 3, 0);
        if found.is_some_and(|record| is_old && std::ptr::eq(record, &CPUMCTX_43)) {
            return Some(&CPUMCTX_42);
        }
        found
    }
}

/// All forms; of two of a length the later first.
pub static RECORDS: [&Record; 9] = [
    &CPUMCTX_40,
    &CPUMCTX_43,
    &CPUMCTX_42,
    &CORE_2,
    &CORE_3,
    &CORE_3_PACKED,
    &CORE_5,
    &CORE_6,
    &CORE_6_PACKED,
];

/// Since 7.0, from hosts whose compiler has 128-bit integers: they align the XSAVE area to 16 bytes.
pub static CORE_6: Record = Record { name: "DBGFCORECPU v6", items: &[CORE_6_HEAD, Skip(8), Ext] };
/// The same from Windows and 32-bit hosts.
pub static CORE_6_PACKED: Record = Record { name: "DBGFCORECPU v6 of Windows", items: &[CORE_6_HEAD, Ext] };
const CORE_6_HEAD: Item = Items(&[
    CORE_GENERAL,
    Words(&["rflags"]),
    CORE_SYSTEM,
    SYSENTER,
    MSRS,
    Words(&["apic_base", "tsc_aux"]),
    XCRS,
    ExtLen,
    Skip(4),
]);
const _: () = {
    assert!(CORE_6.byte_len() == 8784 && CORE_6_PACKED.byte_len() == 8776);
    check(
        &CORE_6,
        &[("rflags", 136), ("cs", 144), ("ss", 264), ("cr0", 288), ("cr4", 312), ("dr0", 320), ("dr7", 376)],
    );
    check(
        &CORE_6,
        &[("gdt", 384), ("idt", 400), ("ldt", 416), ("tr", 440), ("sysenter_cs", 464), ("efer", 488)],
    );
    check(
        &CORE_6,
        &[("sfmask", 528), ("kernel_gs_base", 536), ("apic_base", 544), ("tsc_aux", 552), ("xcr0", 560)],
    );
    check(&CORE_6, &[(EXT_LEN_NAME, 576), (EXT_NAME, 592)]);
    check(&CORE_6_PACKED, &[(EXT_LEN_NAME, 576), (EXT_NAME, 584)]);
};

/// 5.1 to 6.1.
pub static CORE_5: Record = Record {
    name: "DBGFCORECPU v5",
    items: &[
        CORE_GENERAL,
        Words(&["rflags"]),
        CORE_SYSTEM,
        SYSENTER,
        MSRS,
        Words(&["apic_base"]),
        XCRS,
        ExtLen,
        Skip(4),
        Ext,
    ],
};
const _: () = {
    assert!(CORE_5.byte_len() == 8768);
    check(&CORE_5, &[("tr", 440), ("sysenter_esp", 480), ("apic_base", 544), ("xcr0", 552)]);
    check(&CORE_5, &[(EXT_LEN_NAME, 568), (EXT_NAME, 576)]);
};

/// 5.0.2 and later 5.0, from hosts whose compiler has 128-bit integers.
pub static CORE_3: Record =
    Record { name: "DBGFCORECPU v3", items: &[CORE_2_HEAD, ExtLen, Skip(4), Skip(8), Ext] };
/// The same from Windows and 32-bit hosts.
pub static CORE_3_PACKED: Record =
    Record { name: "DBGFCORECPU v3 of Windows", items: &[CORE_2_HEAD, ExtLen, Skip(4), Ext] };
/// 5.0.0.
pub static CORE_2: Record = Record { name: "DBGFCORECPU v2", items: &[CORE_2_HEAD, Ext] };
/// Without RFLAGS.
const CORE_2_HEAD: Item =
    Items(&[CORE_GENERAL, CORE_SYSTEM, SYSENTER_UNION, MSRS, Words(&["apic_base"]), XCRS]);
const _: () = {
    assert!(CORE_3.byte_len() == 8752 && CORE_3_PACKED.byte_len() == 8744 && CORE_2.byte_len() == 8736);
    check(
        &CORE_3,
        &[("cs", 136), ("ss", 256), ("cr0", 280), ("dr0", 312), ("gdt", 376), ("idt", 392), ("ldt", 408)],
    );
    check(
        &CORE_3,
        &[("tr", 432), ("sysenter_esp", 456), ("efer", 464), ("kernel_gs_base", 512), ("apic_base", 520)],
    );
    check(&CORE_3, &[("xcr0", 528), (EXT_LEN_NAME, 544), (EXT_NAME, 560)]);
    check(&CORE_3_PACKED, &[(EXT_LEN_NAME, 544), (EXT_NAME, 552)]);
    check(&CORE_2, &[("xcr0", 528), (EXT_NAME, 544)]);
};

// CPUMCTX, before 5.0: VirtualBox's own structure as it was, without a byte of padding by the compiler.

/// 4.3.
pub static CPUMCTX_43: Record =
    Record { name: "CPUMCTX of 4.3", items: &[CPUMCTX_B_HEAD, Words(&["apic_base"]), Skip(24)] };
/// 4.2: the place of APIC_BASE is padding.
pub static CPUMCTX_42: Record = Record { name: "CPUMCTX of 4.2", items: &[CPUMCTX_B_HEAD, Skip(32)] };
const CPUMCTX_B_HEAD: Item = Items(&[
    FxSave,
    // By their numbers in instructions.
    Words(&[
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ]),
    Segment(SEL_REG, "es"),
    Segment(SEL_REG, "cs"),
    Segment(SEL_REG, "ss"),
    Segment(SEL_REG, "ds"),
    Segment(SEL_REG, "fs"),
    Segment(SEL_REG, "gs"),
    Words(&["rip", "rflags"]),
    CONTROL,
    DEBUG,
    Skip(6),
    Segment(XDTR, "gdt"),
    Skip(6),
    Segment(XDTR, "idt"),
    Segment(SEL_REG, "ldt"),
    Segment(SEL_REG, "tr"),
    SYSENTER,
    MSRS,
]);
const _: () = {
    assert!(CPUMCTX_43.byte_len() == 1088 && CPUMCTX_42.byte_len() == 1088);
    check(&CPUMCTX_43, &[("rax", 512), ("es", 640), ("gs", 760), ("rip", 784), ("cr0", 800), ("dr0", 832)]);
    check(&CPUMCTX_43, &[("gdt", 902), ("idt", 918), ("ldt", 928), ("tr", 952), ("sysenter_cs", 976)]);
    check(&CPUMCTX_43, &[("efer", 1000), ("kernel_gs_base", 1048), ("apic_base", 1056)]);
};

/// Up to 4.1.
pub static CPUMCTX_40: Record = Record {
    name: "CPUMCTX of 4.0",
    items: &[
        FxSave,
        Words(&["rdi", "rsi", "rbp", "rax", "rbx", "rdx", "rcx", "rsp"]),
        // Scratch space of LSS ESP.
        Skip(4),
        Segment(SEL, "ss"),
        Segment(SEL, "gs"),
        Segment(SEL, "fs"),
        Segment(SEL, "es"),
        Segment(SEL, "ds"),
        Segment(SEL, "cs"),
        Skip(4),
        Words(&["rflags", "rip", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]),
        Segment(SEL_HIDDEN, "es"),
        Segment(SEL_HIDDEN, "cs"),
        Segment(SEL_HIDDEN, "ss"),
        Segment(SEL_HIDDEN, "ds"),
        Segment(SEL_HIDDEN, "fs"),
        Segment(SEL_HIDDEN, "gs"),
        CONTROL,
        DEBUG,
        Segment(XDTR, "gdt"),
        Skip(2),
        Segment(XDTR, "idt"),
        Skip(2),
        Segment(SEL, "ldt"),
        Segment(SEL, "tr"),
        SYSENTER,
        MSRS,
        Segment(SEL_HIDDEN, "ldt"),
        Segment(SEL_HIDDEN, "tr"),
    ],
};
const _: () = {
    assert!(CPUMCTX_40.byte_len() == 1024);
    check(&CPUMCTX_40, &[("rdi", 512), ("rsp", 568), ("ss", 580), ("cs", 600), ("rflags", 608), ("r8", 624)]);
    check(&CPUMCTX_40, &[("cr0", 784), ("dr0", 816), ("gdt", 880), ("idt", 892), ("ldt", 904), ("tr", 908)]);
    check(&CPUMCTX_40, &[("sysenter_cs", 912), ("efer", 936), ("kernel_gs_base", 984)]);
};

const EXT_LEN_NAME: &str = "cbExt";
const EXT_NAME: &str = "ext";

/// Stops the compiler if one of these does not stand at this offset.
const fn check(record: &Record, expected: &[(&str, usize)]) {
    let mut index = 0;
    while index < expected.len() {
        let (name, offset) = expected[index];
        assert!(matches!(find(record.items, 0, name), Some(found) if found == offset));
        index += 1;
    }
}

/// The offset of the first item of this name, of items that begin at `at`.
const fn find(items: &[Item], mut at: usize, name: &str) -> Option<usize> {
    let mut index = 0;
    while index < items.len() {
        let found = match &items[index] {
            Words(names) => find_word(names, at, name),
            Items(items) => find(items, at, name),
            Segment(_, own) if is_same(own, name) => Some(at),
            ExtLen if is_same(EXT_LEN_NAME, name) => Some(at),
            Ext if is_same(EXT_NAME, name) => Some(at),
            Segment(..) | ExtLen | Ext | FxSave | Skip(_) => None,
        };
        if found.is_some() {
            return found;
        }
        at += items[index].byte_len();
        index += 1;
    }
    None
}

const fn find_word(names: &[&str], at: usize, name: &str) -> Option<usize> {
    let mut index = 0;
    while index < names.len() {
        if is_same(names[index], name) {
            return Some(at + 8 * index);
        }
        index += 1;
    }
    None
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}
