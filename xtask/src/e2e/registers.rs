//! The registers of a dump, beside those that QEMU's gdb stub shows of the same stopped vCPUs.

use super::{Context, Verdict};
use crate::oracle::core_file::{
    CoreFile, EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64,
};
use crate::oracle::stub;
use Peculiarity::{Except, LowOf, Named, NotesOnly, StubOnly, Zero};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// In what a register of a dump and that of the stub differ.
#[derive(Clone, Copy, Debug)]
enum Peculiarity {
    /// The stub has another name for it.
    Named(&'static str),
    /// It is the lower 16 bytes of that one.
    LowOf(&'static str),
    /// Not every stub shows it: it is in QEMU's notes, or in its monitor.
    NotesOnly,
    /// We do not have it: it is no state of its own.
    StubOnly,
    /// These bits of it may differ; and why.
    Except(u64, &'static str),
    /// We have it as zero, whatever the stub says; and why.
    Zero(&'static str),
}

/// Why a counter differs.
const HOST_TIME: &str = "TCG takes the host's clock for it, which goes on while the guest stands still";

const X86: &[u16] = &[EM_386, EM_X86_64];

/// ELF machines, a register in small letters, and what is peculiar to it. `*` is anything, also in the other name.
#[rustfmt::skip] // a table is read by column
const PECULIARITIES: &[(&[u16], &str, Peculiarity)] = &[
    (X86,           "rflags",         Named("eflags")),
    (X86,           "kernel_gs_base", Named("k_gs_base")),
    (X86,           "fcw",            Named("fctrl")),
    (X86,           "fsw",            Named("fstat")),
    (X86,           "ftw",            Named("ftag")),
    (X86,           "fip",            Named("fioff")),
    (X86,           "fdp",            Named("fooff")),
    (&[EM_X86_64],  "fiseg",          StubOnly), // 64-bit code does not have them, QEMU gives zero
    (&[EM_X86_64],  "foseg",          StubOnly),
    (X86,           "fs_base",        Named("fs_base")),
    (X86,           "gs_base",        Named("gs_base")),
    (X86,           "*_base",         NotesOnly),
    (X86,           "*_limit",        NotesOnly),
    (X86,           "*_attr",         NotesOnly),
    (X86,           "*_selector",     NotesOnly),
    (X86,           "orig_*",         NotesOnly),
    (X86,           "mxcsr_mask",     NotesOnly),
    (X86,           "xcr0",           NotesOnly),
    (X86,           "dr*",            NotesOnly),
    (X86,           "ymmh*",          NotesOnly),
    (&[EM_AARCH64], "pstate",         Named("cpsr")),
    (&[EM_AARCH64], "sctlr_el1",      Named("sctlr")),
    (&[EM_AARCH64], "vbar_el1",       Named("vbar")),
    (&[EM_AARCH64], "amair_el1",      Named("amair0")),
    (&[EM_AARCH64], "cpacr_el1",      Named("cpacr")),
    (&[EM_AARCH64], "cntkctl_el1",    Named("cntkctl")),
    (&[EM_AARCH64], "aidr_el1",       Named("aidr")),
    (&[EM_AARCH64], "clidr_el1",      Named("clidr")),
    (&[EM_AARCH64], "csselr_el1",     Named("csselr")),
    (&[EM_AARCH64], "l2actlr_el1",    Named("l2actlr")),
    (&[EM_AARCH64], "*_el12",         StubOnly), // other names of the registers of EL1
    (&[EM_AARCH64], "*_el02",         StubOnly), // and EL0
    (&[EM_AARCH64], "*_reserved",     StubOnly), // zero
    (&[EM_AARCH64], "id_aa64*",       Named("id_aa64*")),
    (&[EM_AARCH64], "id_*_el1",       Named("id_*")),
    (&[EM_AARCH64, EM_ARM], "res_0_*", StubOnly), // zero
    (&[EM_AARCH64], "v*",             LowOf("z*")),
    (&[EM_ARM],     "contextidr",     Named("contextidr_el1")),
    (&[EM_ARM],     "actlr",          Named("actlr_el1")),
    (&[EM_ARM],     "adfsr",          Named("afsr0_el1")),
    (&[EM_ARM],     "aifsr",          Named("afsr1_el1")),
    (&[EM_ARM],     "disr",           Named("disr_el1")),
    (&[EM_ARM],     "erridr",         Named("erridr_el1")),
    (&[EM_ARM],     "hactlr",         Named("actlr_el2")),
    (&[EM_ARM],     "pmmir",          Named("pmmir_el1")),
    (&[EM_ARM],     "revidr",         Named("revidr_el1")),
    (&[EM_ARM],     "rmr",            Named("rmr_el1")),
    (&[EM_ARM],     "rvbar",          Named("rvbar_el1")),
    (&[EM_ARM],     "vdisr",          Named("vdisr_el2")),
    (&[EM_ARM],     "vsesr",          Named("vsesr_el2")),
    (&[EM_ARM],     "dbgbcr*",        Named("dbgbcr*_el1")),
    (&[EM_ARM],     "dbgbvr*",        Named("dbgbvr*_el1")),
    (&[EM_ARM],     "dbgwcr*",        Named("dbgwcr*_el1")),
    (&[EM_ARM],     "dbgwvr*",        Named("dbgwvr*_el1")),
    (&[EM_ARM],     "dbgclaim*",      Named("dbgclaim*_el1")),
    (&[EM_ARM],     "dbgos*",         Named("os*_el1")),
    (&[EM_ARM],     "dbgdccint",      Named("mdccint_el1")),
    (&[EM_ARM],     "dbgdscrext",     Named("mdscr_el1")),
    (&[EM_ARM],     "dbgdtr",         Named("dbgdtr_el0")),
    (&[EM_ARM],     "dbgdtrrxext",    Named("osdtrrx_el1")),
    (&[EM_ARM],     "dbgdtrtxext",    Named("osdtrtx_el1")),
    (&[EM_ARM],     "dbgdrar",        StubOnly), // where debug ROM lies, of which QEMU has none: zero
    (&[EM_ARM],     "dbgdsar",        StubOnly),
    (&[EM_ARM],     "dummy",          StubOnly), // QEMU's own
    (&[EM_ARM],     "q*",             StubOnly), // pairs of d registers
    (&[EM_ARM],     "orig_r0",        NotesOnly),
    (&[EM_PPC64],   "nip",            Named("pc")),
    (&[EM_PPC64],   "vs*_low",        Named("vs*h")),
    (&[EM_PPC64],   "dar",            Zero("QEMU's NT_PRSTATUS leaves it out")),
    (&[EM_PPC64],   "dsisr",          Zero("QEMU's NT_PRSTATUS leaves it out")),
    (&[EM_PPC64],   "orig_gpr3",      NotesOnly),
    (&[EM_PPC64],   "result",         NotesOnly),
    (&[EM_PPC64],   "softe",          NotesOnly),
    (&[EM_PPC64],   "trap",           NotesOnly),
    (&[EM_RISCV],   "mideleg",        Except(0x1444, "the first who reads it makes QEMU 7.2 set bits in it")),
    (&[EM_RISCV],   "fcsr",           NotesOnly), // the stub of 7.2 hides it while the unit is off
    (&[EM_RISCV],   "seed",           StubOnly), // each read draws other bits
    (&[EM_RISCV],   "cycle",          Except(u64::MAX, HOST_TIME)),
    (&[EM_RISCV],   "instret",        Except(u64::MAX, HOST_TIME)),
    (&[EM_RISCV],   "mcycle",         Except(u64::MAX, HOST_TIME)),
    (&[EM_RISCV],   "minstret",       Except(u64::MAX, HOST_TIME)),
    (&[EM_S390],    "a*",             Named("acr*")),
    (&[EM_S390],    "v*_low",         Named("v*l")),
    (&[EM_S390],    "ckc",            NotesOnly), // by the stub of 7.2, as the next two
    (&[EM_S390],    "cputm",          NotesOnly),
    (&[EM_S390],    "prefix",         NotesOnly),
    (&[EM_S390],    "pswm",           Except(3 << 44, "TCG computes the condition code late, and QEMU's NT_PRSTATUS does not wait for it")),
    (&[EM_S390],    "orig_gpr2",      NotesOnly),
    (&[EM_S390],    "todpr",          NotesOnly),
];

/// What is peculiar to a register, names filled in. The first row counts.
fn peculiarity(machine: u16, name: &str) -> Option<(Peculiarity, String)> {
    PECULIARITIES.iter().filter(|(machines, _, _)| machines.contains(&machine)).find_map(
        |&(_, pattern, peculiarity)| {
            let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
            let middle = name.strip_prefix(start)?.strip_suffix(end)?;
            (pattern.contains('*') || middle.is_empty()).then(|| {
                let theirs = match peculiarity {
                    Named(theirs) | LowOf(theirs) => theirs,
                    Except(..) | NotesOnly | StubOnly | Zero(_) => name,
                };
                (peculiarity, theirs.replace('*', middle))
            })
        },
    )
}

/// What the stub calls a register of ours, and with it gdb.
pub(super) fn stub_name(machine: u16, name: &str) -> String {
    match peculiarity(machine, name) {
        Some((Named(_), theirs)) => theirs,
        _ => name.to_owned(),
    }
}

/// All registers of the dump are those of the stub, and all of the stub are in the dump, but for the table.
pub(crate) fn same_as_stub(context: &mut Context) -> Result<Verdict> {
    let (path, socket) = (context.path("guest.vmcore"), context.path("gdb.sock"));
    let uri = context.guest().uri();
    let was_running = context.guest().qmp.status()? == "running";
    context.guest().stop()?;
    context.vmcore.capture(&uri, &path, &[])?;
    let head = CoreFile::open(&path)?.head;
    let stub = stub::registers(context.guest(), &socket, head.order)?;
    if was_running {
        context.guest().cont()?;
    }
    let info = context.vmcore.info(&path)?;
    let vcpus = info["vcpus"].as_array().context("info shows no vCPUs")?;
    ensure!(vcpus.len() == stub.len(), "the dump has {} vCPUs, the stub {}", vcpus.len(), stub.len());
    let mut wrong = Vec::new();
    for (index, (ours, theirs)) in vcpus.iter().zip(&stub).enumerate() {
        let found = compare(head.machine, &ours["registers"], theirs)?;
        wrong.extend(found.into_iter().map(|what| format!("vCPU {index}: {what}")));
    }
    if !wrong.is_empty() {
        bail!("{} registers differ:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(Verdict::Passed)
}

/// Where the registers of one vCPU differ.
fn compare(machine: u16, ours: &Value, theirs: &BTreeMap<String, stub::Value>) -> Result<Vec<String>> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, value) in ours.as_object().context("a vCPU has no registers")? {
        let value =
            value.as_str().and_then(|value| value.strip_prefix("0x")).context("a value is a number")?;
        let value = value.trim_start_matches('0');
        let (what, their_name) = match peculiarity(machine, name) {
            // Without the extension the narrow register stands for itself.
            Some((LowOf(_), wide)) if !theirs.contains_key(&wide) => (None, name.clone()),
            Some((what, their_name)) => (Some(what), their_name),
            None => (None, name.clone()),
        };
        match (what, theirs.get(&their_name)) {
            (Some(NotesOnly), None) => {}
            (Some(Zero(_)), Some(_)) if value.is_empty() => {}
            (None | Some(Named(_) | NotesOnly), Some(theirs)) if theirs.hex == value => {}
            (Some(LowOf(_)), Some(theirs)) if low(&theirs.hex) == value => {}
            (Some(Except(bits, why)), Some(theirs)) => {
                // Zero has no digits.
                let number = |digits: &str| u64::from_str_radix(&format!("0{digits}"), 16);
                let [ours, theirs] = [value, &theirs.hex].map(number);
                if (ours? ^ theirs?) & !bits != 0 {
                    wrong.push(format!("{name} differs in more bits than {bits:#x}: {why}"));
                }
            }
            (Some(Zero(why)), Some(_)) => wrong.push(format!("{name} is {value}, expected zero: {why}")),
            (_, Some(theirs)) => {
                wrong.push(format!("{name} is {value}, the stub says {} ({what:?})", theirs.hex))
            }
            (_, None) => wrong.push(format!("{name} is {value}, the stub does not know it ({what:?})")),
        }
        seen.insert(their_name);
    }
    for (name, value) in theirs.iter().filter(|(name, _)| !seen.contains(*name)) {
        let is_known = matches!(peculiarity(machine, name), Some((StubOnly, _)));
        if !is_known {
            wrong.push(format!("{name} of {} is missing, the stub says {}", value.feature, value.hex));
        }
    }
    Ok(wrong)
}

/// The digits of the lower 16 bytes.
fn low(digits: &str) -> &str {
    digits[digits.len().saturating_sub(32)..].trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filled_in() {
        let name = |machine, name| peculiarity(machine, name).map(|(_, theirs)| theirs);
        assert_eq!(name(EM_S390, "v12_low").as_deref(), Some("v12l"));
        assert_eq!(name(EM_S390, "v12"), None);
        assert_eq!(name(EM_X86_64, "fs_base").as_deref(), Some("fs_base"));
        assert!(matches!(peculiarity(EM_386, "cs_base"), Some((NotesOnly, _))));
        assert!(peculiarity(EM_PPC64, "darn").is_none());
    }

    #[test]
    fn differences_are_found() {
        let value =
            |hex: &str| stub::Value { feature: "org.gnu.gdb.power.core".to_owned(), hex: hex.to_owned() };
        let theirs: BTreeMap<_, _> =
            [("pc", "10"), ("r1", "2"), ("dar", "5")].map(|(name, hex)| (name.to_owned(), value(hex))).into();
        let check = |ours: Value| compare(EM_PPC64, &ours, &theirs).unwrap().len();
        assert_eq!(
            check(serde_json::json!({ "nip": "0x0010", "r1": "0x2", "dar": "0x0", "trap": "0x1" })),
            0
        );
        assert_eq!(check(serde_json::json!({ "nip": "0x0011", "r1": "0x2", "dar": "0x5" })), 2);
        assert_eq!(check(serde_json::json!({ "nip": "0x10", "dar": "0x0", "r2": "0x1" })), 2);
    }
}
