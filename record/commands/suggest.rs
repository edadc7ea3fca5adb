//! What somebody may have meant by a name that there is none of.

/// The nearest of the names; `None` where none is near.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |name: &&str| strsim::damerau_levenshtein(&word, &name.to_lowercase());
    // A third of the letters may be wrong, two at least: names here are short.
    let most = (word.chars().count() / 3).max(2);
    let near = |name: &&str| distance(name) <= most && distance(name) < word.chars().count();
    names.into_iter().filter(near).min_by_key(distance)
}

/// The same as the end of an error: empty, or a question.
pub fn question<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let names = ["runqlat", "biolatency", "profile", "offcputime", "sched_switch"];
        let find = |word| nearest(word, names);
        assert_eq!(
            [find("runqlta"), find("RUNQLAT"), find("bio_latency")],
            [Some("runqlat"), Some("runqlat"), Some("biolatency")]
        );
        assert_eq!([find("sched-swich"), find("profil")], [Some("sched_switch"), Some("profile")]);
        assert_eq!([find("x"), find(""), find("kubernetes"), find("zz")], [None; 4]);
        assert_eq!(
            (question("profle", names), question("?", names)),
            ("; did you mean `profile`?".into(), String::new())
        );
    }
}
