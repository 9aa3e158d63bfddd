//! Modules that are made up: the list of them, their symbols and tables, and the BTF that says where members are.

mod guest;

use guest::Guest;
use proptest::prelude::*;
use vmcore_backtrace::{Backtrace, Unwinder};
use vmcore_core::Machine;

const CODE: u64 = 0x2000_0000;
const LIST: u64 = 0x1000_0000;
const STACK: u64 = 0x3000_0000;
const BTF: u64 = 0x1800_0000;
/// The head of the list, two modules, and where both have their symbols and tables.
const HEAD: u64 = 0x1900_0000;
const MODULES: [u64; 2] = [0x1a00_0000, 0x1b00_0000];
/// Where a module's code is.
const MEMORY: [u64; 2] = [0x4000_0000, 0x4100_0000];

/// A member: its name, where it is in bytes, the number of its type.
type Member = (&'static str, u64, u32);

/// Offsets of `struct module`, which differ from those of any kernel.
const MODULE: [Member; 5] =
    [("list", 8, 0), ("name", 24, 0), ("kallsyms", 96, 0), ("arch", 104, 0), ("mem", 128, 2)];
const OLD_MODULE: [Member; 6] = [
    ("list", 8, 0),
    ("name", 24, 0),
    ("kallsyms", 96, 0),
    ("arch", 104, 0),
    ("core_layout", 128, 0),
    ("init_layout", 152, 0),
];
const MEMORY_MEMBERS: [Member; 2] = [("base", 8, 0), ("size", 16, 0)];
const KALLSYMS: [Member; 4] = [("symtab", 0, 0), ("num_symtab", 8, 0), ("strtab", 16, 0), ("typetab", 24, 0)];
const ARCH: [Member; 3] = [("num_orcs", 0, 0), ("orc_unwind_ip", 8, 0), ("orc_unwind", 16, 0)];

/// BTF of structs, behind an integer (type 1) and an array of three elements (type 2); every second struct has bit fields.
fn btf(structs: &[(&str, u32, &[Member])]) -> Vec<u8> {
    let (mut types, mut texts) = (Vec::new(), vec![0]);
    let mut text = |name: &str| {
        let offset = u32::try_from(texts.len()).expect("it is small");
        texts.extend(name.bytes().chain([0]));
        offset
    };
    types.extend([text("int"), 1 << 24, 4, 32]);
    types.extend([0, 3 << 24, 0, 1, 1, 3]);
    for (index, (name, len, members)) in structs.iter().enumerate() {
        let has_bit_fields = index % 2;
        let info = u32::try_from(has_bit_fields << 31 | 4 << 24 | members.len()).expect("it is small");
        types.extend([text(name), info, *len]);
        for (member, offset, number) in *members {
            let width = if has_bit_fields == 1 { 8 << 24 } else { 0 };
            types.extend([text(member), *number, u32::try_from(8 * offset).expect("it is small") | width]);
        }
    }
    let types: Vec<u8> = types.into_iter().flat_map(u32::to_le_bytes).collect();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it is small");
    let header = [0x1_eb9f, 24, 0, len(&types), len(&types), len(&texts)].map(u32::to_le_bytes).concat();
    [header, types, texts].concat()
}

/// The two modules, of a kernel since 6.4 or before.
fn kernel(is_new: bool) -> Guest {
    let structs: [(&str, u32, &[Member]); 4] = [
        ("module", 256, if is_new { &MODULE } else { &OLD_MODULE }),
        ("mod_kallsyms", 32, &KALLSYMS),
        (if is_new { "module_memory" } else { "module_layout" }, 24, &MEMORY_MEMBERS),
        ("mod_arch_specific", 24, &ARCH),
    ];
    let btf = btf(&structs);
    let end = BTF + btf.len() as u64;
    let symbols = [
        (CODE, "T_stext"),
        (CODE + 0x100, "Tstart"),
        (CODE + 0x200, "T_etext"),
        (HEAD, "dmodules"),
        (BTF, "R__start_BTF"),
        (end, "R__stop_BTF"),
        (CODE + 0x1000, "r__start_orc_unwind_ip"),
        (CODE + 0x1004, "r__stop_orc_unwind_ip"),
        (CODE + 0x2000, "r__start_orc_unwind"),
        (CODE + 0x2006, "r__stop_orc_unwind"),
    ];
    let mut guest = Guest::x86_64()
        .says(&format!("SYMBOL(_stext)={CODE:x}"))
        .symbols(LIST, &symbols)
        .bytes(CODE, vec![0x90; 0x1000])
        // All of the kernel's code is the last frame, in the layout since 6.4: sp+8, call.
        .words(CODE + 0x1000, &[u64::from(0x1000_u32.wrapping_neg())])
        .words(CODE + 0x2000, &[8 | 0x205 << 32])
        .bytes(BTF, btf)
        .words(HEAD, &[MODULES[0] + 8, 0]);
    for (index, at) in MODULES.into_iter().enumerate() {
        let next = MODULES.get(index + 1).map_or(HEAD, |next| next + 8);
        let mut words = [0; 32];
        words[1] = next;
        words[3] = u64::from_le_bytes([b"first\0\0\0", b"second\0\0"].map(|name| *name)[index]);
        // kallsyms; arch: one entry; memory: the first piece of an array, or the second of two.
        (words[12], words[13], words[14], words[15]) = (at + 0x1000, 1, at + 0x3000, at + 0x4000);
        let memory = 16 + if index == 0 { 0 } else { 3 };
        (words[memory + 1], words[memory + 2]) = (MEMORY[index], 0x1000);
        // Symbols: none, `function` at 0x100, and data at the same place.
        let symbols = [[0; 3], [1, MEMORY[index] + 0x100, 0x80], [10, MEMORY[index] + 0x100, 8]].concat();
        let entry = (MEMORY[index] - at - 0x3000) & 0xffff_ffff;
        let mut block = vec![0; 0x5000];
        let mut put = |place: usize, bytes: &[u8]| block[place..place + bytes.len()].copy_from_slice(bytes);
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        put(0, &bytes(&words));
        put(0x1000, &bytes(&[at + 0x1100, 3, at + 0x1200, at + 0x1300]));
        put(0x1100, &bytes(&symbols));
        put(0x1200, b"\0function\0data\0");
        put(0x1300, b"Utd");
        put(0x3000, &bytes(&[entry]));
        // sp+16, call
        put(0x4000, &bytes(&[16 | 0x205 << 32]));
        guest = guest.bytes(at, block).bytes(MEMORY[index], vec![0x90; 0x1000]);
    }
    guest
}

/// It stands in the second module, which the first has called.
fn machine(guest: Guest) -> Machine {
    guest
        .register("rip", MEMORY[1] + 0x110)
        .register("cs", 0x10)
        .register("rsp", STACK)
        .words(STACK, &[0, MEMORY[0] + 0x180, 0, CODE + 0x110, 0])
        .machine()
}

fn backtrace(machine: &Machine) -> (Backtrace, Option<String>) {
    let unwinder = Unwinder::new(machine, None).expect("the architecture can do it");
    let backtrace = unwinder.backtrace(0).expect("there is a vCPU");
    (backtrace, unwinder.modules_error().map(ToString::to_string))
}

#[test]
fn modules_are_walked_through_and_named() {
    for is_new in [false, true] {
        let (backtrace, error) = backtrace(&machine(kernel(is_new)));
        assert_eq!(error, None);
        let line = |frame: &vmcore_backtrace::Frame| {
            let name = frame.location.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{name} [{}] by {}", frame.module.as_deref().unwrap_or_default(), frame.way.name())
        };
        let found: Vec<String> = backtrace.frames.iter().map(line).collect();
        let frames =
            ["function+0x10 [second] by registers", "function+0x80 [first] by orc", "start+0x10 [] by orc"];
        assert_eq!(found, frames, "is_new: {is_new}");
        assert_eq!(backtrace.end.to_string(), "the outermost frame");
    }
}

#[test]
fn what_is_missing_is_said() {
    let machine = Guest::x86_64()
        .says(&format!("SYMBOL(_stext)={CODE:x}"))
        .symbols(LIST, &[(CODE, "T_stext"), (CODE + 0x100, "T_etext"), (HEAD, "dmodules")])
        .bytes(CODE, vec![0x90; 0x1000])
        .bytes(MEMORY[1], vec![0x90; 0x1000]);
    let (backtrace, error) = backtrace(&self::machine(machine));
    assert_eq!(error.as_deref(), Some("the kernel's symbols have no __start_BTF"));
    assert_eq!(backtrace.frames[0].location, None);
}

proptest! {
    /// Whatever lies where modules are, reading them ends.
    #[test]
    fn any_modules_are_read_to_an_end(
        is_new in any::<bool>(),
        flips in prop::collection::vec((0..8_usize, 0..0x400_u64, any::<u8>()), 1..8),
    ) {
        let mut machine = machine(kernel(is_new));
        let bases = [BTF, HEAD, MODULES[0], MODULES[0] + 0x1000, MODULES[0] + 0x1100, MODULES[0] + 0x3000,
            MODULES[0] + 0x4000, STACK];
        guest::change(&mut machine, flips.into_iter().map(|(base, place, byte)| (bases[base] + place, byte)));
        backtrace(&machine);
    }
}
