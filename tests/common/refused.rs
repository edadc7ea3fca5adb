//! What cannot work ends with one sentence and a code.

use std::process::Output;

use super::texts;

/// Exit code `code`, nothing on stdout, one sentence on stderr that says `words`, in whatever case.
pub fn assert_one_sentence(output: &Output, code: i32, words: &[&str]) {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {err}");
    assert!(out.is_empty(), "on stdout: {out}");
    assert!(err.trim_end().lines().count() == 1, "not one line: {err}");
    let said = err.to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "does not say {word:?}: {err}");
    }
}
