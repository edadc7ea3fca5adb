//! `bpfrec analyze`: everything at once, into a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bpfrec_analyze::{Meta, Output, views};
use bpfrec_format::Trace;

use super::names::FrameArgs;
use super::progress::{Of, Progress};
use super::terminal::Screen;
use super::traces::{self, NamedTrace};

/// Arguments of `bpfrec analyze`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  bpfrec analyze trace.bpr                       everything, into bpfrec-out
  bpfrec analyze trace.bpr -o out --symfs build  with the functions of a build
  bpfrec analyze *.bpr -o all                    of several hosts or times; all/views.sql reads them together")]
pub struct AnalyzeArgs {
    /// Trace files or directories; of several, each into a folder of its own below the directory
    #[arg(required = true, value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
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
pub fn run(args: AnalyzeArgs, screen: Screen) -> Result<u8> {
    let options = args.names.options()?;
    let traces = traces::open_all(&args.traces)?;
    let several = traces.len() > 1;
    let base = Directory::new(&args.output, args.force, several)?;
    let (mut lossy, mut tables) = (false, BTreeSet::new());
    for NamedTrace { name, trace } in traces {
        let path = if several { args.output.join(&name) } else { args.output.clone() };
        let directory = if several { &Directory::new(&path, args.force, false)? } else { &base };
        let what = if several { &name } else { &args.traces[0].display().to_string() };
        let summary = with_threads(args.threads, || -> Result<_> {
            let mut meta = Meta::load(&trace)?;
            meta.names = options.clone();
            let progress = Progress::new(Of::Events);
            let show = |done, total| progress.show(done, total);
            let summary = bpfrec_analyze::analyze(&trace, &meta, directory, &show)?;
            progress.end();
            Ok(summary)
        })?
        .with_context(|| format!("cannot analyse {what} into {}", path.display()))?;
        let is_table = |f: &&String| f.ends_with(".parquet");
        let count = summary.files.iter().filter(is_table).count();
        let others: Vec<&str> = summary.files.iter().filter(|f| !is_table(f)).map(String::as_str).collect();
        let title = if several { format!("== {name}\n") } else { String::new() };
        let written = format!("{}: {count} tables in parquet/, {}", path.display(), others.join(", "));
        print(&format!("{}\nwritten   {written}\n", screen.show(&(title + &summary.text))))?;
        lossy |= summary.lossy;
        tables.extend(
            summary
                .files
                .iter()
                .filter_map(|f| f.strip_prefix("parquet/")?.strip_suffix(".parquet").map(str::to_owned)),
        );
    }
    if several {
        let tables: Vec<String> = tables.into_iter().collect();
        let path = args.output.join("views.sql");
        fs::write(&path, views::sql_of_several(&tables)).with_context(|| format!("cannot write {}", path.display()))?;
        print(&format!(
            "\nwritten   {}: views.sql, of the tables of all {}\n",
            args.output.display(),
            args.traces.len()
        ))?;
    }
    Ok(if lossy { super::DAMAGED } else { super::DONE })
}

/// To stdout. A reader that closes the pipe early has what it wanted.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to stdout"),
    }
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
    /// An empty one, or with `force` one whose tables are removed. `several`: of several traces, each in a folder of its own.
    fn new(path: &Path, force: bool, several: bool) -> Result<Directory> {
        let holds_anything = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e).with_context(|| format!("cannot use {} as output directory", path.display())),
        };
        if holds_anything && !force {
            bail!("{} exists and is not empty: give --force to replace it, or -o another directory", path.display());
        }
        // Tables of another trace would be read together with the new ones. Nothing else is touched.
        if several {
            let folders =
                if holds_anything { fs::read_dir(path)?.flatten().map(|e| e.path()).collect() } else { Vec::new() };
            folders.iter().try_for_each(|folder| remove_tables(&folder.join("parquet")).map(drop))?;
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            return Ok(Directory { path: path.into() });
        }
        let parquet = path.join("parquet");
        if holds_anything && remove_tables(&parquet)? {
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

/// Removes the tables of a folder; whether there is one.
fn remove_tables(parquet: &Path) -> Result<bool> {
    let Ok(entries) = fs::read_dir(parquet) else { return Ok(false) };
    for old in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "parquet")) {
        fs::remove_file(&old).with_context(|| format!("cannot replace {}", old.display()))?;
    }
    Ok(true)
}
