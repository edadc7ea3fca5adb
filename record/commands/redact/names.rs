//! How a name is replaced: what makes it a path, a unit or a mapping stays, what it is called goes.

use super::tokens::Tokens;

/// Mappings that the kernel names.
const MAPPINGS: [&[u8]; 11] = [
    b"[vdso]",
    b"[vsyscall]",
    b"[vvar]",
    b"[vvar_vclock]",
    b"[heap]",
    b"[stack]",
    b"[uprobes]",
    b"//anon",
    b"/dev/zero",
    b"/anon_hugepage",
    b"[anon]",
];
/// Mappings that the kernel names, and a name that the program gave.
const NAMED_MAPPINGS: [(&[u8], &[u8]); 4] =
    [(b"/memfd:", b""), (b"/SYSV", b""), (b"[anon:", b"]"), (b"[anon_shmem:", b"]")];
/// What the kernel writes behind the path of a file that is gone.
const DELETED: &[u8] = b" (deleted)";
/// Beginnings by which the analyzer knows the C library and its loader, where stacks begin, and what stands behind them.
const C_LIBRARY: [(&[u8], &[u8]); 5] =
    [(b"libc.so", b"."), (b"libc-", b""), (b"libpthread", b"-"), (b"ld.so", b"."), (b"ld-", b"")];
/// What systemd makes is known by the end of its name.
const UNITS: [&[u8]; 3] = [b".service", b".scope", b".slice"];
/// No path of Linux is longer: what is, becomes one token, so that the text does not grow without bounds.
const LONGEST_PATH: usize = 4096;
/// Functions where threads begin: without them all stacks look cut. Also where the kernel's code begins and ends.
const KNOWN_FUNCTIONS: [&[u8]; 17] = [
    b"_start",
    b"_start_c",
    b"_dl_start",
    b"_dl_start_user",
    b"__libc_start_main",
    b"__libc_start_call_main",
    b"__libc_start_main_impl",
    b"generic_start_main",
    b"start_thread",
    b"clone",
    b"clone3",
    b"__clone",
    b"__clone3",
    b"_stext",
    b"_etext",
    b"_einittext",
    b"__init_end",
];
/// Names of the kernel for padding before a function.
const PADDING: &[u8] = b"__pfx_";
/// Endings of files with programs that runtimes compile.
const SCRIPTS: [&[u8]; 12] =
    [b".js", b".mjs", b".cjs", b".ts", b".tsx", b".jsx", b".py", b".rb", b".php", b".lua", b".java", b".cs"];
/// Where a file name in the name of a compiled function may begin.
const BEFORE_FILE: &[u8] = b" \t\n\r:()[]{}<>,;'\"`=|";
/// Where it may end.
const AFTER_FILE: &[u8] = b"()[]{}<>,;'\"`|\n";

/// A name without parts.
pub fn word(tokens: &mut Tokens, name: &[u8], out: &mut Vec<u8>) {
    if !name.is_empty() {
        out.extend(tokens.word(name));
    }
}

/// The file, mapping or cgroup at a path. Parts are replaced one by one, so that paths stay trees.
pub fn path(tokens: &mut Tokens, path: &[u8], out: &mut Vec<u8>) {
    if MAPPINGS.contains(&path) {
        return out.extend(path);
    }
    let named = NAMED_MAPPINGS.iter().find_map(|(before, after)| {
        let name = path.strip_prefix(*before)?.strip_suffix(*after)?;
        Some((*before, name, *after))
    });
    if let Some((before, name, after)) = named {
        out.extend(before);
        word(tokens, name, out);
        return out.extend(after);
    }
    let (path, deleted) = path.strip_suffix(DELETED).map_or((path, &b""[..]), |path| (path, DELETED));
    if path.len() > LONGEST_PATH {
        out.extend(path.starts_with(b"/").then_some(b'/'));
        word(tokens, path, out);
    } else {
        for (i, part) in path.split(|b| *b == b'/').enumerate() {
            out.extend((i > 0).then_some(b'/'));
            self::part(tokens, part, out);
        }
    }
    out.extend(deleted);
}

/// A part of a path, or a systemd unit.
pub fn part(tokens: &mut Tokens, part: &[u8], out: &mut Vec<u8>) {
    if let Some((before, between)) = C_LIBRARY.iter().find(|(before, _)| part.starts_with(before)) {
        out.extend(*before);
        out.extend(*between);
        return word(tokens, part, out);
    }
    let unit = UNITS.iter().find_map(|end| Some((part.strip_suffix(*end).filter(|name| !name.is_empty())?, *end)));
    let (name, end) = unit.unwrap_or((part, b""));
    word(tokens, name, out);
    out.extend(end);
}

/// A function of a program or of the kernel.
pub fn function(tokens: &mut Tokens, name: &[u8], out: &mut Vec<u8>) {
    let bare = name.split(|b| *b == b'@').next().unwrap_or_default();
    if KNOWN_FUNCTIONS.contains(&bare) {
        return out.extend(bare);
    }
    let bare = name.strip_prefix(PADDING).filter(|bare| !bare.is_empty());
    out.extend(bare.map_or(&b""[..], |_| PADDING));
    word(tokens, bare.unwrap_or(name), out);
}

