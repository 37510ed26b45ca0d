//! Ranking and selection: find the best of several candidates with as few replications as possible.
//!
//! Procedure KN (S.-H. Kim, B. L. Nelson, "A fully sequential procedure for indifference-zone selection in
//! simulation", ACM TOMACS 11, 2001): after a few replications of all candidates, drop, replication by
//! replication, those that are clearly worse. With probability at least `1 − alpha` the survivor is the best,
//! if the best is better than the rest by `difference` or more. Valid with common random numbers.

use super::StatsError;

/// Largest replication number that is kept.
const REPLICATIONS_LIMIT: usize = 1_000_000;

/// Which mean is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The smallest, as of a cost.
    Minimise,
    /// The largest, as of a share served on time.
    Maximise,
}

/// What the procedure is asked to promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// Which mean is the best.
    pub goal: Goal,
    /// `δ`: the smallest difference of means that matters, above 0, in the unit of the values.
    pub difference: f64,
    /// Chance of a wrong selection, above 0 and below `(k − 1)/2` for `k` candidates and below 1; 0.05 is usual.
    pub alpha: f64,
    /// `n0`: replications of every candidate before the first one is dropped; at least 2, better 10.
    pub first_replications: usize,
}

/// The state of one selection.
///
/// Values may come in any order (replications run in parallel): a round is judged once all candidates still in
/// the race have its value, so the outcome depends on the values alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    promise: Promise,
    candidates: Vec<Candidate>,
    /// Replications judged so far: all survivors have a value for each.
    rounds: usize,
    /// `h²S²_il` for each pair, row by row; empty before the first judgement.
    spread: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    is_in: bool,
    /// Values by replication, sign turned so that the smallest mean is the best.
    values: Vec<Option<f64>>,
    /// Sum of the values of the judged rounds.
    sum: f64,
}

impl Selection {
    /// A selection among `count` candidates, numbered from 0.
    ///
    /// # Errors
    /// No candidates, fewer than two first replications, or a difference or chance out of range.
    pub fn new(count: usize, promise: Promise) -> Result<Self, StatsError> {
        let Promise { difference, alpha, first_replications, .. } = promise;
        if count == 0 {
            return Err(StatsError::NoCandidates);
        }
        if first_replications < 2 {
            let what = "a first round of selection";
            return Err(StatsError::TooFew { what, count: first_replications, needed: 2 });
        }
        if first_replications > REPLICATIONS_LIMIT {
            let limit = REPLICATIONS_LIMIT;
            return Err(StatsError::ReplicationLimit { replication: first_replications, limit });
        }
        if !(difference.is_finite() && difference > 0.0) {
            return Err(StatsError::Difference(difference));
        }
        let limit = if count == 2 { 0.5 } else { 1.0 };
        if !(alpha > 0.0 && alpha < limit) {
            return Err(StatsError::Alpha { alpha, limit });
        }
        let candidate = Candidate { is_in: true, values: Vec::new(), sum: 0.0 };
        Ok(Self { promise, candidates: vec![candidate; count], rounds: 0, spread: Vec::new() })
    }

    /// Takes the value of one candidate in one replication (from 0), and judges what is complete.
    ///
    /// Values of candidates already dropped are accepted and ignored: they may have been under way.
    ///
    /// # Errors
    /// An unknown candidate, a second value for the same place, a value that is not finite, or a replication
    /// beyond one million.
    pub fn observe(&mut self, candidate: usize, replication: usize, value: f64) -> Result<(), StatsError> {
        let count = self.candidates.len();
        if !value.is_finite() {
            return Err(StatsError::NotFinite { candidate, replication, value });
        }
        if replication >= REPLICATIONS_LIMIT {
            return Err(StatsError::ReplicationLimit { replication, limit: REPLICATIONS_LIMIT });
        }
        let Some(entry) = self.candidates.get_mut(candidate) else {
            return Err(StatsError::UnknownCandidate { candidate, count });
        };
        if !entry.is_in {
            return Ok(());
        }
        if entry.values.len() <= replication {
            entry.values.resize(replication + 1, None);
        }
        if entry.values[replication].is_some() {
            return Err(StatsError::Duplicate { candidate, replication });
        }
        entry.values[replication] = Some(match self.promise.goal {
            Goal::Minimise => value,
            Goal::Maximise => -value,
        });
        while self.winner().is_none() && self.is_next_round_complete() {
            self.close_round();
        }
        Ok(())
    }

    /// Candidates still in the race, in rising order.
    pub fn survivors(&self) -> Vec<usize> {
        self.survivors_iter().collect()
    }

    /// The selected candidate, once only one is left.
    pub fn winner(&self) -> Option<usize> {
        let mut survivors = self.survivors_iter();
        survivors.next().filter(|_| survivors.next().is_none())
    }

