#![no_main]
//! See `bpfrec_fuzz::block`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("block"), |data: &[u8]| bpfrec_fuzz::block(data));
