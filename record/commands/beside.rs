//! Writes results beside what is there, so that an older file stands until the new one is whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Refuses an output that is the trace itself, or that exists and may not be replaced.
pub fn may_write(trace: &Path, output: &Path, force: bool) -> anyhow::Result<()> {
    if let (Ok(from), Ok(to)) = (trace.canonicalize(), output.canonicalize())
        && (from == to || from.starts_with(&to))
    {
        bail!("{} is the trace itself: give another --output", output.display());
    }
    if fs::symlink_metadata(output).is_ok() && !force {
        bail!("{} exists: give another --output, or --force to replace it", output.display());
    }
    Ok(())
}

/// Writes a result to `path`: a new file, with `force` also over an old one, or what is no file, as a pipe.
#[cfg(feature = "analyze")]
pub fn put(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.is_file()) && !force {
        bail!("{} exists: name another file, or give --force to replace it", path.display());
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Name of a finished segment.
pub fn file_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(".part").unwrap_or(&name).into()
}

/// A directory for the owner alone, in the place of a file if need be.
pub fn directory(path: &Path) -> anyhow::Result<()> {
    let context = || format!("{} cannot be made", path.display());
    if fs::symlink_metadata(path).is_ok_and(|m| !m.is_dir()) {
        fs::remove_file(path).with_context(context)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).with_context(context)
}

/// As [`directory`], without the segments of an older trace.
pub fn directory_of_segments(path: &Path) -> anyhow::Result<()> {
    directory(path)?;
    let context = || format!("{} cannot be made", path.display());
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?.path();
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("seg-") && (name.ends_with(".bpr") || name.ends_with(".part")) {
            fs::remove_file(&entry).with_context(|| format!("{} cannot be replaced", entry.display()))?;
        }
    }
    Ok(())
}

/// Lets `fill` write `target` under a name of its own beside it, and puts it in place when it is on the disk.
pub fn write<T>(target: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = create(&part)
        .with_context(|| format!("{} cannot be made; remove it if an earlier run left it behind", part.display()))?;
    let done = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let result = fill(&mut out)?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(&part, target)?;
        anyhow::Ok(result)
    })();
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done.with_context(|| format!("{} cannot be written", target.display()))
}

/// Only for the owner, and never through a link or over another file.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(all(test, feature = "analyze"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_by_force() {
        let path = std::env::temp_dir().join(format!("bpfrec-put-{}", std::process::id()));
        put(&path, b"one", false).unwrap();
        assert!(put(&path, b"two", false).unwrap_err().to_string().contains("--force"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        put(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
        put(Path::new("/dev/null"), b"x", false).unwrap();
    }
}
