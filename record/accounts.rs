//! What was kept, what was lost, what it costs: counted each second, written at each checkpoint.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use bpfrec_format::table::Value;
use bpfrec_format::{BlockType, Source as Id, Table, meta};

use crate::session::Session;
use crate::sideband::Sideband;
use crate::status::Figures;
use crate::writer::Message;
use crate::{clock, stats};

impl Session {
    /// Tells of what was lost since the last call.
    pub fn count_losses(&mut self) -> Result<()> {
        if let Some(table) = self.losses.read()? {
            self.send(Message::Tables(BlockType::Loss, vec![table]));
        }
        for id in Id::ALL.iter().copied() {
            let left_out = self.bpf_time.runs(id).left_out;
            let new = left_out - self.left_out[id as usize].min(left_out);
            self.left_out[id as usize] = left_out;
            if new > 0 {
                self.losses.total[id as usize] += new;
                let span = (self.losses_read_ns, clock::mono_ns());
                let row = stats::loss_row(id as u16, None, span, meta::reason::PROBE_BUSY, new);
                self.send(Message::Tables(BlockType::Loss, vec![row]));
            }
        }
        self.losses_read_ns = clock::mono_ns();
        let lost = self.seen.lock_within(Duration::ZERO).map_or(0, |mut seen| {
            self.hits.resolve(&mut seen);
            seen.sideband.as_mut().map_or(0, Sideband::take_lost)
        });
        if lost > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(Id::Task as u16, None, (now, now), meta::reason::MAPPINGS_LOST, lost);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
        Ok(())
    }

    /// Totals so far.
    pub fn figures(&self) -> Figures {
        let (cpu_ns, max_rss_bytes) = (stats::own_cpu_ns(), stats::high_water_bytes());
        let measured: u64 = Id::ALL.iter().map(|id| self.bpf_time.runs(*id).run_ns).sum();
        Figures {
            elapsed: self.started.elapsed(),
            events: self.rings.drained.borrow().kept.iter().sum(),
            bytes: self.writer.progress.bytes.load(Ordering::Relaxed),
            lost: self.losses.total.iter().sum::<u64>() + self.unsent,
            cpu_ns,
            bpf_ns: self.scaled(measured),
            max_rss_bytes,
        }
    }

    /// What was measured in windows, for the whole time.
    fn scaled(&self, measured_ns: u64) -> u64 {
        let window = self.bpf_time.measured().as_nanos().max(1);
        (u128::from(measured_ns) * self.started.elapsed().as_nanos().max(window) / window) as u64
    }

    /// Writes totals and a moment on all clocks.
    pub fn checkpoint(&self) {
        let now = clock::mono_ns();
        let mut by_source = Table::new(&meta::kind(meta::SOURCE_STATS));
        let kept = self.rings.drained.borrow().kept;
        for id in self.sources.iter().map(|s| s.id).chain([Id::Task]) {
            let runs = self.bpf_time.runs(id);
            let slot = id as usize;
            by_source.push(&[
                now.into(),
                (slot as u64).into(),
                kept[slot].into(),
                self.losses.total[slot].into(),
                self.scaled(runs.run_ns).into(),
                self.scaled(runs.runs).into(),
            ]);
        }
        let f = self.figures();
        let mut recorder = Table::new(&meta::kind(meta::RECORDER_STATS));
        let measured_ns = self.bpf_time.measured().as_nanos() as u64;
        let totals = [now, f.cpu_ns, f.max_rss_bytes, f.bytes, self.wakeups, f.bpf_ns, measured_ns];
        let steps = self.steps.all(&self.writer.progress.steps);
        let row: Vec<Value<'_>> =
            totals.into_iter().chain(steps).chain([stats::resident_bytes()]).map(Value::from).collect();
        recorder.push(&row);
        let mut tables = vec![by_source, recorder];
        tables.extend(self.shared.get("stack_counts").and_then(|map| stats::stacks(map, Id::Offcpu)).ok());
        self.send(Message::Tables(BlockType::Clock, vec![clock::pair()]));
        self.send(Message::Checkpoint(tables));
    }
}
