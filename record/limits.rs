//! What this process may do and what this kernel has, said in one sentence where it is not enough.

use anyhow::{Context, Result, bail};
use libbpf_rs::btf::types::{FuncProto, Ptr, Typedef};
use libbpf_rs::btf::{Btf, BtfType};

/// Fails with a sentence unless BPF programs can be loaded here.
pub fn check() -> Result<()> {
    crate::rights::check()
}

/// Arguments of tracepoint `name` as BTF tells, `None` when the kernel has no such tracepoint.
pub fn tracepoint_args(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let typedef: Typedef<'_> = btf.type_by_name(&format!("btf_trace_{name}"))?;
    let pointer = Ptr::try_from(typedef.next_type()?).ok()?;
    let function = FuncProto::try_from(pointer.next_type()?).ok()?;
    // The first parameter of the typedef is the probe's own data.
    function.iter().count().checked_sub(1)
}

/// Number of the first argument of tracepoint `name` whose type is called `type_name`, from 0.
pub fn argument_named(btf: &Btf<'_>, name: &str, type_name: &str) -> Option<u32> {
    let typedef: Typedef<'_> = btf.type_by_name(&format!("btf_trace_{name}"))?;
    let pointer = Ptr::try_from(typedef.next_type()?).ok()?;
    let function = FuncProto::try_from(pointer.next_type()?).ok()?;
    let is = |id| btf.type_by_id::<BtfType<'_>>(id).and_then(|t| t.name()).is_some_and(|n| n == type_name);
    // The first parameter of the typedef is the probe's own data.
    function.iter().skip(1).position(|p| is(p.ty)).map(|at| at as u32)
}

/// Numbers of the CPUs in a list such as `0-3,8`.
pub fn parse_cpus(list: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}

/// CPUs that are plugged in, whether they run now or not: also in a container that is shown a few of the CPUs as all.
pub fn present_cpus() -> Result<Vec<u32>> {
    cpus("/sys/devices/system/cpu/present")
}

/// CPUs that run now.
pub fn online_cpus() -> Result<Vec<u32>> {
    cpus("/sys/devices/system/cpu/online")
}

fn cpus(path: &str) -> Result<Vec<u32>> {
    let cpus = parse_cpus(&std::fs::read_to_string(path).with_context(|| path.to_owned())?);
    if cpus.is_empty() { bail!("{path} names no CPU") } else { Ok(cpus) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_lists() {
        assert_eq!(super::parse_cpus("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(super::parse_cpus(""), [0u32; 0]);
        assert_eq!(super::parse_cpus("0"), [0]);
    }
}
