//! A place in code, and how it got its name.

use bpfrec_format::meta::symbol_source;

/// Where a frame's name comes from. The order is that in which they are asked, for binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameSource {
    /// Kernel symbols in the trace.
    Kallsyms,
    /// A file under `--symfs`.
    Symfs,
    /// A file that was fetched before.
    Cache,
    /// A file that a debuginfod server gave.
    Debuginfod,
    /// A function in the trace, and where that is from: [`symbol_source`].
    Trace(u8),
    /// The file at the recorded path of this machine, or its debug file.
    LocalFile,
    /// A runtime told in a perf map what it compiled.
    PerfMap,
    /// A runtime told in a jitdump file what it compiled.
    JitDump,
    /// The file is known, the function is not; or not even that.
    None,
}

impl NameSource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            NameSource::Kallsyms => "kallsyms",
            NameSource::Symfs => "symfs",
            NameSource::Cache => "cache",
            NameSource::Debuginfod => "debuginfod",
            NameSource::Trace(source) => match u64::from(source) {
                symbol_source::SYMTAB => "trace: symtab",
                symbol_source::DYNSYM => "trace: dynsym",
                symbol_source::GNU_DEBUGDATA => "trace: gnu_debugdata",
                symbol_source::ADDED => "trace: added",
                _ => "trace",
            },
            NameSource::LocalFile => "local file",
            NameSource::PerfMap => "perf map",
            NameSource::JitDump => "jitdump",
            NameSource::None => "none",
        }
    }
}

/// A line of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As the debugging information has it.
    pub src: String,
    /// From 1 on; 0: not known.
    pub line: u32,
}

/// Behind the name of a function that was inlined into the frame above it.
pub const INLINED: &str = " (inlined)";

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Hash of (build id, kernel release or path; offset): the same on all hosts.
    pub id: u64,
    /// Function, or what is known instead. [`INLINED`] stands behind it where that is so.
    pub name: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// Whether the function was inlined into the frame that follows.
    pub inlined: bool,
    /// Path of the file, or the kernel's module.
    pub binary: String,
    /// Build id of the file.
    pub build_id: String,
    /// Offset in the file, or in the kernel's function.
    pub offset: u64,
    /// Where in the source, if that was asked for and is known.
    pub line: Option<Line>,
    /// Where `name` comes from.
    pub source: NameSource,
    /// Position in [`super::Symbols::binaries`].
    pub hit: Option<u32>,
}

impl Frame {
    /// The function without a mark.
    pub fn func(&self) -> &str {
        if self.inlined { self.name.strip_suffix(INLINED).unwrap_or(&self.name) } else { &self.name }
    }

    /// The name, and file and line where they are known.
    pub fn with_line(&self) -> String {
        match &self.line {
            None => self.name.clone(),
            Some(Line { src, line: 0 }) => format!("{} {src}", self.name),
            Some(Line { src, line }) => format!("{} {src}:{line}", self.name),
        }
    }
}
