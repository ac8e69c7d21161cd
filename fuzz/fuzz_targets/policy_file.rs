//! See `egress_tests::fuzzing::policy_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_tests::fuzzing::policy_file(data));
