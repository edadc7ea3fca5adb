//! When to give something up, and when to take it up again. Nothing here looks at a clock, a process or a kernel: it is
//! told what was measured and says what to do.

use std::time::Duration;

use bpfrec_format::{Source as Id, meta};

/// After a step this long passes before the next, so that its effect is seen.
const SETTLE: Duration = Duration::from_secs(3);
/// How long all is to be well before the last step is taken back, at first.
const PATIENCE: Duration = Duration::from_secs(10);
/// ... and at the most: it doubles after each relapse.
const MOST_PATIENCE: Duration = Duration::from_secs(640);
/// One sample in so many while the sampling rate is shed.
pub const EVERY: u32 = 8;
/// Room that counts as all of it when a disk is large, bytes.
const MOST_ROOM: u64 = 1 << 30;
/// How much of the room is left, in twentieths, when the first, second and third step are due.
const DUE: [u64; 3] = [4, 3, 2];

/// Something that can be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// User stacks.
    UserStacks,
    /// Kernel stacks.
    KernelStacks,
    /// All but one sample, one allocation in [`EVERY`].
    Sampling,
    /// A source.
    Source(Id),
}

impl Step {
    /// What `sources` allow, in the order in which it is given up: of the sources the dearest first.
    pub fn of(sources: &[Id]) -> Vec<Step> {
        use Id::{Block, Kmem, Malloc, Offcpu, Profile, Sched};
        let any = |of: &[Id]| of.iter().any(|id| sources.contains(id));
        let by_source = [Malloc, Kmem, Offcpu, Profile, Sched, Block].into_iter().filter(|id| sources.contains(id));
        let stacks = [
            (Step::UserStacks, any(&[Offcpu, Malloc, Profile])),
            (Step::KernelStacks, any(&[Offcpu, Kmem, Profile])),
            (Step::Sampling, any(&[Profile, Kmem, Malloc])),
        ];
        stacks.into_iter().filter(|(_, is)| *is).map(|(step, _)| step).chain(by_source.map(Step::Source)).collect()
    }

    /// `step` and `source` of kind `shed`.
    pub fn numbers(self) -> (u64, u64) {
        match self {
            Step::UserStacks => (meta::shed::USER_STACKS, 0),
            Step::KernelStacks => (meta::shed::KERNEL_STACKS, 0),
            Step::Sampling => (meta::shed::SAMPLING, 0),
            Step::Source(id) => (meta::shed::SOURCE, id as u64),
        }
    }
}

/// What was measured of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// A number of [`meta::shed`].
    pub cause: u64,
    /// What it is, in the unit of kind `shed`.
    pub value: u64,
    /// What it was to be.
    pub limit: u64,
    /// What follows from that.
    pub state: State,
}

/// What follows from a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Beyond the limit: give something up.
    Over,
    /// Neither beyond it nor well below it.
    Near,
    /// Well below it.
    Calm,
    /// So many steps are due, and so many may not be taken back.
    Due(usize, usize),
}

impl Measure {
    /// CPU time, in millionths of that of all CPUs. Well below is half of the limit.
    pub fn cpu(value: u64, limit: u64) -> Measure {
        Measure { cause: meta::shed::CPU, value, limit, state: state(value, limit, limit / 2) }
    }

    /// Resident memory. Well below is nine tenths of the limit.
    pub fn rss(value: u64, limit: u64) -> Measure {
        Measure { cause: meta::shed::RSS, value, limit, state: state(value, limit, limit - limit / 10) }
    }

    /// Bytes of the file. It only grows, so nothing is taken back.
    pub fn size(value: u64, limit: u64) -> Measure {
        let due = due(limit.saturating_sub(value), limit);
        Measure { cause: meta::shed::SIZE, value, limit, state: State::Due(due, due) }
    }

    /// Bytes free on the file system, of which `limit` are to stay; `at_first` were free when the recording began.
    pub fn free(value: u64, limit: u64, at_first: u64) -> Measure {
        let room = at_first.saturating_sub(limit).min(MOST_ROOM);
        let left = value.saturating_sub(limit);
        let state = State::Due(due(left, room), due(left / 2, room));
        Measure { cause: meta::shed::FREE, value, limit, state }
    }
}

fn state(value: u64, limit: u64, well: u64) -> State {
    match value {
        v if v > limit => State::Over,
        v if v >= well => State::Near,
        _ => State::Calm,
    }
}

fn due(left: u64, room: u64) -> usize {
    DUE.iter().filter(|part| u128::from(left) * 20 <= u128::from(room) * u128::from(**part)).count()
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub step: Step,
    /// Why, as it was measured then.
    pub measure: Measure,
    /// Whether it was taken back.
    pub restored: bool,
}

