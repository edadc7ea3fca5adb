//! A program and a library of another user, where only their owner may go.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Scratch, folded, samples_in, wait_until};
use std::path::Path;

/// The program and its process.
pub struct Foreign {
    process: Child,
    _files: Scratch,
}

impl Foreign {
    /// Runs it in a mount namespace of its own, in a folder that only its owner may enter; `deleted`: program and library are
    /// removed while they run. Each has a build id of its own, of `name`.
    pub fn start(name: &str, deleted: bool) -> Foreign {
        let files = Scratch::new();
        let root = env!("CARGO_MANIFEST_DIR");
        std::fs::write(
            files.path("main.c"),
            "#include <time.h>\nvoid program_work(void); void library_work(void);\n\
             int main(void) { time_t end = time(0) + 60; while (time(0) < end) { program_work(); library_work(); } }\n",
        )
        .unwrap();
        let delete = if deleted { "(sleep 0.3; rm /mnt/own/*) &" } else { "" };
        let id = |part: u8| {
            std::iter::once(part).chain(name.bytes().cycle()).take(20).map(|b| format!("{b:02x}")).collect::<String>()
        };
        let script = format!(
            "cc='cc -O1 -fno-omit-frame-pointer'; cd {files}
             $cc -shared -fPIC -DNAME=library_work -Wl,--build-id=0x{library} -o libown.so {root}/tests/load/library.c
             $cc -DNAME=program_work -Wl,--build-id=0x{program} -o program main.c {root}/tests/load/library.c -L. -lown -Wl,-rpath,/mnt/own
             mount -t tmpfs tmpfs /mnt; mkdir -m 700 /mnt/own; cp program libown.so /mnt/own; chown -R 65534 /mnt/own; {delete}
             cd /; exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all /mnt/own/program",
            files = files.path("").display(),
            library = id(b'l'),
            program = id(b'p'),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", &script]).stdout(Stdio::null());
        let foreign = Foreign { process: command.spawn().unwrap(), _files: files };
        let exe = format!("/proc/{}/exe", foreign.pid());
        let wanted = if deleted { "/mnt/own/program (deleted)" } else { "/mnt/own/program" };
        wait_until("the program runs", Duration::from_secs(20), || {
            std::fs::read_link(&exe).is_ok_and(|path| path.as_os_str() == wanted)
        });
        foreign
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether functions of the program and of the library have their names, from the trace alone.
    pub fn named(&self, trace: &Path) -> (bool, bool) {
        let stacks = folded(trace, &["--trace-only", "-p", &self.pid().to_string()]);
        assert!(
            stacks.iter().map(|(_, count)| count).sum::<u64>() > 20,
            "too few samples of {}: {stacks:?}",
            self.pid()
        );
        (samples_in(&stacks, "program_work") > 0, samples_in(&stacks, "library_work") > 0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
