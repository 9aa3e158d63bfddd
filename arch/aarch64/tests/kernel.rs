//! What a dump without the registers of page tables still tells by its VMCOREINFO.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use vmcore_arch_aarch64 as _;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{Error, Gpa, Gva, Machine, Note, RegisterFile, arch};

/// The kernel at 0 is mapped at the beginning of the upper range, in blocks of 1 GiB.
const INFO: &str = "PAGESIZE=4096\nNUMBER(kimage_voffset)=0xffffff8000000000\nNUMBER(VA_BITS)=39\n\
    SYMBOL(swapper_pg_dir)=ffffff8000001000\nSYMBOL(init_uts_ns)=ffffff8000001800\n";
const TEXT: &[u8] = b"Linux";
const TEXT_AT: u64 = 0x1800;

/// A vCPU as QEMU's own notes tell of it.
fn machine(info: Option<&str>) -> Machine {
    let arch = arch::by_name("aarch64").unwrap();
    let mut bytes = vec![0; 0x3000];
    bytes[0x1000..0x1008].copy_from_slice(&0x701_u64.to_le_bytes());
    bytes[0x1800..][..TEXT.len()].copy_from_slice(TEXT);
    let memory = Arc::new(BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap());
    let mut registers = RegisterFile::new(arch.registers());
    assert!(registers.set_value("pstate", 5));
    let mut machine = Machine::new(arch, memory, vec![registers]);
    machine.guest_note = info.map(|info| Note::new("VMCOREINFO", 0, info.as_bytes().to_vec()));
    machine
}

#[test]
fn the_kernel_is_asked_where_registers_are_missing() {
    let machine = machine(Some(INFO));
    let mut text = [0; TEXT.len()];
    machine.read_virtual(0, Gva(0xffff_ff80_0000_0000 | TEXT_AT), &mut text).unwrap();
    assert_eq!(text, TEXT);
}

#[test]
fn what_the_kernel_does_not_map_needs_the_registers() {
    let error = |info, gva| machine(info).translate(0, Gva(gva)).unwrap_err();
    let is_missing = |error| matches!(error, Error::NoRegister { name: "sctlr_el1", .. });
    assert!(is_missing(error(None, 0xffff_ff80_0000_0000)), "no VMCOREINFO");
    assert!(is_missing(error(Some("OSRELEASE=6.1\n"), 0xffff_ff80_0000_0000)), "too little of it");
    assert!(is_missing(error(Some(INFO), TEXT_AT)), "an address of a program");
    assert!(is_missing(error(Some(INFO), 0xffff_ff80_4000_0000)), "nothing is there");
}

#[test]
fn registers_that_are_there_decide() {
    let mut machine = machine(Some(INFO));
    let arch = machine.arch.unwrap();
    assert!(machine.vcpus[0].registers_mut(arch).set_value("sctlr_el1", 0));
    let off = machine.translate(0, Gva(TEXT_AT)).unwrap();
    assert_eq!(off.gpa, Gpa(TEXT_AT), "translation is off");
    assert!(matches!(machine.translate(0, Gva(0xffff_ff80_0000_0000)), Err(Error::NotCanonical { .. })));
}
