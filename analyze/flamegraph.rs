//! Flamegraphs as SVG: the kernel red, shared libraries yellow, the program itself green, all else grey.

use std::collections::BTreeMap;

use inferno::flamegraph::{self, Options, color::BackgroundColor, color::PaletteMap};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::symbols::{Frame, NameSource};
use crate::text::plain;

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Package {
    Kernel,
    Library,
    Program,
    Other,
}

/// Name of a frame that nothing is known of.
const UNKNOWN: &str = "[unknown]";

/// A box of a flamegraph.
#[derive(Clone, Debug)]
pub struct Cell {
    name: String,
    package: Package,
}

impl Cell {
    /// A frame of a process that runs the program `exe`.
    pub fn of(frame: &Frame, exe: &str) -> Cell {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let library = frame.binary.contains(".so");
        let package = match frame {
            f if f.kernel => Package::Kernel,
            f if matches!(f.source, NameSource::PerfMap | NameSource::JitDump) => Package::Program,
            f if f.binary.is_empty() || !f.binary.starts_with('/') => Package::Other,
            f if f.binary == exe || (!library && base(&f.binary) == base(exe)) => Package::Program,
            _ if library || !exe.is_empty() => Package::Library,
            _ => Package::Program,
        };
        // The kernel's functions are marked, as BCC does: names like `read` are of both worlds.
        let mark = if frame.kernel { "_[k]" } else { "" };
        Cell { name: format!("{}{mark}", frame.name), package }
    }

    /// Its name, and whose code it is: 0 the kernel, 1 a library, 2 the program, 3 none of these.
    pub(crate) fn parts(&self) -> (&str, u8) {
        (&self.name, self.package as u8)
    }

    /// A box that is no function.
    pub fn other(name: &str) -> Cell {
        Cell { name: name.into(), package: Package::Other }
    }
}

/// A stack and how often it was seen.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name of the thread, the lowest box.
    pub process: String,
    /// Boxes from the root to the leaf.
    pub frames: Vec<Cell>,
    /// Samples, or what else is drawn.
    pub count: u64,
}

/// A drawing; `unit` is what is counted.
pub fn svg(title: &str, unit: &str, lines: Vec<Line>) -> Result<Vec<u8>> {
    draw(title, unit, BackgroundColor::Yellow, lines)
}

/// A drawing of time off the CPU, in us. Its background is blue, so that nobody takes it for one of CPU time.
pub fn svg_of_waits(title: &str, lines: Vec<Line>) -> Result<Vec<u8>> {
    draw(title, "us", BackgroundColor::Blue, lines)
}

/// Draws. Names are escaped; the same lines give the same bytes.
fn draw(title: &str, unit: &str, background: BackgroundColor, lines: Vec<Line>) -> Result<Vec<u8>> {
    let mut palette = PaletteMap::default();
    let mut folded: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        let mut text = name(&line.process);
        palette.insert(text.clone(), colour(Package::Other, &text));
        // A stack that was walked through code without frame pointers is a tower of unknown frames: one stands for all.
        let known = line.frames.chunk_by(|a, b| a.name == UNKNOWN && b.name == UNKNOWN).filter_map(|run| run.first());
        for cell in known {
            let name = name(&cell.name);
            if palette.get(&name).is_none() {
                palette.insert(name.clone(), colour(cell.package, &name));
            }
            text.push(';');
            text.push_str(&name);
        }
        let sum: &mut u64 = folded.entry(text).or_default();
        *sum = sum.saturating_add(line.count);
    }
    let total = folded.values().copied().fold(0, u64::saturating_add);
    if total == 0 {
        return Ok(empty(title));
    }
    let mut options = Options::default();
    options.title = title.into();
    options.subtitle = Some("kernel red, shared libraries yellow, the program itself green, all else grey".into());
    options.count_name = unit.into();
    options.bgcolors = Some(background);
    options.name_type = "".into();
    options.palette_map = Some(&mut palette);
    options.deterministic = true;
    let lines: Vec<String> = folded.into_iter().map(|(text, count)| format!("{text} {count}")).collect();
    let mut out = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut out)
        .map_err(|e| Error::Io(std::io::Error::other(e.to_string())))?;
    Ok(out)
}

