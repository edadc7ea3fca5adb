//! `bpfrec analyze`: everything at once, into a directory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bpfrec_analyze::{Meta, Output};
use bpfrec_format::Trace;

use super::names::FrameArgs;
use super::progress::{Of, Progress};

/// Arguments of `bpfrec analyze`.
#[derive(clap::Args, Debug)]
pub struct AnalyzeArgs {
    /// Trace file or directory
    pub trace: PathBuf,
    /// Directory to write
    #[arg(short, long, default_value = "bpfrec-out", value_name = "DIR")]
    pub output: PathBuf,
    /// Threads (all CPUs)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Replace what the directory holds of an earlier run
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    names: FrameArgs,
}

/// Runs the command.
pub fn run(args: AnalyzeArgs) -> Result<u8> {
    let trace = open(&args.trace)?;
    let names = args.names.options()?;
    let directory = Directory::new(&args.output, args.force)?;
    let summary = with_threads(args.threads, || -> Result<_> {
        let mut meta = Meta::load(&trace)?;
        meta.names = names;
        let progress = Progress::new(Of::Events);
        let show = |done, total| progress.show(done, total);
        let summary = bpfrec_analyze::analyze(&trace, &meta, &directory, &show)?;
        progress.end();
        Ok(summary)
    })?
    .with_context(|| format!("cannot analyse {} into {}", args.trace.display(), args.output.display()))?;
    let mut out = io::stdout().lock();
    let parquet = summary.files.iter().filter(|f| f.ends_with(".parquet")).count();
    let others: Vec<&str> = summary.files.iter().map(String::as_str).filter(|f| !f.ends_with(".parquet")).collect();
    let said = write!(
        out,
        "{}\nwritten   {}: {parquet} tables in parquet/, {}\n",
        summary.text,
        args.output.display(),
        others.join(", ")
    );
    match said.and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        done => done.context("cannot write to stdout")?,
    }
    Ok(if summary.lossy { super::DAMAGED } else { super::DONE })
}

/// Opens a trace, with its path in the error.
pub fn open(path: &Path) -> Result<Trace> {
    Trace::open(path).map_err(|e| anyhow!("cannot read {}: {e}", path.display()))
}

/// Runs `work` on a pool of `threads`, or of as many as there are CPUs.
pub fn with_threads<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T> {
    if threads == Some(0) {
        bail!("--threads 0: at least one thread is needed");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
    Ok(pool.context("cannot start threads")?.install(work))
}

/// Where the results go.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn new(path: &Path, force: bool) -> Result<Directory> {
        let holds_anything = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e).with_context(|| format!("cannot use {} as output directory", path.display())),
        };
        if holds_anything && !force {
            bail!("{} exists and is not empty: give --force to replace it, or -o another directory", path.display());
        }
        let parquet = path.join("parquet");
        if holds_anything && let Ok(entries) = fs::read_dir(&parquet) {
            // Tables of another trace would be read together with the new ones. Nothing else is touched.
            for old in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "parquet")) {
                fs::remove_file(&old).with_context(|| format!("cannot replace {}", old.display()))?;
            }
            for drawing in ["profile.svg", "offcpu.svg"] {
                let _ = fs::remove_file(path.join(drawing));
            }
        }
        fs::create_dir_all(&parquet).with_context(|| format!("cannot make {}", parquet.display()))?;
        Ok(Directory { path: path.into() })
    }
}

impl Output for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(BufWriter::with_capacity(1 << 18, File::create(self.path.join(name))?)))
    }
}
