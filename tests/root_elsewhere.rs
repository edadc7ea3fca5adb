//! Needs root: the file alone names the frames, where no binary of this host can be seen.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;

/// A folder to be the root of a process that has nothing but bpfrec, the libraries that itself needs, out of their usual
/// place, and the trace.
fn jail(scratch: &Scratch, trace: &Path) -> PathBuf {
    let jail = scratch.path("jail");
    fs::create_dir_all(jail.join("own")).unwrap();
    fs::copy(trace, jail.join("t.bpr")).unwrap();
    let bpfrec = Path::new(env!("CARGO_BIN_EXE_bpfrec"));
    let libraries = Command::new("ldd").arg(bpfrec).output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for path in paths.chain([bpfrec]) {
        fs::copy(path, jail.join("own").join(path.file_name().unwrap())).unwrap();
    }
    jail
}

/// `bpfrec report profile -f` in the jail: folded lines.
fn folded_in(jail: &Path) -> Vec<(String, u64)> {
    let loader = fs::read_dir(jail.join("own")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let loader = loader.into_iter().find(|name| name.starts_with("ld-linux")).expect("a loader");
    let output = Command::new("/usr/sbin/chroot")
        .args([jail.as_os_str(), format!("/own/{loader}").as_ref()])
        .args(["--library-path", "/own", "/own/bpfrec", "report", "profile", "/t.bpr", "-f"])
        .env_clear()
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let line = |line: &str| line.rsplit_once(' ').map(|(stack, n)| (stack.to_owned(), n.parse().unwrap()));
    out.lines().filter_map(line).collect()
}

#[test]
fn root_frames_are_named_where_no_binary_of_the_host_is() {
    let test = "names elsewhere";
    let Some(_alone) = alone_as_root(test) else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/load/spinner.rs");
    let rustc = Command::new("rustc")
        .args(["--edition", "2024", "-O", "-C", "force-frame-pointers=yes", "-o"])
        .args([scratch.path("spinner").as_os_str(), source.as_ref()])
        .status();
    assert!(rustc.unwrap().success(), "rustc {source}");
    fs::write(
        scratch.path("work.js"),
        "function collatz_elsewhere(n) { let k = 0; while (n !== 1) { n = n % 2 ? 3 * n + 1 : n / 2; k++; } return k; }\n\
         const end = Date.now() + 2500; while (Date.now() < end) for (let i = 1; i < 9999; i++) collatz_elsewhere(i);\n",
    )
    .unwrap();
    let node = Command::new("node").arg("--version").output().is_ok();
    if !node {
        skip("Node elsewhere", "no node here");
    }
    let script = format!(
        "{burn} 2 & \"$dir/spinner\" 2 &
         {js}
         wait
         rm \"$dir/spinner\"",
        burn = load("burn").display(),
        js = if node {
            "(cd \"$dir\"; node --perf-basic-prof --no-turbo-inlining work.js & wait; rm -f /tmp/perf-$!.map)"
        } else {
            ""
        },
    );
    record_while(&scratch, &trace, &["-e", "profile", "-F", "999"], &script);

    let folded = folded_in(&jail(&scratch, &trace));
    let samples = |process: &str, frame: &str| -> u64 {
        let mine = folded.iter().filter(|(stack, _)| {
            let mut frames = stack.split(';');
            frames.next().is_some_and(|comm| comm.starts_with(process)) && frames.any(|f| f.starts_with(frame))
        });
        mine.map(|(_, n)| n).sum()
    };
    // A C program, a Rust program with its names demangled, the C library's exported functions, the kernel.
    for (process, frame) in [
        ("burn", "burn_seventy"),
        ("burn", "burn_thirty"),
        ("spinner", "spinner::work::crunch"),
        ("spinner", "random"),
        ("spinner", "vfs_read"),
    ] {
        assert!(samples(process, frame) >= 50, "{process};{frame}: {} of {folded:#?}", samples(process, frame));
    }
    if node {
        let found: u64 = folded.iter().filter(|(s, _)| s.contains("collatz_elsewhere")).map(|(_, n)| n).sum();
        assert!(found >= 50, "collatz_elsewhere: {found} of {folded:#?}");
    }
}

/// Compiles `source` of tests/load with other names of its functions, and with a build id of its own: the linker's does not
/// depend on names.
fn compile(scratch: &Scratch, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let binary = scratch.path(name);
    let id: String = name.bytes().cycle().take(20).map(|b| format!("{b:02x}")).collect();
    let status = Command::new("cc")
        .args(["-O1", "-fno-omit-frame-pointer", &format!("-Wl,--build-id=0x{id}"), "-o"])
        .arg(&binary)
        .arg(format!("{}/tests/load/{source}.c", env!("CARGO_MANIFEST_DIR")))
        .args(options)
        .status();
    assert!(status.unwrap().success(), "cc {source}");
    binary
}

#[test]
fn root_what_is_gone_is_named_rightly_and_never_by_another() {
    let Some(_alone) = alone_as_root("names of what is gone") else { return };
    let scratch = Scratch::new();
    let trace = scratch.path("t.bpr");
    let as_names = |who: &str| ["seventy", "thirty"].map(|part| format!("-Dburn_{part}={who}_{part}"));
    for (name, who) in [("prog", "host"), ("other", "container")] {
        let names = as_names(who);
        compile(&scratch, name, "burn", &[&names[0], &names[1]]);
    }
    for name in ["alpha", "gamma"] {
        compile(&scratch, name, "library", &["-shared", "-fPIC", &format!("-DNAME={name}_work")]);
    }
    compile(&scratch, "reload", "reload", &["-ldl"]);
    let group = format!("bpfrec-container-{}", std::process::id());
    // A container: namespaces of its own, another program at the same path; all of it is removed before the stop. Then the
    // shell becomes a program that loads a library in another one's place.
    let script = format!(
        r#"mkdir {mount}/{group}
        "$dir/prog" 1.5 >/dev/null &
        sh -euc 'echo $$ >{mount}/{group}/cgroup.procs
                 exec unshare --pid --fork --mount --cgroup sh -euc "mount --bind $dir/other $dir/prog; exec $dir/prog 1.5"' >/dev/null
        wait
        rmdir {mount}/{group}
        rm "$dir/prog" "$dir/other"
        exec "$dir/reload" "$dir/alpha" alpha_work "$dir/gamma" gamma_work >/dev/null"#,
        mount = cgroup_mount().display(),
    );
    record_while(&scratch, &trace, &["-e", "profile", "-F", "999"], &script);
    for name in ["reload", "alpha", "gamma"] {
        fs::remove_file(scratch.path(name)).unwrap();
    }

    let all = folded(&trace, &["--trace-only"]);
    let group = format!("/{group}");
    let inside = folded(&trace, &["--trace-only", "--cgroup", &group]);
    for function in ["host_seventy", "host_thirty", "container_seventy", "container_thirty", "alpha_work", "gamma_work"]
    {
        let found = samples_in(&all, function);
        assert!(found >= 50, "{function}: {found} of {all:#?}");
        let expected = if function.starts_with("container") { found } else { 0 };
        assert_eq!(samples_in(&inside, function), expected, "{function} in the container: {inside:#?}");
    }
    // One process ran the shell, then reload: no stack mixes their functions, or those of two libraries.
    for (frames, _) in &all {
        let has = |name: &str| frames.iter().any(|f| f == name);
        assert!(!(has("alpha_work") && has("gamma_work")), "{frames:?}");
        assert!(frames[0] == "reload" || !(has("alpha_work") || has("gamma_work")), "{frames:?}");
    }
}
