//! The source `demo:`: a guest that needs no emulator, to try the command with.

use crate::kernel_log::{self, Record};
use crate::{GuestBuilder, PageTables, guest};
use std::sync::Arc;
use vmcore_core::{AttachOptions, Attached, Error, Estimate, LetGo, Machine, Released, Source, SourcePlugin};

/// Where the demo's kernel image lies, by virtual and by physical address.
const KERNEL: (u64, u64) = (0xffff_ffff_8100_0000, 0x100_0000);
/// Where Linux maps all of physical memory.
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// `uname` of the demo's kernel, as `init_uts_ns` holds it: six fields of 65 bytes.
const UTS: [&str; 6] = ["Linux", "demo", "6.1.0-demo", "#1 SMP vmcore demo guest", "x86_64", "(none)"];
/// Distance of `init_uts_ns` from the start of the image.
const UTS_OFFSET: u64 = 0x2000;
/// What the first bytes of the image say.
const GREETING: &[u8] = b"Hello from a guest that only exists in vmcore. Welcome to its memory.\n\0";
/// Distance of the kernel's log from the start of the image.
const LOG_OFFSET: u64 = 0x1_0000;
const NO_DEVICE: [&str; 2] = ["", ""];
#[rustfmt::skip] // a table is read by column
const LOG: [Record; 7] = [
    (0,         0, 5, 0, NO_DEVICE, "Linux version 6.1.0-demo (demo@vmcore) #1 SMP vmcore demo guest"),
    (0,         0, 6, 0, NO_DEVICE, "Command line: console=ttyS0"),
    (0,         0, 6, 0, NO_DEVICE, "Zone ranges:\n  DMA      [mem 0x0000000000001000-0x0000000000ffffff]\n  DMA32    [mem 0x0000000001000000-0x0000000001ffffff]"),
    (52_100,    0, 6, 1, NO_DEVICE, "smp: Brought up 1 node, 2 CPUs"),
    (140_732,   0, 6, 1, ["pci", "+pci:0000:00:01.0"], "pci 0000:00:01.0: [1234:1111] type 00 class 0x030000"),
    (1_250_009, 0, 4, 1, NO_DEVICE, "demo: this guest has no disk"),
    (1_300_450, 3, 6, 1, NO_DEVICE, "init[1]: there is nothing to start"),
];

/// The demo guest of an architecture: 32 MiB of RAM, two vCPUs in "kernel" code, page tables, a VMCOREINFO note, the
/// kernel's log.
///
/// # Errors
/// [`Error::Unsupported`] if there is no demo guest of that architecture, [`Error::Unknown`] if it is not linked in.
pub fn machine(arch: &str) -> Result<Machine, Error> {
    match arch {
        "x86_64" => x86_64()?.build(),
        _ => Err(Error::Unsupported { what: "a demo guest other than x86_64", found: arch.to_owned() }),
    }
}

fn x86_64() -> Result<GuestBuilder, Error> {
    let (text, image) = KERNEL;
    let mut tables = PageTables::new(0x10_0000);
    for at in (0..0x200_0000).step_by(0x20_0000) {
        tables = tables.map(DIRECT_MAP + at, at, 21);
    }
    tables = tables.map(text, image, 21);
    // The stacks of the two vCPUs, with guard pages that are not mapped.
    let stacks = [(0xffff_c900_0000_4000, 0x80_0000), (0xffff_c900_0000_8000, 0x80_4000)];
    for (gva, gpa) in stacks {
        tables = tables.map(gva, gpa, 12);
    }
    let uts: Vec<u8> = UTS.iter().flat_map(|field| padded(field.as_bytes(), 65)).collect();
    // As Linux states it: by the addresses of the image, although the demo's image does not reach there.
    let root = text - image + tables.root();
    let (log, log_keys) = kernel_log::log(text + LOG_OFFSET, &LOG);
    let vmcoreinfo = format!(
        "OSRELEASE={}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={:x}\nOFFSET(uts_namespace.name)=0\nSYMBOL(_stext)={text:x}\n\
         SYMBOL(swapper_pg_dir)={:x}\nSYMBOL(init_top_pgt)={:x}\nNUMBER(pgtable_l5_enabled)=0\nNUMBER(phys_base)=0\nKERNELOFFSET=0\n{log_keys}",
        UTS[2],
        text + UTS_OFFSET,
        root,
        root,
    );
    let mut guest = guest("x86_64")?
        .ram(0..0xa_0000)
        .ram(0x10_0000..0x200_0000)
        .fill(image, GREETING)
        .fill(image + UTS_OFFSET, &uts)
        .fill(image + LOG_OFFSET, &log)
        .page_tables(&tables)
        .vmcoreinfo(&vmcoreinfo);
    for (index, (gva, gpa)) in (0..).zip(stacks) {
        // A frame: saved frame pointer, return address.
        let frame = [gva + 0xff0, text + 0x1100, 0, text + 0x1000];
        let bytes: Vec<u8> = frame.iter().flat_map(|word| word.to_le_bytes()).collect();
        guest = guest.fill(gpa + 0xfe0, &bytes).vcpu(|registers| {
            for (name, value) in [
                ("rip", text + 0x1234 + index),
                ("rsp", gva + 0xfd0),
                ("rbp", gva + 0xfe0),
                ("rax", 0xdead_beef),
                ("rbx", index),
                ("rflags", 0x246),
                ("cs", 0x10),
                ("ss", 0x18),
                ("gs_base", DIRECT_MAP + 0x60_0000 + index * 0x10_0000),
                ("cr0", 0x8005_0033),
                ("cr3", tables.root()),
                ("cr4", 0x6b0),
                ("efer", 0xd01),
            ] {
                registers.set_value(name, value);
            }
        });
    }
    Ok(guest)
}

fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut field = bytes.to_vec();
    field.resize(len, 0);
    field
}

/// The source plugin.
#[derive(Debug)]
struct Demo;

inventory::submit! { SourcePlugin(&Demo) }

impl Source for Demo {
    fn scheme(&self) -> &'static str {
        "demo"
    }

    fn syntax(&self) -> &'static str {
        "demo:x86_64"
    }

    fn description(&self) -> &'static str {
        "a small guest that is made up on the spot"
    }

    fn attach(&self, address: &str, _: &AttachOptions) -> Result<Box<dyn Attached>, Error> {
        Ok(Box::new(DemoGuest { machine: machine(address)? }))
    }
}

struct DemoGuest {
    machine: Machine,
}

impl Attached for DemoGuest {
    fn description(&self) -> String {
        format!("demo guest, {} vCPUs", self.machine.vcpus.len())
    }

    fn estimate(&self) -> Estimate {
        Estimate { regions: self.machine.memory.regions().to_vec(), used_len: self.machine.ram_len() }
    }

    fn hold(&mut self) -> Result<Machine, Error> {
        Ok(self.machine.clone())
    }

    fn let_go(&self) -> LetGo {
        Arc::new(|| ())
    }

    fn release(&mut self) -> Result<Released, Error> {
        Ok(Released { state: "imaginary".to_owned(), ..Released::default() })
    }
}
