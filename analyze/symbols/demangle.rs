//! Names as people know them: C++, Rust, Go and Java, from what compilers and runtimes write.

use std::fmt::{self, Write};

/// A name longer than this is cut: a few hundred mangled bytes can stand for gigabytes.
const MAX_BYTES: usize = 16 << 10;

/// `raw` demangled, or as it is.
pub fn demangle(raw: &[u8]) -> String {
    let name = String::from_utf8_lossy(raw);
    // A symbol's version (`memcpy@@GLIBC_2.14`) says how to link, not what runs.
    let plain = match name.split_once('@') {
        Some((before, version)) if !before.is_empty() && version.trim_start_matches('@').starts_with("GLIBC") => before,
        _ => &name,
    };
    let known = rust(plain).or_else(|| cpp(plain)).or_else(|| java(plain)).or_else(|| go(plain));
    known.unwrap_or_else(|| plain.to_owned())
}

/// Takes text up to a limit.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn rust(name: &str) -> Option<String> {
    let symbol = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Bounded(String::new());
    // The alternate form leaves the hash of the crate out: the same function has one name in all builds.
    write!(out, "{symbol:#}").ok()?;
    Some(out.0)
}

fn cpp(name: &str) -> Option<String> {
    // Without this any `i` would be the type `int`.
    if !["_Z", "__Z", "___Z", "_GLOBAL__"].iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(name).ok()?;
    let mut out = Bounded(String::new());
    symbol.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::new()).ok()?;
    Some(out.0)
}

/// `Ljava/lang/String;::hashCode`, as agents write it, or `java/lang/String.hashCode`.
fn java(name: &str) -> Option<String> {
    let (class, method) = name.strip_prefix('L')?.split_once(";::")?;
    Some(format!("{}::{method}", class.replace('/', ".")))
}

/// Go escapes dots and the like in the last part of a package's path: `gopkg.in/yaml%2ev3.Marshal`.
fn go(name: &str) -> Option<String> {
    if !name.contains('%') || name.contains(' ') {
        return None;
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_languages() {
        for (raw, name) in [
            ("main", "main"),
            ("i", "i"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("Ljava/lang/String;::hashCode", "java.lang.String::hashCode"),
            ("int java.lang.StringLatin1.hashCode(byte[])", "int java.lang.StringLatin1.hashCode(byte[])"),
            ("gopkg.in/yaml%2ev3.Marshal", "gopkg.in/yaml.v3.Marshal"),
            ("main.(*Server).Serve.func1", "main.(*Server).Serve.func1"),
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("LazyCompile:~f /x%y.js:1", "LazyCompile:~f /x%y.js:1"),
            ("_ZNot mangled", "_ZNot mangled"),
            ("100%", "100%"),
        ] {
            assert_eq!(demangle(raw.as_bytes()), name);
        }
        assert_eq!(demangle(&[b'a', 0xff]), "a\u{fffd}");
    }

    #[test]
    fn a_name_cannot_grow_without_bound() {
        // Each substitution doubles what the one before stands for.
        let mut raw = String::from("_Z1fIiE1aIiiE");
        (0..40).for_each(|i| {
            let _ = write!(raw, "1bIS{i:X}_S{i:X}_E");
        });
        assert!(demangle(raw.as_bytes()).len() <= MAX_BYTES.max(raw.len()));
    }
}
