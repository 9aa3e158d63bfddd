//! Searches memory for a VMCOREINFO note: the speed of the search.
//!
//! `search_memory DUMP BYTES`: takes the memory of the dump, over and over until it has so many bytes, in memory of its own, and
//! without the notes in it. Prints a line for each measurement: its name, the bytes that were passed and the nanoseconds.
//! `cargo xtask bench search` compares them with the bar.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use vmcore::memory::BlockMemory;
use vmcore::vmcoreinfo::{Guest, Level, search};
use vmcore::{DumpState, Endianness, FileReader, Gpa, Note, PhysMemory, RegionKind, Unreadable};

const PAGE_LEN: usize = 4096;
/// How each text begins, and each note's name.
const TRACES: [&[u8]; 2] = [b"OSRELEASE=", b"VMCOREINFO"];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dump, len] = &args[..] else { return Err("usage: search_memory DUMP BYTES".into()) };
    let mut ram = contents(dump, len.parse()?)?;
    // No note at all: every word of memory is looked at, after the first word of every page.
    let without: Arc<dyn PhysMemory> = Arc::new(BlockMemory::new(vec![(Gpa(0), ram.clone())])?);
    // A note in the last page: only the pages are.
    let text = b"OSRELEASE=6.1\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff82000000\n".to_vec();
    let mut note = Vec::new();
    Note::new("VMCOREINFO", 0, text).encode(Endianness::Little, &mut note)?;
    let last = ram.len() - PAGE_LEN;
    ram[last..last + note.len()].copy_from_slice(&note);
    let with: Arc<dyn PhysMemory> = Arc::new(BlockMemory::new(vec![(Gpa(0), ram)])?);
    for (name, memory, passes) in [("pages", with, 1), ("words", without, 2)] {
        measure(&format!("{name}-mapped"), &memory, passes)?;
        measure(&format!("{name}-read"), &(Arc::new(Read(memory)) as _), passes)?;
    }
    Ok(())
}

/// Memory as a real guest has it: the pages of the dump that are not zero, again and again.
fn contents(dump: &str, len: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = FileReader::new(std::fs::File::open(dump)?)?;
    let memory = vmcore::format::open(vec![Arc::new(file)])?.machine.memory;
    let mut ram = Vec::new();
    for region in memory.regions().iter().filter(|region| region.kind == RegionKind::Ram) {
        for gpa in (region.gpa.0..region.end().0).step_by(PAGE_LEN) {
            let mut page = [0; PAGE_LEN];
            memory.read_at(Gpa(gpa), &mut page)?;
            if page.iter().any(|byte| *byte != 0) {
                ram.extend(page);
            }
        }
    }
    let traces: Vec<usize> =
        (0..ram.len()).filter(|at| TRACES.iter().any(|trace| ram[*at..].starts_with(trace))).collect();
    traces.into_iter().for_each(|at| ram[at] = b'-');
    Ok(ram.iter().copied().cycle().take(len.next_multiple_of(PAGE_LEN)).collect())
}

fn measure(name: &str, memory: &Arc<dyn PhysMemory>, passes: u64) -> Result<(), Box<dyn Error>> {
    let guest = Guest { arch: None, endianness: Endianness::Little, memory, vcpus: &[] };
    let start = Instant::now();
    let findings = search(&guest, Level::Vcpu, &DumpState::default())?;
    let time = start.elapsed().as_nanos();
    if findings.found.len() as u64 + passes != 2 || findings.is_cut {
        return Err(format!("{name}: {} notes were found", findings.found.len()).into());
    }
    let len: u64 = memory.regions().iter().map(|region| region.len).sum();
    println!("{name} {} {time}", len * passes);
    Ok(())
}

/// Memory that is not mapped: it can only be read.
struct Read(Arc<dyn PhysMemory>);

impl PhysMemory for Read {
    fn regions(&self) -> &[vmcore::Region] {
        self.0.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, vmcore::Error> {
        self.0.read_at(gpa, buf)
    }
}
