//! Registers that QEMU's notes lack, from the text of `info registers -a`: x86 only.
//!
//! QEMU's notes of an x86 vCPU hold no debug registers, no EFER and nothing of the x87 and the vectors. Its human
//! monitor prints them. The text is meant for people and differs between versions, so it is read as a bag of
//! `NAME=VALUE` words: what is not found stays absent, and what the notes hold is never replaced.
//!
//! What it does not print at all: CR8, which QEMU's gdb stub has; and XCR0, the MSRs but EFER, the addresses of the last x87
//! instruction, and in 32-bit code the vectors from 8 on. They stay absent: the stub gives zero for those that it has.
//!
//! Source: QEMU 7.2 and 10.0 `target/i386/cpu-dump.c` (`x86_cpu_dump_state`).

use crate::error::CaptureError;
use crate::qmp::Qmp;
use vmcore_core::{Identity, Machine, Vcpu};

/// A register by the name of the architecture's table, least significant byte first.
type Value = (String, Vec<u8>);

/// What the text says of one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuText {
    /// Registers that the notes lack.
    pub registers: Vec<Value>,
    /// Registers that the notes hold as well: they tell whether the text is of the same vCPU.
    pub known: Vec<(&'static str, u64)>,
}

/// `e_machine` of x86_64 and of i386.
const X86: [u16; 2] = [62, 3];

/// The register that the stub has and this text has not.
pub(crate) const UNPRINTED: &str = "cr8";

/// Whether this is the way to the registers of such a guest.
pub(crate) fn are_of(identity: &Identity) -> bool {
    X86.contains(&identity.elf_machine)
}

/// Asks the monitor and adds what it says to the vCPUs of `machine`. Tells what was not taken, if anything.
pub(crate) fn add(machine: &mut Machine, qmp: &mut Qmp) -> Result<Option<String>, CaptureError> {
    match qmp.human("info registers -a") {
        Ok(text) => Ok(add_text(machine, &text)),
        Err(error @ CaptureError::Closed { .. }) => Err(error),
        // A dump without them is better than none.
        Err(error) => Ok(Some(format!("registers that QEMU's notes lack are missing: {error}"))),
    }
}

/// Adds what the text says to the vCPUs of `machine`. Tells what was not taken, if anything.
pub fn add_text(machine: &mut Machine, text: &str) -> Option<String> {
    let cpus = parse(text);
    if cpus.len() != machine.vcpus.len() {
        return Some(format!(
            "the monitor shows registers of {} vCPUs, the notes are of {}: x87, vector and debug registers are left out",
            cpus.len(),
            machine.vcpus.len()
        ));
    }
    let mut others = 0;
    for (vcpu, cpu) in machine.vcpus.iter_mut().zip(&cpus) {
        if is_same(vcpu, cpu) {
            for (name, value) in &cpu.registers {
                vcpu.add_register(name, value);
            }
        } else {
            others += 1;
        }
    }
    (others > 0).then(|| {
        format!("the monitor shows other registers than the notes for {others} vCPUs; x87, vector and debug registers of them are left out")
    })
}

/// Whether the registers that both know are equal, as far as the text goes: in 32-bit code it prints 32 bits.
fn is_same(vcpu: &Vcpu, cpu: &CpuText) -> bool {
    const MASK: u64 = 0xffff_ffff;
    cpu.known
        .iter()
        .all(|(name, value)| vcpu.registers().value(name).is_none_or(|noted| noted & MASK == value & MASK))
}

/// Reads the text of `info registers -a`.
#[must_use]
pub fn parse(text: &str) -> Vec<CpuText> {
    let mut cpus = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("CPU#") {
            let mut words = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.trim_start().starts_with("CPU#")) {
                words.extend(words_of(line));
            }
            cpus.push(cpu_of(&words));
        }
    }
    cpus
}

/// A name, and the words behind it up to the next name.
type Word<'a> = (&'a str, Vec<&'a str>);

