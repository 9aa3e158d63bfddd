#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmcore_tests::hostile::read("vmlinux", bytes));
