//! Fuzz targets of backtraces: a hostile vmlinux, and a hostile kernel in memory.
//!
//! What the target `bt` is given:
//! ```text
//!  0  rip, rsp, rbp, 8 bytes each, and the length of VMCOREINFO, 4 bytes; little-endian
//! 28  VMCOREINFO, then the memory of the kernel from BASE on
//! ```

use std::sync::{Arc, LazyLock};
use vmcore::backtrace::{Image, Unwinder};
use vmcore::{Error, Machine, synth};

/// Where the kernel's memory is mapped.
const BASE: u64 = 0xffff_ffff_8100_0000;
/// Where it lies, how much of it there is, and log2 of the page that maps it.
const MEMORY: (u64, usize, u32) = (0x20_0000, 0x4_0000, 21);
/// Where the page tables lie, and the kernel's image by arithmetic.
const TABLES: u64 = 0x1000;
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Registers and length before VMCOREINFO.
const HEAD_LEN: usize = 28;

/// The guest of that vmlinux; it is opened once.
static CALLS: LazyLock<Machine> =
    LazyLock::new(|| crate::open(crate::dump("calls-qemu7")).expect("the fixture is sound"));

/// Opens the bytes as the vmlinux of a guest that is known, and makes a backtrace by it.
pub(crate) fn read_vmlinux(bytes: &[u8]) {
    let file: Arc<dyn vmcore::ReadAt> = Arc::new(bytes.to_vec());
    let Ok(image) = Image::open(&file) else { return };
    let _ = image.identify(&CALLS);
    trace(&CALLS, Some(&image));
}

/// Makes a backtrace by what a kernel has in its memory.
///
/// # Panics
/// If it goes wrong: errors do not.
pub(crate) fn read_kernel(bytes: &[u8]) {
    if let Some(Ok(machine)) = machine(bytes) {
        trace(&machine, None);
    }
}

fn trace(machine: &Machine, image: Option<&Image>) {
    let Ok(unwinder) = Unwinder::new(machine, image) else { return };
    if let Ok(backtrace) = unwinder.backtrace(0) {
        let frames = backtrace.frames.iter().map(|frame| frame.location.as_ref().map(ToString::to_string));
        let _ = (frames.collect::<Vec<_>>(), backtrace.end.to_string(), unwinder.modules_error());
    }
}

/// The guest that the bytes describe; `None` if there are too few.
fn machine(bytes: &[u8]) -> Option<Result<Machine, Error>> {
    let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
    let (words, len) = head.as_chunks::<8>();
    let [rip, rsp, rbp] = [words[0], words[1], words[2]].map(u64::from_le_bytes);
    let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
    let (info, memory) = rest.split_at_checked(len)?;
    let info = format!(
        "PAGESIZE=4096\nNUMBER(phys_base)=0\nSYMBOL(swapper_pg_dir)={:x}\n{}",
        IMAGE + TABLES,
        String::from_utf8_lossy(info)
    );
    let tables = synth::PageTables::new(TABLES).map(BASE, MEMORY.0, MEMORY.2);
    let guest = synth::guest("x86_64").ok()?.ram(0..0x1_0000).ram(MEMORY.0..MEMORY.0 + MEMORY.1 as u64);
    let guest = guest.page_tables(&tables).fill(MEMORY.0, &memory[..memory.len().min(MEMORY.1)]);
    let guest = guest.vmcoreinfo(&info).vcpu(|registers| {
        for (name, value) in [("rip", rip), ("rsp", rsp), ("rbp", rbp), ("cs", 0x10)] {
            registers.set_value(name, value);
        }
    });
    Some(guest.build())
}

/// What the target `bt` begins with: a vCPU in a module of a kernel that has all that backtraces use, and one by frame pointers.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut memory = Memory(vec![0; 0x8000]);
    let info = memory.kallsyms(&[
        (0x0, "T_stext"),
        (0x100, "Tcaller"),
        (0x800, "T_etext"),
        (0x3000, "r__start_orc_unwind_ip"),
        (0x3004, "r__stop_orc_unwind_ip"),
        (0x3100, "r__start_orc_unwind"),
        (0x3106, "r__stop_orc_unwind"),
        (0x5000, "dmodules"),
        (0x6000, "R__start_BTF"),
        (0x6400, "R__stop_BTF"),
    ]);
    // All of the kernel is a function whose return address lies at its stack pointer; the module's is above two words.
    memory.words::<4>(0x3000, &[0x1_0000_0000 - 0x3000]);
    memory.words::<2>(0x3100, &[8, 0, 0x205]);
    memory.words::<4>(0x5800, &[0x7000 - 0x5800]);
    memory.words::<2>(0x5900, &[24, 0, 0x205]);
    memory.words::<8>(0x4000, &[0, 0, BASE + 0x110, 0, 0]);
    memory.btf();
    // struct module: list, name, memory, kallsyms, and the ORC tables.
    memory.words::<8>(0x5000, &[BASE + 0x5108]);
    let name = u64::from_le_bytes(*b"module\0\0");
    memory.words::<8>(0x5100, &[0, BASE + 0x5000, 0, name, 0, 0, 0, 0, 0, 0, 0, BASE + 0x7000, 0x1000]);
    memory.words::<8>(0x5100 + 0x80, &[BASE + 0x5400, 1, BASE + 0x5800, BASE + 0x5900]);
    memory.words::<8>(0x5400, &[BASE + 0x5500, 2, BASE + 0x5600, BASE + 0x5700]);
    memory.words::<8>(0x5500, &[0, 0, 0, 1, BASE + 0x7000, 0x100]);
    memory.put(0x5600, b"\0function\0");
    memory.put(0x5700, b"Ut");
    let registers = |rip, rbp| [BASE + rip, BASE + 0x4000, rbp];
    vec![
        ("module".to_owned(), input(registers(0x7010, 0), &info, &memory.0)),
        // It has no frame pointers, and what looks like one is refused.
        ("unknown-code".to_owned(), input(registers(0x900, BASE + 0x4008), &info, &memory.0)),
        ("nameless".to_owned(), input(registers(0x110, BASE + 0x4008), "", &memory.0[..0x5000])),
    ]
}

