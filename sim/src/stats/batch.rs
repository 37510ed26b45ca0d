//! Batch means: the standard error of a mean over one long, autocorrelated run, in constant memory.
//!
//! Successive values (waits, above all) resemble each other, so the error of their mean is far above that of
//! independent values. Means over long batches hardly resemble each other; their spread gives the error.
//! Batches double in size whenever 64 are full. Source: A. M. Law, *Simulation Modeling and Analysis* (2015),
//! §9.5.3; doubling: C. Schmeiser, Operations Research 30 (1982), on why 10 to 30 batches suffice.

use super::{Confidence, Interval, Moments, StatsError};

/// Batches kept; half of them remain after a collapse.
const BATCHES: usize = 64;

/// Fewest full batches that give an error.
const BATCHES_MIN: usize = 8;

/// Accumulates one run.
///
/// Sums are taken of the values less the first one, so that a spread far below the mean is not lost; no
/// division per value.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchMeans {
    count: u64,
    /// The first value; what is summed is the distance from it.
    origin: f64,
    /// Values in one full batch: a power of two.
    batch_size: u64,
    /// Sums of the full batches, oldest first; those from `full` on are unused.
    sums: [f64; BATCHES],
    full: usize,
    /// Sum of squares over the full batches.
    squares: f64,
    open_sum: f64,
    open_squares: f64,
    open_count: u64,
}

impl Default for BatchMeans {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchMeans {
    /// Nothing recorded yet, batches of one value.
    pub fn new() -> Self {
        Self {
            count: 0,
            origin: 0.0,
            batch_size: 1,
            sums: [0.0; BATCHES],
            full: 0,
            squares: 0.0,
            open_sum: 0.0,
            open_squares: 0.0,
            open_count: 0,
        }
    }

    /// Takes the next value of the run in.
    #[inline]
    pub fn record(&mut self, value: f64) {
        if self.count == 0 {
            self.origin = value;
        }
        let distance = value - self.origin;
        self.count += 1;
        self.open_sum += distance;
        self.open_squares += distance * distance;
        self.open_count += 1;
        if self.open_count == self.batch_size {
            self.close_batch();
        }
    }

    /// Takes many times in nanoseconds in, as seconds; the same as `time * 1e-9` one after the other.
    #[inline]
    pub fn record_all(&mut self, nanos: &[u64]) {
        // Times are below 2^63 ns, 292 years; signed numbers convert in one instruction.
        let seconds = |nanos: u64| nanos as i64 as f64 * 1e-9;
        let mut left = nanos;
        if self.count == 0 {
            let [first, others @ ..] = nanos else { return };
            self.record(seconds(*first));
            left = others;
        }
        while !left.is_empty() {
            let room = (self.batch_size - self.open_count).min(left.len() as u64);
            let (now, later) = left.split_at(room as usize);
            let (mut sum, mut squares) = (self.open_sum, self.open_squares);
            for nanos in now {
                let distance = seconds(*nanos) - self.origin;
                sum += distance;
                squares += distance * distance;
            }
            (self.open_sum, self.open_squares) = (sum, squares);
            self.count += room;
            self.open_count += room;
            if self.open_count == self.batch_size {
                self.close_batch();
            }
            left = later;
        }
    }

    fn close_batch(&mut self) {
        self.sums[self.full] = self.open_sum;
        self.full += 1;
        self.squares += self.open_squares;
        (self.open_sum, self.open_squares, self.open_count) = (0.0, 0.0, 0);
        if self.full == BATCHES {
            for i in 0..BATCHES / 2 {
                self.sums[i] = self.sums[2 * i] + self.sums[2 * i + 1];
            }
            self.full = BATCHES / 2;
            self.batch_size *= 2;
        }
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean of all values; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.origin + self.distance_mean())
    }

    /// Sample variance of single values; `None` with fewer than two.
    pub fn variance(&self) -> Option<f64> {
        let (count, mean) = (self.count as f64, self.distance_mean());
        let squares = self.squares + self.open_squares - count * mean * mean;
        (self.count > 1).then(|| squares.max(0.0) / (count - 1.0))
    }

    /// Mean distance from the first value.
    fn distance_mean(&self) -> f64 {
        (self.sums[..self.full].iter().sum::<f64>() + self.open_sum) / self.count as f64
    }

    /// Full batches: up to 63, at least 32 once 64 values were recorded.
    pub fn batch_count(&self) -> usize {
        self.full
    }

