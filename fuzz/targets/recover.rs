#![no_main]
//! See `bpfrec_fuzz::recover`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("recover"), |data: &[u8]| bpfrec_fuzz::recover(data));
