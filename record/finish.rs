//! The end of a recording: what a source can tell only then, the last of everything, the names of functions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bpfrec_format::{BlockType, EndReason, meta};
use libbpf_rs::Link;

use crate::session::{LOCK, Session};
use crate::status::tell;
use crate::writer::{Message, Outcome};
use crate::{bpf, clock, stats};

/// Exit code when the disk was full.
const DISK_FULL: u8 = 4;
/// After a stop the writer gets this long to take what is in the rings.
pub const LAST_CALL: Duration = Duration::from_secs(10);

impl Session {
    /// Waits for the stacks that are still being walked, and says how they were.
    fn finish_unwinding(&mut self) -> Result<()> {
        let Some(mut unwinding) = self.unwinding.take() else { return Ok(()) };
        unwinding.finish(LAST_CALL).iter().for_each(|sample| self.rings.drained.borrow_mut().unwound(sample));
        let counts = unwinding.counts();
        self.tell("unwound_whole", &counts.whole.to_string());
        self.tell("unwound_cut", &counts.cut.to_string());
        self.tell("unwound_by_frame_pointers", &counts.by_frame_pointers.to_string());
        self.drain(true)
    }

    /// Takes the last names of compiled code, and says what of them is missing.
    fn finish_jit(&mut self) {
        let Some(mut jit) = self.jit.take() else { return };
        let ended = jit.finish(LAST_CALL, &mut |table| {
            self.send(Message::Tables(BlockType::JitSymbols, vec![table]));
        });
        if !ended {
            self.status.say("warning: a file with names of compiled code could not be read to its end in time");
        }
        let seen = jit.seen;
        let counts = [
            ("jit_files", seen.files),
            ("jit_functions", seen.functions),
            ("jit_bad_lines", seen.bad_lines),
            ("jit_other_clock", seen.other_clock),
            ("jit_refused", seen.refused),
            ("jit_left_bytes", seen.left_bytes),
            ("jit_left_processes", seen.left_processes),
        ];
        counts.iter().filter(|(_, n)| *n > 0).for_each(|(key, n)| self.tell(key, &n.to_string()));
    }

    /// Says how many binaries were closed to the recorder.
    fn count_refused(&mut self) {
        let Some(seen) = self.seen.lock_within(LOCK) else { return };
        let refused = seen.binaries.refused();
        drop(seen);
        if refused > 0 {
            self.tell("binaries_refused", &refused.to_string());
            self.status.say(&format!(
                "{refused} binaries were closed to the recorder, so their functions have no names: they lie in folders of others or are \
                 deleted, and began to run after it gave up the rights to read these; --rights read keeps them"
            ));
        }
    }

    /// Ends the recording; returns the exit code.
    pub fn finish(mut self, reason: EndReason) -> Result<u8> {
        let ended = self.started.elapsed();
        if self.stopped.get().is_none() {
            self.stopped.set(Some(Instant::now()));
        }
        self.writer.at_once.set(true);
        self.bpf_time.stop();
        bpf::open_gate(&self.shared, false)?;
        // Detached before the last drain: nothing can come after it.
        for attached in &mut self.sources {
            attached.loaded.detach();
        }
        self.tasks.links.clear();
        self.watch.stop();
        self.last_rows()?;
        if let Some(mut seen) = self.seen.lock_within(LOCK) {
            seen.look_at_modules(true);
        }
        loop {
            let before = self.rings.drained.borrow().kept;
            self.drain(true)?;
            if self.rings.drained.borrow().kept == before {
                break;
            }
        }
        self.finish_unwinding()?;
        self.finish_jit();
        self.ending.set(true);
        self.count_losses()?;
        if self.unsent > 0 {
            let now = clock::mono_ns();
            let row = stats::loss_row(0, None, (now, now), meta::reason::QUEUE_FULL, self.unsent);
            self.send(Message::Tables(BlockType::Loss, vec![row]));
        }
        self.steps.begin_names();
        // The signal that ended the recording is not the one that ends this.
        self.stop.store(false, Ordering::Relaxed);
        self.write_symbols();
        self.count_refused();
        self.steps.end_names();
        self.checkpoint();
        let mut figures = self.figures();
        self.send(Message::Finish(reason));
        let progress = Arc::clone(&self.writer.progress);
        let (stuck, to_stdout) = (self.is_stuck(), self.args.output == Path::new("-"));
        let outcome =
            self.writer.join(&|waited| stuck || waited > LAST_CALL && (to_stdout || self.stop.load(Ordering::Relaxed)));
        figures.elapsed = ended;
        figures.bytes = progress.bytes.load(Ordering::Relaxed);
        figures.lost += progress.undefined_stacks.load(Ordering::Relaxed);
        let path = self.args.output.display().to_string();
        match outcome.with_context(|| format!("{path}: writing failed; what was written before can be read"))? {
            Outcome::Whole => {
                self.status.finish(figures, &path);
                match reason {
                    EndReason::DiskFull => {
                        tell(&format!(
                            "{path}: as little is left on the disk as --keep-free allows; the recording is whole up to there"
                        ));
                        Ok(DISK_FULL)
                    }
                    EndReason::SizeLimit => {
                        self.status.say(&format!(
                            "{path}: the file has the size that --max-size allows; the recording is whole up to there"
                        ));
                        Ok(self.exit_code)
                    }
                    _ => Ok(self.exit_code),
                }
            }
            Outcome::DiskFull => {
                self.status.finish(figures, &path);
                tell(&format!(
                    "{path}: the disk, a quota or the size that a file may have is full; the recording is whole up to there"
                ));
                Ok(DISK_FULL)
            }
        }
    }

    /// Rows that a source can tell only when its other programs are detached.
    fn last_rows(&mut self) -> Result<()> {
        let links: Vec<Link> = self.sources.iter_mut().filter_map(|s| s.loaded.last.take()).collect();
        let mut rows = vec![0; 64 << 10];
        for link in links {
            let mut iterator = libbpf_rs::Iter::new(&link)?;
            let mut filled = 0;
            loop {
                let read = std::io::Read::read(&mut iterator, &mut rows[filled..]).context("reading what is left")?;
                if read == 0 {
                    break;
                }
                filled += read;
                let taken = self.rings.drained.borrow_mut().events(0, &rows[..filled]);
                rows.copy_within(taken..filled, 0);
                filled -= taken;
                // Their stacks come through a ring that would not hold all of them.
                self.drain(false)?;
            }
        }
        Ok(())
    }
}
