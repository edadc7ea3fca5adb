//! Memory that the kernel does not give: an error of its own class, which names what it was for and what helps.

use std::fmt;

use libbpf_rs::ErrorKind;

/// Exit code of a recording that could not begin for lack of memory.
pub const EXIT_CODE: u8 = 5;

/// There is not enough memory for a map, or too little of it may be used.
#[derive(Debug)]
pub struct NoMemory {
    what: String,
    bytes: u64,
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoMemory { what, bytes } = self;
        write!(
            f,
            "not enough memory for {what} ({bytes} bytes): smaller rings (--ring-size 256K) or fewer sources (-e) need less; else \
             raise the limit (memory.max of this cgroup, on kernels before 5.11 also ulimit -l)"
        )
    }
}

impl std::error::Error for NoMemory {}

/// The error of a map of so many bytes that could not be made. Others than for lack of memory stay what they are.
pub fn explain(error: libbpf_rs::Error, what: &str, bytes: u64) -> anyhow::Error {
    let lacks =
        error.kind() == ErrorKind::OutOfMemory || (error.kind() == ErrorKind::PermissionDenied && is_limited(bytes));
    if lacks {
        return anyhow::Error::new(error).context(NoMemory { what: what.to_owned(), bytes });
    }
    anyhow::Error::new(error).context(format!("cannot make {what} of {bytes} bytes"))
}

/// What `messages` of libbpf say of a map that could not be made; `bytes` knows the sizes.
pub fn of_messages(messages: &str, bytes: &dyn Fn(&str) -> u64) -> Option<NoMemory> {
    let line = messages.lines().find(|line| line.contains("failed to create") && line.contains("map '"))?;
    let (_, rest) = line.split_once("map '")?;
    let (name, why) = rest.split_once('\'')?;
    let bytes = bytes(name);
    let lacks = why.contains("ENOMEM") || why.contains("-12") || (why.contains("EPERM") && is_limited(bytes));
    lacks.then(|| NoMemory { what: format!("the map {name}"), bytes })
}

/// Whether this process may lock less memory than that: before 5.11 the kernel counted maps so.
fn is_limited(bytes: u64) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    limit.current.is_some_and(|limit| limit < bytes.max(16 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libbpf_says_of_a_map_names_it() {
        let says = "libbpf: map 'defined': failed to create: -ENOMEM\nlibbpf: failed to load object 'profile_bpf'\n";
        let error = of_messages(says, &|name| if name == "defined" { 786_432 } else { 0 }).unwrap();
        let text = error.to_string();
        assert!(text.contains("the map defined (786432 bytes)") && text.contains("--ring-size"), "{text}");
        assert!(of_messages("libbpf: map 'defined': failed to create: -EINVAL\n", &|_| 1).is_none());
        assert!(of_messages("libbpf: prog 'x': BPF program load failed\n", &|_| 1).is_none());
    }
}
