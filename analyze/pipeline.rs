//! Drives pass 2: slabs are read, pairs are made of them, and every visitor gets them in order.

use std::sync::atomic::{AtomicU64, Ordering};

use bpfrec_format::{Kind, Source, Trace};
use rayon::prelude::*;

use crate::damage::Damage;
use crate::error::Result;
use crate::meta::Meta;
use crate::sched::Unpaired;
use crate::slab::{SLAB_ROWS, Slab, Slabs};
use crate::{block_io, sched};

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
    /// Waits without begin or end.
    pub unpaired_waits: Unpaired,
    /// I/O without begin or end.
    pub unpaired_ios: Unpaired,
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
    let wants = |kind: &Kind, field: &str| {
        (waits || slices) && sched::wants(&kind.name, field)
            || wants_ios && block_io::wants(&kind.name, field)
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
    let (done, total) = (AtomicU64::new(0), slabs.total);
    let mut next = slabs.next_slab();
    while let Some(mut slab) = next {
        meta.versions.apply(&mut slab);
        let use_it = || -> Result<()> {
            let ((mut ended, mut left), ios) = rayon::join(
                || if waits || slices { threads.slab(&slab) } else { Default::default() },
                || if wants_ios { requests.slab(&slab) } else { Vec::new() },
            );
            slab.ios = ios;
            std::mem::swap(&mut slab.waits, &mut ended);
            std::mem::swap(&mut slab.slices, &mut left);
            visitors.par_iter_mut().try_for_each(|visitor| visitor.slab(meta, &slab))?;
            let done = done.fetch_add(slab.rows, Ordering::Relaxed) + slab.rows;
            (options.progress)(done, total);
            Ok(())
        };
        let (used, following) = rayon::join(use_it, || slabs.next_slab());
        used?;
        next = following;
    }
    let rest = Slab { slices: threads.finish(), ..Slab::default() };
    requests.finish();
    if slices {
        visitors.par_iter_mut().try_for_each(|visitor| visitor.slab(meta, &rest))?;
    }
    let mut damage = meta.damage.clone();
    damage.join(&slabs.damage);
    Ok(Reading { damage, unpaired_waits: threads.unpaired, unpaired_ios: requests.unpaired })
}
