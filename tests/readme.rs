//! What the README shows of other files is what stands in them.

use std::fs;
use std::path::Path;

/// Lines of the README's only block in this language.
fn block(readme: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks: Vec<&str> = readme.split(&begin).skip(1).collect();
    assert_eq!(blocks.len(), 1, "blocks in {language}");
    let block = blocks[0].split("```").next().unwrap();
    block.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_unit_and_the_pod_are_those_of_packaging() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for (language, file) in [("ini", "packaging/bpfrec.service"), ("yaml", "packaging/kubernetes.yaml")] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let shown = block(&readme, language);
        assert!(shown.len() > 5, "{shown:?}");
        // In the same order, as far as they are shown.
        let mut lines = text.lines().map(str::trim);
        for line in shown {
            assert!(lines.any(|l| l == line), "{file} has no line, or none behind the others, {line:?}");
        }
    }
}
