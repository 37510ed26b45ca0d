//! A live day and simulated ones side by side: the same figures of each, and how far they lie apart.

use std::num::NonZeroUsize;

use control::replay::Traffic;
use policy::model::System;
use policy::records::JobOutcome;
use policy::units::Duration;
use serde::Serialize;
use sim::experiment::{self, RunOptions};
use sim::replication::Keep;
use sim::summary::{Summary, Times, summarize};

use super::played::Played;
use super::summary_text::{dollars, share};
use crate::failure::Failure;
use crate::numerals::{figure, time};
use crate::table::{Align, Table};

/// The figures of one day. Counts are of one run: means over replications where it was simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Side {
    /// `live` or `simulation`.
    pub(crate) source: &'static str,
    pub(crate) replications: u64,
    pub(crate) arrived: f64,
    pub(crate) done: f64,
    pub(crate) failed: f64,
    pub(crate) expired: f64,
    pub(crate) cancelled: f64,
    pub(crate) rejected: f64,
    /// Done jobs within the objective's deadline, over jobs that arrived.
    pub(crate) on_time_ratio: f64,
    /// Arrival to end of done jobs.
    pub(crate) latency_s: Times,
    /// Mean time that done jobs waited, all stages and attempts.
    pub(crate) wait_mean_s: f64,
    /// What the machines cost.
    pub(crate) compute_usd: f64,
    pub(crate) pools: Vec<PoolPeak>,
}

/// Most machines of a pool at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PoolPeak {
    pub(crate) name: String,
    pub(crate) peak_instances: f64,
}

impl Side {
    /// The figures of a live day; `deadline` is the objective's.
    pub(crate) fn live(traffic: &Traffic, system: &System, deadline: Duration) -> Self {
        let counts = &traffic.counts;
        let on_time = traffic.latencies.iter().filter(|latency| **latency <= deadline.as_nanos()).count();
        let waited: f64 = traffic.waits.iter().map(|wait| *wait as f64 * 1e-9).sum();
        let peak = |(pool, peak): (&policy::model::Pool, &u32)| PoolPeak {
            name: pool.name.clone(),
            peak_instances: f64::from(*peak),
        };
        Self {
            source: "live",
            replications: 1,
            arrived: counts.arrived as f64,
            done: counts.of(JobOutcome::Done) as f64,
            failed: counts.of(JobOutcome::Failed) as f64,
            expired: counts.of(JobOutcome::Expired) as f64,
            cancelled: counts.of(JobOutcome::Cancelled) as f64,
            rejected: counts.of(JobOutcome::Rejected) as f64,
            on_time_ratio: on_time as f64 / (counts.arrived as f64).max(1.0),
            latency_s: times(&traffic.latencies),
            wait_mean_s: waited / (traffic.waits.len() as f64).max(1.0),
            compute_usd: traffic.spent.as_nanos() as f64 * 1e-9,
            pools: system.pools.iter().zip(&traffic.peaks).map(peak).collect(),
        }
    }

    /// The figures of a simulated day.
    fn simulated(summary: &Summary, wait_mean_s: f64) -> Self {
        let jobs = &summary.jobs;
        let peak = |pool: &sim::summary::PoolSummary| PoolPeak {
            name: pool.name.clone(),
            peak_instances: pool.peak_instances,
        };
        Self {
            source: "simulation",
            replications: summary.replications,
            arrived: jobs.arrived,
            done: jobs.done,
            failed: jobs.failed,
            expired: jobs.expired,
            cancelled: jobs.cancelled,
            rejected: jobs.rejected,
            on_time_ratio: summary.on_time_ratio,
            latency_s: summary.latency_s,
            wait_mean_s,
            compute_usd: summary.cost_usd.compute,
            pools: summary.pools.iter().map(peak).collect(),
        }
    }
}

/// Times of a sample, nanoseconds: the smallest value that so many are not above, as the simulator's histograms say it.
fn times(sample: &[u64]) -> Times {
    if sample.is_empty() {
        return Times::default();
    }
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let q = |p: f64| {
        let rank = (p * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1] as f64 * 1e-9
    };
    let sum: f64 = sorted.iter().map(|value| *value as f64 * 1e-9).sum();
    let mean = sum / sorted.len() as f64;
    Times { mean, p50: q(0.5), p90: q(0.9), p95: q(0.95), p99: q(0.99), max: q(1.0) }
}

