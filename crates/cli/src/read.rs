//! `vmcore read`: memory on standard output.

use crate::args::{Operands, ReadArgs};
use crate::failure::{Exit, Outcome};
use crate::kernel::NoteOrigin;
use crate::{input, job, text};
use anyhow::{Context, anyhow, bail};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use vmcore::{Error, Gpa, Gva, Machine, RunState};

const CHUNK: u64 = 1 << 20;
const COLUMNS: usize = 16;

pub(crate) fn run(args: &ReadArgs) -> Outcome {
    let Operands { inputs, addr, len } = args.operands().unwrap_or_else(|error| error.exit());
    let mut machine = input::open(inputs, &args.open, &args.note)?.machine;
    let end = addr.checked_add(len).ok_or(Error::Range { what: "memory", start: addr, len })?;
    let as_hex = args.hex || (!args.raw && io::stdout().is_terminal());
    if args.virt && machine.arch.is_some() {
        check_cpu(args.cpu, machine.vcpus.len())?;
        // What the vCPU lacks, the kernel's VMCOREINFO makes up for.
        let is_lacking = machine.vcpus.is_empty()
            || machine.translate(args.cpu, Gva(addr)).is_err_and(|error| error.lacks_page_tables());
        if is_lacking && machine.vmcoreinfo().is_none() {
            let (state, _) = job::cancel_on_signals()?;
            NoteOrigin::complete(&mut machine, &args.note, false, &state)?.say(false);
        }
    }
    text::on_stdout(|out| copy(args, &machine, addr..end, as_hex, out))?;
    Ok(Exit::Complete)
}

/// Fails if there is no vCPU with this index. Where there is none at all, index 0 stands for the kernel.
fn check_cpu(index: usize, count: usize) -> anyhow::Result<()> {
    match count.checked_sub(1) {
        None if index > 0 => bail!("there is no vCPU {index}: the dump has none"),
        Some(last) if index > last => bail!("there is no vCPU {index}: the last one is {last}"),
        _ => Ok(()),
    }
}

fn copy(
    args: &ReadArgs,
    machine: &Machine,
    range: Range<u64>,
    as_hex: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let mut bytes = vec![0; usize::try_from((range.end - at).min(CHUNK))?];
        let kind = if args.virt { "virtual" } else { "physical" };
        let result = if args.virt {
            machine.read_virtual(args.cpu, Gva(at), &mut bytes)
        } else {
            read_physical(machine, at, &mut bytes)
        };
        let result = result.map_err(|error| explain(error, machine));
        result.with_context(|| format!("cannot read {} bytes at {kind} address {at:#x}", bytes.len()))?;
        if as_hex {
            hex_dump(out, at, &bytes)?
        } else {
            out.write_all(&bytes)?
        }
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Adds to an error of memory that is not there why it is not, if the dump knows.
fn explain(error: Error, machine: &Machine) -> anyhow::Error {
    let Error::NoMemory { gpa, .. } = error else { return error.into() };
    let is_excluded = machine.memory.run_at(gpa, 1).state == RunState::Excluded;
    let excluded = || format!("its page was left out (dump level {})", machine.header.dump_level);
    let fault = machine.memory.fault_at(gpa).map(|fault| fault.text);
    match fault.or_else(|| is_excluded.then(excluded)) {
        Some(fault) => anyhow!(fault).context(error),
        None => error.into(),
    }
}

fn read_physical(machine: &Machine, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let unreadable = machine.memory.read_at(Gpa(at), bytes)?;
    match unreadable.ranges().first() {
        Some(range) => Err(Error::NoMemory { what: "reading the dump", gpa: Gpa(range.start) }),
        None => Ok(()),
    }
}

/// Prints an address, sixteen bytes in hex, and the printable ones of them, a line each.
fn hex_dump(out: &mut dyn Write, start: u64, bytes: &[u8]) -> io::Result<()> {
    for (row, line) in (0_u64..).zip(bytes.chunks(COLUMNS)) {
        write!(out, "{:016x} ", start + row * COLUMNS as u64)?;
        for column in 0..COLUMNS {
            let gap = if column == COLUMNS / 2 { " " } else { "" };
            match line.get(column) {
                Some(byte) => write!(out, "{gap} {byte:02x}")?,
                None => write!(out, "{gap}   ")?,
            }
        }
        let printable =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        writeln!(out, "  |{}|", line.iter().map(printable).collect::<String>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hex_dump_shows_addresses_bytes_and_text() {
        let mut out = Vec::new();
        hex_dump(&mut out, 0x1000, b"Hello, guest\x00\xff and more").unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
