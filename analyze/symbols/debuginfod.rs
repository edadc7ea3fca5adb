//! Debug files and programs from debuginfod servers, by build id: in parallel, within limits of time, each file asked for
//! once. What no server has is remembered too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::elf::Elf;
use super::options::Debuginfod;

/// Files that are fetched at the same time.
const WORKERS: usize = 8;
/// After so many failures a server is not asked any more.
const FAILURES: u32 = 2;
/// How long it holds that no server has a file.
const MISSING: Duration = Duration::from_secs(24 * 3600);
/// No debug file is larger; a server that sends more is broken.
const MAX_BYTES: u64 = 16 << 30;

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Build id in hex.
    pub build_id: String,
    /// `debuginfo` or `executable`.
    pub kind: &'static str,
}

struct Server {
    url: String,
    failures: AtomicU32,
    /// Why it failed first.
    why: Mutex<Option<String>>,
}

/// What became of the jobs.
#[derive(Debug, Default)]
pub struct Fetched {
    /// In the order of the jobs; `None` where no server has it.
    pub files: Vec<Option<PathBuf>>,
    /// What went wrong, a sentence each.
    pub notes: Vec<String>,
}

enum Answer {
    File,
    NotThere,
}

/// Fetches all jobs into the cache.
pub fn fetch(options: &Debuginfod, jobs: &[Job]) -> Fetched {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(options.wait))
        .timeout_recv_response(Some(options.wait))
        .timeout_global(Some(options.download))
        .http_status_as_error(false)
        .user_agent(concat!("bpfrec/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let server = |url: &'_ String| Server {
        url: url.trim_end_matches('/').to_owned(),
        failures: AtomicU32::new(0),
        why: Mutex::default(),
    };
    let servers: Vec<Server> = options.urls.iter().map(server).collect();
    let next = Mutex::new(0);
    let done: Vec<Mutex<(Option<PathBuf>, Option<String>)>> = jobs.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let at = {
                        let Ok(mut next) = next.lock() else { return };
                        let at = *next;
                        *next += 1;
                        at
                    };
                    let Some(job) = jobs.get(at) else { return };
                    let result = one(&agent, options, &servers, job);
                    if let Ok(mut slot) = done[at].lock() {
                        *slot = result;
                    }
                }
            });
        }
    });
    let mut fetched = Fetched::default();
    for slot in done {
        let (file, note) = slot.into_inner().unwrap_or_default();
        fetched.files.push(file);
        fetched.notes.extend(note);
    }
    for server in &servers {
        if let Ok(Some(why)) = server.why.lock().map(|why| why.clone()) {
            fetched.notes.push(format!("debuginfod server {}: {why}", server.url));
        }
    }
    fetched
}

/// The file of one job, and a sentence about what is wrong with it.
fn one(agent: &ureq::Agent, options: &Debuginfod, servers: &[Server], job: &Job) -> (Option<PathBuf>, Option<String>) {
    let dir = options.cache.join(&job.build_id);
    let (path, missing) = (dir.join(job.kind), dir.join(format!("{}.missing", job.kind)));
    let asked: String = servers.iter().map(|s| format!("{}\n", s.url)).collect();
    let young = missing.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age < MISSING));
    if young && fs::read_to_string(&missing).is_ok_and(|before| before == asked) {
        return (None, None);
    }
    if let Err(e) = fs::create_dir_all(&dir) {
        return (None, Some(format!("debuginfod: cannot make {}: {e}", dir.display())));
    }
    let (mut all_answered, mut note) = (true, None);
    for server in servers {
        if server.failures.load(Ordering::Relaxed) >= FAILURES {
            all_answered = false;
            continue;
        }
        match ask(agent, &server.url, job, &path) {
            Ok(Answer::NotThere) => {}
            Ok(Answer::File) => return (Some(path), None),
            Err(Failure::Server(why)) => {
                all_answered = false;
                server.failures.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut first) = server.why.lock() {
                    first.get_or_insert(why);
                }
            }
            Err(Failure::File(why)) => {
                all_answered = false;
                note.get_or_insert(why);
            }
        }
    }
    if all_answered {
        // Only a hint for the next run: that it cannot be kept does no harm.
        let _ = fs::write(&missing, asked);
    }
    (None, note)
}

enum Failure {
    /// The server does not work.
    Server(String),
    /// The file is not right.
    File(String),
}

fn ask(agent: &ureq::Agent, url: &str, job: &Job, path: &Path) -> Result<Answer, Failure> {
    let broken = |e: &dyn std::fmt::Display| Failure::Server(e.to_string());
    let url = format!("{url}/buildid/{}/{}", job.build_id, job.kind);
    let mut response = agent.get(&url).call().map_err(|e| broken(&e))?;
    match response.status().as_u16() {
        200 => {}
        404 | 410 => return Ok(Answer::NotThere),
        status => return Err(Failure::Server(format!("it answers {status} to {url}"))),
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let body = response.body_mut().with_config().limit(MAX_BYTES).reader();
    let saved = save(body, &part).map_err(|e| broken(&e));
    let checked = saved.and_then(|()| match Elf::open(&part).map(|elf| elf.build_id) {
        Some(own) if own == job.build_id => fs::rename(&part, path).map_err(|e| Failure::File(e.to_string())),
        Some(own) => Err(Failure::File(format!(
            "{url} is not used: its build id is {}, the recorded one is {}",
            if own.is_empty() { "missing" } else { &own },
            job.build_id
        ))),
        None => Err(Failure::File(format!("{url} is not used: it is no ELF file"))),
    });
    if checked.is_err() {
        let _ = fs::remove_file(&part);
    }
    checked.map(|()| Answer::File)
}

fn save(mut body: impl io::Read, part: &Path) -> io::Result<()> {
    let mut file = File::create(part)?;
    io::copy(&mut body, &mut file)?;
    file.flush()
}
