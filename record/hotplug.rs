//! CPUs that come and go while recording. Each that is plugged in has its ring from the start, whether it runs or not; one that is
//! plugged in later gets its own here. Perf events live only as long as their CPU runs, so each time that it comes they are made anew.

use std::time::Duration;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustc_hash::FxHashMap;

use crate::clock;
use crate::limits;
use crate::session::Session;
use crate::sideband::Sideband;

/// How long a thread that reads a binary is waited for: what runs on the new CPU is not sampled meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the kernel has told of CPUs (map `hotplug` of `bpf/task.bpf.c`), and what was done about it.
pub struct Hotplug {
    counts: MapHandle,
    /// Steps of all CPUs when it was last looked at; `None`: something is still to be done.
    steps: Option<u64>,
    /// CPUs whose perf events are open, and how often they had gone down when these were opened.
    open: FxHashMap<u32, u64>,
    ring_bytes: u32,
    /// CPUs for which no ring could be made.
    refused: Vec<u32>,
}

impl Hotplug {
    /// Begins to watch; `sideband` has the perf events that are open. CPUs that come get rings of `ring_bytes`.
    pub fn new(counts: &MapHandle, sideband: Option<&Sideband>, ring_bytes: u32) -> Result<Hotplug> {
        let counts = MapHandle::try_from(counts)?;
        let cpus = sideband.into_iter().flat_map(|s| s.rings.keys().copied());
        // What went away between the opening and this moment is seen at the first look.
        let open = cpus.map(|cpu| (cpu, 0)).collect();
        Ok(Hotplug { counts, steps: None, open, ring_bytes, refused: Vec::new() })
    }

    /// CPUs that ran when it was last looked at.
    pub fn running(&self) -> usize {
        self.open.len()
    }

    fn count(&self, key: u32) -> Result<u64> {
        let count = self.counts.lookup(&key.to_ne_bytes(), MapFlags::ANY)?;
        Ok(count.as_deref().and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
    }
}

impl Session {
    /// Opens what CPUs need that came since the last call. While none does this is one look into a map.
    ///
    /// # Errors
    /// When the kernel does not tell of CPUs any more.
    pub fn follow_cpus(&mut self) -> Result<()> {
        let steps = Some(self.hotplug.count(0)?);
        if steps == self.hotplug.steps {
            return Ok(());
        }
        let (present, online) = (limits::present_cpus()?, limits::online_cpus()?);
        self.add_rings(&present);
        // Who holds the lock reads binaries: the next time, then.
        let Some(mut seen) = self.seen.lock_within(PATIENCE) else { return Ok(()) };
        let mut told = Vec::new();
        for cpu in present {
            let gone = self.hotplug.count(cpu + 1)?;
            if self.hotplug.open.get(&cpu) == Some(&gone) {
                continue;
            }
            self.hotplug.open.remove(&cpu);
            // An event that is made before its CPU runs never begins. More steps will come.
            if !online.contains(&cpu) {
                continue;
            }
            // What the old event still holds goes with it.
            seen.read();
            let Some(sideband) = &mut seen.sideband else { continue };
            let mut lacks = Vec::new();
            match sideband.open_on(cpu) {
                Ok(Some(ring)) => self.watch.add(ring)?,
                Ok(None) => continue,
                Err(error) => {
                    self.status.say(&format!("mappings made on CPU {cpu} are not recorded: {error:#}"));
                    lacks.push("mappings");
                }
            }
            self.hotplug.open.insert(cpu, gone);
            for attached in &mut self.sources {
                if let Err(error) = attached.source.cpu_came(cpu, &mut attached.loaded) {
                    let name = attached.source.name();
                    self.status.say(&format!("source {name} lacks CPU {cpu}, which came just now: {error:#}"));
                    lacks.push(name);
                }
            }
            if !lacks.is_empty() {
                told.push((format!("cpu{cpu}_lacks"), format!("{} from {} ns on", lacks.join(","), clock::mono_ns())));
            }
        }
        drop(seen);
        told.iter().for_each(|(key, value)| self.tell(key, value));
        self.hotplug.steps = steps;
        self.budget.of_cpus(self.hotplug.running());
        Ok(())
    }

    /// A CPU without a ring loses all its events, which is counted; the recording goes on.
    fn add_rings(&mut self, present: &[u32]) {
        for &cpu in present {
            if self.rings.has(cpu) || self.hotplug.refused.contains(&cpu) {
                continue;
            }
            let ring = self.shared.add_ring(cpu, self.hotplug.ring_bytes);
            if let Err(error) = ring.and_then(|ring| self.rings.add_cpu(cpu, ring)) {
                self.status.say(&format!("events on CPU {cpu}, which came just now, are lost: {error:#}"));
                self.hotplug.refused.push(cpu);
            }
        }
    }
}
