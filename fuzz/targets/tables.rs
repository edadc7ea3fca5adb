#![no_main]
//! See `bpfrec_fuzz::tables`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("tables"), |data: &[u8]| bpfrec_fuzz::tables(data));
