//! See `egress_tests::fuzzing::dns_message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_tests::fuzzing::dns_message(data));
