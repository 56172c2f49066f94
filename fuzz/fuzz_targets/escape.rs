//! See `ftpq_fuzz_targets::escape`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ftpq_fuzz_targets::escape(data));
