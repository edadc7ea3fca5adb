//! Figures as a table and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::rounds::Measured;

/// How a figure stands beside that of the row it is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ratio {
    /// Not compared.
    None,
    /// So much more or less, in percent.
    Over,
    /// So many times.
    Times,
}

/// A column: its figure in the rows, its head, digits behind the point, the ratio beside it.
pub struct Column(pub &'static str, pub &'static str, pub usize, pub Ratio);

/// What one part measured.
pub struct Part {
    /// On the command line.
    pub name: &'static str,
    /// What was run.
    pub title: String,
    /// Figures that are shown; JSON has all.
    pub columns: Vec<Column>,
    /// Row that others are compared with.
    pub base: String,
    /// Rows.
    pub rows: Vec<Measured>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Part {
    fn ratio(&self, row: &Measured, column: &Column) -> Option<f64> {
        let base = self.rows.iter().find(|r| r.name == self.base)?.median(column.0)?;
        (column.3 != Ratio::None && base != 0.0).then_some(row.median(column.0)? / base)
    }

    /// As a table, lines of which no median is known left out.
    pub fn text(&self) -> String {
        let mut lines = vec![vec![String::new()]];
        for column in &self.columns {
            lines[0].push(column.1.to_owned());
            if column.3 != Ratio::None {
                lines[0].push(String::new());
            }
        }
        for row in self.rows.iter().filter(|row| !row.figures.is_empty()) {
            let mut line = vec![row.name.clone()];
            for column in &self.columns {
                line.push(row.median(column.0).map_or(String::new(), |v| number(v, column.2)));
                let ratio = self.ratio(row, column).filter(|_| row.name != self.base);
                match column.3 {
                    Ratio::None => {}
                    Ratio::Over => line.push(ratio.map_or(String::new(), |r| format!("{:+.1} %", 100.0 * (r - 1.0)))),
                    Ratio::Times => line.push(ratio.map_or(String::new(), |r| format!("x {r:.2}"))),
                }
            }
            lines.push(line);
        }
        let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let mut out = format!("\n{}: {}\n", self.name, self.title);
        for line in &lines {
            let _ = write!(out, "  {:<width$}", line[0], width = widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                let _ = write!(out, "  {cell:>width$}");
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        for row in &self.rows {
            if let Some(why) = &row.failed {
                let _ = writeln!(out, "  {}: FAILED: {why}", row.name);
            }
        }
        self.notes.iter().for_each(|note| _ = writeln!(out, "  {note}"));
        out
    }

    /// All figures: medians, every round, ratios.
    pub fn json(&self) -> Value {
        let row = |row: &Measured| {
            let mut figures = Map::new();
            for (name, values) in &row.figures {
                let column = self.columns.iter().find(|c| c.0 == name);
                let ratio = column.and_then(|column| self.ratio(row, column));
                figures.insert(name.clone(), json!({"median": row.median(name), "rounds": values, "ratio": ratio}));
            }
            json!({"name": row.name, "figures": figures, "failed": row.failed})
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"part": self.name, "title": self.title, "base": self.base, "rows": rows, "notes": self.notes})
    }
}

/// With commas between thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((&text[..], String::new()), |(w, r)| (w, format!(".{r}")));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |w| ("-", w));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json() {
        let row = |name: &str, x: f64| Measured {
            name: name.into(),
            figures: [("x".to_owned(), vec![x])].into(),
            failed: None,
        };
        let failed = Measured { name: "peer".into(), failed: Some("gone".into()), ..Measured::default() };
        let part = Part {
            name: "pipe",
            title: "a load".into(),
            columns: vec![Column("x", "us", 1, Ratio::Over)],
            base: "bare".into(),
            rows: vec![row("bare", 1000.0), row("recorded", 1250.0), failed],
            notes: vec!["a note".into()],
        };
        let expected = "
pipe: a load
                 us
  bare      1,000.0
  recorded  1,250.0  +25.0 %
  peer: FAILED: gone
  a note
";
        assert_eq!(part.text(), expected);
        assert_eq!(part.json()["rows"][1]["figures"]["x"]["ratio"], 1.25);
        assert_eq!((number(-1234567.5, 0), number(999.0, 0)), ("-1,234,568".into(), "999".into()));
    }
}
