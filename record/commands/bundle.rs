//! `bpfrec bundle`: the binaries of a trace themselves, in the layout of `perf archive`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bpfrec_analyze::bundle::{Bundle, Item, Kernel, bundle, place};
use bpfrec_analyze::{Meta, symbols};

use super::names::NameArgs;
use super::{DONE, analyze, beside, shown};

/// Arguments of `bpfrec bundle`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec bundle trace.bpr                       bundle.tar.zst, for --symfs and perf
  bpfrec bundle trace.bpr -o bundle.tar         without compression")]
pub struct BundleArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// What to write: NAME.tar, NAME.tar.zst, or a directory
    #[arg(short, long, default_value = "bundle.tar.zst")]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    names: NameArgs,
}

/// How a bundle is written.
enum Form {
    Directory,
    Tar,
    TarZst,
}

fn form(path: &Path) -> Form {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match name {
        n if n.ends_with(".tar") => Form::Tar,
        n if n.ends_with(".tar.zst") || n.ends_with(".tzst") => Form::TarZst,
        _ => Form::Directory,
    }
}

/// Runs the command.
pub fn run(args: BundleArgs) -> anyhow::Result<u8> {
    if args.names.trace_only {
        bail!("--trace-only: a bundle is made of files of this machine");
    }
    let trace = super::open(&args.trace)?;
    beside::may_write(&args.trace, &args.output, args.force)?;
    let options = args.names.options()?;
    let mut bundle = analyze::with_threads(None, || -> anyhow::Result<_> {
        let mut meta = Meta::load(&trace)?;
        meta.names = options;
        Ok(bundle(&meta))
    })??;
    match form(&args.output) {
        Form::Directory => to_directory(&mut bundle, &args.output)?,
        Form::Tar => beside::write(&args.output, |out| to_tar(&bundle, out).map(|_| ()))?,
        Form::TarZst => beside::write(&args.output, |out| {
            to_tar(&bundle, zstd::Encoder::new(out, 3)?)?.finish()?;
            Ok(())
        })?,
    }
    super::to_stdout(|out| {
        if let Some(kernel) = &bundle.kernel {
            writeln!(out, "{} (build id {}): kallsyms", Kernel::NAME, kernel.build_id)?;
        }
        for item in &bundle.items {
            let files: Vec<&str> = item.files().map(|(name, _)| name).collect();
            writeln!(out, "{} (build id {}): {}", shown(&item.path), item.build_id, files.join(", "))?;
        }
        for missing in &bundle.missing {
            writeln!(out, "not packed: {}", shown(missing))?;
        }
        for note in &bundle.notes {
            writeln!(out, "# {}", shown(note))?;
        }
        let (packed, not) = (bundle.items.len(), bundle.missing.len());
        writeln!(out, "{}: {packed} binaries packed, {not} not", args.output.display())?;
        Ok(DONE)
    })
}

/// Copies, and looks at the copy: a file may be replaced while it is read.
fn to_directory(bundle: &mut Bundle, output: &Path) -> anyhow::Result<()> {
    beside::directory(output)?;
    let mut changed = Vec::new();
    for item in &bundle.items {
        let folder = output.join(item.folder());
        let link = output.join(item.link());
        for dir in [&folder, &link.parent().unwrap_or(output).to_path_buf()] {
            fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        }
        for (name, file) in item.files() {
            let to = folder.join(name);
            fs::copy(file, &to).with_context(|| format!("{} cannot be copied to {}", file.display(), to.display()))?;
            if symbols::elf::Elf::open(&to).is_none_or(|elf| elf.build_id != item.build_id) {
                fs::remove_file(&to)?;
                changed.push(format!("{}: {} was replaced while it was read", item.path, file.display()));
            }
        }
        link_anew(&item.link_target(), &link)?;
    }
    bundle.missing.extend(changed);
    if let Some(kernel) = &bundle.kernel {
        let (folder, link) = place(Kernel::NAME, &kernel.build_id);
        let (folder, at) = (output.join(&folder), output.join(&link));
        for dir in [&folder, &at.parent().unwrap_or(output).to_path_buf()] {
            fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        }
        let file = folder.join("kallsyms");
        fs::write(&file, &kernel.kallsyms).with_context(|| format!("{} cannot be written", file.display()))?;
        link_anew(&kernel_target(kernel), &at)?;
    }
    Ok(())
}

fn link_anew(target: &Path, link: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(link).is_ok() {
        fs::remove_file(link).with_context(|| format!("{} cannot be replaced", link.display()))?;
    }
    symlink(target, link).with_context(|| format!("{} cannot be made", link.display()))
}

fn kernel_target(kernel: &Kernel) -> PathBuf {
    Path::new("../..").join(place(Kernel::NAME, &kernel.build_id).0)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("links by build id need a Unix: write a .tar instead"))
}

fn to_tar<W: Write>(bundle: &Bundle, out: W) -> anyhow::Result<W> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let header = |kind: tar::EntryType, bytes: u64, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_mode(mode);
        header.set_mtime(0);
        header
    };
    if let Some(kernel) = &bundle.kernel {
        let (folder, link) = place(Kernel::NAME, &kernel.build_id);
        tar.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), link, kernel_target(kernel))?;
        let text = kernel.kallsyms.as_bytes();
        let mut file = header(tar::EntryType::Regular, text.len() as u64, 0o644);
        tar.append_data(&mut file, folder.join("kallsyms"), text)?;
    }
    for item in &bundle.items {
        let add = |tar: &mut tar::Builder<W>, item: &Item| -> std::io::Result<()> {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), item.link(), item.link_target())?;
            for (name, file) in item.files() {
                tar.append_file(item.folder().join(name), &mut File::open(file)?)?;
            }
            Ok(())
        };
        add(&mut tar, item).with_context(|| format!("{} cannot be packed", item.path))?;
    }
    Ok(tar.into_inner()?)
}
