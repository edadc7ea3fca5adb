//! `csv`: one line an item with a line of names, as RFC 4180 has it, in the order of ends; losses last.
//!
//! `ts` is the begin in Unix time, `ts_mono` the same on CLOCK_MONOTONIC, both in nanoseconds; what does not apply is empty.
//! Of stacks the root stands first, as in `folded`.

use bpfrec_format::Source;

use super::items::{Item, Sink, Takes, What, left};
use super::scene::{Lost, Place, Scene};
use super::{Format, Make, Out};
use crate::block_io::flags_and_operation;
use crate::error::Result;
use crate::memory::op;
use crate::offcpu::{What as OffWhat, state_name};
use crate::reports::stack_lines::folded_name;

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "csv",
    file: "trace.csv",
    about: "Comma-separated values, a line for each time on the CPU, wait, request, sample, allocation and loss",
    is_text: true,
    of_one_weight: false,
    sources: &[Source::Sched, Source::Block, Source::Profile, Source::Offcpu, Source::Malloc, Source::Kmem],
    make: Make::InTime(
        Takes { states: true, waits_of_switches: true, io: true, samples: true, memory: true },
        |scene, out| Ok(Box::new(Csv::new(scene, out)?)),
    ),
};

/// Names of the columns.
const COLUMNS: [&str; 15] = [
    "what", "ts", "ts_mono", "dur_ns", "cpu", "tid", "pid", "comm", "process", "cgroup", "name", "detail", "count",
    "bytes", "stack",
];

struct Csv<'a> {
    scene: &'a Scene<'a>,
    out: ::csv::Writer<&'a mut Out<'a>>,
    places: Vec<Place>,
    stack: String,
}

/// What differs between items.
#[derive(Default)]
struct Row<'a> {
    what: &'static str,
    dur_ns: Option<u64>,
    cpu: Option<u32>,
    name: &'a str,
    detail: &'a str,
    count: Option<String>,
    bytes: Option<u64>,
}

impl<'a> Csv<'a> {
    fn new(scene: &'a Scene<'a>, out: &'a mut Out<'a>) -> Result<Self> {
        let mut out = ::csv::Writer::from_writer(out);
        out.write_record(COLUMNS).map_err(io)?;
        Ok(Csv { scene, out, places: Vec::new(), stack: String::new() })
    }

    fn stack(&mut self, kernel: u64, user: u64, what: OffWhat) {
        self.scene.stack(kernel, user, what, &mut self.places);
        for place in &self.places {
            if !self.stack.is_empty() {
                self.stack.push(';');
            }
            self.stack.push_str(&folded_name(self.scene.name(*place)));
        }
    }

    fn write(&mut self, item: &Item, row: &Row<'_>) -> Result<()> {
        let Item { start_ns, tid, pid, cgroup_id, .. } = *item;
        let meta = self.scene.meta;
        let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        let (unix_ns, cgroup) = (meta.clock.unix_ns(start_ns).to_string(), meta.cgroups.path(cgroup_id));
        let [start, tid_text, pid_text] = [start_ns, tid.into(), pid.into()].map(|n: u64| n.to_string());
        let [dur, cpu, bytes] = [row.dur_ns, row.cpu.map(u64::from), row.bytes].map(number);
        let (comm, process) = (self.scene.comm(tid, item.end_ns), self.scene.comm(pid, item.end_ns));
        let count = row.count.as_deref().unwrap_or_default();
        let record = [
            row.what,
            &unix_ns,
            &start,
            &dur,
            &cpu,
            &tid_text,
            &pid_text,
            comm,
            process,
            &cgroup,
            row.name,
            row.detail,
            count,
            &bytes,
            &self.stack,
        ];
        Ok(self.out.write_record(record).map_err(io)?)
    }
}

/// The crate's error, which is one of writing.
fn io(error: ::csv::Error) -> std::io::Error {
    error.into()
}

impl Sink for Csv<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        let scene = self.scene;
        self.stack.clear();
        let dur_ns = Some(item.end_ns - item.start_ns);
        let once = Some("1".to_owned());
        let (name, detail);
        let row = match &item.what {
            What::Running { cpu, end } => {
                Row { what: "running", dur_ns, cpu: Some(*cpu), name: left(*end), count: once, ..Row::default() }
            }
            What::Runnable { cpu, waker } => {
                let waker = waker.map_or("", |tid| scene.comm(tid, item.start_ns));
                Row { what: "runnable", dur_ns, cpu: Some(*cpu), name: waker, count: once, ..Row::default() }
            }
            What::Off(off) => {
                self.stack(off.kernel, off.user, off.what);
                // A wait is counted where it ends.
                let count = u32::from(scene.filter.takes_end(off.end_ns)).to_string();
                let open = if off.what == OffWhat::Open { "open" } else { "" };
                Row {
                    what: "off",
                    dur_ns,
                    name: state_name(off.state),
                    detail: open,
                    count: Some(count),
                    ..Row::default()
                }
            }
            What::Io(request) => {
                (name, detail) = (scene.meta.disk(request.dev), flags_and_operation(request.cmd_flags));
                let (cpu, bytes) = (Some(request.cpu), Some(request.bytes.into()));
                Row { what: "io", dur_ns, cpu, name: &name, detail: &detail, count: once, bytes }
            }
            What::Sample { cpu, kernel, user } => {
                self.stack(*kernel, *user, OffWhat::Wait);
                let leaf = self.places.last().map_or("", |place| scene.name(*place));
                Row { what: "sample", cpu: Some(*cpu), name: leaf, count: once, ..Row::default() }
            }
            What::Memory(life) => {
                let kernel = op::is_kernel(life.op);
                let (of_kernel, of_user) = if kernel { (life.stack_id, 0) } else { (0, life.stack_id) };
                self.stack(of_kernel, of_user, OffWhat::Wait);
                let weight = if life.part { 0.0 } else { f64::from(life.weight_milli) / 1000.0 };
                Row {
                    what: "memory",
                    dur_ns: dur_ns.filter(|_| life.end.is_some()),
                    name: op::name(life.op),
                    detail: life.end.map_or("live", |end| end.fate.name()),
                    count: Some(weight.to_string()),
                    bytes: Some(life.bytes),
                    ..Row::default()
                }
            }
        };
        self.write(item, &row)
    }

    fn lost(&mut self, lost: &Lost) -> Result<()> {
        let Lost { from_ns, to_ns, what, why, cpu, events } = lost;
        let (unix_ns, cpu) =
            (self.scene.meta.clock.unix_ns(*from_ns), cpu.map_or(String::new(), |cpu| cpu.to_string()));
        let [unix_ns, from, dur, events] =
            [unix_ns as i128, (*from_ns).into(), (to_ns - from_ns).into(), (*events).into()]
                .map(|n: i128| n.to_string());
        let record = ["lost", &unix_ns, &from, &dur, &cpu, "", "", "", "", "", what, why, &events, "", ""];
        Ok(self.out.write_record(record).map_err(io)?)
    }

    fn end(&mut self) -> Result<Vec<String>> {
        self.out.flush()?;
        Ok(Vec::new())
    }
}
