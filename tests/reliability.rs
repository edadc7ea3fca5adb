//! Every test that docs/reliability.md names exists.

use std::fs;
use std::path::Path;

#[test]
fn every_promise_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.contains("| promise |")).collect();
    assert!(rows.len() > 20, "{} promises", rows.len());
    for row in rows {
        let named = row.split('`').rev().nth(1).and_then(|named| named.split_once(": "));
        let (file, test) = named.unwrap_or_else(|| panic!("no test is named: {row}"));
        let code = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        // A suite that runs in a guest.
        if file.ends_with(".sh") {
            assert!(code.contains(&format!("expect \"{test}\"")), "{file} has no test {test}");
            continue;
        }
        let function = format!("fn {test}()");
        let at = code.find(&function).unwrap_or_else(|| panic!("{file} has no test {test}"));
        let before = code[..at].trim_end().lines().last().unwrap_or_default().trim();
        assert_eq!(before, "#[test]", "{file}: {test}");
    }
}
