//! What is counted of a stack.

use super::growth::Series;
use crate::memory::Life;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kernel: bool,
    /// Pid or cgroup of a table of its own; else 0.
    pub(super) section: u64,
    pub(super) op: u8,
    pub(super) stack: u64,
    /// Of user memory: stacks of processes are their own. 0 for the kernel, whose stacks are everybody's.
    pub(super) pid: u32,
}

/// Amounts, in thousandths of a recorded one, so that samples count as what they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) count: u128,
    pub(super) bytes: u128,
}

impl Amount {
    pub(super) fn add(&mut self, life: &Life) {
        let weight = u128::from(life.weight_milli);
        self.count += if life.part { 0 } else { weight };
        self.bytes += u128::from(life.bytes) * weight;
    }

    pub(super) fn join(&mut self, other: &Amount) {
        (self.count, self.bytes) = (self.count + other.count, self.bytes + other.bytes);
    }

    pub(super) fn count(&self) -> u64 {
        rounded(self.count)
    }

    pub(super) fn bytes(&self) -> u64 {
        rounded(self.bytes)
    }
}

pub(super) fn rounded(milli: u128) -> u64 {
    u64::try_from((milli + 500) / 1000).unwrap_or(u64::MAX)
}

/// Outstanding memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outstanding {
    pub(super) all: Amount,
    /// Of that, what events were lost beside: its free may be among them.
    pub(super) uncertain: Amount,
    /// Of that, what processes had when they ended.
    pub(super) ended: Amount,
    /// Recorded allocations.
    pub(super) recorded: u64,
    /// Variances of bytes and count, as allocations are taken with a probability of 1/weight, each by itself.
    pub(super) variance: (f64, f64),
    pub(super) oldest_ns: u64,
}

impl Outstanding {
    pub(super) fn join(&mut self, other: &Outstanding) {
        self.all.join(&other.all);
        self.uncertain.join(&other.uncertain);
        self.ended.join(&other.ended);
        self.recorded += other.recorded;
        self.variance = (self.variance.0 + other.variance.0, self.variance.1 + other.variance.1);
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
    }

    /// 95 % of estimates are off by less: bytes, count.
    pub(super) fn error(&self) -> (u64, u64) {
        let of = |variance: f64| (1.96 * variance.sqrt()).ceil() as u64;
        (of(self.variance.0), of(self.variance.1))
    }
}

/// What is known of a stack.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    /// First allocation, for the name of the process.
    pub(super) first_ns: u64,
    pub(super) outstanding: Outstanding,
    /// Outstanding memory that is not of the ages asked for.
    pub(super) hidden: Amount,
    pub(super) allocated: Amount,
    pub(super) freed: Amount,
    /// Frees by a thread other than the one that allocated.
    pub(super) by_other: Amount,
    /// Whether any weight is above 1.
    pub(super) estimate: bool,
    pub(super) over_time: Series,
    pub(super) came: Series,
    /// Recorded allocations.
    pub(super) recorded: u64,
    /// Last end of a process with memory outstanding, and whether one with such memory has not ended.
    pub(super) ended_ns: u64,
    pub(super) runs: bool,
}

impl Group {
    pub(super) fn new(key: Key, first_ns: u64) -> Group {
        Group {
            key,
            first_ns,
            outstanding: Outstanding::default(),
            hidden: Amount::default(),
            allocated: Amount::default(),
            freed: Amount::default(),
            by_other: Amount::default(),
            estimate: false,
            over_time: Series::default(),
            came: Series::default(),
            recorded: 0,
            ended_ns: 0,
            runs: false,
        }
    }

    pub(super) fn join(&mut self, other: &Group) {
        self.first_ns = self.first_ns.min(other.first_ns);
        self.outstanding.join(&other.outstanding);
        self.hidden.join(&other.hidden);
        self.allocated.join(&other.allocated);
        self.freed.join(&other.freed);
        self.by_other.join(&other.by_other);
        self.estimate |= other.estimate;
        self.over_time.join(&other.over_time);
        self.came.join(&other.came);
        self.recorded += other.recorded;
        self.ended_ns = self.ended_ns.max(other.ended_ns);
        self.runs |= other.runs;
    }
}
