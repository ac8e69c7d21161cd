//! See `egress_tests::fuzzing::ring_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_tests::fuzzing::ring_record(data));