/// Simulates a recorded day.
///
/// # Errors
/// The scenario cannot run.
pub(crate) fn simulate(played: &Played, threads: Option<NonZeroUsize>) -> Result<Side, Failure> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = threads.map_or_else(cores, NonZeroUsize::get);
    let options = RunOptions { threads, keep: Keep::Statistics };
    let experiment = experiment::run(&played.scenario, &played.inputs, options, &experiment::Unwatched)?;
    let summary = summarize(&played.scenario, &experiment);
    let stages = experiment.outcomes.iter().flat_map(|outcome| &outcome.stages);
    let waited: f64 = stages.map(|stage| stage.wait.sum_ns() as f64 * 1e-9).sum();
    let done: u64 = experiment.outcomes.iter().map(|outcome| outcome.jobs.done).sum();
    Ok(Side::simulated(&summary, waited / (done as f64).max(1.0)))
}

/// How far a simulated figure lies from the live one, as a share of that; absent where that is zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Errors {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) latency_mean: Option<f64>,
    pub(crate) wait_mean: Option<f64>,
    pub(crate) compute_usd: Option<f64>,
    pub(crate) done: Option<f64>,
}

impl Errors {
    pub(crate) fn of(live: &Side, simulated: &Side) -> Self {
        let error = |of: &dyn Fn(&Side) -> f64| relative(of(live), of(simulated));
        Self {
            p50: error(&|side| side.latency_s.p50),
            p90: error(&|side| side.latency_s.p90),
            p95: error(&|side| side.latency_s.p95),
            p99: error(&|side| side.latency_s.p99),
            latency_mean: error(&|side| side.latency_s.mean),
            wait_mean: error(&|side| side.wait_mean_s),
            compute_usd: error(&|side| side.compute_usd),
            done: error(&|side| side.done),
        }
    }
}

fn relative(live: f64, simulated: f64) -> Option<f64> {
    (live != 0.0).then(|| simulated / live - 1.0)
}

/// The sides as a table, one column each under its name; the last one's distance from the first where `has_errors`.
pub(crate) fn text(names: &[&'static str], sides: &[&Side], has_errors: bool) -> String {
    let mut columns = vec![("", Align::Left)];
    columns.extend(names.iter().map(|name| (*name, Align::Right)));
    if has_errors {
        columns.push(("difference", Align::Right));
    }
    let mut table = Table::new(&columns);
    let mut row = |name: String, of: &dyn Fn(&Side) -> f64, show: &dyn Fn(f64) -> String| {
        let mut cells = vec![name];
        cells.extend(sides.iter().map(|side| show(of(side))));
        if has_errors {
            let (first, last) = (of(sides[0]), of(sides[sides.len() - 1]));
            let signed = relative(first, last).map(|error| format!("{:+.1} %", error * 100.0));
            cells.push(if first == last { String::new() } else { signed.unwrap_or_default() });
        }
        table.push(cells);
    };
    row("arrived".into(), &|side| side.arrived, &figure);
    row("done".into(), &|side| side.done, &figure);
    let mut rare = |name: &str, of: &dyn Fn(&Side) -> f64| {
        if sides.iter().any(|side| of(side) > 0.0) {
            row(name.into(), of, &figure);
        }
    };
    rare("failed", &|side| side.failed);
    rare("expired", &|side| side.expired);
    rare("cancelled", &|side| side.cancelled);
    rare("rejected", &|side| side.rejected);
    row("on time".into(), &|side| side.on_time_ratio, &share);
    row("mean wait".into(), &|side| side.wait_mean_s, &time);
    row("mean in system".into(), &|side| side.latency_s.mean, &time);
    row("p50".into(), &|side| side.latency_s.p50, &time);
    row("p90".into(), &|side| side.latency_s.p90, &time);
    row("p95".into(), &|side| side.latency_s.p95, &time);
    row("p99".into(), &|side| side.latency_s.p99, &time);
    row("machines cost".into(), &|side| side.compute_usd, &dollars);
    for (index, pool) in sides[0].pools.iter().enumerate() {
        let peak = |side: &Side| side.pools.get(index).map_or(0.0, |pool| pool.peak_instances);
        row(format!("peak of {}", pool.name), &peak, &figure);
    }
    table.text("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_simulators_histograms() {
        let sample: Vec<u64> = (1..=1000_u64).rev().map(|k| k * k * 1_000_000).collect();
        let exact = times(&sample);
        let mut histogram = sim::stats::Histogram::new();
        sample.iter().for_each(|value| histogram.record(*value));
        let binned = Times::of(&histogram);
        for (one, other) in [
            (exact.mean, binned.mean),
            (exact.p50, binned.p50),
            (exact.p90, binned.p90),
            (exact.p95, binned.p95),
            (exact.p99, binned.p99),
            (exact.max, binned.max),
        ] {
            assert!((one / other - 1.0).abs() < 0.01, "{exact:?} {binned:?}");
        }
        assert_eq!(times(&[]), Times::default());
    }

    #[test]
    fn errors_are_shares_of_the_live_figure() {
        assert_eq!(relative(2.0, 2.5), Some(0.25));
        assert_eq!(relative(0.0, 2.5), None);
    }
}
