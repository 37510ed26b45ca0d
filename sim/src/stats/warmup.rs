//! Warm-up: how much of the start of a run to cut, so that an empty first hour does not colour the mean.
//!
//! Sources: K. P. White, "An effective truncation heuristic for bias reduction in simulation output",
//! Simulation 69 (1997), and K. P. White, M. J. Cobb, S. C. Spratt (2000) for MSER-5;
//! P. D. Welch (1983) for the moving average of replications.

use super::{StatsError, interval::check_finite};

/// Observations in one batch of MSER-5.
const BATCH: usize = 5;

/// Fewest (batched) values on which the rule is meaningful.
const VALUES_MIN: usize = 4;

/// Where to cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truncation {
    /// Leading values to drop.
    pub drop: usize,
    /// Value of the criterion there: squared standard error of the mean of the rest.
    pub criterion: f64,
    /// Whether the best cut lies at the last place tried, half of the run: the run is too short to tell.
    pub is_inconclusive: bool,
}

/// The cut that minimises the marginal standard error rule over a series (of batch means, say):
/// `MSER(d) = Σ_{i>d} (z_i − z̄_d)²/(m − d)²` over `d ≤ m/2`, for `m` values.
///
/// The earliest cut wins among equals. Takes linear time.
///
/// # Errors
/// Fewer than four values, or one that is not finite.
pub fn mser(series: &[f64]) -> Result<Truncation, StatsError> {
    check_finite(series)?;
    if series.len() < VALUES_MIN {
        let (count, needed) = (series.len(), VALUES_MIN);
        return Err(StatsError::TooFew { what: "a warm-up cut", count, needed });
    }
    let last = series.len() / 2;
    let mut best = Truncation { drop: 0, criterion: f64::INFINITY, is_inconclusive: false };
    // From the end: moments of the tail grow by one value at a time.
    let mut tail = super::Moments::new();
    for (drop, value) in series.iter().enumerate().rev() {
        tail.record(*value);
        if drop > last {
            continue;
        }
        let kept = tail.count() as f64;
        let criterion = tail.variance().unwrap_or(0.0) * (kept - 1.0) / (kept * kept);
        if criterion <= best.criterion {
            best = Truncation { drop, criterion, is_inconclusive: drop == last };
        }
    }
    Ok(best)
}

/// MSER-5: [`mser`] over means of five observations; `drop` counts observations. A last incomplete batch is
/// left out of the search.
///
/// # Errors
/// Fewer than twenty observations, or one that is not finite.
pub fn mser5(observations: &[f64]) -> Result<Truncation, StatsError> {
    check_finite(observations)?;
    if observations.len() < BATCH * VALUES_MIN {
        let (count, needed) = (observations.len(), BATCH * VALUES_MIN);
        return Err(StatsError::TooFew { what: "a warm-up cut", count, needed });
    }
    let means: Vec<f64> =
        observations.chunks_exact(BATCH).map(|batch| batch.iter().sum::<f64>() / BATCH as f64).collect();
    let cut = mser(&means)?;
    Ok(Truncation { drop: cut.drop * BATCH, ..cut })
}

/// Welch's moving average with half-width `window`: the mean of up to `2·window + 1` values around each one,
/// fewer and still centred near the start. The result ends `window` values before the series.
///
/// Feed it the average over replications; the warm-up ends where the curve turns flat.
pub fn moving_average(series: &[f64], window: usize) -> Vec<f64> {
    (0..series.len().saturating_sub(window))
        .map(|centre| {
            let reach = window.min(centre);
            let around = &series[centre - reach..=centre + reach];
            around.iter().sum::<f64>() / around.len() as f64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    /// Noise around 10 after a decay from 60 with time constant 40.
    fn decaying(count: usize, seed: u64) -> Vec<f64> {
        let mut draws = Draws(seed);
        (0..count).map(|i| 10.0 + 50.0 * libm::exp(-(i as f64) / 40.0) + draws.normal()).collect()
    }

    #[test]
    fn transient_is_cut_and_little_more() {
        for seed in 0..20 {
            let cut = mser5(&decaying(4000, seed)).unwrap();
            // 50 e^{−d/40} falls from 11.6 at 60 to 0.02 at 320.
            assert!((60..=320).contains(&cut.drop) && !cut.is_inconclusive, "{cut:?}");
            assert_eq!(cut.drop % 5, 0);
        }
    }

    #[test]
    fn step_is_cut_exactly() {
        let series: Vec<f64> = (0..100).map(|i| if i < 30 { 5.0 } else { 1.0 }).collect();
        assert_eq!(mser(&series), Ok(Truncation { drop: 30, criterion: 0.0, is_inconclusive: false }));
    }

    #[test]
    fn steady_run_is_not_cut() {
        assert_eq!(mser(&[3.0; 50]).unwrap().drop, 0);
    }

    #[test]
    fn run_that_never_settles_is_inconclusive() {
        let rising: Vec<f64> = (0..200).map(f64::from).collect();
        assert!(mser(&rising).unwrap().is_inconclusive);
    }

    #[test]
    fn short_series_are_named() {
        assert_eq!(
            mser5(&[1.0; 19]).unwrap_err().to_string(),
            "19 values are too few for a warm-up cut; give at least 20"
        );
        assert!(matches!(mser(&[1.0, f64::NAN, 1.0, 1.0]), Err(StatsError::NotFiniteAt { index: 1, .. })));
    }

    #[test]
    fn moving_average_matches_hand_computation() {
        let found = moving_average(&[1.0, 2.0, 6.0, 4.0, 2.0, 9.0], 1);
        assert_eq!(found, [1.0, 3.0, 4.0, 4.0, 5.0]);
        assert_eq!(moving_average(&[1.0, 2.0, 6.0, 4.0, 2.0, 9.0], 2), [1.0, 3.0, 3.0, 23.0 / 5.0]);
        assert!(moving_average(&[1.0], 3).is_empty());
    }

    proptest! {
        #[test]
        fn cut_is_the_minimum_of_the_rule(series in prop::collection::vec(-100.0f64..100.0, 4..60)) {
            let rule = |drop: usize| {
                let rest = &series[drop..];
                let mean = rest.iter().sum::<f64>() / rest.len() as f64;
                rest.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / (rest.len() * rest.len()) as f64
            };
            let cut = mser(&series).unwrap();
            prop_assert!((cut.criterion - rule(cut.drop)).abs() < 1e-9 * (1.0 + cut.criterion));
            for drop in 0..=series.len() / 2 {
                prop_assert!(cut.criterion <= rule(drop) + 1e-9);
            }
        }
    }
}
