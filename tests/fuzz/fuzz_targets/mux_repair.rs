#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| recorder_core::mux::fuzz_scan(data));
