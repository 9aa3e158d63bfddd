//! What the fuzz targets do with a dump, and what they begin with (`fuzz/README.md`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use vmcore::{
    Compression, DumpOptions, DumpState, Error, ExecuteOptions, Gpa, Gva, Machine, Order, PhysMemory,
    RegionKind, Sink, execute, format, read_at, synth, wrapper,
};

/// The fuzz targets.
pub const TARGETS: [&str; 7] = ["bt", "elf", "flat", "gdb", "kdump", "vbox", "vmlinux"];
/// The most memory of a dump that is read, in bytes.
const MAX_READ: u64 = 1 << 18;
/// The longest dump that is written of what was read.
const MAX_WRITTEN: u64 = 1 << 20;
/// The most regions that are looked at.
const MAX_REGIONS: usize = 64;

/// Opens `bytes` as what the target is about and does with it all that the command does: looks at each part, reads memory, and
/// writes it in another format. For `gdb` they are what a client says, for `bt` and `vmlinux` what backtraces are made of.
///
/// # Panics
/// If that goes wrong: errors do not.
pub fn read(target: &str, bytes: &[u8]) {
    match target {
        "bt" => return crate::unwind::read_kernel(bytes),
        "gdb" => return crate::gdb::read(bytes),
        "vmlinux" => return crate::unwind::read_vmlinux(bytes),
        _ => {}
    }
    let file: Arc<dyn vmcore::ReadAt> = Arc::new(bytes.to_vec());
    if target == "flat" {
        let Ok(Some((_, unwrapped))) = wrapper::open(&file) else { return };
        let len = unwrapped.file.byte_len().min(MAX_READ);
        let _ = read_at::read_vec(&*unwrapped.file, 0, len, "the file inside");
        if let Ok(opened) = format::open(vec![file]) {
            look(&opened.machine);
        }
    } else if let Ok(opened) = format::open_as(vec![file], target) {
        look(&opened.machine);
    }
}

fn look(machine: &Machine) {
    read_memory(&*machine.memory);
    let _ = (machine.dump_info(), machine.vmcoreinfo(), machine.encode_notes());
    for gva in [0, 0x40_0000, 0xffff_8000_0000_0000, 0xffff_ffff_8100_0000] {
        let _ = machine.read_virtual(0, Gva(gva), &mut [0; 16]);
    }
    let formats = [("elf", false), ("elf", true), ("kdump", false), ("lime", false), ("vbox", false)];
    for (format, paging) in formats {
        let options = DumpOptions { paging, ..DumpOptions::default() };
        let planned = format::by_name(format).and_then(|format| format.plan(machine, &options));
        let Some(layout) = planned.ok().filter(|layout| layout.file_len() < MAX_WRITTEN) else { continue };
        let (options, state) = (ExecuteOptions { threads: 2, sparse: true }, DumpState::default());
        let _ = execute(&layout, &*machine.memory, &Nothing, options, &state);
    }
}

/// Reads memory in steps of what is known of it.
fn read_memory(memory: &dyn PhysMemory) {
    let mut left = MAX_READ;
    let ram = memory.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    for region in ram.take(MAX_REGIONS) {
        let mut at = region.gpa;
        while at < region.end() && left > 0 {
            let run = memory.run_at(at, region.end().0 - at.0);
            assert!(run.len > 0 && run.len <= region.end().0 - at.0, "{run:?} at {at}");
            let len = run.len.min(0x1800).min(left);
            let (mut first, mut second) =
                (vec![0; len.try_into().unwrap_or(0)], vec![0xff; len.try_into().unwrap_or(0)]);
            let result = memory.read_at(at, &mut first).and_then(|_| memory.read_at(at, &mut second));
            assert!(result.is_err() || first == second, "two reads at {at} differ");
            left -= len;
            at = Gpa(at.0 + run.len);
        }
    }
}

/// A sink for nothing.
struct Nothing;

