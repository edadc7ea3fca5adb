//! Recording as a user who is nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{BPFREC, STRICT, load};

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// A folder that everybody may enter, with the command in it; `nobody` may write there.
pub struct Open(pub PathBuf);

impl Open {
    /// Makes it; removed with its owner.
    pub fn new() -> Open {
        let dir = std::env::temp_dir().join(format!("bpfrec-open-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        for (from, to) in [(PathBuf::from(BPFREC), "bpfrec"), (load("burn"), "burn"), (load("leaks"), "leaks")] {
            fs::copy(from, dir.join(to)).unwrap();
        }
        std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        Open(dir)
    }

    /// Runs `bpfrec record` as `nobody` with these capabilities and no others.
    pub fn record(&self, capabilities: &[&str], args: &[&str]) -> Output {
        let list = capabilities.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
        command.args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}={list}")));
        command.arg(self.0.join("bpfrec")).arg("record").args(STRICT).args(args).current_dir(&self.0);
        command.env("dir", &self.0).output().unwrap()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
