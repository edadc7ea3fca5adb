//! Arguments of `bpfrec record`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::rights::Rights;
use crate::sandbox::Sandbox;

/// Arguments of `bpfrec record`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = "Examples:
  bpfrec record -d 30s                              scheduler, block I/O and CPU profile for 30 s into trace.bpr
  bpfrec record -e sched --cgroup system.slice      only what that cgroup and those below it do
  bpfrec record -e malloc -p 4242 --sample 16       one allocation in 16 of a process
  bpfrec record -- make -j8                         while a command runs
  ssh host bpfrec record -o - -d 30s > trace.bpr    without touching the host's disk")]
pub struct RecordArgs {
    /// File to write; - for stdout; a directory with --rotate-size or --rotate-time
    #[arg(short, long, default_value = "trace.bpr", value_name = "FILE")]
    pub output: PathBuf,
    /// What to record [default: sched,block,profile]
    #[arg(short = 'e', long = "sources", value_delimiter = ',', value_name = "SOURCE,...",
          value_parser = clap::builder::PossibleValuesParser::new(crate::sources::NAMES))]
    pub sources: Vec<String>,
    /// Stop after this long (30s, 5m, 1h); else at Ctrl-C or when COMMAND ends
    #[arg(short, long, value_parser = parse_duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Samples a second and CPU for the profile
    #[arg(short = 'F', long = "frequency", default_value_t = 99, value_name = "HZ",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub frequency: u32,
    /// How user stacks of the profile are walked: by frame pointers (fp), or from a copy of their top BYTES [8192] by the
    /// programs' .eh_frame (dwarf), for programs without frame pointers
    #[arg(long, value_parser = parse_unwind, default_value = "fp", value_name = "fp|dwarf[,BYTES]")]
    pub unwind: Unwind,
    /// Waits shorter than this are summed up a thread, without stacks (offcpu)
    #[arg(long, value_parser = parse_duration, default_value = "0", value_name = "TIME")]
    pub min_wait: Duration,
    /// Take nothing for granted that a walk of a stack reads, also where the thread waited at the same place before (offcpu)
    #[arg(long)]
    pub exact_stacks: bool,
    /// Stacks of who wakes a thread, too (offcpu)
    #[arg(long)]
    pub waker_stacks: bool,
    /// Only these processes
    #[arg(short, long, value_delimiter = ',', value_name = "PID,...")]
    pub pid: Vec<u32>,
    /// Only this cgroup and those below it; a path from the hierarchy's root, or below its mount point
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    /// No status line and no summary
    #[arg(short, long)]
    pub quiet: bool,
    /// Begin a new segment file at this size (64M, 1G)
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub rotate_size: Option<u64>,
    /// Begin a new segment file after this long
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub rotate_time: Option<Duration>,
    /// Leave out more and more as the file nears this size, and stop before it; with segments, delete the oldest instead
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub max_size: Option<u64>,
    /// Most of the machine's CPU time, all CPUs together, that the recorder and its BPF programs may cost (1%); beyond it
    /// user stacks are left out, then kernel stacks, most samples, whole sources
    #[arg(long, value_parser = parse_percent, value_name = "PERCENT")]
    pub max_cpu: Option<u64>,
    /// Most resident memory of the recorder; beyond it the same is left out
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub max_rss: Option<u64>,
    /// Stop, as on a full disk, before less than this is free on the file system of the output (5%, 2G)
    #[arg(long, value_parser = parse_keep_free, value_name = "PERCENT|SIZE")]
    pub keep_free: Option<KeepFree>,
    /// Ring of each CPU; a power of two of pages [default: 4M, less with more than 32 CPUs]
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub ring_size: Option<u64>,
    /// What of memory is recorded
    #[command(flatten)]
    pub memory: crate::memory_args::MemoryArgs,
    /// Binaries whose function names go into the file: those that stacks hit, all that were mapped, or none
    #[arg(long, value_enum, default_value_t = Symbols::Hit, value_name = "WHICH")]
    pub symbols: Symbols,
    /// Most bytes of function names in the file
    #[arg(long, value_parser = parse_size, default_value = "64M", value_name = "SIZE")]
    pub symbols_max: u64,
    /// Types of this very kernel, for one built without CONFIG_DEBUG_INFO_BTF: a BTF file, or an ELF file with a section .BTF
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// What the recorder keeps of its rights once the probes are attached: what a recording needs (CAP_BPF, CAP_PERFMON,
    /// CAP_SYS_PTRACE), also those to read what belongs to others, for names in programs that start later, or all
    #[arg(long, value_enum, default_value_t = Rights::Least, value_name = "WHICH")]
    pub rights: Rights,
    /// What a system call meets that recording does not need: on, it fails; kill, it ends the recorder; off, nothing
    #[arg(long, value_enum, default_value_t = Sandbox::On, value_name = "HOW")]
    pub sandbox: Sandbox,
    /// Say what this kernel has for each source and what is done without it, and record nothing
    #[arg(long)]
    pub list_sources: bool,
    /// With --list-sources: as JSON
    #[arg(long, requires = "list_sources")]
    pub json: bool,
    /// Record while this command runs and pass its exit code on
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Functions of binaries that go into the file.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// Those in pages that stacks hit.
    Hit,
    /// Those of all binaries that were mapped.
    All,
    /// None.
    None,
}

impl Symbols {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Symbols::Hit => "hit",
            Symbols::All => "all",
            Symbols::None => "none",
        }
    }
}