/// Stacks before and after: boxes are as wide as after, red where the function itself, without what it calls, grew, blue where
/// it shrank. What is no more after has no box. `lines`: names from the root on, amounts.
pub(crate) fn differential(
    title: &str,
    unit: &str,
    of_waits: bool,
    lines: impl Iterator<Item = (Vec<String>, u64, u64)>,
) -> Result<Vec<u8>> {
    let mut folded: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (names, before, after) in lines {
        let names: Vec<String> = names.iter().map(|n| name(n)).collect();
        let sums = folded.entry(names.join(";")).or_default();
        *sums = (sums.0 + before, sums.1 + after);
    }
    if folded.values().all(|(_, after)| *after == 0) {
        return Ok(empty(title));
    }
    let mut options = Options::default();
    options.title = title.into();
    options.subtitle =
        Some("as wide as after; red: the function itself grew, blue: it shrank; what is gone has no box".into());
    options.count_name = unit.into();
    options.bgcolors = Some(if of_waits { BackgroundColor::Blue } else { BackgroundColor::Yellow });
    options.name_type = "".into();
    options.deterministic = true;
    let lines: Vec<String> =
        folded.into_iter().map(|(text, (before, after))| format!("{text} {before} {after}")).collect();
    let mut out = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut out)
        .map_err(|e| Error::Io(std::io::Error::other(e.to_string())))?;
    Ok(out)
}

/// As a part of a folded line.
fn name(text: &str) -> String {
    let text = plain(text).replace(';', ":");
    if text.is_empty() { UNKNOWN.into() } else { text }
}

/// A hue a package, a shade a function.
fn colour(package: Package, name: &str) -> flamegraph::color::Color {
    let hash = xxh3_64(name.as_bytes());
    let (a, b) = ((hash & 0x3f) as u8 / 2, (hash >> 8 & 0x3f) as u8 / 2);
    let (r, g, b) = match package {
        Package::Kernel => (225 + a / 2, 95 + b, 80 + b),
        Package::Library => (225 + a / 2, 190 + b, 70 + b),
        Package::Program => (110 + a, 195 + b, 95 + a),
        Package::Other => (195 + a / 2, 195 + a / 2, 200 + a / 2),
    };
    flamegraph::color::Color { r, g, b }
}

/// A drawing that says that there is nothing to draw.
fn empty(title: &str) -> Vec<u8> {
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<svg version=\"1.1\" width=\"1200\" height=\"60\" xmlns=\"http://www.w3.org/2000/svg\">\
         <text x=\"10\" y=\"35\" font-family=\"monospace\" font-size=\"14\">{title}: nothing to draw</text></svg>\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_escaped() {
        let evil = "<script>alert(1)</script>";
        let line = Line { process: evil.into(), frames: vec![Cell::other("a;b\" onclick=\"x\n<b>")], count: 3 };
        let out = String::from_utf8(svg(&format!("of {evil}"), "samples", vec![line]).unwrap()).unwrap();
        for bad in ["<script>alert", "<b>", "\" onclick=\""] {
            assert!(!out.contains(bad), "{bad}: {}", out.lines().filter(|l| l.contains(bad)).collect::<String>());
        }
        assert!(out.contains("&lt;script&gt;alert"));
        let lines = || [(vec![evil.to_owned(), "a;b\" onclick=\"x\n<b>".into()], 3, 4)].into_iter();
        let out = String::from_utf8(differential(&format!("of {evil}"), "samples", false, lines()).unwrap()).unwrap();
        assert!(!out.contains("<script>alert") && !out.contains("<b>") && out.contains("&lt;script&gt;alert"));
        assert!(!String::from_utf8(svg(evil, "samples", Vec::new()).unwrap()).unwrap().contains("<script>"));
    }

    #[test]
    fn same_lines_same_bytes() {
        let line = |n: &str, count| Line { process: "p".into(), frames: vec![Cell::other(n)], count };
        let (a, b) = (svg("t", "n", vec![line("x", 1), line("y", 2)]), svg("t", "n", vec![line("y", 2), line("x", 1)]));
        assert_eq!(a.unwrap(), b.unwrap());
    }
}
