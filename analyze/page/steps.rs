//! Lengths of time in steps of a sixteenth of an octave, which lie whole in the power-of-two buckets of the reports.

/// Steps an octave.
const PARTS: u32 = 16;
/// Octaves below 1 us: a step 0 is under 1 ns.
const BELOW: u32 = 10;

/// The step of a length of time. `step / 16 - 10`, 0 at the least, is its bucket in us.
#[inline]
pub(super) fn step(ns: u64) -> u16 {
    // In units of 1/1024 us, so that octaves begin at powers of two of a microsecond.
    let value = ((u128::from(ns) << BELOW) / 1000).max(1);
    let octave = value.ilog2();
    let part = ((value << PARTS.ilog2()) >> octave) as u32 & (PARTS - 1);
    (octave * PARTS + part) as u16
}

/// The longest time in a step.
pub(super) fn longest_ns(step: u16) -> u64 {
    let (octave, part) = (u32::from(step) / PARTS, u128::from(step) % u128::from(PARTS));
    let end = (u128::from(PARTS) + part + 1) << octave;
    // The first value that is not in it, less one.
    let ns = (end * 1000).div_ceil(1 << (BELOW + PARTS.ilog2()));
    u64::try_from(ns.saturating_sub(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{Histogram, Unit};
    use proptest::prelude::*;

    /// The bucket of the reports, in us.
    fn bucket(step: u16) -> u32 {
        (u32::from(step) / PARTS).saturating_sub(BELOW)
    }

    proptest! {
        #[test]
        fn steps_lie_in_buckets(ns in prop_oneof![any::<u64>(), 0u64..1 << 40, 0u64..10_000]) {
            let mut histogram = Histogram::default();
            histogram.add(ns, Unit::Usecs);
            prop_assert_eq!(histogram.buckets().len() as u32 - 1, bucket(step(ns)));
        }

        #[test]
        fn steps_are_narrow(ns in 16u64..1 << 50) {
            let longest = longest_ns(step(ns));
            prop_assert!(longest >= ns && longest as f64 <= ns as f64 * 1.0626 + 1.0, "{} {}", ns, longest);
            prop_assert_eq!(step(longest), step(ns));
            prop_assert_eq!(step(longest + 1), step(ns) + 1);
        }
    }
}