    /// Replications judged so far.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// What to simulate next: pairs of candidate and replication that the next judgement waits for.
    /// Empty once there is a winner.
    pub fn wanted(&self) -> Vec<(usize, usize)> {
        if self.winner().is_some() {
            return Vec::new();
        }
        let replications = self.rounds..self.promise.first_replications.max(self.rounds + 1);
        let missing = |candidate: usize, replication: usize| self.value(candidate, replication).is_none();
        replications
            .flat_map(|replication| self.survivors_iter().map(move |candidate| (candidate, replication)))
            .filter(|&(candidate, replication)| missing(candidate, replication))
            .collect()
    }

    /// Mean over the judged rounds, of a survivor or as it was when dropped; `None` before the first.
    pub fn mean(&self, candidate: usize) -> Option<f64> {
        let entry = self.candidates.get(candidate)?;
        let judged = if entry.is_in { self.rounds } else { entry.values.len() };
        let sum = match self.promise.goal {
            Goal::Minimise => entry.sum,
            Goal::Maximise => -entry.sum,
        };
        (judged > 0).then(|| sum / judged as f64)
    }

    fn survivors_iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.candidates.iter().enumerate().filter(|(_, entry)| entry.is_in).map(|(index, _)| index)
    }

    fn value(&self, candidate: usize, replication: usize) -> Option<f64> {
        self.candidates[candidate].values.get(replication).copied().flatten()
    }

    fn is_next_round_complete(&self) -> bool {
        self.survivors_iter().all(|candidate| self.value(candidate, self.rounds).is_some())
    }

    fn close_round(&mut self) {
        let round = self.rounds;
        for entry in self.candidates.iter_mut().filter(|entry| entry.is_in) {
            entry.sum += entry.values[round].expect("the round is complete");
        }
        self.rounds += 1;
        if self.rounds < self.promise.first_replications {
            return;
        }
        if self.rounds == self.promise.first_replications {
            self.measure_spread();
        }
        self.drop_worse();
    }

    /// `h²S²_il` from the first `n0` rounds: `h² = 2η(n0 − 1)`, `η = ½[(2α/(k − 1))^{−2/(n0 − 1)} − 1]`,
    /// `S²_il` the sample variance of the difference of candidates `i` and `l`.
    fn measure_spread(&mut self) {
        let count = self.candidates.len();
        let rounds = self.rounds;
        let freedom = (rounds - 1) as f64;
        let share = 2.0 * self.promise.alpha / (count as f64 - 1.0);
        // Above 1 only where chance alone keeps the promise; then any spread will do.
        let eta = 0.5 * (libm::pow(share.min(1.0), -2.0 / freedom) - 1.0);
        let factor = 2.0 * eta * freedom;
        let mut spread = vec![0.0; count * count];
        for i in 0..count {
            for l in 0..i {
                let difference = |round: usize| -> f64 {
                    let value = |candidate| self.value(candidate, round).expect("the round is complete");
                    value(i) - value(l)
                };
                let moments: super::Moments = (0..rounds).map(difference).collect();
                let scaled = factor * moments.variance().unwrap_or(0.0);
                (spread[i * count + l], spread[l * count + i]) = (scaled, scaled);
            }
        }
        self.spread = spread;
    }

    /// Drops `i` unless `X̄_i ≤ X̄_l + W_il` for every other survivor `l`, with
    /// `W_il = max(0, δ/(2r)·(h²S²_il/δ² − r))` after `r` rounds.
    ///
    /// Once `r` exceeds every `h²S²_il/δ²` among the survivors the best mean wins, the lowest number on a tie.
    fn drop_worse(&mut self) {
        let (count, r) = (self.candidates.len(), self.rounds as f64);
        let delta = self.promise.difference;
        let survivors = self.survivors();
        let mean = |candidate: usize| self.candidates[candidate].sum / r;
        let horizon = |i: usize, l: usize| self.spread[i * count + l] / (delta * delta);
        let pairs = survivors.iter().flat_map(|&i| survivors.iter().map(move |&l| (i, l)));
        let is_last = pairs.into_iter().all(|(i, l)| i == l || horizon(i, l) < r);
        let best = survivors.iter().copied().min_by(|&i, &l| mean(i).total_cmp(&mean(l)));
        let worse: Vec<usize> = survivors
            .iter()
            .copied()
            .filter(|&i| {
                let is_beaten_by = |l: usize| {
                    let slack = (delta / (2.0 * r) * (horizon(i, l) - r)).max(0.0);
                    l != i && mean(i) > mean(l) + slack
                };
                if is_last { Some(i) != best } else { survivors.iter().any(|&l| is_beaten_by(l)) }
            })
            .collect();
        for candidate in worse {
            let entry = &mut self.candidates[candidate];
            entry.is_in = false;
            entry.values.truncate(self.rounds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    fn promise(goal: Goal, difference: f64) -> Promise {
        Promise { goal, difference, alpha: 0.05, first_replications: 10 }
    }

    /// Runs a selection to its end on normal values around `means`, with a shared part per replication.
    fn run(means: &[f64], promise: Promise, shared: f64, seed: u64) -> Selection {
        let mut selection = Selection::new(means.len(), promise).unwrap();
        let mut draws = Draws(seed);
        let mut common = Vec::new();
        while selection.winner().is_none() {
            for (candidate, replication) in selection.wanted() {
                while common.len() <= replication {
                    common.push(shared * draws.normal());
                }
                let value = means[candidate] + common[replication] + draws.normal();
                selection.observe(candidate, replication, value).unwrap();
            }
        }
        selection
    }

    #[test]
    fn promise_is_kept_at_the_least_favourable_means() {
        // All others exactly `difference` behind; 5 % may fail: 25 of 500, plus 3.3 deviations.
        let means = [1.0, 1.0, 0.5, 1.0, 1.0];
        let wrong =
            (0..500).filter(|seed| run(&means, promise(Goal::Minimise, 0.5), 2.0, *seed).winner() != Some(2));
        let wrong = wrong.count();
        assert!(wrong <= 41, "{wrong} wrong of 500");
    }

    #[test]
    fn common_random_numbers_save_replications() {
        // Noise shared by all candidates leaves the differences, and so the work, as they are.
        let means = [1.0, 1.5, 2.0];
        let rounds = |shared: f64| -> usize {
            (0..40).map(|seed| run(&means, promise(Goal::Minimise, 0.5), shared, seed).rounds()).sum()
        };
        let (alone, shared) = (rounds(0.0), rounds(100.0));
        assert!(shared.abs_diff(alone) * 4 < alone, "{shared} against {alone} rounds");
    }

    #[test]
    fn clear_losers_leave_at_the_first_judgement() {
        let selection = run(&[0.0, 100.0, 200.0], promise(Goal::Minimise, 1.0), 0.0, 1);
        assert_eq!((selection.winner(), selection.rounds()), (Some(0), 10));
        let selection = run(&[0.0, 100.0, 200.0], promise(Goal::Maximise, 1.0), 0.0, 1);
        assert_eq!(selection.winner(), Some(2));
        assert!((selection.mean(2).unwrap() - 200.0).abs() < 2.0);
        assert!((selection.mean(0).unwrap() - 0.0).abs() < 2.0);
    }

    #[test]
    fn identical_candidates_end_with_the_lowest_number() {
        let mut selection = Selection::new(3, promise(Goal::Minimise, 0.1)).unwrap();
        while selection.winner().is_none() {
            for (candidate, replication) in selection.wanted() {
                selection.observe(candidate, replication, replication as f64).unwrap();
            }
        }
        assert_eq!((selection.winner(), selection.rounds()), (Some(0), 10));
    }

    #[test]
    fn single_candidate_wins_at_once() {
        let selection = Selection::new(1, promise(Goal::Minimise, 1.0)).unwrap();
        assert_eq!((selection.winner(), selection.wanted()), (Some(0), Vec::new()));
    }

    #[test]
    fn bad_input_is_named() {
        let good = promise(Goal::Minimise, 1.0);
        let new = |count, promise| Selection::new(count, promise).unwrap_err();
        assert_eq!(new(0, good), StatsError::NoCandidates);
        assert_eq!(new(3, Promise { difference: 0.0, ..good }), StatsError::Difference(0.0));
        assert_eq!(new(2, Promise { alpha: 0.5, ..good }), StatsError::Alpha { alpha: 0.5, limit: 0.5 });
        assert!(matches!(new(3, Promise { first_replications: 1, ..good }), StatsError::TooFew { .. }));
        let mut selection = Selection::new(2, good).unwrap();
        selection.observe(0, 0, 1.0).unwrap();
        assert_eq!(selection.observe(0, 0, 1.0), Err(StatsError::Duplicate { candidate: 0, replication: 0 }));
        assert_eq!(
            selection.observe(2, 0, 1.0),
            Err(StatsError::UnknownCandidate { candidate: 2, count: 2 })
        );
        assert!(matches!(selection.observe(1, 0, f64::NAN), Err(StatsError::NotFinite { .. })));
        let limit = REPLICATIONS_LIMIT;
        assert!(matches!(selection.observe(1, limit, 0.0), Err(StatsError::ReplicationLimit { .. })));
    }

    proptest! {
        #[test]
        fn order_of_arrival_does_not_matter(seed in any::<u64>(), spread in 0.0f64..2.0) {
            let mut draws = Draws(seed);
            let values: Vec<Vec<f64>> =
                (0..4).map(|i| (0..60).map(|_| spread * f64::from(i) + draws.normal()).collect()).collect();
            let mut places: Vec<(usize, usize)> = (0..4).flat_map(|c| (0..60).map(move |r| (c, r))).collect();
            let feed = |places: &[(usize, usize)]| {
                let mut selection = Selection::new(4, promise(Goal::Minimise, 0.3)).unwrap();
                for &(candidate, replication) in places {
                    selection.observe(candidate, replication, values[candidate][replication]).unwrap();
                }
                let means: Vec<_> = (0..4).map(|candidate| selection.mean(candidate)).collect();
                (selection.survivors(), selection.rounds(), means)
            };
            let in_order = feed(&places);
            for i in (1..places.len()).rev() {
                places.swap(i, (draws.word() % (i as u64 + 1)) as usize);
            }
            prop_assert!(!in_order.0.is_empty());
            prop_assert_eq!(in_order, feed(&places));
        }
    }
}
