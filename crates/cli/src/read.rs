//! `vmcore read`: memory on standard output.

use crate::args::ReadArgs;
use crate::failure::{Exit, Outcome};
use crate::{input, text};
use anyhow::{Context, bail};
use std::io::{self, IsTerminal, Write};
use vmcore::{Error, Gpa, Gva, Machine};

const CHUNK: u64 = 1 << 20;
const COLUMNS: usize = 16;

pub(crate) fn run(args: &ReadArgs) -> Outcome {
    let input = input::open(&[&args.input])?;
    if args.addr.checked_add(args.len).is_none() {
        return Err(Error::Range { what: "memory", start: args.addr, len: args.len }.into());
    }
    let as_hex = args.hex || (!args.raw && io::stdout().is_terminal());
    if args.virt && input.machine.arch.is_some() {
        check_cpu(args.cpu, input.machine.vcpus.len())?;
    }
    text::on_stdout(|out| copy(args, &input.machine, as_hex, out))?;
    Ok(Exit::Complete)
}

/// Fails if there is no vCPU with this index.
fn check_cpu(index: usize, count: usize) -> anyhow::Result<()> {
    match count.checked_sub(1) {
        None => bail!("there is no vCPU {index}: the dump has none"),
        Some(last) if index > last => bail!("there is no vCPU {index}: the last one is {last}"),
        Some(_) => Ok(()),
    }
}

fn copy(args: &ReadArgs, machine: &Machine, as_hex: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut done = 0;
    while done < args.len {
        let mut bytes = vec![0; usize::try_from((args.len - done).min(CHUNK))?];
        let at = args.addr + done;
        let kind = if args.virt { "virtual" } else { "physical" };
        let result = if args.virt {
            machine.read_virtual(args.cpu, Gva(at), &mut bytes)
        } else {
            read_physical(machine, at, &mut bytes)
        };
        result.with_context(|| format!("cannot read {} bytes at {kind} address {at:#x}", bytes.len()))?;
        if as_hex {
            hex_dump(out, at, &bytes)?
        } else {
            out.write_all(&bytes)?
        }
        done += bytes.len() as u64;
    }
    Ok(())
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
