//! The corpus that fuzzing keeps, what once broke something, and what fuzzing begins with: each input through its target, and every
//! trace through all that take files.

use std::fs;
use std::path::{Path, PathBuf};

use bpfrec_fuzz::{TARGETS, seeds};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found
}

#[test]
fn nothing_that_is_kept_breaks_anything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, target) in TARGETS {
        let mut inputs: Vec<(String, Vec<u8>)> = Vec::new();
        let kept = [root.join("fuzz/corpus").join(name), root.join("testdata/broken").join(name)];
        let mut paths: Vec<PathBuf> = kept.iter().flat_map(|dir| files(dir)).collect();
        if matches!(name, "block" | "recover" | "reports") {
            paths.extend(files(&root.join("testdata/broken")));
        }
        inputs.extend(paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())));
        inputs.extend(seeds::of(name).into_iter().enumerate().map(|(i, bytes)| (format!("seed {i} of {name}"), bytes)));
        println!("{name}: {} inputs", inputs.len());
        assert!(inputs.len() >= 10, "{name} has nothing to begin with");
        for (what, input) in inputs {
            // Says which it was: the panic itself has been shown.
            assert!(std::panic::catch_unwind(|| target(&input)).is_ok(), "{name} broke with {what}");
        }
    }
}
