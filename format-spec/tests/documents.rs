//! SPEC.md and REGISTRY.md say what the code does: every number, kind, field, type and unit.

use std::collections::BTreeSet;

use bpfrec_format::block::{Codec, Encoding};
use bpfrec_format::{BlockType, EndReason, MAJOR, MINOR, Registry, Source, Type, meta};

const SPEC: &str = include_str!("../SPEC.md");
const REGISTRY: &str = include_str!("../REGISTRY.md");

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Rows of the table under `heading`; ranges, reserved and forbidden numbers left out.
fn listed(heading: &str) -> BTreeSet<(u64, String)> {
    let (_, part) = REGISTRY.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let part = part.split("\n## ").next().unwrap();
    let rows = part.lines().filter(|l| l.starts_with("| ")).map(cells);
    let rows = rows.filter_map(|row| Some((number(&row[0])?, row[1].clone())));
    rows.filter(|(_, name)| !name.starts_with("reserved") && !name.starts_with("never")).collect()
}

fn coded(all: impl IntoIterator<Item = (u64, String)>) -> BTreeSet<(u64, String)> {
    all.into_iter().collect()
}

#[test]
fn registry_lists_every_number() {
    macro_rules! same {
        ($heading:literal, $ty:ident) => {
            assert_eq!(listed($heading), coded($ty::ALL.iter().map(|x| (*x as u64, x.name().to_owned()))), $heading);
        };
    }
    same!("Block types", BlockType);
    same!("Codecs", Codec);
    same!("Encodings", Encoding);
    same!("Types", Type);
    same!("Sources", Source);
    same!("End reasons", EndReason);
    let kinds = Registry::default().kinds().into_iter().map(|k| (u64::from(k.id), k.name.clone()));
    assert_eq!(listed("Kinds"), coded(kinds));
    let reasons = (0..256).filter(|r| meta::reason::text(*r) != "unknown reason");
    assert_eq!(listed("Loss reasons"), coded(reasons.map(|r| (r, meta::reason::text(r).to_owned()))));
    let words = |text: fn(u64) -> &'static str| coded((1..5).map(|n| (n, text(n).to_owned())));
    assert_eq!(listed("Steps of shedding"), words(meta::shed::step));
    assert_eq!(listed("Causes of shedding"), words(meta::shed::cause));
    let versions = [(u64::from(MAJOR), "major".to_owned()), (u64::from(MINOR), "minor".to_owned())];
    assert_eq!(listed("Version"), coded(versions));
    let spaces = [(meta::space::KERNEL, "kernel".to_owned()), (meta::space::USER, "user".to_owned())];
    assert_eq!(listed("Spaces of stacks"), coded(spaces));
    assert!(SPEC.starts_with(&format!("# The `.bpr` trace format, version {MAJOR}.{MINOR}\n")));
}

#[test]
fn registry_says_which_losses_lose_events() {
    let (_, part) = REGISTRY.split_once("## Loss reasons\n").unwrap();
    let part = part.split("\n## ").next().unwrap();
    for row in part.lines().filter(|l| l.starts_with("| ")).map(cells) {
        if let Some(reason) = number(&row[0]) {
            assert_eq!(row[2] == "yes", meta::reason::loses_events(reason), "reason {reason}");
        }
    }
}

#[test]
fn column_tags_are_the_same_in_both() {
    let (_, part) = SPEC.split_once("| tag | name |").unwrap();
    let rows = part.lines().skip(2).take_while(|l| l.starts_with("| ")).map(cells);
    let rows = rows.map(|row| (number(&row[0]).unwrap(), row[1].clone()));
    assert_eq!(coded(rows), listed("Column tags"));
}

#[test]
fn spec_describes_every_field() {
    for kind in Registry::default().kinds() {
        let title = match kind.id {
            0..0x20 => format!("{} {}", kind.id, kind.name),
            id => format!("{id:#04x} {}", kind.name),
        };
        let mut parts = SPEC.split("\n### ").skip(1);
        let part = parts.find(|p| p.lines().next().unwrap().split(", ").any(|t| t == title));
        let part = part.unwrap_or_else(|| panic!("SPEC.md has no heading {title}"));
        let rows = part.lines().skip_while(|l| !l.starts_with("|---")).skip(1).take_while(|l| l.starts_with("| "));
        let rows: Vec<_> = rows.map(cells).collect();
        assert_eq!(rows.len(), kind.fields.len(), "fields of {title}");
        for (row, field) in rows.iter().zip(&kind.fields) {
            let mut expected = vec![field.name.clone(), field.ty.name().to_owned()];
            if kind.row_size > 0 {
                expected.extend([field.offset.to_string(), field.width.to_string()]);
            }
            expected.push(field.unit.clone());
            assert_eq!(row[..row.len() - 1], expected, "{title}");
            assert!(!row[row.len() - 1].is_empty(), "{title}: {} is not explained", field.name);
        }
        if kind.id >= 0x20 {
            assert!(part.contains(&format!("raw rows of {} bytes", kind.row_size)), "{title}");
            assert_eq!(kind.fields[0].name, "ts_ns");
        }
    }
}
