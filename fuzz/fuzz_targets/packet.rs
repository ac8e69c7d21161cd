//! See `egress_tests::fuzzing::packet`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_tests::fuzzing::packet(data));
