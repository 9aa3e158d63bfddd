use super::*;
use crate::RegisterFile;

fn registers(arch: &str) -> RegisterFile {
    RegisterFile::new(arch::by_name(arch).expect("it is linked in").registers())
}

#[test]
fn general_registers_have_their_names() {
    let regs = kvm_regs { rax: 1, r15: 2, rip: 3, rflags: 4, rsp: 5, ..Default::default() };
    let mut of_64 = registers("x86_64");
    regs.copy_to(&mut of_64);
    assert_eq!(
        ["rax", "r15", "rip", "rflags", "rsp"].map(|name| of_64.value(name)),
        [1, 2, 3, 4, 5].map(Some)
    );
    let mut of_32 = registers("i386");
    regs.copy_to(&mut of_32);
    assert_eq!(["eax", "eip", "eflags", "esp"].map(|name| of_32.value(name)), [1, 3, 4, 5].map(Some));
    assert_eq!((of_64.iter().count(), of_32.iter().count()), (18, 10));
}

#[test]
fn a_segment_has_the_attributes_of_its_descriptor() {
    let code = kvm_segment {
        selector: 0x10,
        limit: 0xffff_ffff,
        base: 0x1000,
        type_: 0xb,
        s: 1,
        present: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let gdt = kvm_dtable { base: 0x5000, limit: 0x7f, ..Default::default() };
    let unusable = kvm_segment { unusable: 1, present: 1, selector: 0x28, ..Default::default() };
    let mut registers = registers("x86_64");
    kvm_sregs { cs: code, tr: code, ldt: unusable, gdt, cr3: 0x1234_5000, ..Default::default() }
        .copy_to(&mut registers);
    // What Linux has in its descriptor of 64-bit code.
    let rows = [
        ("cs", 0x10),
        ("cs_base", 0x1000),
        ("cs_limit", 0xffff_ffff),
        ("cs_attr", 0xa0_9b00),
        ("tr_selector", 0x10),
        ("ldt_selector", 0x28),
        ("ldt_attr", 0),
        ("gdt_base", 0x5000),
        ("gdt_limit", 0x7f),
        ("cr3", 0x1234_5000),
    ];
    for (name, value) in rows {
        assert_eq!(registers.value(name), Some(value), "{name}");
    }
}

/// What is changed in the registers is what the ioctls set; all else stays.
#[test]
fn structures_take_registers_back() {
    let code = kvm_segment {
        selector: 0x10,
        limit: 7,
        type_: 0xb,
        s: 1,
        present: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let unusable = kvm_segment { unusable: 1, selector: 0x28, dpl: 3, ..Default::default() };
    let sregs =
        kvm_sregs { cs: code, ldt: unusable, cr3: 0x1000, interrupt_bitmap: [5; 4], ..Default::default() };
    let regs = kvm_regs { rax: 1, rip: 2, ..Default::default() };
    let fpu = kvm_fpu { xmm: [[3; 16]; 16], mxcsr: 0x1f80, ..Default::default() };
    for arch in ["x86_64", "i386"] {
        let mut file = registers(arch);
        regs.copy_to(&mut file);
        sregs.copy_to(&mut file);
        fpu.copy_to(&mut file);
        let (mut new_regs, mut new_sregs, mut new_fpu) = (regs, sregs, fpu);
        new_regs.copy_from(&file);
        new_sregs.copy_from(&file);
        new_fpu.copy_from(&file);
        assert_eq!((new_regs, new_sregs, new_fpu), (regs, sregs, fpu), "{arch}");

        let (rax, fs) = if arch == "x86_64" { ("rax", "fs_base") } else { ("eax", "fs_base") };
        for (name, value) in
            [(rax, 0x77), (fs, 0x5000), ("cr4", 0x20), ("cs_attr", 0xc0_9300), ("mxcsr", 0x1fa0)]
        {
            assert!(file.set_value(name, value), "{name}");
        }
        new_regs.copy_from(&file);
        new_sregs.copy_from(&file);
        new_fpu.copy_from(&file);
        let cs = kvm_segment { type_: 3, db: 1, l: 0, ..code };
        let fs = kvm_segment { base: 0x5000, ..sregs.fs };
        assert_eq!(new_regs, kvm_regs { rax: 0x77, ..regs });
        assert_eq!(new_sregs, kvm_sregs { cs, fs, cr4: 0x20, ..sregs });
        assert_eq!(new_fpu, kvm_fpu { mxcsr: 0x1fa0, ..fpu });
        kvm_regs::default().copy_from(&registers(arch));
    }
}

#[test]
fn every_msr_is_in_the_table() {
    let entries =
        MSRS.map(|(index, _)| kvm_msr_entry { index, data: u64::from(index), ..Default::default() });
    let mut registers = registers("x86_64");
    entries.copy_to(&mut registers);
    for (index, name) in MSRS {
        assert_eq!(registers.value(name), Some(index.into()), "{name}");
    }
}

/// An area with x87, SSE, AVX and PKRU, the latter at `pkru_at`.
fn area(pkru_at: usize) -> kvm_xsave {
    let mut bytes = [0_u8; 4096];
    bytes[..2].copy_from_slice(&[0x7f, 3]); // FCW
    bytes[24..28].copy_from_slice(&0x1fa0_u32.to_le_bytes()); // MXCSR
    bytes[160..176].fill(1); // XMM0
    bytes[464..472].fill(0xff); // what the host has
    bytes[512..520].copy_from_slice(&0x207_u64.to_le_bytes()); // XSTATE_BV
    bytes[576..592].fill(2); // YMM0, upper half
    bytes[pkru_at..pkru_at + 4].copy_from_slice(&0x5555_5554_u32.to_le_bytes());
    let (words, _) = bytes.as_chunks::<4>();
    let mut area = kvm_xsave::default();
    for (word, bytes) in zip(&mut area.region, words) {
        *word = u32::from_le_bytes(*bytes);
    }
    area
}

fn xcrs(xcr0: u64) -> kvm_xcrs {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = xcr0;
    xcrs
}

#[test]
fn components_that_the_guest_has_not_enabled_are_not_known() {
    let mut registers = registers("x86_64");
    Xsave { area: &area(2688), xcrs: &xcrs(1), cpuid: &[] }.copy_to(&mut registers);
    let names = ["xmm0", "ymmh0", "k1", "pkru", "xcr0"];
    let expected = [Some(0x0101_0101_0101_0101), None, None, None, Some(1)];
    assert_eq!(names.map(|name| registers.value(name)), expected);
}

#[test]
fn components_are_where_cpuid_says() {
    let amd = [kvm_cpuid_entry2 { function: 0xd, index: 9, eax: 8, ebx: 2432, ..Default::default() }];
    for (pkru_at, cpuid) in [(2688, &[][..]), (2432, &amd)] {
        let mut registers = registers("x86_64");
        Xsave { area: &area(pkru_at), xcrs: &xcrs(0x207), cpuid }.copy_to(&mut registers);
        let rows = [
            ("fcw", 0x37f),
            ("mxcsr", 0x1fa0),
            ("xmm0", 0x0101_0101_0101_0101),
            ("ymmh0", 0x0202_0202_0202_0202),
            ("pkru", 0x5555_5554),
            ("xcr0", 0x207),
        ];
        for (name, value) in rows {
            assert_eq!(registers.value(name), Some(value), "{name}");
        }
    }
}

#[test]
fn floating_point_and_debug_registers() {
    let mut fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    fpu.fpr[7] = [7; 16];
    fpu.xmm[15] = [15; 16];
    let mut registers = registers("x86_64");
    fpu.copy_to(&mut registers);
    kvm_debugregs { db: [1, 2, 3, 4], dr6: 6, dr7: 7, ..Default::default() }.copy_to(&mut registers);
    let get = |name| registers.get(registers.table().find(name).unwrap()).unwrap();
    assert_eq!((get("st7"), get("xmm15")), (&[7; 10][..], &[15; 16][..]));
    assert_eq!(["dr0", "dr3", "dr6", "dr7"].map(|name| registers.value(name)), [1, 4, 6, 7].map(Some));
}
