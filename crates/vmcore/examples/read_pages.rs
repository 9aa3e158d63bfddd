//! Reads pages of a dump one by one: the speed at which a debugger sees memory.
//!
//! `read_pages DUMP ADDRESSES`: the second file is a list of guest physical addresses, 8 bytes each, in the machine's byte order.
//! Prints a checksum of all bytes, in hex, and the nanoseconds that the reads took. `cargo xtask bench kdump` compares
//! both with libkdumpfile's (`xtask/src/bench/read_pages.c`).

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use vmcore::{FileReader, Gpa};

const PAGE_LEN: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dump, addresses] = &args[..] else { return Err("usage: read_pages DUMP ADDRESSES".into()) };
    let addresses = std::fs::read(addresses)?;
    let (addresses, []) = addresses.as_chunks::<8>() else { return Err("half an address".into()) };
    let file = FileReader::new(std::fs::File::open(dump)?)?;
    let memory = vmcore::format::open(vec![Arc::new(file)])?.machine.memory;

    let mut page = [0; PAGE_LEN];
    let mut checksum = 0;
    let start = Instant::now();
    for address in addresses {
        let gpa = Gpa(u64::from_ne_bytes(*address));
        if !memory.read_at(gpa, &mut page)?.is_empty() {
            return Err(format!("the page at {gpa:x?} is not readable").into());
        }
        checksum = add(checksum, &page);
    }
    println!("{checksum:016x} {}", start.elapsed().as_nanos());
    Ok(())
}

/// The order of pages counts, and every bit of them.
fn add(checksum: u64, page: &[u8; PAGE_LEN]) -> u64 {
    let (words, _) = page.as_chunks::<8>();
    words.iter().fold(checksum.rotate_left(1), |sum, word| sum ^ u64::from_ne_bytes(*word))
}
