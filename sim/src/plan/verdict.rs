//! Verdicts: whether a candidate meets the objective with the stated confidence, and how two candidates compare.

use scenarios::scenario::Scenario;

use super::candidate::Candidate;
use crate::outcome::Outcome;
use crate::stats::{Confidence, Interval};

/// A candidate and what its replications measured.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The candidate.
    pub candidate: Candidate,
    /// Cost of each replication, dollars.
    pub costs: Vec<f64>,
    /// On-time share of each replication.
    pub on_time: Vec<f64>,
    /// Done share of each replication.
    pub success: Vec<f64>,
    /// 95th percentile of the latency of each replication, seconds.
    pub p95_s: Vec<f64>,
    /// Done jobs of each replication.
    pub done: Vec<f64>,
}

/// What keeps a candidate from the objective.
#[derive(Clone, Debug, PartialEq)]
pub enum Shortfall {
    /// Too few jobs on time: (lower bound, wanted).
    OnTime { low: f64, wanted: f64 },
    /// Too few jobs done: (lower bound, wanted).
    Success { low: f64, wanted: f64 },
    /// Too dear: (upper bound, budget), dollars.
    Budget { high: f64, budget: f64 },
}

impl Evaluation {
    pub(super) fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            costs: Vec::new(),
            on_time: Vec::new(),
            success: Vec::new(),
            p95_s: Vec::new(),
            done: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.costs.push(outcome.cost());
        self.on_time.push(outcome.jobs.share(outcome.jobs.on_time));
        self.success.push(outcome.jobs.share(outcome.jobs.done));
        self.p95_s.push(outcome.latency.quantile(0.95).unwrap_or(0) as f64 * 1e-9);
        self.done.push(outcome.jobs.done as f64);
    }

    /// Replications made.
    pub fn replications(&self) -> usize {
        self.costs.len()
    }

    /// Mean cost of a run, dollars.
    pub fn cost(&self) -> f64 {
        mean(&self.costs)
    }

    /// Cost of a thousand done jobs, dollars.
    pub fn cost_per_1000(&self) -> f64 {
        self.cost() / mean(&self.done).max(1.0) * 1000.0
    }

    /// Mean of the 95th percentile of latency, seconds.
    pub fn p95(&self) -> f64 {
        mean(&self.p95_s)
    }

    /// Mean share of jobs on time.
    pub fn on_time_ratio(&self) -> f64 {
        mean(&self.on_time)
    }

    /// Mean share of jobs done.
    pub fn success_ratio(&self) -> f64 {
        mean(&self.success)
    }

    /// The interval of the cost; `None` with one replication.
    pub fn cost_interval(&self, confidence: f64) -> Option<Interval> {
        Interval::of_mean(&self.costs, Confidence::new(confidence).ok()?).ok()
    }

    /// Everything that the objective lacks; empty when it is met. With several replications a share counts at its
    /// one-sided lower bound, the cost at its upper one.
    pub fn shortfalls(&self, scenario: &Scenario) -> Vec<Shortfall> {
        let objective = &scenario.objective;
        let level = objective.confidence.get();
        let mut missing = Vec::new();
        let wanted = objective.on_time_min.get();
        let low = bound(&self.on_time, level, -1.0);
        if low < wanted {
            missing.push(Shortfall::OnTime { low, wanted });
        }
        let wanted = objective.success_min.get();
        let low = bound(&self.success, level, -1.0);
        if low < wanted {
            missing.push(Shortfall::Success { low, wanted });
        }
        if let Some(budget) = objective.budget {
            let (high, budget) = (bound(&self.costs, level, 1.0), budget.as_f64());
            if high > budget {
                missing.push(Shortfall::Budget { high, budget });
            }
        }
        missing
    }

    /// Whether the objective is met.
    pub fn meets(&self, scenario: &Scenario) -> bool {
        self.shortfalls(scenario).is_empty()
    }

    /// How far the shares fall short, summed; zero when they do not. Orders candidates that all miss.
    pub fn distance(&self, scenario: &Scenario) -> f64 {
        let part = |shortfall: &Shortfall| match shortfall {
            Shortfall::OnTime { low, wanted } | Shortfall::Success { low, wanted } => wanted - low,
            Shortfall::Budget { high, budget } => (high - budget) / budget.max(1e-9),
        };
        self.shortfalls(scenario).iter().map(part).sum()
    }

    /// Cost over another candidate's, paired by replication (common random numbers), dollars.
    pub fn cost_over(&self, other: &Self, confidence: f64) -> Option<Interval> {
        let n = self.replications().min(other.replications());
        Interval::of_difference(&self.costs[..n], &other.costs[..n], Confidence::new(confidence).ok()?).ok()
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// One-sided bound of the mean at `level`, below (`side` −1) or above (+1); the plain mean with one value.
fn bound(values: &[f64], level: f64, side: f64) -> f64 {
    let two_sided = (2.0 * level - 1.0).clamp(0.5, 0.999_999);
    let interval = Confidence::new(two_sided).ok().and_then(|level| Interval::of_mean(values, level).ok());
    interval.map_or(mean(values), |interval| interval.mean + side * interval.half_width())
}
