//! What a command will map, before it runs: its program, its dynamic linker and what that would load.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, ReadCache};

/// How many `#!` lines lead to a program; the kernel stops at four, too.
const SCRIPTS: usize = 4;

/// Files that `command` will map, as far as can be told: of its program and of every argument that is a program (`nice`,
/// `timeout` and the like run those). What else comes is seen when it is mapped.
pub fn files(command: &[OsString]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (i, word) in command.iter().enumerate() {
        if let Some(program) = if i == 0 { found(word) } else { named(word) } {
            files_of(&program, SCRIPTS, &mut files);
        }
        // env LD_PRELOAD=/usr/lib/liballocator.so ...
        let preloaded = word.as_bytes().strip_prefix(b"LD_PRELOAD=").unwrap_or_default();
        let paths = preloaded.split(|b| matches!(b, b':' | b' ')).filter(|path| path.starts_with(b"/"));
        files
            .extend(paths.map(|path| OsString::from_vec(path.to_vec()).into()).filter(|path: &PathBuf| path.is_file()));
    }
    files
}

/// An argument that is a path of a file.
fn named(word: &OsString) -> Option<PathBuf> {
    let path = PathBuf::from(word);
    (path.components().count() > 1 && path.is_file()).then_some(path)
}

/// A program by its path, or in the folders of PATH.
fn found(word: &OsString) -> Option<PathBuf> {
    if Path::new(word).components().count() > 1 {
        return Some(word.into());
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(word)).find(|path| path.is_file())
}

fn files_of(program: &Path, scripts: usize, files: &mut Vec<PathBuf>) {
    let Ok(file) = File::open(program) else { return };
    if let Some(words) = script(&file) {
        for word in words.iter().take(2).filter(|_| scripts > 0) {
            if let Some(interpreter) = found(word) {
                files_of(&interpreter, scripts - 1, files);
            }
        }
        return;
    }
    files.push(program.to_owned());
    let Some(linker) = linker(&file) else { return };
    // The same as ldd(1) does: the program itself does not run.
    let listed = Command::new(&linker).arg("--list").arg(program).stdin(Stdio::null()).stderr(Stdio::null()).output();
    files.extend(listed.map(|out| paths(&out.stdout)).unwrap_or_default());
    files.push(linker);
}

/// Words behind `#!`.
fn script(file: &File) -> Option<Vec<OsString>> {
    let mut line = Vec::new();
    BufReader::new(file).take(256).read_until(b'\n', &mut line).ok()?;
    let words = line.strip_prefix(b"#!")?.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
    Some(words.map(|w| OsString::from_vec(w.to_vec())).collect())
}

fn linker(file: &File) -> Option<PathBuf> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let endian = elf.endian();
    let path = elf.elf_program_headers().iter().find_map(|s| s.interpreter(endian, elf.data()).ok()?)?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// Paths in lines such as `libc.so.6 => /lib/libc.so.6 (0x7f00)`.
fn paths(listed: &[u8]) -> Vec<PathBuf> {
    let words = listed.split(|b| b.is_ascii_whitespace()).filter(|word| word.starts_with(b"/"));
    words.map(|word| OsString::from_vec(word.to_vec()).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_maps_a_c_library() {
        let files = files(&["sh".into(), "-c".into(), "true".into()]);
        assert!(files.iter().any(|f| f.ends_with("sh")), "{files:?}");
        assert!(files.iter().any(|f| f.to_string_lossy().contains("/libc.so")), "{files:?}");
    }

    #[test]
    fn lines_of_the_linker() {
        let text = b"\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f0)\n\t/lib64/ld.so.2 (0x7f1)\n";
        assert_eq!(paths(text), [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld.so.2")]);
        assert!(files(&["no-such-command-here".into()]).is_empty());
    }
}
