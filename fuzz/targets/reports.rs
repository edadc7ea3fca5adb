#![no_main]
//! See `bpfrec_fuzz::reports`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("reports"), |data: &[u8]| bpfrec_fuzz::reports(data));
