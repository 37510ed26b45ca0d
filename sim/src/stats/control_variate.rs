//! Control variates: a mean made sharper by a companion whose true mean is known.
//!
//! The companion `x` (say, the mean wait of an M/M/n queue fed with the same arrivals) is measured in the same
//! replication as `y`. Where `x` came out above its known mean, so, probably, did `y`; regression removes that
//! part. Source: S. S. Lavenberg, P. D. Welch, Management Science 27 (1981).

use super::{Confidence, Interval, StatsError, interval::check_finite};

/// An estimate of the mean of `y`, adjusted by a control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlVariate {
    /// Adjusted mean `ȳ − b(x̄ − E[x])` and its Student-t interval, `n − 2` degrees of freedom.
    pub interval: Interval,
    /// Regression coefficient `b = S_xy/S_xx`; 0 where `x` does not vary.
    pub coefficient: f64,
    /// Correlation of `y` and `x`; the variance falls to about `1 − correlation²`.
    pub correlation: f64,
}

impl ControlVariate {
    /// Estimates from `pairs` of `(y, x)`, one per replication, where the true mean of `x` is `control_mean`.
    ///
    /// A control that does not vary tells nothing: the plain interval of `y` comes back.
    ///
    /// # Errors
    /// Fewer than three pairs, or a value that is not finite.
    pub fn estimate(
        pairs: &[(f64, f64)],
        control_mean: f64,
        confidence: Confidence,
    ) -> Result<Self, StatsError> {
        if pairs.len() < 3 {
            return Err(StatsError::TooFew { what: "a control variate", count: pairs.len(), needed: 3 });
        }
        let (y, x): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        check_finite(&y)?;
        check_finite(&x)?;
        check_finite(&[control_mean])?;
        let n = pairs.len() as f64;
        let (y_mean, x_mean) = (y.iter().sum::<f64>() / n, x.iter().sum::<f64>() / n);
        let product = |left: &[f64], left_mean: f64, right: &[f64], right_mean: f64| -> f64 {
            left.iter().zip(right).map(|(l, r)| (l - left_mean) * (r - right_mean)).sum()
        };
        let (xx, yy) = (product(&x, x_mean, &x, x_mean), product(&y, y_mean, &y, y_mean));
        let xy = product(&x, x_mean, &y, y_mean);
        // Rounding alone leaves about n (ε x̄)²; a spread below that is none.
        if xx <= n * (f64::EPSILON * x_mean) * (f64::EPSILON * x_mean) {
            let interval = Interval::of_mean(&y, confidence)?;
            return Ok(Self { interval, coefficient: 0.0, correlation: 0.0 });
        }
        let coefficient = xy / xx;
        let shift = x_mean - control_mean;
        let residuals = (yy - coefficient * xy).max(0.0) / (n - 2.0);
        let error = (residuals * (1.0 / n + shift * shift / xx)).sqrt();
        let half_width = confidence.student_t(n - 2.0) * error;
        let correlation = if yy > 0.0 { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 };
        let interval = Interval::around(y_mean - coefficient * shift, half_width);
        Ok(Self { interval, coefficient, correlation })
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

    fn pairs(draws: &mut Draws, count: usize, noise: f64) -> Vec<(f64, f64)> {
        let pair = |_| {
            let x = draws.normal();
            (5.0 + 2.0 * x + noise * draws.normal(), 1.0 + x)
        };
        (0..count).map(pair).collect()
    }

    #[test]
    fn good_control_narrows_the_interval() {
        let pairs = pairs(&mut Draws(5), 50, 0.2);
        let plain: Vec<f64> = pairs.iter().map(|(y, _)| *y).collect();
        let plain = Interval::of_mean(&plain, level(0.95)).unwrap();
        let adjusted = ControlVariate::estimate(&pairs, 1.0, level(0.95)).unwrap();
        // Correlation 2/√4.04: the deviation falls to a tenth.
        assert!(adjusted.correlation > 0.98 && (adjusted.coefficient - 2.0).abs() < 0.2);
        assert!(adjusted.interval.half_width() < 0.15 * plain.half_width());
    }

    #[test]
    fn perfect_control_gives_the_exact_mean() {
        let pairs = [(3.0, 1.0), (5.0, 2.0), (9.0, 4.0), (1.0, 0.0)]; // y = 1 + 2x
        let adjusted = ControlVariate::estimate(&pairs, 10.0, level(0.95)).unwrap();
        assert!((adjusted.interval.mean - 21.0).abs() < 1e-9 && adjusted.interval.half_width() < 1e-6);
    }

    #[test]
    fn constant_control_changes_nothing() {
        let pairs = [(1.0, 0.1), (2.0, 0.1), (4.0, 0.1)];
        let adjusted = ControlVariate::estimate(&pairs, 7.0, level(0.95)).unwrap();
        assert_eq!(adjusted.interval, Interval::of_mean(&[1.0, 2.0, 4.0], level(0.95)).unwrap());
    }

    #[test]
    fn nine_of_ten_intervals_hold_the_mean() {
        let mut draws = Draws(23);
        let held = (0..2000).filter(|_| {
            let pairs = pairs(&mut draws, 8, 1.0);
            ControlVariate::estimate(&pairs, 1.0, level(0.9)).unwrap().interval.contains(5.0)
        });
        // 1800 ± 3.3·√(2000·0.9·0.1).
        let held = held.count();
        assert!((1755..=1845).contains(&held), "{held} of 2000");
    }

    #[test]
    fn too_few_pairs_are_named() {
        let error = ControlVariate::estimate(&[(1.0, 1.0); 2], 1.0, level(0.9)).unwrap_err();
        assert_eq!(error.to_string(), "2 values are too few for a control variate; give at least 3");
    }

    proptest! {
        #[test]
        fn scaling_the_control_changes_nothing(
            seed in any::<u64>(), scale in 0.01f64..100.0, noise in 0.0f64..5.0,
        ) {
            let pairs = pairs(&mut Draws(seed), 12, noise);
            let scaled: Vec<_> = pairs.iter().map(|(y, x)| (*y, scale * x)).collect();
            let one = ControlVariate::estimate(&pairs, 1.0, level(0.95)).unwrap().interval;
            let other = ControlVariate::estimate(&scaled, scale, level(0.95)).unwrap().interval;
            prop_assert!((one.mean - other.mean).abs() < 1e-9);
            prop_assert!((one.half_width() - other.half_width()).abs() < 1e-6);
        }
    }
}
