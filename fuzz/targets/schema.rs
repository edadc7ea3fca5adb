#![no_main]
//! See `bpfrec_fuzz::schema`.
libfuzzer_sys::fuzz_target!(init: bpfrec_fuzz::seeds::write_if_asked("schema"), |data: &[u8]| bpfrec_fuzz::schema(data));