fn input(registers: [u64; 3], info: &str, memory: &[u8]) -> Vec<u8> {
    let len = u32::try_from(info.len()).unwrap_or(0);
    [&registers.map(u64::to_le_bytes).concat(), &len.to_le_bytes()[..], info.as_bytes(), memory].concat()
}

/// The kernel's memory, counted from BASE.
struct Memory(Vec<u8>);

impl Memory {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Little-endian numbers of `N` bytes each.
    fn words<const N: usize>(&mut self, at: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()[..N].to_vec()).collect();
        self.put(at, &bytes);
    }

    /// The list of these symbols, whose tokens are characters. What VMCOREINFO says of it.
    fn kallsyms(&mut self, symbols: &[(u64, &str)]) -> String {
        let (mut names, mut offsets) = (Vec::new(), Vec::new());
        for (offset, name) in symbols {
            names.push(u8::try_from(name.len()).unwrap_or(0));
            names.extend(name.bytes());
            offsets.push(*offset);
        }
        self.words::<4>(0x1000, &[symbols.len() as u64]);
        self.words::<8>(0x1008, &[BASE]);
        self.words::<4>(0x1100, &offsets);
        self.put(0x1400, &names);
        self.words::<2>(0x2000, &(0..256).map(|token| 2 * token).collect::<Vec<_>>());
        self.put(0x2200, &(0..=u8::MAX).flat_map(|token| [token, 0]).collect::<Vec<_>>());
        let places = [
            ("_stext", 0),
            ("kallsyms_num_syms", 0x1000),
            ("kallsyms_relative_base", 0x1008),
            ("kallsyms_offsets", 0x1100),
            ("kallsyms_names", 0x1400),
            ("kallsyms_token_index", 0x2000),
            ("kallsyms_token_table", 0x2200),
        ];
        places.map(|(name, offset)| format!("SYMBOL({name})={:x}\n", BASE + offset)).concat()
    }

    /// BTF of the structs by which modules are found.
    fn btf(&mut self) {
        type Members = &'static [(&'static str, u64)];
        let structs: [(&str, u64, Members); 4] = [
            (
                "module",
                0,
                &[
                    ("list", 8),
                    ("name", 24),
                    ("core_layout", 88),
                    ("init_layout", 104),
                    ("kallsyms", 128),
                    ("arch", 136),
                ],
            ),
            ("module_layout", 0, &[("base", 0), ("size", 8)]),
            ("mod_kallsyms", 0, &[("symtab", 0), ("num_symtab", 8), ("strtab", 16), ("typetab", 24)]),
            ("mod_arch_specific", 0, &[("num_orcs", 0), ("orc_unwind_ip", 8), ("orc_unwind", 16)]),
        ];
        let (mut types, mut texts) = (Vec::new(), vec![0]);
        let mut text = |name: &str| {
            let offset = texts.len() as u64;
            texts.extend(name.bytes().chain([0]));
            offset
        };
        for (name, len, members) in structs {
            types.extend([text(name), 4 << 24 | members.len() as u64, len]);
            types.extend(members.iter().flat_map(|(member, offset)| [text(member), 0, 8 * offset]));
        }
        let types_len = 4 * types.len();
        self.words::<4>(0x6000, &[0x1_eb9f, 24, 0, types_len as u64, types_len as u64, texts.len() as u64]);
        self.words::<4>(0x6018, &types);
        self.put(0x6018 + types_len, &texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that leads nowhere would be none.
    #[test]
    fn seeds_lead_through_the_module() {
        let (_, seed) = &seeds()[0];
        let machine = machine(seed).expect("it is long enough").expect("it is sound");
        let unwinder = Unwinder::new(&machine, None).expect("the architecture is linked in");
        let backtrace = unwinder.backtrace(0).expect("there is a vCPU");
        let frames = backtrace.frames.iter().map(|frame| {
            let name = frame.location.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{name} {} by {}", frame.module.as_deref().unwrap_or_default(), frame.way.name())
        });
        assert_eq!(
            frames.collect::<Vec<_>>(),
            ["function+0x10 module by registers", "caller+0x10  by orc"],
            "{:?}",
            unwinder.modules_error()
        );
    }
}
