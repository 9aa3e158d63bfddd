//! What was packed comes back, liblzo2's blocks expand, and no block does harm.
//!
//! liblzo2 itself expands every page of a real guest that we packed, and the reverse, in `cargo xtask e2e plain-kdump-lzo`.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes in which no four come twice soon.
fn noise(len: usize) -> Vec<u8> {
    let next = |x: &u32| Some(x.wrapping_mul(1_103_515_245).wrapping_add(12345));
    std::iter::successors(next(&1), next).map(|x| x.to_be_bytes()[0]).take(len).collect()
}

/// Noise, and then copies from distances at the edges of the instructions and between, or more noise where the distance is 0.
fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let near = prop_oneof![Just(0), 1..20_usize, 1..=NEAR, NEAR - 1..NEAR + 3];
    let beyond = prop_oneof![NEAR..=MIDDLE, MIDDLE - 1..MIDDLE + 3, MIDDLE..=FAR, FAR - 1..FAR + 3];
    let len = prop_oneof![1..20_usize, 20..60_usize, 200..600_usize, 4000..5000_usize];
    let start = prop_oneof![0..300_usize, 0..60_000_usize];
    let parts = prop::collection::vec((prop_oneof![near, beyond], len), 0..20);
    (start, parts).prop_map(|(start, parts)| {
        let mut input = noise(start);
        for (distance, len) in parts {
            for fresh in noise(len) {
                let copied = input.len().checked_sub(distance).and_then(|from| input.get(from));
                input.push(copied.copied().unwrap_or(fresh));
            }
        }
        input
    })
}

/// Packs `input` and looks that it comes back.
fn pack(input: &[u8]) -> Vec<u8> {
    let mut block = vec![0; input.len() + input.len() / MORE + 8];
    let len = Encoder::new().encode(input, &mut block).unwrap();
    block.truncate(len);
    check(&block, input);
    block
}

fn check(block: &[u8], input: &[u8]) {
    let mut back = vec![0xa5; input.len()];
    assert_eq!(decode(block, &mut back), Ok(()));
    assert!(back == input);
}

proptest! {
    #[test]
    fn inputs_come_back_from_their_whole_blocks_only(input in inputs(), at: Index) {
        let block = pack(&input);
        let expand = |block: &[u8], len| decode(block, &mut vec![0; len]);
        prop_assert!(expand(&block[..at.index(block.len())], input.len()).is_err());
        prop_assert!(expand(&[&block[..], &[0]].concat(), input.len()).is_err());
        prop_assert!(expand(&block, input.len() + 1).is_err());
        prop_assert!(input.is_empty() || expand(&block, input.len() - 1).is_err());
    }

    #[test]
    fn blocks_depend_on_their_input_only(before in inputs(), input in inputs(), at: Index) {
        let block = pack(&input);
        let mut encoder = Encoder::new();
        encoder.encode(&before, &mut vec![0; before.len()]);
        let mut out = vec![0xa5; block.len()];
        prop_assert_eq!(encoder.encode(&input, &mut out[..at.index(block.len())]), None);
        prop_assert_eq!(encoder.encode(&input, &mut out), Some(block.len()));
        prop_assert!(out == block);
    }

    #[test]
    fn damaged_blocks_do_no_harm(input in inputs(), damage: Vec<(Index, u8)>) {
        let mut block = pack(&input);
        for (at, byte) in damage {
            let at = at.index(block.len());
            block[at] = byte;
        }
        if let Err(error) = decode(&block, &mut vec![0; input.len()]) {
            prop_assert!(error.offset <= block.len());
        }
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(literals in 1..6_u8, bytes: Vec<u8>, len in 0..5000_usize) {
        let mut out = vec![0; len];
        let _ = decode(&bytes, &mut out);
        let start = vec![17 + literals; 1 + usize::from(literals)];
        let _ = decode(&[start, bytes].concat(), &mut out);
    }
}

#[test]
fn inputs_of_all_lengths_come_back() {
    for len in (0..=300).chain([4096, 65536, 1 << 20]) {
        pack(&noise(len));
        pack(&vec![0; len]);
        pack(&b"abcdefghijklmno".repeat(len / 15 + 1)[..len]);
    }
}

#[test]
fn copies_reach_as_far_as_the_format_can() {
    let rows = [(NEAR, 2), (NEAR + 1, 3), (MIDDLE, 3), (MIDDLE + 1, 3), (FAR, 3), (FAR + 1, 9)];
    for (distance, len) in rows {
        let mut input = noise(8);
        input.resize(distance, 0);
        let before = pack(&input).len();
        input.extend(noise(8));
        assert_eq!(pack(&input).len() - before, len, "{distance:#x}");
    }
}

/// Blocks of Debian's liblzo2 2.10: of `lzo1x_1_compress`, and two of `lzo1x_999_compress` with copies of two and three bytes.
#[test]
fn blocks_of_liblzo2_expand() {
    let check = |input: &[u8], block: &str| {
        let bytes = (0..block.len()).step_by(2).map(|at| u8::from_str_radix(&block[at..at + 2], 16));
        check(&bytes.collect::<Result<Vec<u8>, _>>().unwrap(), input);
    };
    let shells = b"she sells sea shells by the sea shore; the shells she sells are sea shells, for sure";
    let three = [&b"abc"[..], &[0; 2100], b"wxyzabc12345"].concat();
    let far = [noise(20), vec![0; 17000], noise(42)].concat();
    let zeros = "00".repeat(66);
    check(b"", "110000");
    check(
        &[0; 4096],
        "02000000000020000000000000000000000000000000da10000c000000000000000000000000000000110000",
    );
    check(
        shells,
        "0d7368652073656c6c7320736561207368880103627920746865c402016f72653bb801b00328c6006172ec040b\
         656c6c732c20666f722073757265110000",
    );
    check(
        shells,
        "1a7368652073656c6c73560061205401680101627920749c026402016f72653bb801b00328c70061726529d7002c\
         20660b0a2073750005110000",
    );
    check(&three, "15616263002000000000000000e6000020120000017778797a080e023132333435110000");
    check(
        &far,
        &format!(
            "0003419627c4f995d99cbf0f0a3123af7dc4e2d2e2e30020{zeros}880000100bf0090004e99350282c7542b34\
             de4f7efee56e1ca31ad9969b53b110000"
        ),
    );
}

#[test]
fn what_is_wrong_is_told() {
    let check = |block: &[u8], len: usize, expected: &str| {
        let error = decode(block, &mut vec![0; len]).unwrap_err();
        assert_eq!(error.to_string(), format!("the block {expected}"), "{block:x?}");
    };
    check(b"", 0, "is cut off at offset 0x0");
    check(b"\x16hel", 5, "is cut off at offset 0x1");
    check(b"\x12a\x11\0", 1, "is cut off at offset 0x4");
    check(b"\x13ab\x11\0\0", 1, "expands to too much at offset 0x1");
    check(b"\x13ab\x11\0\0", 3, "expands to too little at offset 0x6");
    check(b"\x12a\x11\0\0\0", 1, "ends early at offset 0x5");
    check(b"\x12a\x40\x01\x11\0\0", 4, "copies what is before its start at offset 0x4");
    check(b"\x12a\x20\0\0\0\0\0\0", 600, "expands to too much at offset 0x6");
}