    /// Values in one batch.
    pub fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// Means of the full batches, oldest first.
    pub fn means(&self) -> impl Iterator<Item = f64> + '_ {
        self.sums[..self.full].iter().map(|sum| self.origin + sum / self.batch_size as f64)
    }

    /// Standard error of [`Self::mean`]: deviation of the batch means over the root of their number.
    ///
    /// `None` with fewer than 8 full batches. Values of an open batch count in the mean only.
    pub fn standard_error(&self) -> Option<f64> {
        if self.full < BATCHES_MIN {
            return None;
        }
        let means: Moments = self.means().collect();
        // The mean covers `count` values, the full batches a little fewer.
        let covered = (self.full as u64 * self.batch_size) as f64 / self.count() as f64;
        means.standard_error().map(|error| error * covered.sqrt())
    }

    /// How many independent values would give this standard error: `s²/error²`; `None` where there is no error.
    ///
    /// Far below [`Self::count`] where values resemble their neighbours.
    pub fn effective_sample_size(&self) -> Option<f64> {
        let error = self.standard_error()?;
        let variance = self.variance()?;
        Some(if error > 0.0 { variance / (error * error) } else { self.count() as f64 })
    }

    /// Correlation of successive batch means, −1 to 1; `None` with fewer than 8 batches or no spread.
    ///
    /// Near 0 the error can be trusted; well above, the run is too short for its own memory.
    pub fn lag1(&self) -> Option<f64> {
        if self.full < BATCHES_MIN {
            return None;
        }
        let mean = self.means().sum::<f64>() / self.full as f64;
        let squares: f64 = self.means().map(|batch| (batch - mean) * (batch - mean)).sum();
        let neighbours = self.means().zip(self.means().skip(1));
        let products: f64 = neighbours.map(|(this, next)| (this - mean) * (next - mean)).sum();
        (squares > 0.0).then(|| products / squares)
    }

    /// Whether batches are long enough: lag-1 correlation below its one-sided 95 % limit for independent
    /// batches, about `−1/k + 1.645/√k` for `k` of them.
    pub fn is_trustworthy(&self) -> bool {
        let batches = self.full as f64;
        self.lag1().is_some_and(|lag1| lag1 <= 1.645 / batches.sqrt() - 1.0 / batches)
    }

    /// Student-t interval of the mean from the batch means.
    ///
    /// # Errors
    /// [`StatsError::TooFew`] with fewer than 8 full batches.
    pub fn interval(&self, confidence: Confidence) -> Result<Interval, StatsError> {
        match (self.mean(), self.standard_error()) {
            (Some(mean), Some(error)) => {
                Ok(Interval::around(mean, confidence.student_t((self.full - 1) as f64) * error))
            }
            _ => Err(StatsError::TooFew { what: "batch means", count: self.full, needed: BATCHES_MIN }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    /// First-order autoregression `x ← φx + e`: variance `1/(1 − φ²)`, error of the mean `1/((1 − φ)√n)`.
    fn autoregression(phi: f64, count: u64, seed: u64) -> BatchMeans {
        let (mut draws, mut batches, mut x) = (Draws(seed), BatchMeans::new(), 0.0);
        for _ in 0..count {
            x = phi * x + draws.normal();
            batches.record(x);
        }
        batches
    }

    #[test]
    fn error_matches_theory_for_correlated_values() {
        for phi in [0.0, 0.5, 0.9, 0.98] {
            let count = 400_000;
            // The root mean square over 20 runs has a relative spread of about 2 %.
            let errors = (0..20).map(|seed| autoregression(phi, count, seed).standard_error().unwrap());
            let found = (errors.map(|error| error * error).sum::<f64>() / 20.0).sqrt();
            let expected = 1.0 / ((1.0 - phi) * (count as f64).sqrt());
            assert!((found / expected - 1.0).abs() < 0.1, "phi {phi}: {found} is not {expected}");
        }
    }

    #[test]
    fn correlation_shrinks_the_effective_sample() {
        // n (1 − φ)/(1 + φ) = n/19 at φ = 0.9.
        let batches = autoregression(0.9, 400_000, 7);
        let share = batches.effective_sample_size().unwrap() / 400_000.0;
        assert!((0.6 / 19.0..1.6 / 19.0).contains(&share), "{share}");
    }

    #[test]
    fn short_runs_are_found_out() {
        assert!(autoregression(0.5, 400_000, 3).is_trustworthy());
        assert!(!autoregression(0.999, 2_000, 3).is_trustworthy());
    }

    #[test]
    fn too_few_batches_have_no_error() {
        let mut batches = BatchMeans::new();
        (0..7).for_each(|i| batches.record(f64::from(i)));
        let confidence = Confidence::new(0.95).unwrap();
        assert_eq!((batches.standard_error(), batches.lag1()), (None, None));
        assert_eq!(
            batches.interval(confidence).unwrap_err().to_string(),
            "7 values are too few for batch means; give at least 8"
        );
    }

    #[test]
    fn mean_and_spread_match_two_passes() {
        let values: Vec<f64> = (0..1000).map(|i| 1e9 + libm::sin(f64::from(i))).collect();
        let mut batches = BatchMeans::new();
        values.iter().for_each(|value| batches.record(*value));
        let expected: Moments = values.into_iter().collect();
        assert!((batches.mean().unwrap() - expected.mean().unwrap()).abs() < 1e-6);
        assert!((batches.variance().unwrap() / expected.variance().unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn many_at_once_are_one_after_the_other() {
        let values: Vec<u64> = (0..3000).map(|i| (5e9 + 1e9 * libm::sin(f64::from(i))) as u64).collect();
        let (mut single, mut many) = (BatchMeans::new(), BatchMeans::new());
        values.iter().for_each(|value| single.record(*value as f64 * 1e-9));
        for chunk in values.chunks(77) {
            many.record_all(chunk);
        }
        assert_eq!(single, many);
    }

    proptest! {
        #[test]
        fn batches_hold_the_values_in_order(count in 0u64..5000) {
            let mut batches = BatchMeans::new();
            (0..count).for_each(|i| batches.record(i as f64));
            let size = batches.batch_size();
            prop_assert!(batches.batch_count() < BATCHES);
            prop_assert!(size.is_power_of_two() && (size == 1 || batches.batch_count() >= BATCHES / 2));
            prop_assert_eq!(batches.batch_count() as u64, count / size);
            for (k, mean) in batches.means().enumerate() {
                prop_assert_eq!(mean, k as f64 * size as f64 + (size as f64 - 1.0) / 2.0);
            }
        }
    }
}
