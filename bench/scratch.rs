//! A folder for traces and loads, gone with its owner.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The folder.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one in `dir`, which should be on a real disk.
    pub fn new(dir: &Path) -> Result<Scratch> {
        let path = dir.join(format!("bench.{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path.canonicalize()?))
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in it that is not there yet: what an earlier round left is removed.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = std::fs::remove_file(&path);
        path
    }

    /// A program of `bench/load`, compiled once.
    pub fn load(&self, name: &str) -> Result<PathBuf> {
        let (binary, source) = (self.path(name), root().join("bench/load").join(format!("{name}.c")));
        if !binary.exists() {
            let mut cc = Command::new("cc");
            process::run(cc.args(["-O2", "-pthread", "-o"]).arg(&binary).arg(&source))?.ok()?;
        }
        Ok(binary)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The repository that this was built from.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
