//! Mean and variance of a stream of numbers, in constant memory and without cancellation.
//!
//! Sources: B. P. Welford, Technometrics 4 (1962); merging: T. F. Chan, G. H. Golub, R. J. LeVeque (1979).

/// Count, mean and spread of the numbers recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// `Σ(x − mean)²`.
    squares: f64,
}

impl Moments {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one number in.
    #[inline]
    pub fn record(&mut self, value: f64) {
        self.count += 1;
        let from_old = value - self.mean;
        self.mean += from_old / self.count as f64;
        self.squares += from_old * (value - self.mean);
    }

    /// Takes in all that `other` has seen. Equal to recording its numbers but for rounding.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        self.count += other.count;
        self.mean += apart * (theirs / (ours + theirs));
        self.squares += other.squares + apart * apart * (ours * theirs / (ours + theirs));
    }

    /// How many numbers were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` without numbers.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Sample variance (divisor `n − 1`); `None` with fewer than two numbers.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }

    /// Sample standard deviation; `None` with fewer than two numbers.
    pub fn deviation(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// Coefficient of variation: deviation over the absolute mean; `None` with fewer than two or a mean of 0.
    pub fn variation(&self) -> Option<f64> {
        self.deviation().filter(|_| self.mean != 0.0).map(|deviation| deviation / self.mean.abs())
    }

    /// Standard error of the mean **if the numbers are independent**; see [`super::BatchMeans`] otherwise.
    pub fn standard_error(&self) -> Option<f64> {
        self.variance().map(|variance| (variance / self.count as f64).sqrt())
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::new();
        values.into_iter().for_each(|value| moments.record(value));
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers_have_known_moments() {
        let moments: Moments = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().collect();
        assert_eq!((moments.mean(), moments.count()), (Some(5.0), 8));
        assert!((moments.variance().unwrap() - 32.0 / 7.0).abs() < 1e-12);
        assert!((moments.variation().unwrap() - (32.0f64 / 7.0).sqrt() / 5.0).abs() < 1e-12);
    }

    #[test]
    fn small_spread_beside_a_large_mean_survives() {
        let moments: Moments = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0].into_iter().collect();
        assert!((moments.variance().unwrap() - 30.0).abs() < 1e-6);
    }

    #[test]
    fn too_few_numbers_have_no_spread() {
        assert_eq!(Moments::new().mean(), None);
        let one: Moments = [3.0].into_iter().collect();
        assert_eq!((one.mean(), one.variance(), one.standard_error()), (Some(3.0), None, None));
        let zero_mean: Moments = [-1.0, 1.0].into_iter().collect();
        assert_eq!(zero_mean.variation(), None);
    }

    proptest! {
        #[test]
        fn merge_equals_recording_together(values in prop::collection::vec(-1e6f64..1e6, 0..80), cut in 0usize..80) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged: Moments = left.iter().copied().collect();
            merged.merge(&right.iter().copied().collect());
            let together: Moments = values.iter().copied().collect();
            prop_assert_eq!(merged.count(), together.count());
            if let (Some(m), Some(t)) = (merged.variance(), together.variance()) {
                prop_assert!((m - t).abs() <= 1e-9 * (1.0 + t));
                prop_assert!((merged.mean - together.mean).abs() <= 1e-6);
            }
        }
    }
}
