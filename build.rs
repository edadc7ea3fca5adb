//! Compiles `bpf/*.bpf.c` into skeletons when the recorder is built. The analyzer needs neither clang nor libbpf.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(recorder)");
    #[cfg(all(feature = "record", target_os = "linux"))]
    skeletons();
}

#[cfg(all(feature = "record", target_os = "linux"))]
fn skeletons() {
    use std::path::Path;

    println!("cargo::rustc-cfg=recorder");
    println!("cargo::rerun-if-changed=bpf");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    for source in ["task", "sched", "offcpu", "block", "profile", "kmem", "malloc", "pids"] {
        let from = format!("bpf/{source}.bpf.c");
        if !Path::new(&from).exists() {
            continue;
        }
        libbpf_cargo::SkeletonBuilder::new()
            .source(&from)
            .clang_args(["-Ibpf", "-Wall", "-Werror", "-Wno-unused-function"])
            .build_and_generate(Path::new(&out).join(format!("{source}.skel.rs")))
            .unwrap_or_else(|e| panic!("{from} did not compile (clang and libelf-dev are needed): {e:#}"));
    }
}