/// `XMM00=0000000000000001 0000000000000002 XMM01=...`: the names of a line with what follows them.
fn words_of(line: &str) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some((name, "")) => words.push((name, Vec::new())),
            Some((name, value)) => words.push((name, vec![value])),
            None => {
                if let Some((_, values)) = words.last_mut() {
                    values.push(word);
                }
            }
        }
    }
    words
}

fn cpu_of(words: &[Word<'_>]) -> CpuText {
    let mut cpu = CpuText::default();
    let number = |values: &[&str]| values.first().and_then(|value| hex(value, 16));
    // The x87 registers are printed by their place; which of them is on top stands in FSW, bits 11 to 13.
    let fsw = words.iter().find(|(name, _)| *name == "FSW").and_then(|(_, values)| number(values));
    for (name, values) in words {
        let (kind, index) = split_index(name);
        match (kind, index) {
            ("FCW" | "FSW" | "FTW" | "MXCSR" | "EFER", None) | ("DR", Some(0..=3 | 6 | 7)) => {
                if let Some(value) = number(values) {
                    cpu.registers.push((name.to_lowercase(), value.to_le_bytes().to_vec()));
                }
            }
            // In 32-bit code a 64-bit vCPU shows EIP; the table of a 32-bit one has no rip.
            ("RIP" | "EIP", None) => {
                cpu.known.extend(number(values).into_iter().flat_map(|ip| [("rip", ip), ("eip", ip)]));
            }
            ("RSP" | "ESP", None) => {
                cpu.known.extend(number(values).into_iter().flat_map(|sp| [("rsp", sp), ("esp", sp)]));
            }
            ("CR", Some(3)) => cpu.known.extend(number(values).map(|value| ("cr3", value))),
            // The mantissa, then sign and exponent: the less significant part first, unlike all others.
            ("FPR", Some(index @ 0..=7)) => {
                let value = values.get(1).and_then(|high| wide(&[2, 8], &[high, values[0]]));
                if let (Some(fsw), Some(value)) = (fsw, value) {
                    let top = usize::try_from(fsw >> 11 & 7).unwrap_or(0);
                    cpu.registers.push((format!("st{}", (index + 8 - top) % 8), value));
                }
            }
            ("XMM", Some(index @ 0..=15)) => {
                cpu.registers.extend(wide(&[8; 2], values).map(|value| (format!("xmm{index}"), value)));
            }
            // One register in the text, several in the table: each holds what the narrower ones lack.
            ("YMM", Some(index @ 0..=15)) => {
                if let Some(value) = wide(&[8; 4], values) {
                    cpu.registers.push((format!("xmm{index}"), value[..16].to_vec()));
                    cpu.registers.push((format!("ymmh{index}"), value[16..].to_vec()));
                }
            }
            ("ZMM", Some(index @ 0..=31)) => {
                if let Some(value) = wide(&[8; 8], values) {
                    if index < 16 {
                        cpu.registers.push((format!("xmm{index}"), value[..16].to_vec()));
                        cpu.registers.push((format!("ymmh{index}"), value[16..32].to_vec()));
                        cpu.registers.push((format!("zmmh{index}"), value[32..].to_vec()));
                    } else {
                        cpu.registers.push((format!("zmm{index}"), value));
                    }
                }
            }
            ("Opmask", Some(index @ 0..=7)) => {
                cpu.registers.extend(wide(&[8], values).map(|value| (format!("k{index}"), value)));
            }
            _ => {}
        }
    }
    cpu
}

/// `XMM03` is XMM and 3.
fn split_index(name: &str) -> (&str, Option<usize>) {
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (kind, name[kind.len()..].parse().ok())
}

/// A register that is printed in parts of these lengths in bytes, most significant part first; least significant byte
/// first.
fn wide(parts: &[usize], values: &[&str]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (len, value) in parts.iter().zip(values).rev() {
        let number = hex(value, len * 2).filter(|_| value.len() == len * 2)?;
        bytes.extend_from_slice(&number.to_le_bytes()[..*len]);
    }
    (bytes.len() == parts.iter().sum::<usize>()).then_some(bytes)
}

fn hex(text: &str, max_digits: usize) -> Option<u64> {
    let is_hex = (1..=max_digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