/// The name of a function that a runtime compiled: the file in it goes, the function stays.
pub fn compiled(tokens: &mut Tokens, name: &[u8], out: &mut Vec<u8>) {
    // Python: py::FUNCTION:FILE, whatever the file is called.
    if let Some(rest) = name.strip_prefix(b"py::")
        && let Some(at) = rest.iter().position(|b| *b == b':')
        && !rest[at + 1..].starts_with(b"<")
    {
        let (function, file) = name.split_at(4 + at + 1);
        out.extend(function);
        return path(tokens, file, out);
    }
    let is_separator = |b: &u8| matches!(b, b'/' | b'\\');
    if let Some(first) = name.iter().position(is_separator) {
        // From the first part to the last: a folder's name may have spaces.
        let last = name.iter().rposition(is_separator).unwrap_or(first);
        let start = name[..first].iter().rposition(|b| BEFORE_FILE.contains(b)).map_or(0, |at| at + 1);
        let end = last + 1 + end_of_file(&name[last + 1..]);
        scripts(tokens, &name[..start], out);
        for (i, part) in name[start..end].split(is_separator).enumerate() {
            out.extend((i > 0).then_some(b'/'));
            word(tokens, part, out);
        }
        return scripts(tokens, &name[end..], out);
    }
    scripts(tokens, name, out);
}

/// Bytes up to the line number, or to what cannot be of a file name.
fn end_of_file(rest: &[u8]) -> usize {
    let ends = |at: usize| match rest[at] {
        b':' => rest.get(at + 1).is_none_or(|next| next.is_ascii_digit() || *next == b':'),
        byte => AFTER_FILE.contains(&byte),
    };
    (0..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len())
}

/// Words that end as files of programs do.
fn scripts(tokens: &mut Tokens, text: &[u8], out: &mut Vec<u8>) {
    for piece in text.split_inclusive(|b| BEFORE_FILE.contains(b)) {
        let (bare, after) = match piece.split_last() {
            Some((last, bare)) if BEFORE_FILE.contains(last) => (bare, &piece[bare.len()..]),
            _ => (piece, &b""[..]),
        };
        match SCRIPTS.iter().any(|end| bare.len() > end.len() && bare.ends_with(end)) {
            true => word(tokens, bare, out),
            false => out.extend(bare),
        }
        out.extend(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `T` for each token.
    fn shape(rule: fn(&mut Tokens, &[u8], &mut Vec<u8>), name: &str) -> String {
        let mut tokens = Tokens::with(b"key");
        let mut out = Vec::new();
        rule(&mut tokens, name.as_bytes(), &mut out);
        let mut text = String::from_utf8(out).unwrap();
        let words = name.split(['/', '\\', ':', ' ', '(', ')', ';', '@', ']']).map(|w| w.as_bytes().to_vec());
        let mut words: Vec<Vec<u8>> = words.chain([name.as_bytes().to_vec()]).collect();
        for (start, end) in (0..name.len()).flat_map(|a| (a..=name.len()).map(move |b| (a, b))) {
            words.push(name.as_bytes()[start..end].to_vec());
        }
        for word in words {
            let token = String::from_utf8(tokens.word(&word).to_vec()).unwrap();
            text = text.replace(&token, "T");
        }
        text
    }

    #[test]
    fn paths_keep_their_form() {
        for (name, expected) in [
            ("", ""),
            ("/", "/"),
            ("/usr/bin/acme", "/T/T/T"),
            ("../../etc", "T/T/T"),
            ("/srv/acme (deleted)", "/T/T (deleted)"),
            ("/usr/lib/libc.so.6", "/T/T/libc.so.T"),
            ("/lib64/ld-linux-x86-64.so.2", "/T/ld-T"),
            ("[vdso]", "[vdso]"),
            ("[acme]", "T"),
            ("[anon:acme]", "[anon:T]"),
            ("/memfd:acme", "/memfd:T"),
            ("/memfd:acme (deleted)", "/memfd:T"),
            ("/system.slice/acme.service", "/T.slice/T.service"),
            ("/.slice", "/T"),
        ] {
            assert_eq!(shape(path, name), expected, "{name}");
        }
        let mut long = Vec::new();
        path(&mut Tokens::with(b"key"), "/a".repeat(4000).as_bytes(), &mut long);
        assert_eq!(long.len(), 1 + 12);
    }

    #[test]
    fn compiled_functions_lose_their_files() {
        for (name, expected) in [
            ("JS:*handle /srv/acme/index.js:10:5", "JS:*handle /T/T/T:10:5"),
            ("JS:~f file:///srv/My App/x.mjs:1:2", "JS:~f file:///T/T/T:1:2"),
            ("JS:^f index.js:3", "JS:^f T:3"),
            ("py::main:/home/acme/my app.py", "py::main:/T/T/T"),
            ("py::main:acme", "py::main:T"),
            ("py::f:<string>", "py::f:<string>"),
            ("Lcom/acme/Secret;::run", "T/T/T;::run"),
            ("f (C:\\acme\\x.js:4)", "f (C:/T/T:4)"),
            ("Builtin:ArrayMap", "Builtin:ArrayMap"),
            ("RegExp:a/b", "RegExp:T/T"),
        ] {
            assert_eq!(shape(compiled, name), expected, "{name}");
        }
    }

    #[test]
    fn functions_that_the_analyzer_looks_for_stay() {
        for (name, expected) in [
            ("acme_run", "T"),
            ("__libc_start_main@@GLIBC_2.34", "__libc_start_main"),
            ("__pfx_acme", "__pfx_T"),
            ("__pfx_", "T"),
            ("", ""),
        ] {
            assert_eq!(shape(function, name), expected, "{name}");
        }
    }
}
