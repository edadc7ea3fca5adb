//! Parquet alone: the tables that `bpfrec analyze` writes, without its reports.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use bpfrec_analyze::parquet_file::OfTrace;
use bpfrec_analyze::pipeline::{self, Options, Visitor};
use bpfrec_analyze::symbols::Symbols;
use bpfrec_analyze::{Meta, Output, tables};
use bpfrec_format::Trace;
use rayon::prelude::*;

struct Directory<'a>(&'a Path);

impl Output for Directory<'_> {
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(BufWriter::with_capacity(1 << 18, File::create(self.0.join(name))?)))
    }
}

/// Writes the tables of `trace` into `dir`.
pub fn write(trace: &Path, dir: &Path, threads: usize) -> Result<()> {
    std::fs::create_dir_all(dir.join("parquet"))?;
    let trace = Trace::open(trace)?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| {
        let meta = Meta::load(&trace)?;
        let (symbols, directory) = (Symbols::resolve(&meta), Directory(dir));
        let output = OfTrace::new(&directory, &meta);
        let mut made = tables::of_trace(&trace, &meta, &symbols, &output)?;
        let mut visitors: Vec<&mut dyn Visitor> = made.iter_mut().map(|t| t.as_mut() as &mut dyn Visitor).collect();
        let reading = pipeline::visit(&trace, &meta, &Options::default(), &mut visitors)?;
        made.into_par_iter().try_for_each(|table| table.finish())?;
        tables::stacks::write(&symbols, &output)?;
        Ok(tables::meta::write(&meta, &reading, &symbols, &output)?)
    })
}
