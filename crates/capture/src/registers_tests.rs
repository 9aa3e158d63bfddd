use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const REAL_MODE: &str = include_str!("../tests/data/registers-7.2-real-mode.txt");
/// A guest of tests/guests whose registers spell their names; QEMU 7.2 with AVX.
const LONG_MODE: &str = include_str!("../tests/data/registers-7.2-long-mode.txt");

/// Registers by name, as numbers in hex.
fn registers(cpu: &CpuText) -> BTreeMap<String, String> {
    let number = |value: &[u8]| value.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
    cpu.registers.iter().map(|(name, value)| (name.clone(), number(value))).collect()
}

fn check(cpu: &CpuText, expected: &[(&str, &str)]) {
    let found = registers(cpu);
    for (name, value) in expected {
        assert_eq!(found.get(*name).map(String::as_str), Some(*value), "{name}");
    }
}

#[test]
fn a_long_mode_guest_of_qemu_7_2() {
    let cpus = parse(LONG_MODE);
    assert_eq!(cpus.len(), 1);
    check(
        &cpus[0],
        &[
            ("efer", "0000000000000d01"),
            ("dr0", "ffff8800d0d0d0d0"),
            ("dr6", "00000000ffff4ff5"),
            ("dr7", "00000000fb730700"),
            ("fcw", "000000000000027f"),
            ("fsw", "0000000000001000"),
            ("ftw", "00000000000000fc"),
            ("mxcsr", "0000000000005fa5"),
            // The top of the stack is register 2: it spells st0.
            ("st0", "4000b07570633a307473"),
            ("st5", "4005b07570633a357473"),
            ("st6", "00000000000000000000"),
            ("xmm0", "69683a307570632d6f6c3a30306d6d78"),
            ("ymmh0", "69683a307570632d6f6c3a30306d6d79"),
            ("ymmh15", "69683a307570632d6f6c3a35316d6d79"),
        ],
    );
    assert!(cpus[0].known.contains(&("rip", 0xffff_ffff_800f_039d)));
    assert!(cpus[0].known.contains(&("cr3", 0x1_0018)));
    assert_eq!(registers(&cpus[0]).get(UNPRINTED), None);
}

#[test]
fn two_cpus_in_real_and_protected_mode() {
    let cpus = parse(REAL_MODE);
    assert_eq!(cpus.len(), 2);
    for cpu in &cpus {
        check(
            cpu,
            &[("efer", "0000000000000000"), ("fcw", "000000000000037f"), ("mxcsr", "0000000000001f80")],
        );
        let found = registers(cpu);
        assert!(found.contains_key("xmm7") && !found.contains_key("xmm8"), "32-bit code shows 8 of them");
    }
    assert_eq!(
        cpus[1].known,
        [("rsp", 0x6c5c), ("esp", 0x6c5c), ("rip", 0xfd09a), ("eip", 0xfd09a), ("cr3", 0)]
    );
    assert_eq!(parse(&REAL_MODE.replace('\n', "\r\n")), cpus);
}

#[test]
fn wide_vectors_are_cut_into_what_the_table_has() {
    let text = "\r\nCPU#0\r\nOpmask00=000000000000000f Opmask01=0000000000000001\r\n\
        ZMM03=8888888888888888 7777777777777777 6666666666666666 5555555555555555 4444444444444444 3333333333333333 2222222222222222 1111111111111111\r\n\
        ZMM16=0000000000000008 0000000000000007 0000000000000006 0000000000000005 0000000000000004 0000000000000003 0000000000000002 0000000000000001\r\n\
        XMM05=000000000000000a 000000000000000b XMM06=00 01\r\n";
    let cpu = &parse(text)[0];
    check(
        cpu,
        &[
            ("k0", "000000000000000f"),
            ("k1", "0000000000000001"),
            ("xmm3", "22222222222222221111111111111111"),
            ("ymmh3", "44444444444444443333333333333333"),
            ("zmmh3", "8888888888888888777777777777777766666666666666665555555555555555"),
            ("xmm5", "000000000000000a000000000000000b"),
        ],
    );
    let found = registers(cpu);
    assert_eq!(found.get("zmm16").map(String::len), Some(128));
    assert!(!found.contains_key("xmm6"), "what is cut off is not known");
}

#[test]
fn other_texts_have_no_registers() {
    assert_eq!(parse("unknown command: 'info registers'\r\n"), []);
    let aarch64 = "CPU#0\n PC=ffff800080f5c3a4 X00=0000000000000000 X01=00\nPSTATE=60000005 -ZC- NS EL1h\n";
    assert_eq!(parse(aarch64), [CpuText::default()]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(
        text: String,
        words in prop::collection::vec("(CPU#0\n|FSW=[0-9a-f]{1,5} |(FPR|XMM|YMM|ZMM|Opmask|DR|CR)[0-9]{0,3}=([0-9a-f]{0,17} ){0,9}|\n|=)", 0..20),
    ) {
        let _ = parse(&text);
        let _ = parse(&format!("CPU#0\n{}", words.concat()));
    }
}
