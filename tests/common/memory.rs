//! What a trace and a program itself say of that program's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Scratch, printed, replay};

/// Numbers of `call` in format-spec/events/malloc.rs.
pub const FAILED: u64 = 16;
pub const MUNMAP: u64 = 12;

/// What a trace says of one process's memory.
#[derive(Default)]
pub struct Memory {
    /// Bytes, weight and stack by address, of what was not freed.
    pub live: BTreeMap<u64, (u64, u64, u64)>,
    pub allocs: u64,
    pub frees: u64,
    /// Calls by number.
    pub calls: BTreeMap<u64, u64>,
    /// Given out although it was not freed.
    pub twice: u64,
    /// Freed although it was never given out, and by which thread. (The C library frees what its threads cached once more
    /// when they end, and unmaps what it had only reserved.)
    pub strange: Vec<(u64, u64)>,
    /// Given out or taken back, ever.
    pub seen: BTreeSet<u64>,
}

impl Memory {
    pub fn of(trace: &Path, pid: u64) -> Memory {
        let mut memory = Memory::default();
        replay(trace, |event| {
            if event["pid"] == pid {
                memory.take(event);
            }
        });
        memory
    }

    fn take(&mut self, event: &Value) {
        let int = |name: &str| event[name].as_u64().unwrap_or_default();
        let addr = int("addr");
        match event["kind"].as_str().unwrap() {
            "malloc_alloc" => {
                self.allocs += 1;
                *self.calls.entry(int("call")).or_default() += 1;
                let piece = (int("bytes"), int("weight_milli"), int("user_stack_id"));
                let before = self.live.insert(addr, piece);
                self.twice += u64::from(before.is_some());
                self.seen.insert(addr);
            }
            "malloc_free" => {
                self.frees += 1;
                *self.calls.entry(int("call")).or_default() += 1;
                self.live.remove(&addr);
                if !self.seen.contains(&addr) && int("call") != MUNMAP {
                    self.strange.push((int("tid"), addr));
                }
            }
            // The shell's memory went with it.
            "sched_exec" => self.live.clear(),
            _ => {}
        }
    }
}

/// What `leaks` printed: its process, what it leaked by address, its sum.
pub struct Truth {
    pub pid: u64,
    pub leaks: BTreeMap<u64, u64>,
    pub sum: u64,
}

impl Truth {
    pub fn of(output: &str) -> Truth {
        let leak = |line: &str| {
            let (addr, bytes) = line.strip_prefix("leak ")?.split_once(' ')?;
            Some((addr.parse().unwrap(), bytes.parse().unwrap()))
        };
        Truth {
            pid: printed(output, "pid").parse().unwrap(),
            leaks: output.lines().filter_map(leak).collect(),
            sum: printed(output, "sum").parse().unwrap(),
        }
    }

    /// All that is outstanding was leaked, and all that was leaked is.
    pub fn assert_is(&self, memory: &Memory) {
        let live: BTreeMap<u64, u64> = memory.live.iter().map(|(addr, piece)| (*addr, piece.0)).collect();
        assert_eq!(live, self.leaks);
        assert_eq!(memory.twice, 0, "addresses given out twice");
    }
}

/// A program of `tests/load`, with options of its own.
pub fn build(scratch: &Scratch, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let binary = scratch.path(name);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load").join(source);
    let mut command = Command::new(if source.ends_with(".cc") { "c++" } else { "cc" });
    let status = command.args(["-O1", "-fno-omit-frame-pointer", "-o"]).args([&binary, &path]).args(flags).status();
    assert!(status.unwrap().success(), "{name} did not compile");
    binary
}
