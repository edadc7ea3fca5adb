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
    let build = |source: &str, variant: &str, define: &[&str]| {
        let from = format!("bpf/{source}.bpf.c");
        libbpf_cargo::SkeletonBuilder::new()
            .source(&from)
            .clang_args(["-Ibpf", "-Wall", "-Werror", "-Wno-unused-function"].iter().chain(define))
            .build_and_generate(Path::new(&out).join(format!("{source}{variant}.skel.rs")))
            .unwrap_or_else(|e| panic!("{from} did not compile (clang and libelf-dev are needed): {e:#}"));
    };
    for source in ["task", "sched", "offcpu", "block", "profile", "kmem", "malloc", "pids"] {
        build(source, "", &[]);
    }
    // Once more for kernels without types of their own, which have raw tracepoints only. Those of kmem are such anyway.
    for source in ["task", "sched", "block", "profile", "malloc"] {
        build(source, "_raw", &["-DRAW_TP"]);
    }
}
