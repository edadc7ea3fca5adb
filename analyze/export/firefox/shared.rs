//! Tables that all threads of a profile share: strings, functions, frames, stacks, files.

use std::fmt::Write;

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::export::Out;
use crate::export::scene::{Place, Scene, json};
use crate::export::tree::Tree;

/// Categories of frames and their colours: what is neither, the kernel, programs.
pub(super) const CATEGORIES: [(&str, &str); 3] = [("Other", "grey"), ("Kernel", "orange"), ("User", "yellow")];
/// Type of a resource: a file of code.
const LIBRARY: u32 = 1;

/// Strings and files, each once.
#[derive(Default)]
pub(super) struct Shared {
    strings: Vec<String>,
    numbers: FxHashMap<String, usize>,
    /// Path and build id.
    libs: Vec<(String, String)>,
    lib_numbers: FxHashMap<(String, String), usize>,
}

/// A column of a table.
#[derive(Default)]
struct Column(String);

impl Column {
    fn push(&mut self, value: impl std::fmt::Display) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{value}");
    }
}

/// Writes a table: its columns and its length.
fn table(out: &mut Out<'_>, name: &str, length: usize, columns: &[(&str, &Column)]) -> Result<()> {
    write!(out, "\"{name}\":{{\"length\":{length}")?;
    for (column, values) in columns {
        write!(out, ",\n\"{column}\":[{}]", values.0)?;
    }
    Ok(writeln!(out, "}},")?)
}

/// A number, or null.
fn or_null(number: Option<impl std::fmt::Display>) -> String {
    number.map_or("null".into(), |n| n.to_string())
}

/// As the symbol servers of Mozilla call a file: the first 16 bytes of its build id as a GUID of a little-endian machine, and an age.
fn breakpad_id(build_id: &str) -> String {
    let mut hex = build_id.to_uppercase();
    hex.truncate(32);
    if !hex.is_ascii() || hex.is_empty() {
        return String::new();
    }
    let hex = format!("{hex:0<32}");
    let swapped =
        |range: std::ops::Range<usize>| -> String { range.step_by(2).rev().map(|at| &hex[at..at + 2]).collect() };
    format!("{}{}{}{}0", swapped(0..8), swapped(8..12), swapped(12..16), &hex[16..])
}

impl Shared {
    /// Number of a string.
    pub(super) fn string(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.strings.push(text.into());
        self.numbers.insert(text.into(), self.strings.len() - 1);
        self.strings.len() - 1
    }

    fn lib(&mut self, path: &str, build_id: &str) -> usize {
        let key = (path.to_owned(), build_id.to_owned());
        if let Some(number) = self.lib_numbers.get(&key) {
            return *number;
        }
        self.libs.push(key.clone());
        self.lib_numbers.insert(key, self.libs.len() - 1);
        self.libs.len() - 1
    }

