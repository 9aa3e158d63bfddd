//! Registers that QEMU's notes lack, from QEMU's gdb stub.
//!
//! The notes of most architectures hold no system registers, without which no page table can be walked. The stub has them, by
//! the names of its target description. Of x86 it has one that the monitor does not print, CR8. It can be opened while a dump holds the guest; nothing of the guest changes by it.
//!
//! Source: `spec/live-capture.md` sections 3.3, 6 and 8; tried on QEMU 7.2 and 10.0.

mod connection;
mod description;

use crate::error::{CaptureError, clip};
use crate::qmp::Qmp;
use connection::Connection;
use description::Described;
use serde_json::Value;
use vmcore_core::{Endianness, Machine, Register, RegisterFile, RegisterId, Vcpu};

/// Bytes of a description that are asked for at once: QEMU's packets have 4 KiB, of which each byte may be escaped.
const CHUNK: usize = 0x7f0;
/// The longest file of a description.
const MAX_FILE: usize = 1 << 20;

/// Which registers are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    /// All that are not known.
    Missing,
    /// The one of this name in the architecture's table, if it is not known.
    Only(&'static str),
}

/// Adds what the stub says to the vCPUs of `machine`. Tells what was not taken, if anything.
///
/// # Errors
/// Those of the monitor. A stub that fails is no error: a dump without these registers is better than none.
pub(crate) fn add(
    machine: &mut Machine,
    qmp: &mut Qmp,
    choice: Choice,
) -> Result<Option<String>, CaptureError> {
    if machine.vcpus.iter().all(|vcpu| wanted(vcpu.registers(), choice).next().is_none()) {
        return Ok(None);
    }
    let lost = |why: String| Some(format!("registers that QEMU's notes lack are missing: {why}"));
    let mut stub = match Connection::open(qmp) {
        Ok(Some(stub)) => stub,
        Ok(None) => {
            return Ok(lost("its gdb stub is in use; `gdbserver none` on its monitor ends that".to_owned()));
        }
        Err(error @ CaptureError::Closed { .. }) => return Err(error),
        Err(error) => return Ok(lost(error.to_string())),
    };
    let result = read(machine, &mut stub, choice);
    stub.close(qmp)?;
    start_again(qmp)?;
    Ok(match result {
        Ok(0) => None,
        Ok(others) => lost(format!("the gdb stub shows another state than the notes for {others} vCPUs")),
        Err(error) => lost(error.to_string()),
    })
}

/// Starts the guest if the stub has stopped it: a stub that is opened stops a guest that runs, and a signal or the longest pause may
/// have let this one go the moment before.
fn start_again(qmp: &mut Qmp) -> Result<(), CaptureError> {
    let names = qmp.events().map(|event| &*event.name);
    let changes: Vec<&str> = names.filter(|name| ["STOP", "RESUME"].contains(name)).collect();
    if changes.ends_with(&["RESUME", "STOP"]) {
        qmp.execute("cont", &Value::Null)?;
    }
    Ok(())
}

/// Registers that are not known, by gdb's names where it has any.
fn wanted(
    registers: &RegisterFile,
    choice: Choice,
) -> impl Iterator<Item = (&'static Register, &'static str)> {
    let is_chosen = move |row: &Register| match choice {
        Choice::Missing => true,
        Choice::Only(name) => row.name == name,
    };
    let rows = (0..).map(RegisterId).zip(registers.table().rows);
    rows.filter(move |(id, row)| is_chosen(row) && registers.get(*id).is_none())
        .map(|(_, row)| (row, gdb_name(row)))
}

fn gdb_name(row: &Register) -> &'static str {
    row.gdb.map_or(row.name, |gdb| gdb.name)
}

/// Adds the registers of each vCPU; returns the number of vCPUs of which the stub shows another state.
fn read(machine: &mut Machine, stub: &mut Connection, choice: Choice) -> Result<usize, CaptureError> {
    let malformed =
        |said: &str| CaptureError::Malformed { during: "in its gdb stub".to_owned(), said: clip(said) };
    // Without `multiprocess` threads have plain numbers.
    stub.ask("qSupported:xmlRegisters=none")?;
    let described = description::registers(|name| file(stub, name))?;
    let threads = threads(stub)?;
    if threads.len() != machine.vcpus.len() {
        let (threads, vcpus) = (threads.len(), machine.vcpus.len());
        return Err(malformed(&format!("{threads} threads, where the notes are of {vcpus} vCPUs")));
    }
    let mut others = 0;
    for (vcpu, thread) in machine.vcpus.iter_mut().zip(&threads) {
        let reply = stub.ask(&format!("Hg{thread}"))?;
        if reply != "OK" {
            return Err(malformed(&reply));
        }
        match byte_order(vcpu, &described, machine.identity.endianness, stub)? {
            Some(endianness) => complete(vcpu, &described, endianness, choice, stub)?,
            None => others += 1,
        }
    }
    Ok(others)
}

