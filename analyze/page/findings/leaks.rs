//! Memory that grows.

use bpfrec_format::Source;

use super::{Finding, Seen};
use crate::reports::memleak::Grown;
use crate::text::{bytes, percent};

/// Growth that holds less than this is no leak that anybody looks for.
const BYTES: u64 = 64 << 10;
/// What may have been freed in a gap proves nothing.
const UNCERTAIN_PERCENT: f64 = 10.0;
/// What many processes had when they ended adds up like a leak, but is none of any of them.
const ENDED_PERCENT: f64 = 50.0;
/// Functions that give out memory for others: the caller is who asked.
const GIVERS: [&str; 8] =
    ["malloc", "calloc", "realloc", "xmalloc", "g_malloc", "g_malloc0", "operator new(unsigned long)", "__libc_malloc"];

/// Stacks that the report `memleak` says grow steadily, the fastest first.
pub(super) fn grows(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.trusts(Source::Malloc) {
        return Vec::new();
    }
    let fits = |g: &&Grown| {
        let share = |part| percent(part, g.bytes);
        g.grows
            && !g.kernel
            && g.bytes >= BYTES
            && share(g.uncertain) < UNCERTAIN_PERCENT
            && share(g.ended) < ENDED_PERCENT
    };
    let mut all: Vec<&Grown> = seen.grown.iter().filter(fits).collect();
    all.sort_by(|a, b| b.bytes_per_s.total_cmp(&a.bytes_per_s));
    let one = |g: &Grown| {
        let name = g.names.iter().find(|name| !GIVERS.contains(&name.as_str()))?;
        let (rate, held) = (bytes(g.bytes_per_s.max(0.0) as u64), bytes(g.bytes));
        let about = if g.estimate { ", by samples" } else { "" };
        let text =
            format!("{name} in {} grows by {rate}/s: {held} were not freed at the end{about}.", seen.process(g.pid));
        let mut finding = Finding::new("leaks", 60.0, text);
        finding.pid = Some(g.pid);
        Some(finding)
    };
    all.into_iter().filter_map(one).take(1).collect()
}