/// Decides. Time is that since the recording began.
#[derive(Debug)]
pub struct Controller {
    /// All that can be given up, in order; the first `shed.len()` are.
    steps: Vec<Step>,
    shed: Vec<Change>,
    changed: Option<Duration>,
    restored: Option<Duration>,
    /// Since when all has been well.
    calm: Option<Duration>,
    patience: Duration,
    /// Whether it was said that nothing is left to give up.
    helpless: bool,
}

impl Controller {
    /// Nothing is given up yet.
    pub fn new(steps: Vec<Step>) -> Controller {
        Controller {
            steps,
            shed: Vec::new(),
            changed: None,
            restored: None,
            calm: None,
            patience: PATIENCE,
            helpless: false,
        }
    }

    /// What is given up now, the oldest first.
    pub fn shed(&self) -> &[Change] {
        &self.shed
    }

    /// What to do after these measures, if anything.
    pub fn tick(&mut self, now: Duration, measures: &[Measure]) -> Option<Change> {
        let settled = self.changed.is_none_or(|at| now.saturating_sub(at) >= SETTLE);
        let shed = self.shed.len();
        // Without its sources a recording would never fill what is left, and never end.
        let small = !matches!(self.steps.get(shed), Some(Step::Source(_)));
        let presses = |m: &&Measure| match m.state {
            State::Over => settled,
            State::Due(due, _) => due > shed && small,
            State::Near | State::Calm => false,
        };
        if let Some(measure) = measures.iter().find(presses) {
            self.calm = None;
            let step = *self.steps.get(shed)?;
            return Some(self.give_up(now, step, *measure));
        }
        let calm = measures.iter().all(|m| match m.state {
            State::Calm => true,
            State::Due(_, stay) => stay < shed,
            State::Over | State::Near => false,
        });
        if !calm {
            self.calm = None;
            return None;
        }
        let since = *self.calm.get_or_insert(now);
        if now.saturating_sub(since) < self.patience || !settled {
            return None;
        }
        let mut change = self.shed.pop()?;
        (self.changed, self.restored, self.calm) = (Some(now), Some(now), Some(now));
        if let Some(measure) = measures.iter().find(|m| m.cause == change.measure.cause) {
            change.measure = *measure;
        }
        change.restored = true;
        Some(change)
    }

    /// Whether something presses, everything is given up already, and this was not said before.
    pub fn is_helpless(&mut self, measures: &[Measure]) -> bool {
        let over = measures.iter().any(|m| m.state == State::Over);
        over && self.shed.len() == self.steps.len() && !std::mem::replace(&mut self.helpless, true)
    }

    fn give_up(&mut self, now: Duration, step: Step, measure: Measure) -> Change {
        if let Some(restored) = self.restored.take() {
            // What came back was too much, soon or late.
            let relapse = now.saturating_sub(restored) <= self.patience;
            self.patience = if relapse { (self.patience * 2).min(MOST_PATIENCE) } else { PATIENCE };
        }
        self.changed = Some(now);
        let change = Change { step, measure, restored: false };
        self.shed.push(change);
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10_000;

    /// A recorder that costs `base`, and 8,000 more for each of three steps that is not shed, each second of `seconds`.
    fn simulate(controller: &mut Controller, seconds: std::ops::Range<u64>, base: u64) -> Vec<(u64, Step, bool)> {
        let mut changes = Vec::new();
        for second in seconds {
            let cost = base + 8000 * (3 - controller.shed().len().min(3) as u64);
            let change = controller.tick(Duration::from_secs(second), &[Measure::cpu(cost, LIMIT)]);
            changes.extend(change.map(|c| (second, c.step, c.restored)));
        }
        changes
    }

    fn controller() -> Controller {
        Controller::new(Step::of(&[Id::Sched, Id::Block, Id::Profile]))
    }

    #[test]
    fn the_order_is_the_stated_one_and_has_only_what_is_recorded() {
        use Step::{KernelStacks, Sampling, Source, UserStacks};
        let all = Step::of(&[Id::Sched, Id::Offcpu, Id::Block, Id::Malloc, Id::Kmem, Id::Profile]);
        let sources = [Id::Malloc, Id::Kmem, Id::Offcpu, Id::Profile, Id::Sched, Id::Block].map(Source);
        assert_eq!(all, [&[UserStacks, KernelStacks, Sampling][..], &sources].concat());
        assert_eq!(Step::of(&[Id::Sched, Id::Block]), [Source(Id::Sched), Source(Id::Block)]);
        assert_eq!(Step::of(&[Id::Kmem]), [KernelStacks, Sampling, Source(Id::Kmem)]);
    }

    #[test]
    fn steps_come_one_by_one_until_the_cost_fits() {
        let mut c = controller();
        // 29, then 21, 13 and 5 thousandths: the third step is enough.
        let changes = simulate(&mut c, 0..60, 5000);
        let expected = [(0, Step::UserStacks, false), (3, Step::KernelStacks, false), (6, Step::Sampling, false)];
        assert_eq!(changes, expected);
        assert_eq!(c.shed()[1].measure, Measure::cpu(21_000, LIMIT));
    }

    #[test]
    fn nothing_flaps_between_the_limit_and_half_of_it() {
        let mut c = controller();
        simulate(&mut c, 0..10, 5000);
        assert_eq!(c.shed().len(), 3);
        for (second, cost) in (10..1000).zip([5000, 9999, LIMIT, 7000].into_iter().cycle()) {
            assert_eq!(c.tick(Duration::from_secs(second), &[Measure::cpu(cost, LIMIT)]), None, "{second}");
        }
    }

    #[test]
    fn a_step_that_comes_back_too_soon_doubles_the_patience() {
        let mut c = controller();
        // Well below half with three steps, over with two: each try relapses.
        let changes = simulate(&mut c, 0..2000, 2500);
        let tries: Vec<u64> = changes.iter().filter(|(.., restored)| *restored).map(|(second, ..)| *second).collect();
        let gaps: Vec<u64> = tries.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.windows(2).all(|w| w[1] > w[0] || w[0] >= 640), "{tries:?}");
        assert!(gaps[0] >= 20 && *gaps.last().unwrap() >= 640 && tries.len() < 12, "{tries:?}");
    }

