//! Repeated measurements of one thing: their median and how far they lie apart. Measures nothing itself.

use serde::{Serialize, Serializer};

/// At most so many of the measurements are written as the law of a scenario.
const QUANTILES_MAX: usize = 9;

/// Seconds of the repetitions, in order of size; at least one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    sorted: Vec<f64>,
}

impl Spread {
    /// # Panics
    /// There is no measurement, or one is no number.
    pub(super) fn of(seconds: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = seconds.into_iter().collect();
        assert!(!sorted.is_empty() && sorted.iter().all(|s| s.is_finite()), "measurements are numbers");
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(super) fn min(&self) -> f64 {
        self.sorted[0]
    }

    pub(super) fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// Linear between neighbours; 0 is the least, 1 the greatest.
    fn quantile(&self, share: f64) -> f64 {
        let at = share * (self.sorted.len() - 1) as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(self.sorted.len() - 1);
        self.sorted[below] + (self.sorted[above] - self.sorted[below]) * (at - below as f64)
    }

    /// Evenly spaced quantiles from the least to the greatest, as the `quantiles` law of a scenario takes them.
    pub(super) fn quantiles(&self) -> Vec<f64> {
        let count = self.sorted.len().clamp(2, QUANTILES_MAX);
        (0..count).map(|i| self.quantile(i as f64 / (count - 1) as f64)).collect()
    }
}

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            median_s: f64,
            min_s: f64,
            max_s: f64,
            samples_s: &'a [f64],
        }
        let (median_s, min_s, max_s) = (self.median(), self.min(), self.max());
        Shown { median_s, min_s, max_s, samples_s: &self.sorted }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quantiles_lie_between_neighbours() {
        let check = |seconds: &[f64], median: f64, quantiles: &[f64]| {
            let spread = Spread::of(seconds.iter().copied());
            assert_eq!((spread.median(), spread.quantiles().as_slice()), (median, quantiles), "{seconds:?}");
        };
        check(&[2.0], 2.0, &[2.0, 2.0]);
        check(&[3.0, 1.0], 2.0, &[1.0, 3.0]);
        check(&[3.0, 1.0, 8.0], 3.0, &[1.0, 3.0, 8.0]);
        let many = Spread::of((0..=80).map(f64::from));
        assert_eq!(many.quantiles(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]);
        assert_eq!((many.min(), many.max(), many.count()), (0.0, 80.0, 81));
    }
}
