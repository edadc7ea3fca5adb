//! `firefox`: a processed profile for <https://profiler.firefox.com>, which is read there from a file without being uploaded.
//!
//! Each thread has its CPU samples, and as markers when it ran, was off the CPU (with the stack), waited for one, and its requests.
//! Losses are markers of a thread of their own. Times are milliseconds since the start of the recording. The format wants
//! a thread's columns one after the other: they wait in [`Spool`]. Memory grows with threads and distinct stacks.

mod shared;
mod threads;

use bpfrec_format::Source;

use self::shared::Shared;
use self::threads::{Threads, Who};
use super::items::{Item, Sink, Takes, What, left};
use super::scene::{Lost, Scene, json};
use super::tree::Tree;
use super::{Format, Make, Out};
use crate::block_io::flags_and_operation;
use crate::error::Result;
use crate::offcpu::{What as OffWhat, state_name};

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "firefox",
    file: "trace.profile.json",
    about: "Profile for profiler.firefox.com: samples and markers of each thread",
    is_text: true,
    of_one_weight: false,
    sources: &[Source::Sched, Source::Block, Source::Profile, Source::Offcpu],
    make: Make::InTime(
        Takes { states: true, waits_of_switches: true, io: true, samples: true, memory: false },
        |scene, out| Ok(Box::new(Firefox::new(scene, out))),
    ),
};

/// Version of the processed format: the first in which stacks are shared by all threads. The profiler converts older ones.
const VERSION: u32 = 60;
/// Version of Gecko's own format, which has no part in it but must be told.
const GECKO_VERSION: u32 = 30;

struct Firefox<'a> {
    scene: &'a Scene<'a>,
    out: &'a mut Out<'a>,
    shared: Shared,
    threads: Threads,
    tree: Tree,
}

/// Milliseconds since the start, to the nanosecond.
fn ms(scene: &Scene<'_>, ns: u64) -> String {
    let since = i128::from(ns) - i128::from(scene.meta.start_ns);
    let sign = if since < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", since.unsigned_abs() / 1_000_000, since.unsigned_abs() % 1_000_000)
}

impl<'a> Firefox<'a> {
    fn new(scene: &'a Scene<'a>, out: &'a mut Out<'a>) -> Self {
        let (shared, threads, tree) = (Shared::default(), Threads::default(), Tree::default());
        Firefox { scene, out, shared, threads, tree }
    }

    fn marker(&mut self, who: Who, span: (u64, u64), name: &str, data: &str) -> Result<()> {
        let name = self.shared.string(name);
        let (start, end) = (ms(self.scene, span.0), ms(self.scene, span.1));
        self.threads.marker(who, [name.to_string().as_str(), &start, &end, data])
    }

    fn meta(&mut self) -> Result<()> {
        let (meta, (first_ns, last_ns)) = (self.scene.meta, self.scene.ends());
        // Without these the profiler shows what lies between the first and the last sample; a moment at either end is to be seen, too.
        let at = |ns: u64| ms(self.scene, ns).parse::<f64>().unwrap_or_default();
        let hz = meta.number("sample_hz").filter(|hz| *hz > 0).unwrap_or(99);
        let field =
            |key: &str, label: &str, format: &str| serde_json::json!({"key": key, "label": label, "format": format});
        let schema = |name: &str, label: &str, fields: &[serde_json::Value]| {
            serde_json::json!({
                "name": name,
                "display": ["marker-chart", "marker-table", "timeline-overview"],
                "tooltipLabel": format!("{label}: {{marker.name}}"),
                "tableLabel": format!("{label}: {{marker.name}}"),
                "chartLabel": "{marker.name}",
                "fields": fields,
            })
        };
        let string = "string";
        let about = serde_json::json!({
            "interval": 1000.0 / hz as f64,
            "startTime": meta.clock.unix_ns(meta.start_ns) as f64 / 1e6,
            "startTimeAsClockMonotonicNanosecondsSinceBoot": meta.start_ns,
            "endTime": meta.clock.unix_ns(last_ns) as f64 / 1e6,
            "profilingStartTime": at(first_ns.saturating_sub(1)),
            "profilingEndTime": at(last_ns.saturating_add(1)),
            "processType": 0,
            "product": format!("bpfrec: {}", meta.item("host")),
            "oscpu": format!("Linux {} {}", meta.item("kernel"), meta.item("arch")),
            "stackwalk": 1,
            "version": GECKO_VERSION,
            "preprocessedProfileVersion": VERSION,
            "symbolicated": true,
            "symbolicationNotSupported": true,
            "usesOnlyOneStackType": true,
            "sourceCodeIsNotOnSearchfox": true,
            "importedFrom": concat!("bpfrec ", env!("CARGO_PKG_VERSION")),
            "categories": shared::CATEGORIES
                .map(|(name, color)| serde_json::json!({"name": name, "color": color, "subcategories": ["Other"]})),
            "markerSchema": [
                schema("running", "on the CPU", &[field("cpu", "CPU", "integer"), field("left", "left", string)]),
                schema("runnable", "run queue", &[field("cpu", "CPU", "integer"), field("waker", "woken by", string)]),
                schema("offcpu", "off the CPU", &[field("open", "at the end", string)]),
                schema("io", "block I/O", &[
                    field("disk", "disk", string),
                    field("bytes", "size", "bytes"),
                    field("device", "at the device", "nanoseconds"),
                    field("error", "error", "integer"),
                ]),
                schema("lost", "lost", &[
                    field("events", "events", "integer"),
                    field("why", "why", string),
                    field("cpu", "CPU", string),
                ]),
            ],
        });
        Ok(write!(self.out, "{{\"meta\":{about}")?)
    }
}

