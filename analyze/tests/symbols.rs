//! User frames by name, from this test's own program file.
#![cfg(target_os = "linux")]

mod common;

use common::{Builder, T0, V, json, report};
use object::{Object, ObjectSegment};

/// Where this runs: the function that the test looks for.
#[inline(never)]
extern "C" fn a_function_that_is_looked_for(x: u64) -> u64 {
    std::hint::black_box(x.rotate_left(3))
}

/// A trace with a sample in this program, whose build id is said to be `build_id`.
fn trace(build_id: &str) -> bpfrec_format::Trace {
    let exe = std::env::current_exe().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let addr = a_function_that_is_looked_for as *const () as u64;
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let mapping = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let offset = words.nth(1)?;
        (number(from) <= addr && addr < number(to)).then(|| (number(from), number(to), number(offset)))
    });
    let (from, to, offset) = mapping.unwrap();
    let mut b = Builder::new();
    b.row(
        "mapping",
        &[
            ("ts_ns", V::N(T0)),
            ("pid", V::N(60)),
            ("start_addr", V::N(from)),
            ("len_bytes", V::N(to - from)),
            ("offset_bytes", V::N(offset)),
            ("build_id", V::T(build_id)),
            ("path", V::T(exe.to_str().unwrap())),
        ],
    );
    let fields = [("ts_ns", V::N(T0)), ("stack_id", V::N(8)), ("space", V::N(1)), ("pid", V::N(60))];
    // A return address just behind the function is still of it: the call is the byte before.
    b.row("stack", &[&fields[..], &[("frames", V::L(&[addr, addr + 1]))]].concat());
    b.event(0, "cpu_sample", T0, &[("tid", 60), ("pid", 60), ("user_stack_id", 8)]);
    b.trace()
}

fn own_build_id() -> Option<String> {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&bytes[..]).unwrap();
    assert!(file.segments().any(|s| s.size() > 0));
    Some(file.build_id().unwrap()?.iter().map(|b| format!("{b:02x}")).collect())
}

#[test]
fn a_file_with_the_recorded_build_id_gives_names() {
    assert_eq!(a_function_that_is_looked_for(1), 8);
    let build_id = own_build_id().expect("the linker gives build ids");
    let all = json(&trace(&build_id), "profile", &[]);
    let names = all["stacks"][0]["user"].as_array().unwrap();
    for name in names {
        assert!(name.as_str().unwrap().contains("a_function_that_is_looked_for"), "{names:?}");
    }
    assert_eq!(all["frames_named"], 2);
}

#[test]
fn another_build_id_gives_none() {
    for build_id in ["", "00112233445566778899aabbccddeeff00112233"] {
        let trace = trace(build_id);
        let text = report(&trace, "profile", &["folded"], false).output;
        assert!(text.starts_with(";[symbols-") && !text.contains("looked_for"), "{text}");
    }
}
