//! Needs root: what a recording must not hold.
#![cfg(all(feature = "record", feature = "analyze", target_os = "linux"))]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::*;

/// Keeps a word in its memory: on the stack, from malloc, in a file's name that it closes; works, waits, allocates, writes.
const PROGRAM: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    volatile char on_stack[64];
    const char other[] = "TUBDLTFDSFU";
    for (int i = 0; i < 11; i++) on_stack[i] = other[i] - 1;
    for (time_t end = time(0) + 4; time(0) < end;) {
        char *heap = malloc(4096);
        strcpy(heap, argv[1]);
        strcat(heap, getenv("BPFREC_TEST_WORD"));
        for (int i = 0; i < 200000; i++) on_stack[63]++;
        write(1, heap, strlen(heap));
        usleep(200);
        free(heap);
    }
    return on_stack[0] != 'S';
}"#;

#[test]
fn root_no_command_line_environment_or_memory_is_in_the_file() {
    let Some(_alone) = alone_as_root("secrets") else { return };
    let scratch = Scratch::new();
    let (source, binary) = (scratch.path("keeper.c"), scratch.path("keeper"));
    fs::write(&source, PROGRAM).unwrap();
    assert!(Command::new("cc").args(["-O1", "-w", "-o"]).args([&binary, &source]).status().unwrap().success());
    let run = || {
        let mut command = Command::new(&binary);
        command.arg("ARGUMENTSECRET").env("BPFREC_TEST_WORD", "ENVIRONSECRET").stdout(Stdio::null());
        command.spawn().unwrap()
    };
    // One that is there when the recording begins, one that comes later, and the recorder's own command.
    let mut before = run();
    let trace = scratch.path("t.bpr");
    let options = ["-e", "sched,offcpu,block,malloc,kmem,profile", "--unwind", "dwarf", "-F", "999", "--waker-stacks"];
    let own = format!("BPFREC_TEST_WORD=ENVIRONSECRET {} ARGUMENTSECRET >/dev/null", binary.display());
    std::thread::scope(|scope| {
        let later = scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(1500));
            run()
        });
        record_while(&scratch, &trace, &options, &own);
        later.join().unwrap().wait().unwrap();
    });
    assert!(before.wait().unwrap().success());
    let sampled = folded(&trace, &[]);
    assert!(sampled.iter().any(|(frames, _)| frames[0] == "keeper"), "{sampled:?}");
    for bytes in [all_bytes(&trace), fs::read(&trace).unwrap()] {
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
        assert!(holds(b"bpfrec") || holds(b"keeper"), "nothing is found in what was read");
        // Whole, and the parts that a register or a word of the stack would have.
        for secret in
            ["ARGUMENTSECRET", "ARGUMENT", "ENVIRONSECRET", "ENVIRONS", "STACKSECRET", "STACKSEC", "BPFREC_TEST_WORD"]
        {
            assert!(!holds(secret.as_bytes()), "{secret} is in the file");
        }
    }
}
