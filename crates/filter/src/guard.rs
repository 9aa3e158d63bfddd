//! What is never left out, whatever the structs say: a dump without its page tables, its `struct page`s or the place where a vCPU
//! stood is of no use. No guest was seen of which any of it would have been left out; if so, it is kept and reported.
//!
//! Source: `spec/filter.md` section 9.4.

use crate::walk::Walker;
use std::ops::Range;
use vmcore_core::{Error, Gva, Kernel, Vcpu};

/// How much is kept from the start of the kernel's text on.
const TEXT_LEN: u64 = 8 << 20;
/// The lowcore of s390x: where it lies if a vCPU has no prefix, and its length.
const LOWCORE_LEN: u64 = 0x2000;

/// Memory that is never left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// What lies there.
    pub(crate) what: &'static str,
    /// Guest physical addresses.
    pub(crate) range: Range<u64>,
}

/// The kernel's text, and the places where vCPUs stand.
///
/// # Errors
/// Those of a source that is gone.
pub(crate) fn of_kernel(kernel: &Kernel, vcpus: &[Vcpu]) -> Result<Vec<Guarded>, Error> {
    let walker = Walker::new(kernel);
    let mut guarded = Vec::new();
    let mut add = |what: &'static str, gva: u64, len: u64| {
        for span in walker.spans(Gva(gva), len)? {
            let range = span.gpa.map(|gpa| gpa.0..gpa.0.saturating_add(span.len));
            guarded.extend(range.map(|range| Guarded { what, range }));
        }
        Ok::<(), Error>(())
    };
    if let Ok(text) = kernel.symbol("_stext", "keeping the kernel's text") {
        add("kernel text", text.0, TEXT_LEN)?;
    }
    for registers in vcpus.iter().map(Vcpu::registers) {
        let table = registers.table();
        // Addresses of a program are not mapped by the kernel's own tables, and its pages are not the kernel's.
        for name in [table.program_counter, table.stack_pointer] {
            if let Some(address) = registers.value(name) {
                add("where a vCPU stands", address, 1)?;
            }
        }
    }
    for prefix in vcpus.iter().filter_map(|vcpu| vcpu.registers().value("prefix")) {
        for start in [0, prefix] {
            let range = start..start.saturating_add(LOWCORE_LEN);
            guarded.push(Guarded { what: "lowcore", range });
        }
    }
    Ok(guarded)
}