    /// Writes files and tables. Only places that stand in the tree have rows.
    pub(super) fn write(&mut self, scene: &Scene<'_>, tree: &Tree, out: &mut Out<'_>) -> Result<()> {
        let mut rows: FxHashMap<Place, usize> = FxHashMap::default();
        let mut places: Vec<Place> = Vec::new();
        let (mut stack_frame, mut stack_prefix) = (Column::default(), Column::default());
        for (parent, place) in &tree.nodes {
            let row = *rows.entry(*place).or_insert_with(|| {
                places.push(*place);
                places.len() - 1
            });
            stack_frame.push(row);
            stack_prefix.push(or_null(*parent));
        }
        // Frames of the same function of a file are one function.
        let mut functions: FxHashMap<(usize, Option<usize>), usize> = FxHashMap::default();
        let (mut func_name, mut func_resource, mut func_source) = <(Column, Column, Column)>::default();
        let (mut frame_func, mut frame_category, mut frame_line, mut frame_depth) =
            <(Column, Column, Column, Column)>::default();
        let mut sources: Vec<usize> = Vec::new();
        let mut source_numbers: FxHashMap<usize, usize> = FxHashMap::default();
        for place in &places {
            let frame = scene.frame(*place);
            let name = self.string(scene.name(*place));
            let binary = scene.binary(*place);
            let lib = (!binary.is_empty()).then(|| self.lib(&binary, frame.map_or("", |f| &f.build_id)));
            let line = frame.and_then(|f| f.line.as_ref());
            let count = functions.len();
            let func = *functions.entry((name, lib)).or_insert_with(|| {
                func_name.push(name);
                // Resources are the files, one each.
                func_resource.push(lib.map_or(-1, |lib| lib as i64));
                count
            });
            if func == count {
                let source = line.map(|line| {
                    let src = self.string(&line.src);
                    *source_numbers.entry(src).or_insert_with(|| {
                        sources.push(src);
                        sources.len() - 1
                    })
                });
                func_source.push(or_null(source));
            }
            frame_func.push(func);
            frame_category.push(frame.map_or(0, |f| if f.kernel { 1 } else { 2 }));
            frame_line.push(or_null(line.map(|l| l.line).filter(|line| *line > 0)));
            frame_depth.push(0);
        }
        let (mut resource_lib, mut resource_name, mut resource_type) = <(Column, Column, Column)>::default();
        for (number, (path, _)) in self.libs.clone().iter().enumerate() {
            resource_lib.push(number);
            resource_name.push(self.string(path.rsplit('/').next().unwrap_or(path)));
            resource_type.push(LIBRARY);
        }
        self.write_libs(scene, out)?;
        let all = |length: usize, value: &str| {
            let mut column = Column::default();
            (0..length).for_each(|_| column.push(value));
            column
        };
        write!(out, ",\n\"shared\":{{")?;
        table(out, "stackTable", tree.nodes.len(), &[("frame", &stack_frame), ("prefix", &stack_prefix)])?;
        let (frames, nulls) = (places.len(), all(places.len(), "null"));
        // An address without a native symbol says nothing to the profiler: names are known already.
        let columns = [
            ("address", &all(frames, "-1")),
            ("inlineDepth", &frame_depth),
            ("category", &frame_category),
            ("subcategory", &all(frames, "0")),
            ("func", &frame_func),
            ("nativeSymbol", &nulls),
            ("innerWindowID", &nulls),
            ("line", &frame_line),
            ("column", &nulls),
        ];
        table(out, "frameTable", frames, &columns)?;
        let (funcs, nulls, falses) = (functions.len(), all(functions.len(), "null"), all(functions.len(), "false"));
        let columns = [
            ("isJS", &falses),
            ("relevantForJS", &falses),
            ("name", &func_name),
            ("resource", &func_resource),
            ("source", &func_source),
            ("lineNumber", &nulls),
            ("columnNumber", &nulls),
        ];
        table(out, "funcTable", funcs, &columns)?;
        let hosts = all(self.libs.len(), "null");
        let columns = [("lib", &resource_lib), ("name", &resource_name), ("host", &hosts), ("type", &resource_type)];
        table(out, "resourceTable", self.libs.len(), &columns)?;
        let none = Column::default();
        let columns = [("libIndex", &none), ("address", &none), ("name", &none), ("functionSize", &none)];
        table(out, "nativeSymbols", 0, &columns)?;
        let mut names = Column::default();
        sources.iter().for_each(|source| names.push(source));
        table(out, "sources", sources.len(), &[("uuid", &all(sources.len(), "null")), ("filename", &names)])?;
        write!(out, "\"stringArray\":[")?;
        for (number, text) in self.strings.iter().enumerate() {
            write!(out, "{}{}", if number > 0 { ",\n" } else { "" }, json(text))?;
        }
        Ok(write!(out, "]}}")?)
    }

    fn write_libs(&self, scene: &Scene<'_>, out: &mut Out<'_>) -> Result<()> {
        let lib = |(path, build_id): &(String, String)| {
            let name = path.rsplit('/').next().unwrap_or(path);
            let code_id = Some(build_id).filter(|id| !id.is_empty());
            serde_json::json!({
                "arch": scene.meta.item("arch"),
                "name": name,
                "path": path,
                "debugName": name,
                "debugPath": path,
                "breakpadId": breakpad_id(build_id),
                "codeId": code_id,
            })
        };
        let libs: serde_json::Value = self.libs.iter().map(lib).collect();
        Ok(write!(out, ",\n\"libs\":{libs}")?)
    }
}

#[cfg(test)]
mod tests {
    use super::breakpad_id;

    #[test]
    fn build_ids_as_breakpad_has_them() {
        // Groups of four, two and two bytes are numbers of a little-endian machine.
        assert_eq!(
            breakpad_id("000102030405060708090a0b0c0d0e0f10111213"),
            "0302010005040706".to_owned() + "08090A0B0C0D0E0F0"
        );
        assert_eq!(breakpad_id("ab12"), "000012AB000000000000000000000000".to_owned() + "0");
        assert_eq!(breakpad_id(""), "");
    }
}