impl Sink for Firefox<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        let scene = self.scene;
        let (who, span) = (Who::of(scene, item.tid, item.pid, item.end_ns), (item.start_ns, item.end_ns));
        match &item.what {
            What::Running { cpu, end } => {
                let data = format!("{{\"type\":\"running\",\"cpu\":{cpu},\"left\":\"{}\"}}", left(*end));
                self.marker(who, span, "running", &data)
            }
            What::Runnable { cpu, waker } => {
                let waker = waker.map_or("", |tid| scene.comm(tid, item.start_ns));
                let data = format!("{{\"type\":\"runnable\",\"cpu\":{cpu},\"waker\":{}}}", json(waker));
                self.marker(who, span, "waits for a CPU", &data)
            }
            What::Off(off) => {
                let stack = self.tree.leaf(scene, off.kernel, off.user, off.what);
                let cause = stack.map_or(String::new(), |stack| {
                    format!(
                        ",\"cause\":{{\"tid\":{},\"time\":{},\"stack\":{stack}}}",
                        item.tid,
                        ms(scene, item.start_ns)
                    )
                });
                let open = if off.what == OffWhat::Open { ",\"open\":\"still off the CPU\"" } else { "" };
                self.marker(who, span, state_name(off.state), &format!("{{\"type\":\"offcpu\"{open}{cause}}}"))
            }
            What::Io(io) => {
                let data = format!(
                    "{{\"type\":\"io\",\"disk\":{},\"bytes\":{},\"device\":{},\"error\":{}}}",
                    json(&scene.meta.disk(io.dev)),
                    io.bytes,
                    io.device_ns(),
                    io.error
                );
                self.marker(who, span, &flags_and_operation(io.cmd_flags), &data)
            }
            What::Sample { kernel, user, .. } => {
                let stack = self.tree.sample(scene, *kernel, *user);
                self.threads.sample(who, &stack.to_string(), &ms(scene, item.end_ns))
            }
            What::Memory(_) => Ok(()),
        }
    }

    fn lost(&mut self, lost: &Lost) -> Result<()> {
        let cpu = lost.cpu.map_or(String::new(), |cpu| cpu.to_string());
        let why = json(&lost.why);
        let data = format!("{{\"type\":\"lost\",\"events\":{},\"why\":{why},\"cpu\":\"{cpu}\"}}", lost.events);
        self.marker(Who::LOSSES, (lost.from_ns, lost.to_ns), &format!("lost: {}", lost.what), &data)
    }

    fn end(&mut self) -> Result<Vec<String>> {
        self.meta()?;
        self.shared.write(self.scene, &self.tree, self.out)?;
        self.threads.write(self.scene, self.out)?;
        writeln!(self.out, "}}")?;
        Ok(Vec::new())
    }
}
