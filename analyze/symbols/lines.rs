//! Source lines and inlined functions, from debugging information.

use std::path::PathBuf;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolizer};

use super::frame::Line;

/// What debugging information says of an address.
#[derive(Clone, Debug)]
pub struct Known {
    /// The function that the code was made for, not one that was inlined into it.
    pub name: String,
    /// Where in that function.
    pub line: Option<Line>,
    /// What was inlined there, from the outermost to the innermost, each with its place.
    pub inlined: Vec<(String, Option<Line>)>,
}

/// Asks `path`, an ELF file with DWARF, for each address. Memory: the debugging information, hundreds of megabytes for a
/// large program, until this returns.
pub fn look(
    path: &PathBuf,
    addresses: &[u64],
    inlines: bool,
    debug_dirs: &[PathBuf],
) -> Result<Vec<Option<Known>>, String> {
    let mut elf = Elf::new(path);
    elf.debug_syms = true;
    let builder = Symbolizer::builder().enable_auto_reload(false).enable_code_info(true).enable_demangling(true);
    let symbolizer = builder.enable_inlined_fns(inlines).set_debug_dirs(Some(debug_dirs)).build();
    // Addresses, not file offsets: in a separate debug file these lead nowhere.
    let symbols = symbolizer.symbolize(&Source::Elf(elf), Input::VirtOffset(addresses)).map_err(|e| e.to_string())?;
    let known = |symbol: &blazesym::symbolize::Symbolized<'_>| {
        let symbol = symbol.as_sym()?;
        Some(Known {
            name: symbol.name.to_string(),
            line: symbol.code_info.as_deref().map(line),
            inlined: symbol.inlined.iter().map(|f| (f.name.to_string(), f.code_info.as_ref().map(line))).collect(),
        })
    };
    Ok(symbols.iter().map(known).collect())
}

fn line(info: &CodeInfo<'_>) -> Line {
    Line { src: info.to_path().to_string_lossy().into_owned(), line: info.line.unwrap_or(0) }
}
