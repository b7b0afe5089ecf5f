#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wtd_client::fuzzing::hook_state(bytes));
