//! Drives pass 2: slabs are read, pairs are made of them, and every visitor gets them in order.

use std::sync::atomic::{AtomicU64, Ordering};

use bpfrec_format::{Kind, Source, Trace};
use rayon::prelude::*;

use crate::damage::Damage;
use crate::error::Result;
use crate::meta::Meta;
use crate::slab::{SLAB_ROWS, Slab, Slabs};
use crate::{block_io, memory, sched};

/// What a visitor may ask for.
#[derive(Clone, Copy)]
pub enum Need<'a> {
    /// A field of an event.
    Field(&'a Kind, &'a str),
    /// [`Slab::waits`].
    Waits,
    /// [`Slab::slices`].
    Slices,
    /// [`Slab::ios`].
    Ios,
    /// [`Slab::lives`] and [`Slab::frees`].
    Lives,
}

/// Something that goes through a trace once, from its begin to its end. Visitors of the same slab run at the same time.
pub trait Visitor: Send {
    /// Whether it looks at this. What no visitor asks for is not decoded.
    fn wants(&self, need: &Need<'_>) -> bool;
    /// The next stretch of time.
    fn slab(&mut self, meta: &Meta, slab: &Slab) -> Result<()>;
}

/// What reading the events showed.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What could not be read, in both passes.
    pub damage: Damage,
}

/// How to go through a trace.
pub struct Options<'a> {
    /// Events after this moment are not needed, CLOCK_MONOTONIC.
    pub until_ns: u64,
    /// Rows at which slabs are cut; [`SLAB_ROWS`].
    pub slab_rows: u64,
    /// Told how many events of how many are done.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { until_ns: u64::MAX, slab_rows: SLAB_ROWS, progress: &|_, _| {} }
    }
}

/// Goes through `trace` once for all `visitors`. Results do not depend on the number of rayon's threads.
pub fn visit(trace: &Trace, meta: &Meta, options: &Options<'_>, visitors: &mut [&mut dyn Visitor]) -> Result<Reading> {
    let any = |need: Need<'_>| visitors.iter().any(|v| v.wants(&need));
    let (waits, slices, wants_ios) = (any(Need::Waits), any(Need::Slices), any(Need::Ios));
    let wants_lives = any(Need::Lives);
    let wants = |kind: &Kind, field: &str| {
        (waits || slices) && sched::wants(&kind.name, field)
            || wants_ios && block_io::wants(&kind.name, field)
            || wants_lives && memory::is_kind(&kind.name)
            || any(Need::Field(kind, field))
    };
    let mut slabs = Slabs::new(trace, options.until_ns, options.slab_rows, &wants);
    let spans = |source| {
        let mut spans = meta.losses.spans(source);
        meta.damage.spans.iter().for_each(|(from, to)| spans.add(from, to));
        spans
    };
    let mut threads = sched::Pairing::new(spans(Source::Sched), meta.recorded.clone(), slices);
    let mut requests = block_io::Pairing::new(spans(Source::Block));
    let mut memories = memory::Pairing::new(meta, spans(Source::Malloc), spans(Source::Kmem));
    let (done, total) = (AtomicU64::new(0), slabs.total);
    let mut next = slabs.next_slab();
    while let Some(mut slab) = next {
        meta.versions.apply(&mut slab);
        let use_it = || -> Result<()> {
            let ((found, ios), memory) = rayon::join(
                || {
                    rayon::join(
                        || if waits || slices { threads.slab(&slab) } else { Default::default() },
                        || if wants_ios { requests.slab(&slab) } else { Default::default() },
                    )
                },
                || if wants_lives { memories.slab(&slab) } else { Default::default() },
            );
            (slab.ios, slab.half_ios) = ios;
            (slab.waits, slab.slices) = (found.waits, found.slices);
            (slab.half_waits, slab.half_slices) = (found.half_waits, found.half_slices);
            (slab.lives, slab.frees) = (memory.lives, memory.frees);
            visitors.par_iter_mut().try_for_each(|visitor| visitor.slab(meta, &slab))?;
            let done = done.fetch_add(slab.rows, Ordering::Relaxed) + slab.rows;
            (options.progress)(done, total);
            Ok(())
        };
        let (used, following) = rayon::join(use_it, || slabs.next_slab());
        used?;
        next = following;
    }
    let sched::Found { waits, slices, half_waits, half_slices } = threads.finish();
    let half_ios = requests.finish();
    let memory::Ended { lives, frees } = if wants_lives { memories.finish() } else { Default::default() };
    let mut rest = Slab { waits, slices, half_waits, half_slices, half_ios, lives, frees, ..Slab::default() };
    loop {
        visitors.par_iter_mut().try_for_each(|visitor| visitor.slab(meta, &rest))?;
        rest = Slab { lives: if wants_lives { memories.rest() } else { Vec::new() }, ..Slab::default() };
        if rest.lives.is_empty() {
            break;
        }
    }
    let mut damage = meta.damage.clone();
    damage.join(&slabs.damage);
    Ok(Reading { damage })
}
