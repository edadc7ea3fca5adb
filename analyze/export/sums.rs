//! Sums by stack: what the reports `profile`, `offcputime` and `memleak` gather, one after the other.

use bpfrec_format::Source;

use super::scene::{Place, Scene};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::meta::Meta;
use crate::pipeline::Visitor;
use crate::reports::memleak::Memleak;
use crate::reports::offcputime::Offcputime;
use crate::reports::profile::Profile;
use crate::reports::{Flags, OfStack};

/// What is summed by stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// CPU samples.
    Cpu,
    /// Time off the CPU.
    Offcpu,
    /// Bytes that were allocated.
    Allocated,
    /// Bytes that were allocated and not freed.
    Live,
}

impl Weight {
    /// All, in the order in which one is chosen where none is asked for.
    pub const ALL: [Weight; 4] = [Weight::Cpu, Weight::Offcpu, Weight::Live, Weight::Allocated];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Cpu => "cpu",
            Weight::Offcpu => "offcpu",
            Weight::Allocated => "allocated",
            Weight::Live => "live",
        }
    }

    /// Sources of which one is needed.
    pub fn sources(self) -> &'static [Source] {
        match self {
            Weight::Cpu => &[Source::Profile],
            Weight::Offcpu => &[Source::Offcpu],
            Weight::Allocated | Weight::Live => &[Source::Malloc, Source::Kmem],
        }
    }

    pub(super) fn is_in(self, meta: &Meta) -> bool {
        self.sources().iter().any(|s| meta.has_source(*s))
    }

    /// Says that the trace has none of it.
    pub(super) fn missing(self) -> Error {
        let names: Vec<String> = self.sources().iter().map(|s| format!("`-e {}`", s.name())).collect();
        Error::asked(format!("--of {}: the trace has none of that: record it with {}", self.name(), names.join(" or ")))
    }
}

/// Takes a stack: the report's position, what was summed, its places, the root first.
type Take<'a> = dyn FnMut(usize, &OfStack<'_>, &[Place]) -> Result<()> + 'a;

/// Gathers all sums that the trace allows, or those of one weight.
pub(super) struct Sums<'a> {
    filter: &'a Filter,
    /// The one that was chosen.
    pub weight: Option<Weight>,
    /// What could not be read.
    pub damage: Damage,
    profile: Option<Profile>,
    offcpu: Option<Offcputime>,
    heap: Option<Memleak>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(meta: &Meta, filter: &'a Filter, one: bool, asked: Option<Weight>) -> Result<Self> {
        let weight = asked.or_else(|| Weight::ALL.into_iter().find(|w| one && w.is_in(meta)));
        let wants = |w: Weight| w.is_in(meta) && weight.is_none_or(|one| one.sources() == w.sources());
        // All memory, whatever its age.
        let any_age = Flags([("combined-only", String::new())].into());
        Ok(Sums {
            filter,
            weight,
            damage: Damage::default(),
            profile: wants(Weight::Cpu).then(|| Profile::new(&Flags::default(), filter)).transpose()?,
            offcpu: wants(Weight::Offcpu).then(|| Offcputime::new(&Flags::default(), filter)).transpose()?,
            heap: wants(Weight::Live).then(|| Memleak::new(&any_age, filter)).transpose()?,
        })
    }

    /// Up to which moment events are needed: waits are told at their ends.
    pub(super) fn until_ns(&self, filter: &Filter) -> u64 {
        if self.offcpu.is_some() { u64::MAX } else { filter.to_ns }
    }

    pub(super) fn visitors(&mut self) -> Vec<&mut dyn Visitor> {
        let mut all: Vec<&mut dyn Visitor> = Vec::new();
        all.extend(self.profile.as_mut().map(|r| r as &mut dyn Visitor));
        all.extend(self.offcpu.as_mut().map(|r| r as &mut dyn Visitor));
        all.extend(self.heap.as_mut().map(|r| r as &mut dyn Visitor));
        all
    }

    /// What there is, in the order of [`Sums::each`].
    pub(super) fn has(&self) -> [bool; 3] {
        [self.profile.is_some(), self.offcpu.is_some(), self.heap.is_some()]
    }

    /// Gives each stack of each report.
    pub(super) fn each(&self, scene: &Scene<'_>, take: &mut Take<'_>) -> Result<()> {
        let mut places = Vec::new();
        let mut give = |which: usize, all: Vec<OfStack<'_>>| {
            all.iter().try_for_each(|of| {
                scene.stack(of.kernel, of.user, of.what, &mut places);
                if which == 2 && places.is_empty() {
                    places.push(scene.no_stack());
                }
                take(which, of, &places)
            })
        };
        if let Some(profile) = &self.profile {
            give(0, profile.of_stacks())?;
        }
        if let Some(offcpu) = &self.offcpu {
            give(1, offcpu.of_stacks(scene.meta))?;
        }
        if let Some(heap) = &self.heap {
            give(2, heap.of_stacks(scene.meta))?;
        }
        Ok(())
    }

    /// Length of the window.
    pub(super) fn duration_ns(&self) -> u64 {
        self.filter.duration_ns
    }
}
