//! Interleaved rounds: all variants once, then all once more, so that what changes on the machine hits all alike.

use std::collections::BTreeMap;

use anyhow::Result;

/// What one run of one variant gave, by the name of the figure.
pub type Sample = BTreeMap<String, f64>;

/// Makes a sample.
pub fn sample<const N: usize>(figures: [(&str, f64); N]) -> Sample {
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One way to do it.
pub struct Variant<'a> {
    /// In the table.
    pub name: String,
    /// Runs it once.
    pub run: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Variant<'a> {
    /// One.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<Sample> + 'a) -> Self {
        Variant { name: name.into(), run: Box::new(run) }
    }
}

/// What a variant gave in all rounds.
#[derive(Debug, Default)]
pub struct Measured {
    /// In the table.
    pub name: String,
    /// A value a round, by the name of the figure.
    pub figures: BTreeMap<String, Vec<f64>>,
    /// Why there are no more.
    pub failed: Option<String>,
}

impl Measured {
    /// The median of a figure.
    pub fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).and_then(|values| median(values))
    }
}

/// The value in the middle; of an even number the lower one of the two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Runs all variants `rounds` times. One that fails is left out from then on, and says why.
pub fn interleave(rounds: usize, mut variants: Vec<Variant<'_>>) -> Vec<Measured> {
    let of = |v: &Variant<'_>| Measured { name: v.name.clone(), ..Measured::default() };
    let mut all: Vec<Measured> = variants.iter().map(of).collect();
    for round in 1..=rounds {
        for (variant, measured) in variants.iter_mut().zip(&mut all) {
            if measured.failed.is_some() {
                continue;
            }
            eprintln!("  round {round} of {rounds}: {}", variant.name);
            match (variant.run)() {
                Ok(sample) => sample.into_iter().for_each(|(k, v)| measured.figures.entry(k).or_default().push(v)),
                Err(error) => measured.failed = Some(format!("{error:#}")),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_failures() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (None, Some(2.0), Some(1.0)));
        let mut order = Vec::new();
        let (mut left, order_of) = (2, std::cell::RefCell::new(&mut order));
        let a = Variant::new("a", || {
            order_of.borrow_mut().push('a');
            Ok(sample([("x", 1.0)]))
        });
        let b = Variant::new("b", || {
            order_of.borrow_mut().push('b');
            left -= 1;
            anyhow::ensure!(left > 0, "no more");
            Ok(sample([("x", 2.0)]))
        });
        let all = interleave(3, vec![a, b]);
        assert_eq!(order, ['a', 'b', 'a', 'b', 'a']);
        assert_eq!((all[0].figures["x"].len(), all[1].median("x")), (3, Some(2.0)));
        assert_eq!((all[0].failed.as_deref(), all[1].failed.as_deref()), (None, Some("no more")));
    }
}