impl RecordArgs {
    /// Bytes of function names at most: of a bounded recording no more than a quarter.
    pub fn symbols_bytes(&self) -> u64 {
        self.max_size.map_or(self.symbols_max, |max| self.symbols_max.min(max / 4))
    }

    /// Facts for the file's header: the budget.
    pub fn budget_items(&self) -> Vec<(String, String)> {
        let keep = self.keep_free.map(|keep| match keep {
            KeepFree::Bytes(bytes) => ("keep_free_bytes", bytes),
            KeepFree::PartsPerMillion(ppm) => ("keep_free_ppm", ppm),
        });
        let limits = [
            self.max_cpu.map(|ppm| ("max_cpu_ppm", ppm)),
            self.max_rss.map(|bytes| ("max_rss_bytes", bytes)),
            self.max_size.map(|bytes| ("max_size_bytes", bytes)),
            keep,
        ];
        limits.into_iter().flatten().map(|(key, value)| (key.into(), value.to_string())).collect()
    }

    /// Whether the output is a directory of segments.
    pub fn rotates(&self) -> bool {
        let is_directory = || self.output.as_os_str().as_encoded_bytes().ends_with(b"/") || self.output.is_dir();
        self.rotate_size.is_some() || self.rotate_time.is_some() || (self.max_size.is_some() && is_directory())
    }

    /// Size at which a segment ends.
    pub fn segment_bytes(&self) -> u64 {
        let default = self.max_size.map_or(256 << 20, |max| (max / 8).clamp(1 << 20, 256 << 20));
        self.rotate_size.unwrap_or(default)
    }
}

/// How much of a file system is to stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepFree {
    /// So many bytes.
    Bytes(u64),
    /// So many millionths of all of it.
    PartsPerMillion(u64),
}

/// `5%` or `0.5%`: millionths.
pub fn parse_percent(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let value: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no share: use 1% or 0.5%"))?;
    let ppm = value * 10_000.0;
    if (1.0..=1_000_000.0).contains(&ppm) {
        Ok(ppm.round() as u64)
    } else {
        Err(format!("{text} is out of range: 0.0001% to 100%"))
    }
}

/// `5%`, or a size.
pub fn parse_keep_free(text: &str) -> Result<KeepFree, String> {
    if text.ends_with('%') {
        return parse_percent(text).map(KeepFree::PartsPerMillion);
    }
    parse_size(text).map(KeepFree::Bytes).map_err(|why| format!("{why}; or a share, as 5%"))
}

/// How user stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind {
    /// By frame pointers, in the kernel.
    FramePointers,
    /// From a copy of so many bytes, a multiple of 4096.
    Dwarf(u32),
}

/// Stack bytes copied when not told, and at the most: the kernel reserves room for a sample in one piece.
const COPY_BYTES: (u64, u64) = (8192, 61440);

/// `fp`, `dwarf`, or `dwarf,16K`; bytes are rounded up to pages of 4096.
pub fn parse_unwind(text: &str) -> Result<Unwind, String> {
    let (how, bytes) = text.split_once(',').map_or((text, None), |(how, bytes)| (how, Some(bytes)));
    let bytes = bytes.map_or(Ok(COPY_BYTES.0), parse_size)?;
    match how {
        "fp" if !text.contains(',') => Ok(Unwind::FramePointers),
        "dwarf" if bytes <= COPY_BYTES.1 => Ok(Unwind::Dwarf(bytes.next_multiple_of(4096) as u32)),
        "dwarf" => Err(format!("at most {} bytes of a stack can be copied", COPY_BYTES.1)),
        _ => Err("fp, dwarf or dwarf,BYTES".into()),
    }
}

/// `500ms`, `30s`, `5m`, `1h`, or a number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}: use us, ms, s, m or h")),
    };
    let value: f64 = digits.parse().map_err(|_| format!("{digits:?} is not a number"))?;
    Duration::try_from_secs_f64(value * scale).map_err(|e| e.to_string())
}

/// `64K`, `16M`, `1G`, or a number of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("unknown unit {unit:?}: use K, M, G or T")),
    };
    let value: f64 = digits.parse().map_err(|_| format!("{digits:?} is not a number"))?;
    let bytes = value * (1u64 << shift) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("{text} is out of range")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("1d").is_err());
        assert_eq!(parse_size("64M").unwrap(), 64 << 20);
        assert_eq!(parse_size("1.5GiB").unwrap(), 3 << 29);
        assert_eq!(parse_size("512").unwrap(), 512);
        assert_eq!(parse_unwind("fp"), Ok(Unwind::FramePointers));
        assert_eq!(parse_unwind("dwarf"), Ok(Unwind::Dwarf(8192)));
        assert_eq!(parse_unwind("dwarf,16K"), Ok(Unwind::Dwarf(16384)));
        assert_eq!(parse_unwind("dwarf,5000"), Ok(Unwind::Dwarf(8192)));
        for wrong in ["dwarf,64K", "dwarf,0", "fp,1", "lbr", ""] {
            assert!(parse_unwind(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_percent("1%"), Ok(10_000));
        assert_eq!(parse_percent("0.5"), Ok(5_000));
        assert_eq!(parse_keep_free("5%"), Ok(KeepFree::PartsPerMillion(50_000)));
        assert_eq!(parse_keep_free("2G"), Ok(KeepFree::Bytes(2 << 30)));
        for wrong in ["0%", "101%", "-1%", "%", "much"] {
            assert!(parse_percent(wrong).is_err() && parse_keep_free(wrong).is_err(), "{wrong}");
        }
        assert!(parse_size("0").is_err());
        assert!(parse_size("12Q").is_err());
    }
}
