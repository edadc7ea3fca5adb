#![no_main]
//! See `bpfrec_fuzz::meta`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("meta"), |data: &[u8]| bpfrec_fuzz::meta(data));
