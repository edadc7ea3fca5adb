//! How many of the frames in samples have a name, binary by binary, and what would help.

use rustc_hash::FxHashMap;

use super::{NameSource, Resolved, Symbols};

/// Frames of one binary, or of the kernel, or of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Frames, each as often as its stack was seen.
    pub frames: u64,
    /// Those with a function's name.
    pub named: u64,
}

/// Whose frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// The kernel's.
    Kernel,
    /// Position in [`Symbols::binaries`].
    Binary(u32),
    /// No mapping covers them, or their stack is missing.
    Nobody,
    /// Code that a runtime compiled.
    Compiled,
}

/// Frames of samples by whose they are.
#[derive(Debug, Default)]
pub struct Coverage {
    shares: FxHashMap<Whose, Share>,
    /// All together.
    pub all: Share,
}

impl Coverage {
    /// Adds a stack that was seen `count` times; `None`: its definition is missing, which is one frame without a name.
    pub fn add(&mut self, symbols: &Symbols, stack: Option<&Resolved>, count: u64) {
        let mut add = |whose: Whose, named: bool| {
            for share in [self.shares.entry(whose).or_default(), &mut self.all] {
                share.frames += count;
                share.named += if named { count } else { 0 };
            }
        };
        let Some(stack) = stack else { return add(Whose::Nobody, false) };
        for frame in symbols.frames_of(stack).filter(|f| !f.inlined) {
            let named = frame.source != NameSource::None;
            let whose = match frame.hit {
                _ if frame.kernel => Whose::Kernel,
                Some(hit) => Whose::Binary(hit),
                None if named => Whose::Compiled,
                None => Whose::Nobody,
            };
            add(whose, named);
        }
    }

    /// By falling number of frames without a name, then of frames.
    pub fn sorted(&self) -> Vec<(Whose, Share)> {
        let mut all: Vec<(Whose, Share)> = self.shares.iter().map(|(whose, share)| (*whose, *share)).collect();
        all.sort_unstable_by_key(|(whose, s)| (std::cmp::Reverse((s.frames - s.named, s.frames)), *whose));
        all
    }

    /// A name for whose frames they are.
    pub fn name(symbols: &Symbols, whose: Whose) -> &str {
        match whose {
            Whose::Kernel => "[kernel]",
            Whose::Binary(hit) => &symbols.binaries[hit as usize].path,
            Whose::Nobody => "[unknown]",
            Whose::Compiled => "[compiled]",
        }
    }

    /// What would give most, at most `most` sentences.
    pub fn help(&self, symbols: &Symbols, most: usize) -> Vec<String> {
        let help = |(whose, share): (Whose, Share)| match whose {
            Whose::Binary(hit) => {
                let binary = &symbols.binaries[hit as usize];
                binary.help.clone().filter(|_| share.named < share.frames || binary.have == super::Have::All)
            }
            _ => None,
        };
        let mut lines: Vec<String> = self.sorted().into_iter().filter_map(help).collect();
        let rest = lines.len().saturating_sub(most);
        lines.truncate(most);
        if rest > 0 {
            lines.push(format!("and {rest} more binaries without all their symbols"));
        }
        lines
    }
}
