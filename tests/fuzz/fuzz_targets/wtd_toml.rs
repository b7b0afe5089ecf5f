#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wtd::fuzzing::wtd_toml(bytes));
