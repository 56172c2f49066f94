//! See `ftpq_fuzz_targets::link_target`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ftpq_fuzz_targets::link_target(data));
