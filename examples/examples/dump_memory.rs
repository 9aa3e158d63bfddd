//! How fast an embedding emulator's guest is dumped.
//!
//! `dump_memory DUMP FOLDER`: takes the memory of a dump into memory of `vm-memory`, pages of zeros left untouched, and dumps that into the folder. Prints
//! a line for each format: its name, and the nanoseconds. `cargo xtask bench embed` compares them with `vmcore capture`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmcore::dump::{DumpRequest, Dumper, Guest};
use vmcore::vm_memory::GuestRam;
use vmcore::{Arch, FileReader, Gpa, PhysMemory, RegionKind, RegisterFile, arch};

const PAGE_LEN: usize = 4096;

struct Emulator(Arc<GuestRam<Arc<GuestMemoryMmap>>>);

impl Guest for Emulator {
    fn arch(&self) -> &'static dyn Arch {
        arch::by_name("x86_64").expect("it is linked in")
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::clone(&self.0) as Arc<dyn PhysMemory>
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, vmcore::Error> {
        Ok(vec![RegisterFile::new(self.arch().registers())])
    }

    fn stop(&self) -> Result<bool, vmcore::Error> {
        Ok(false)
    }

    fn resume(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dump, folder] = &args[..] else { return Err("usage: dump_memory DUMP FOLDER".into()) };
    let dumper = Dumper::new(Arc::new(Emulator(Arc::new(contents(dump)?))));
    for format in ["elf", "kdump-raw-zlib"] {
        let path = format!("{folder}/{format}");
        let start = Instant::now();
        dumper.dump(&DumpRequest::to_file(&path, format), |_| None)?;
        println!("{format} {}", start.elapsed().as_nanos());
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn contents(dump: &str) -> Result<GuestRam<Arc<GuestMemoryMmap>>, Box<dyn Error>> {
    let file = FileReader::new(std::fs::File::open(dump)?)?;
    let memory = vmcore::format::open(vec![Arc::new(file)])?.machine.memory;
    let regions: Vec<_> = memory.regions().iter().filter(|region| region.kind == RegionKind::Ram).collect();
    let ranges: Vec<_> = regions
        .iter()
        .map(|region| Ok((GuestAddress(region.gpa.0), usize::try_from(region.len)?)))
        .collect::<Result<_, std::num::TryFromIntError>>()?;
    let ram = GuestMemoryMmap::from_ranges(&ranges)?;
    let mut page = [0; PAGE_LEN];
    for region in regions {
        for gpa in (region.gpa.0..region.end().0).step_by(PAGE_LEN) {
            memory.read_at(Gpa(gpa), &mut page)?;
            if page.iter().any(|byte| *byte != 0) {
                ram.write_slice(&page, GuestAddress(gpa))?;
            }
        }
    }
    Ok(GuestRam::new(Arc::new(ram))?.skip_untouched()?)
}
