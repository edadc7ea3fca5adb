//! Debug files from a server on this machine that has them, lacks them, sends others, or never answers.
#![cfg(all(target_os = "linux", feature = "debuginfod"))]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bpfrec_analyze::Meta;
use bpfrec_analyze::symbols::elf::Elf;
use bpfrec_analyze::symbols::{Debuginfod, Options, Symbols};
use bpfrec_format::Trace;
use common::Builder;
use common::V;
use common::program::{Dir, address, compile, describe, map, sample, strip};

/// A server of these paths. The address of one that answers nothing ends with `/never`.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(files: BTreeMap<String, Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, files) = (asked.clone(), Arc::new(files));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, files) = (log.clone(), files.clone());
            std::thread::spawn(move || answer(stream, &log, &files));
        }
    });
    Server { url, asked }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, files: &BTreeMap<String, Vec<u8>>) {
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(path.clone());
    if path.starts_with("/never") {
        // Until the other side has had enough.
        let _ = stream.read(&mut part);
        return;
    }
    let (status, body) = match files.get(&path) {
        Some(body) => ("200 OK", body.as_slice()),
        None if path.starts_with("/broken") => ("500 Internal Server Error", &b""[..]),
        None => ("404 Not Found", &b""[..]),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

const C: &str = "
    __attribute__((noinline)) static int hidden(int x) { __asm__ volatile(\"\" : \"+r\"(x)); return x * 3; }
    int shown(int x) { return hidden(x) + 1; }";

struct Case {
    dir: Dir,
    elf: Elf,
    trace: Trace,
    debug: Vec<u8>,
    program: Vec<u8>,
}

/// A trace with a frame in `hidden` of a stripped library that is not at its path any more.
fn case(described: bool) -> Case {
    let dir = Dir::new();
    let lib = compile(&dir, "libx.c", C, &["-O1", "-g"]);
    let addr = address(&lib, "hidden");
    let whole = std::fs::read(&lib).unwrap();
    let separate = dir.path("libx.debug");
    strip(&lib, &separate);
    let elf = Elf::open(&lib).unwrap();
    let mut b = Builder::new();
    map(&mut b, &elf, "/gone/libx.so", &elf.build_id);
    sample(&mut b, &elf, 1, addr);
    if described {
        describe(&mut b, &elf, "/gone/libx.so", &[("build_id", V::T(&elf.build_id))]);
    }
    Case { dir, elf, trace: b.trace(), debug: std::fs::read(separate).unwrap(), program: whole }
}

/// Name, its source, and the notes.
fn resolve(case: &Case, cache: &Path, urls: &[&String]) -> (String, &'static str, Vec<String>) {
    let mut meta = Meta::load(&case.trace).unwrap();
    let servers = Debuginfod {
        wait: Duration::from_millis(300),
        ..Debuginfod::new(urls.iter().map(|url| (*url).clone()).collect(), cache.into())
    };
    meta.names = Options { debuginfod: Some(servers), caches: vec![cache.into()], ..Options::default() };
    let symbols = Symbols::resolve(&meta);
    let frame = symbols.frames_of(symbols.stack(1).unwrap()).next().unwrap().clone();
    (frame.name, frame.source.name(), symbols.notes)
}

#[test]
fn a_debug_file_is_fetched_once() {
    let case = case(true);
    let path = format!("/buildid/{}/debuginfo", case.elf.build_id);
    let lacking = serve(BTreeMap::new());
    let server = serve([(path.clone(), case.debug.clone())].into());
    let cache = case.dir.path("cache");
    let urls = [&lacking.url, &server.url];
    assert_eq!(resolve(&case, &cache, &urls), ("hidden".into(), "debuginfod", vec![]));
    assert_eq!(
        (lacking.asked.lock().unwrap().clone(), server.asked.lock().unwrap().clone()),
        (vec![path.clone()], vec![path.clone()])
    );
    // From then on from the cache, whatever becomes of the servers.
    assert_eq!(resolve(&case, &cache, &urls), ("hidden".into(), "cache", vec![]));
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[test]
fn what_no_server_has_is_remembered() {
    let case = case(true);
    let server = serve(BTreeMap::new());
    let cache = case.dir.path("cache");
    for _ in 0..2 {
        let (name, source, notes) = resolve(&case, &cache, &[&server.url]);
        assert!(name.starts_with("[libx.so+") && source == "none" && notes.is_empty(), "{name} {notes:?}");
    }
    let kinds: Vec<String> =
        server.asked.lock().unwrap().iter().map(|p| p.rsplit('/').next().unwrap().into()).collect();
    assert_eq!(kinds, ["debuginfo", "executable"]);
    // Another server is asked all the same.
    let other = serve([(format!("/buildid/{}/executable", case.elf.build_id), case.program.clone())].into());
    assert_eq!(resolve(&case, &cache, &[&other.url]).0, "hidden");
}

#[test]
fn a_trace_that_does_not_say_what_is_loaded_needs_the_program() {
    let case = case(false);
    let of = |kind: &str| format!("/buildid/{}/{kind}", case.elf.build_id);
    let server = serve([(of("debuginfo"), case.debug.clone()), (of("executable"), case.program.clone())].into());
    let (name, source, notes) = resolve(&case, &case.dir.path("cache"), &[&server.url]);
    assert_eq!((name.as_str(), source, notes.len()), ("hidden", "debuginfod", 0));
}

#[test]
fn what_is_wrong_is_refused_and_not_kept() {
    let case = case(true);
    let other = Dir::new();
    let another = compile(&other, "liby.c", &C.replace("* 3", "* 7"), &["-O1", "-g"]);
    let path = format!("/buildid/{}/debuginfo", case.elf.build_id);
    for (body, why) in
        [(std::fs::read(&another).unwrap(), "its build id is"), (b"<html>".to_vec(), "it is no ELF file")]
    {
        let server = serve([(path.clone(), body)].into());
        let cache = case.dir.path(why);
        let (_, source, notes) = resolve(&case, &cache, &[&server.url]);
        assert!(source == "none" && notes.len() == 1 && notes[0].contains(why), "{notes:?}");
        let kept = std::fs::read_dir(cache.join(&case.elf.build_id)).unwrap().flatten();
        let kept: Vec<_> =
            kept.map(|f| f.file_name().into_string().unwrap()).filter(|n| n.starts_with("debuginfo")).collect();
        assert!(kept.is_empty(), "{kept:?}");
        // A server that has it is still asked, and it is no longer missing.
        let right = serve([(path.clone(), case.debug.clone())].into());
        assert_eq!(resolve(&case, &cache, &[&server.url, &right.url]).0, "hidden");
    }
}

#[test]
fn servers_that_do_not_answer_are_given_up() {
    let case = case(true);
    let path = format!("/buildid/{}/debuginfo", case.elf.build_id);
    let server = serve([(path, case.debug.clone())].into());
    let (never, broken) = (format!("{}/never", server.url), format!("{}/broken", server.url));
    let nobody = "http://127.0.0.1:1".to_owned();
    let urls = [&never, &broken, &nobody, &server.url];
    let (name, source, notes) = resolve(&case, &case.dir.path("cache"), &urls);
    assert_eq!((name.as_str(), source, notes.len()), ("hidden", "debuginfod", 3), "{notes:?}");
    assert!(notes[0].starts_with(&format!("debuginfod server {never}: ")) && notes[1].contains("500"), "{notes:?}");
    // Nothing is remembered as missing when a server did not say so.
    let cache = case.dir.path("other");
    assert_eq!(resolve(&case, &cache, &[&never]).1, "none");
    assert_eq!(resolve(&case, &cache, &[&server.url]).1, "debuginfod");
}