/// A file of the description.
fn file(stub: &mut Connection, name: &str) -> Result<String, CaptureError> {
    let mut text = String::new();
    loop {
        let reply = stub.ask(&format!("qXfer:features:read:{name}:{:x},{CHUNK:x}", text.len()))?;
        match (reply.get(..1), reply.get(1..)) {
            (Some("l"), Some(rest)) => return Ok(text + rest),
            (Some("m"), Some(part)) if !part.is_empty() && text.len() < MAX_FILE => text += part,
            // No such file.
            _ => return Ok(text),
        }
    }
}

/// The numbers of the threads, which are vCPUs in their order.
fn threads(stub: &mut Connection) -> Result<Vec<String>, CaptureError> {
    /// More than any QEMU has.
    const MAX: usize = 1 << 16;
    let mut threads = Vec::new();
    let mut reply = stub.ask("qfThreadInfo")?;
    while let Some(part) = reply.strip_prefix('m')
        && threads.len() < MAX
    {
        threads.extend(part.split(',').map(str::to_owned));
        reply = stub.ask("qsThreadInfo")?;
    }
    Ok(threads)
}

/// The request for a register.
fn request(number: u64) -> String {
    format!("p{number:x}")
}

/// A register as the stub gives it, or `None` if it has none.
fn value(reply: &str) -> Option<Vec<u8>> {
    let (digits, rest) = reply.as_bytes().as_chunks::<2>();
    let bytes = digits.iter().map(|digits| {
        // An `x` stands for what is not available.
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        u8::from_str_radix(digits, 16).ok()
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.filter(|bytes| !bytes.is_empty() && rest.is_empty())
}

/// The byte order in which the stub gives registers: the one in which it agrees with the notes. `None` if it does not.
fn byte_order(
    vcpu: &Vcpu,
    described: &[Described],
    expected: Endianness,
    stub: &mut Connection,
) -> Result<Option<Endianness>, CaptureError> {
    let table = vcpu.registers().table();
    for name in [table.program_counter, table.stack_pointer] {
        let noted = table.find(name).and_then(|id| Some((table.row(id)?, vcpu.registers().get(id)?)));
        let Some((row, noted)) = noted else { continue };
        let Some(number) = number_of(described, gdb_name(row)) else { continue };
        let value = value(&stub.ask(&request(number))?).unwrap_or_default();
        let is = |little_endian: &[u8]| little_endian == noted;
        let reversed: Vec<u8> = value.iter().rev().copied().collect();
        match (is(&value), is(&reversed)) {
            // It reads the same both ways.
            (true, true) => {}
            (true, false) => return Ok(Some(Endianness::Little)),
            (false, true) => return Ok(Some(Endianness::Big)),
            (false, false) => return Ok(None),
        }
    }
    Ok(Some(expected))
}

fn number_of(described: &[Described], name: &str) -> Option<u64> {
    let found = described.iter().find(|register| register.name.eq_ignore_ascii_case(name));
    found.map(|register| register.number)
}

/// Adds the registers that are not known.
fn complete(
    vcpu: &mut Vcpu,
    described: &[Described],
    endianness: Endianness,
    choice: Choice,
    stub: &mut Connection,
) -> Result<(), CaptureError> {
    let wanted = wanted(vcpu.registers(), choice);
    let (rows, requests): (Vec<&Register>, Vec<String>) =
        wanted.filter_map(|(row, name)| Some((row, request(number_of(described, name)?)))).unzip();
    for (row, reply) in rows.iter().zip(stub.ask_all(&requests)?) {
        if let Some(mut value) = value(&reply) {
            if endianness == Endianness::Big {
                value.reverse();
            }
            vcpu.add_register(row.name, &value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