    #[test]
    fn when_the_load_is_gone_all_comes_back_in_the_reverse_order() {
        let mut c = controller();
        simulate(&mut c, 0..10, 5000);
        let mut back = Vec::new();
        for second in 10..100 {
            let change = c.tick(Duration::from_secs(second), &[Measure::cpu(100, LIMIT)]);
            back.extend(change.map(|change| (change.step, change.restored, change.measure.value)));
        }
        let expected = [Step::Sampling, Step::KernelStacks, Step::UserStacks].map(|step| (step, true, 100));
        assert_eq!(back, expected);
        // Long after that the next overload is no relapse.
        assert_eq!(c.patience, PATIENCE);
        c.tick(Duration::from_secs(1000), &[Measure::cpu(LIMIT + 1, LIMIT)]).unwrap();
        assert_eq!(c.patience, PATIENCE);
    }

    #[test]
    fn a_file_that_nears_its_size_gives_up_step_by_step_and_nothing_comes_back() {
        let mut c = controller();
        let mut at = Vec::new();
        for percent in 0..=100 {
            let measures = [Measure::cpu(0, LIMIT), Measure::size(percent * 10, 1000)];
            let change = c.tick(Duration::from_secs(100 * percent), &measures);
            at.extend(change.map(|change| (percent, change.step, change.restored)));
        }
        let steps = [Step::UserStacks, Step::KernelStacks, Step::Sampling];
        // Sources stay to the end.
        let expected: Vec<_> = [80, 85, 90].into_iter().zip(steps).map(|(p, step)| (p, step, false)).collect();
        assert_eq!(at, expected);
    }

    #[test]
    fn a_disk_that_others_empty_gives_back() {
        let gib = 1u64 << 30;
        let near = Measure::free(11 * gib / 10, gib, 100 * gib);
        assert_eq!(near.state, State::Due(3, 3));
        assert_eq!(Measure::free(2 * gib, gib, 100 * gib).state, State::Due(0, 0));
        assert_eq!(Measure::free(gib * 23 / 20, gib, 100 * gib).state, State::Due(2, 3));
        let mut c = controller();
        for second in 0..3 {
            c.tick(Duration::from_secs(second), &[near]).unwrap();
        }
        let free = [Measure::free(50 * gib, gib, 100 * gib)];
        let back = (3..100).filter_map(|s| c.tick(Duration::from_secs(s), &free)).filter(|c| c.restored).count();
        assert_eq!(back, 3);
    }

    #[test]
    fn memory_sheds_too_and_the_end_of_the_list_is_said_once() {
        let mut c = Controller::new(vec![Step::UserStacks]);
        let over = [Measure::cpu(0, LIMIT), Measure::rss(65 << 20, 64 << 20)];
        assert!(!c.is_helpless(&over));
        let change = c.tick(Duration::ZERO, &over).unwrap();
        assert_eq!((change.measure.cause, change.measure.value), (meta::shed::RSS, 65 << 20));
        assert_eq!(c.tick(Duration::from_secs(9), &over), None);
        assert!(c.is_helpless(&over) && !c.is_helpless(&over));
        // Just below the limit is not well below it.
        assert_eq!(Measure::rss(63 << 20, 64 << 20).state, State::Near);
    }
}
