//! Confidence intervals: of a mean over replications, of a paired difference, of a proportion; when to stop.

use super::{Moments, StatsError};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Degrees of freedom from which Student's t is computed from the normal distribution.
const NEARLY_NORMAL: f64 = 1000.0;

/// Highest confidence level: beyond it the quantile of few degrees of freedom loses its digits.
const LEVEL_MAX: f64 = 0.999_999;

/// A confidence level, such as 0.95: from 0.5 to 0.999999.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    /// A level of confidence.
    ///
    /// # Errors
    /// [`StatsError::Confidence`] outside 0.5..=0.999999.
    pub fn new(level: f64) -> Result<Self, StatsError> {
        if (0.5..=LEVEL_MAX).contains(&level) { Ok(Self(level)) } else { Err(StatsError::Confidence(level)) }
    }

    /// The level, 0.5 to 0.999999.
    pub fn level(self) -> f64 {
        self.0
    }

    /// Two-sided quantile of Student's t with `freedom` degrees of freedom, above 0.
    ///
    /// From a thousand degrees on by its expansion about the normal quantile (Abramowitz and Stegun 26.7.5,
    /// error below 1e-8): statrs 0.18 inverts the incomplete beta function, which loses digits there
    /// (1.83 for 1.96 at 10⁷) and does not end at 10⁹.
    pub fn student_t(self, freedom: f64) -> f64 {
        if freedom >= NEARLY_NORMAL {
            let z = self.normal();
            let z2 = z * z;
            let first = z * (z2 + 1.0) / 4.0;
            let second = z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0;
            let third = z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0;
            return z + (first + (second + third / freedom) / freedom) / freedom;
        }
        StudentsT::new(0.0, 1.0, freedom).expect("freedom is above zero").inverse_cdf(self.upper())
    }

    /// Two-sided quantile of the standard normal distribution.
    pub fn normal(self) -> f64 {
        Normal::new(0.0, 1.0).expect("a deviation of one is valid").inverse_cdf(self.upper())
    }

    fn upper(self) -> f64 {
        0.5 + 0.5 * self.0
    }
}

/// An estimate and the range in which the true value lies at the chosen confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// `mean ± half_width`.
    pub fn around(mean: f64, half_width: f64) -> Self {
        Self { mean, low: mean - half_width, high: mean + half_width }
    }

    /// Student-t interval of the mean of independent `samples`, one per replication.
    ///
    /// # Errors
    /// Fewer than two samples, or one that is not finite.
    pub fn of_mean(samples: &[f64], confidence: Confidence) -> Result<Self, StatsError> {
        check_finite(samples)?;
        Self::of_moments(&samples.iter().copied().collect(), confidence)
    }

    /// Student-t interval of the mean of independent samples already summed up.
    ///
    /// # Errors
    /// Fewer than two samples.
    pub fn of_moments(moments: &Moments, confidence: Confidence) -> Result<Self, StatsError> {
        match (moments.mean(), moments.standard_error()) {
            (Some(mean), Some(error)) => {
                Ok(Self::around(mean, confidence.student_t((moments.count() - 1) as f64) * error))
            }
            _ => {
                let count = moments.count() as usize;
                Err(StatsError::TooFew { what: "an interval", count, needed: 2 })
            }
        }
    }

    /// Interval of the mean difference `left − right`, paired by replication (common random numbers).
    ///
    /// # Errors
    /// Slices of different lengths, fewer than two pairs, or a value that is not finite.
    pub fn of_difference(left: &[f64], right: &[f64], confidence: Confidence) -> Result<Self, StatsError> {
        if left.len() != right.len() {
            return Err(StatsError::Unpaired { left: left.len(), right: right.len() });
        }
        let differences: Vec<f64> = left.iter().zip(right).map(|(l, r)| l - r).collect();
        Self::of_mean(&differences, confidence)
    }

    /// Wilson interval of a proportion (E. B. Wilson, JASA 22, 1927): stays within 0..=1, and is of use with
    /// no success or no failure at all. `mean` is the plain share.
    ///
    /// # Errors
    /// No trials, or more successes than trials.
    pub fn of_proportion(successes: u64, trials: u64, confidence: Confidence) -> Result<Self, StatsError> {
        if trials == 0 || successes > trials {
            return Err(StatsError::Proportion { successes, trials });
        }
        let (n, share) = (trials as f64, successes as f64 / trials as f64);
        let z2 = confidence.normal() * confidence.normal();
        let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = (z2 * (share * (1.0 - share) / n + z2 / (4.0 * n * n))).sqrt() / (1.0 + z2 / n);
        let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if successes == trials { 1.0 } else { (centre + half).min(1.0) };
        Ok(Self { mean: share, low, high })
    }

    /// Half the width.
    pub fn half_width(&self) -> f64 {
        0.5 * (self.high - self.low)
    }

    /// Half the width over the absolute mean; `None` for a mean of 0.
    pub fn relative_half_width(&self) -> Option<f64> {
        (self.mean != 0.0).then(|| self.half_width() / self.mean.abs())
    }

    /// Stopping rule: half the width is at most `relative` times the absolute mean.
    pub fn is_narrow_enough(&self, relative: f64) -> bool {
        self.half_width() <= relative * self.mean.abs()
    }

    /// Whether `value` lies inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Whether 0 lies outside: a difference that is more than chance at this confidence.
    pub fn excludes_zero(&self) -> bool {
        !self.contains(0.0)
    }
}

