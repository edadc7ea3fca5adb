//! Compiles the programs that do nothing.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=../bpf/empty.bpf.c");
    println!("cargo::rerun-if-changed=../bpf/kernel.h");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    libbpf_cargo::SkeletonBuilder::new()
        .source("../bpf/empty.bpf.c")
        .clang_args(["-I..", "-I../bpf", "-Wall", "-Werror"])
        .build_and_generate(Path::new(&out).join("empty.skel.rs"))
        .unwrap_or_else(|e| panic!("empty.bpf.c did not compile (clang and libelf-dev are needed): {e:#}"));
}
