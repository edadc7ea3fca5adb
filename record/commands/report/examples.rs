//! Examples below the help of each report. A test parses each of them.

/// Those of a report; `None` where none are written.
pub fn of(report: &str) -> Option<&'static str> {
    Some(match report {
        "summary" => {
            "Examples:
  bpfrec report summary trace.bpr                          who used the CPUs, what was lost, which names are missing
  bpfrec report summary trace.bpr --from 10s --to 12s      of two seconds"
        }
        "runqlat" => {
            "Examples:
  bpfrec report runqlat trace.bpr                          one histogram of all waits, in us
  bpfrec report runqlat trace.bpr --per-cgroup -m          one a cgroup, in ms
  bpfrec report runqlat trace.bpr -L --pid 4242            one a thread of a process"
        }
        "biolatency" => {
            "Examples:
  bpfrec report biolatency trace.bpr -D -F                 one histogram a disk and set of flags
  bpfrec report biolatency trace.bpr -Q --disk sda         with the time in the I/O scheduler, of one disk
  bpfrec report biolatency trace.bpr -e --per-process      with averages and totals, by who issued"
        }
        "profile" => {
            "Examples:
  bpfrec report profile trace.bpr --top 10                 the ten stacks with the most samples
  bpfrec report profile trace.bpr -p 4242 --svg cpu.svg    a flamegraph of a process
  bpfrec report profile trace.bpr -f | flamegraph.pl       folded stacks, for other programs"
        }
        "offcputime" => {
            "Examples:
  bpfrec report offcputime trace.bpr -u --top 10           where threads of programs waited longest
  bpfrec report offcputime trace.bpr --state 2 -m 1000     only in uninterruptible sleep, of a millisecond or more
  bpfrec report offcputime trace.bpr -p 4242 --svg o.svg    a flamegraph of a process"
        }
        "wakeups" => {
            "Examples:
  bpfrec report wakeups trace.bpr --top 10                 who ended the longest waits
  bpfrec report wakeups trace.bpr -p 4242 -f               of a process, folded"
        }
        "cpudist" => {
            "Examples:
  bpfrec report cpudist trace.bpr                          how long threads stay on a CPU
  bpfrec report cpudist trace.bpr -O -P -m                 how long they stay off it, by process, in ms"
        }
        "memleak" => {
            "Examples:
  bpfrec report memleak trace.bpr -T 10                    the ten stacks with the most memory that was not freed
  bpfrec report memleak trace.bpr --user --from 30s        allocated after the first half minute, by programs
  bpfrec report memleak trace.bpr -o 0 --svg leaks.svg     of any age, with a flamegraph"
        }
        "html" => {
            "Examples:
  bpfrec report html trace.bpr                             one page, report.html
  bpfrec report html trace.bpr -o db.html -c system.slice  of a cgroup and those below it"
        }
        _ => return None,
    })
}