/// Refuses values that are not finite, naming the first.
pub(super) fn check_finite(values: &[f64]) -> Result<(), StatsError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(StatsError::NotFiniteAt { index, value: values[index] }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    fn level(level: f64) -> Confidence {
        Confidence::new(level).unwrap()
    }

    #[track_caller]
    fn check(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected} ± {tolerance}");
    }

    #[test]
    fn quantiles_match_published_tables() {
        let cases = [
            (0.95, 1.0, 12.706205),
            (0.95, 4.0, 2.776445),
            (0.95, 9.0, 2.262157),
            (0.99, 29.0, 2.756386),
            (0.90, 63.0, 1.669402),
            (0.999, 9.0, 4.780913),
            (0.95, 999.0, 1.962341),
            (0.95, 1000.0, 1.962339),
            (0.999, 1000.0, 3.300283),
            (0.95, 10_000.0, 1.960201),
            (0.95, 1e12, 1.959964),
        ];
        for (confidence, freedom, expected) in cases {
            check(level(confidence).student_t(freedom), expected, 2e-6 * expected);
        }
        check(level(0.95).normal(), 1.959964, 1e-6);
    }

    #[test]
    fn interval_of_known_samples() {
        // Mean 3, s² = 2.5, t(4) = 2.776445: half width 2.776445·√(2.5/5).
        let interval = Interval::of_mean(&[1.0, 2.0, 3.0, 4.0, 5.0], level(0.95)).unwrap();
        check(interval.mean, 3.0, 1e-12);
        check(interval.half_width(), 1.963243, 1e-5);
        check(interval.relative_half_width().unwrap(), 0.654414, 1e-5);
        assert!(interval.is_narrow_enough(0.66) && !interval.is_narrow_enough(0.65));
    }

    #[test]
    fn pairing_removes_what_both_share() {
        let left = [10.0, 50.0, 90.0, 130.0];
        let right = [9.0, 48.9, 89.1, 129.0];
        let paired = Interval::of_difference(&left, &right, level(0.95)).unwrap();
        assert!(paired.excludes_zero() && paired.contains(1.0));
        assert!(paired.half_width() < 0.2, "{paired:?}");
    }

    #[test]
    fn proportions_match_published_values() {
        // R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score).
        let cases = [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ];
        for (successes, trials, low, high) in cases {
            let interval = Interval::of_proportion(successes, trials, level(0.95)).unwrap();
            check(interval.low, low, 5.1e-5);
            check(interval.high, high, 5.1e-5);
        }
        // Without a failure the lower end is n/(n + z²).
        let sure = Interval::of_proportion(29, 29, level(0.95)).unwrap();
        check(sure.low, 29.0 / (29.0 + 3.841459), 1e-6);
        assert_eq!((sure.mean, sure.high), (1.0, 1.0));
    }

    #[test]
    fn bad_arguments_are_named() {
        let check = |error: StatsError, text: &str| assert_eq!(error.to_string(), text);
        check(
            Confidence::new(1.0).unwrap_err(),
            "confidence level 1 is outside 0.5..=0.999999; 0.95 is usual",
        );
        check(
            Interval::of_mean(&[1.0], level(0.9)).unwrap_err(),
            "1 values are too few for an interval; give at least 2",
        );
        check(
            Interval::of_difference(&[1.0], &[], level(0.9)).unwrap_err(),
            "1 and 0 values cannot be paired; give as many of each",
        );
        check(
            Interval::of_mean(&[1.0, f64::INFINITY], level(0.9)).unwrap_err(),
            "value inf at position 1 is not finite",
        );
        check(
            Interval::of_proportion(3, 2, level(0.9)).unwrap_err(),
            "3 successes in 2 trials are not a proportion",
        );
    }

    #[test]
    fn nine_of_ten_intervals_hold_the_mean() {
        let mut draws = Draws(11);
        let held = (0..2000).filter(|_| {
            let samples: Vec<f64> = (0..5).map(|_| 4.0 + draws.normal()).collect();
            Interval::of_mean(&samples, level(0.9)).unwrap().contains(4.0)
        });
        // 1800 ± 3.3·√(2000·0.9·0.1).
        let held = held.count();
        assert!((1755..=1845).contains(&held), "{held} of 2000");
    }

    proptest! {
        #[test]
        fn higher_confidence_is_wider(samples in prop::collection::vec(-1e3f64..1e3, 2..40)) {
            let narrow = Interval::of_mean(&samples, level(0.8)).unwrap();
            let wide = Interval::of_mean(&samples, level(0.99)).unwrap();
            prop_assert!(wide.low <= narrow.low && narrow.low <= narrow.mean);
            prop_assert!(wide.high >= narrow.high && narrow.contains(narrow.mean));
        }

        #[test]
        fn proportions_stay_between_zero_and_one(trials in 1u64..1_000_000, share in 0.0f64..=1.0) {
            let successes = (trials as f64 * share) as u64;
            let interval = Interval::of_proportion(successes, trials, level(0.999)).unwrap();
            prop_assert!(0.0 <= interval.low && interval.high <= 1.0 && interval.contains(interval.mean));
        }
    }
}
