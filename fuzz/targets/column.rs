#![no_main]
//! See `bpfrec_fuzz::column`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("column"), |data: &[u8]| bpfrec_fuzz::column(data));