impl Sink for Nothing {
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

/// The folder of a target's seeds.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

/// What a target begins with: small dumps with all that a dump can have, by name.
///
/// # Errors
/// Those of writing them.
pub fn seeds(target: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut seeds = Vec::new();
    match target {
        "bt" => seeds.extend(crate::unwind::seeds()),
        "vmlinux" => seeds.push(("calls".to_owned(), crate::unpacked("calls.vmlinux.gz"))),
        "elf" => {
            for arch in ["x86_64", "i386", "aarch64", "s390x"] {
                seeds.push((arch.to_owned(), crate::write(&guest(arch)?, &DumpOptions::default())?));
            }
            let paging = DumpOptions { paging: true, ..DumpOptions::default() };
            seeds.push(("paging".to_owned(), crate::write(&guest("x86_64")?, &paging)?));
            seeds.push(("qemu".to_owned(), crate::dump("long4-qemu7-inside")));
        }
        "gdb" => {
            let scripts = crate::gdb::SEEDS.map(|(name, script)| (name.to_owned(), script.into()));
            seeds.extend(scripts);
        }
        "kdump" => {
            for compression in Compression::ALL {
                seeds.push((compression.name().to_owned(), kdump("x86_64", compression)?));
            }
            seeds.push(("i386".to_owned(), kdump("i386", Compression::Lzo)?));
            seeds.push(("s390x".to_owned(), kdump("s390x", Compression::Zlib)?));
        }
        "vbox" => {
            for name in ["vbox", "vbox-6.1", "vbox-5.0", "vbox-5.0.0", "vbox-4.3", "vbox-4.1", "vbox-2010"] {
                seeds.push((name.to_owned(), vbox(name)?));
            }
        }
        _ => {
            for format in ["elf", "kdump"] {
                seeds.push((format.to_owned(), flattened(format)?));
            }
        }
    }
    Ok(seeds)
}

/// A guest with two pieces of memory, zeros, what packs and what does not, and a note.
fn guest(arch: &str) -> Result<Machine, Error> {
    let noise: Vec<u8> =
        (0..0x1000_u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 21).to_le_bytes()[0]).collect();
    synth::guest(arch)?
        .ram(0..0x3000)
        .ram(0x10_0000..0x10_2000)
        .fill(0, b"text that packs ".repeat(64).as_slice())
        .fill(0x10_0000, &noise)
        .vmcoreinfo("OSRELEASE=6.1.0\nPAGESIZE=4096\nNUMBER(phys_base)=-4096\n")
        .build()
}

fn kdump(arch: &str, compression: Compression) -> Result<Vec<u8>, Error> {
    let machine = guest(arch)?;
    let options = DumpOptions { compression: Some(compression), ..DumpOptions::default() };
    let layout = format::by_name("kdump")?.plan(&machine, &options)?;
    let file = Buffer::default();
    execute(&layout, &*machine.memory, &file, ExecuteOptions::default(), &DumpState::default())?;
    Ok(file.0.into_inner().unwrap_or_default())
}

/// A core of a release's form, with a vCPU whose registers are all known.
fn vbox(name: &str) -> Result<Vec<u8>, Error> {
    let format = format::by_name(name)?;
    let variant = format.variants().iter().find(|variant| variant.name == name).map(|variant| variant.name);
    let machine = synth::guest("x86_64")?.ram(0..0x1000).vcpu(synth::spell_names).build()?;
    let layout = format.plan(&machine, &DumpOptions { variant, ..DumpOptions::default() })?;
    let file = Buffer::default();
    execute(&layout, &*machine.memory, &file, ExecuteOptions::default(), &DumpState::default())?;
    Ok(file.0.into_inner().unwrap_or_default())
}

fn flattened(format: &str) -> Result<Vec<u8>, Error> {
    let machine = guest("x86_64")?;
    let layout = format::by_name(format)?.plan(&machine, &DumpOptions::default())?;
    let mut bytes = Vec::new();
    let stream: Box<dyn Write + Send> = Box::new(&mut bytes);
    let sink = wrapper::by_name("flat")?.sink(stream);
    execute(&layout, &*machine.memory, &*sink, ExecuteOptions::default(), &DumpState::default())?;
    drop(sink);
    Ok(bytes)
}

/// A file in memory.
#[derive(Debug, Default)]
pub struct Buffer(pub Mutex<Vec<u8>>);

impl Sink for Buffer {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
        let start = usize::try_from(offset).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let len = file.len().max(start + bytes.len());
        file.resize(len, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, len: u64) -> std::io::Result<()> {
        let mut file = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
        file.resize(usize::try_from(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?, 0);
        Ok(())
    }
}
