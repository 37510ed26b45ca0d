//! The summary of an experiment: one object that people read as a table and programs as JSON.
//!
//! Counts and costs are those of one run: the mean over replications. Quantiles are of all replications together.

use serde::Serialize;

use policy::model::PoolId;
use policy::records::ChargeCategory;
use scenarios::scenario::Scenario;

use crate::bill::operation_name;
use crate::experiment::Experiment;
use crate::outcome::{JobCounts, Outcome};
use crate::stats::{Confidence, Histogram, Interval};
use crate::theory_check::{TheoryCheck, check_stages};

/// Mean and bounds over replications.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ci {
    /// Mean over replications.
    pub mean: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Time statistics in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

impl Times {
    /// Statistics of a histogram; all zero when it is empty.
    pub fn of(histogram: &Histogram) -> Self {
        let q = |p: f64| histogram.quantile(p).unwrap_or(0) as f64 * 1e-9;
        Self {
            mean: histogram.mean_ns().unwrap_or(0.0) * 1e-9,
            p50: q(0.5),
            p90: q(0.9),
            p95: q(0.95),
            p99: q(0.99),
            max: histogram.max_ns().unwrap_or(0) as f64 * 1e-9,
        }
    }
}

/// Intervals of [`Times`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TimesCi {
    /// Of the mean.
    pub mean: Ci,
    /// Of the median.
    pub p50: Ci,
    /// Of the 95th percentile.
    pub p95: Ci,
    /// Of the 99th percentile.
    pub p99: Ci,
}

/// Jobs by how they ended, per run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Jobs {
    pub arrived: f64,
    pub done: f64,
    pub failed: f64,
    pub expired: f64,
    pub cancelled: f64,
    pub rejected: f64,
}

/// Dollars per run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub total: f64,
    pub compute: f64,
    pub storage: f64,
    pub requests: f64,
    pub transfer: f64,
    pub external: f64,
}

/// Intervals of [`Cost`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CostCi {
    pub total: Ci,
    pub compute: Ci,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageSummary {
    pub name: String,
    pub wait_s: Times,
    pub service_s: Times,
    pub retries: f64,
    /// Standard error of the mean wait within the first run, by batch means; absent when the run is too short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_mean_standard_error_s: Option<f64>,
    /// What queueing theory says of the same queue, where it applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theory: Option<TheoryCheck>,
    #[serde(rename = "_ci", skip_serializing_if = "Option::is_none")]
    pub ci: Option<StageCi>,
}

/// Intervals of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageCi {
    pub wait_s: TimesCi,
}

/// One operation of one storage tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferSummary {
    pub tier: String,
    pub operation: &'static str,
    pub p50_s: f64,
    pub p99_s: f64,
    pub mean_s: f64,
    pub count: f64,
    pub throttled: f64,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolSummary {
    pub name: String,
    pub capacity_type: &'static str,
    pub instance_hours: f64,
    pub interruptions: f64,
    pub refusals: f64,
    pub peak_instances: f64,
    pub utilization_ratio: f64,
    pub cost_usd: f64,
    pub list_usd: f64,
    pub calls: f64,
}

/// One span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpanSummary {
    pub name: String,
    pub mean_s: f64,
    pub p50_s: f64,
    pub p95_s: f64,
    pub p99_s: f64,
    pub count: f64,
    #[serde(rename = "_ci", skip_serializing_if = "Option::is_none")]
    pub ci: Option<TimesCi>,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowSummary {
    pub name: String,
    pub jobs: Jobs,
    pub success_ratio: f64,
    pub on_time_ratio: f64,
    /// Jobs that ended otherwise than done, over jobs that arrived.
    pub failure_ratio: f64,
    pub latency_s: Times,
}

/// How fast it went. Not part of what is reproducible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Engine {
    pub events: u64,
    pub wall_s: f64,
    pub events_per_s: f64,
    pub peak_rss_bytes: u64,
}

/// Intervals of the whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryCi {
    pub confidence: f64,
    pub latency_s: TimesCi,
    pub success_ratio: Ci,
    pub on_time_ratio: Ci,
    pub cost_usd: CostCi,
    pub cost_per_1000_usd: Ci,
}

/// The summary of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub scenario: String,
    /// `simulation`; a live plane says `live`.
    pub source: &'static str,
    /// `engine` or `recurrence`.
    pub method: &'static str,
    pub version: &'static str,
    pub scenario_sha256: String,
    pub seed: u64,
    pub replications: u64,
    pub jobs: Jobs,
    pub latency_s: Times,
    /// Standard error of the mean latency within the first run, by batch means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_mean_standard_error_s: Option<f64>,
    pub success_ratio: f64,
    pub on_time_ratio: f64,
    pub cost_usd: Cost,
    pub cost_per_1000_usd: f64,
    /// Absent value of jobs not done on time aside, what the bill would be at list price.
    pub list_usd: f64,
    pub stages: Vec<StageSummary>,
    pub transfers: Vec<TransferSummary>,
    pub pools: Vec<PoolSummary>,
    pub spans: Vec<SpanSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowSummary>,
    pub served_away: f64,
    pub probes_refused: f64,
    pub asked_again: f64,
    pub unfinished: f64,
    pub in_system_max: u64,
    #[serde(rename = "_ci", skip_serializing_if = "Option::is_none")]
    pub ci: Option<SummaryCi>,
    pub engine: Engine,
}

/// Summarises an experiment.
///
/// # Panics
/// When the experiment has no replication.
pub fn summarize(scenario: &Scenario, experiment: &Experiment) -> Summary {
    let outcomes = &experiment.outcomes;
    assert!(!outcomes.is_empty(), "an experiment has at least one replication");
    let runs = Runs { outcomes, confidence: Confidence::new(scenario.run.confidence).ok() };
    let n = outcomes.len() as f64;
    let mean = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / n;
    let latency = runs.merged(|outcome| &outcome.latency);
    let done = mean(&|outcome| outcome.jobs.done as f64);
    let total = mean(&|outcome| outcome.cost());
    let category = |which| mean(&move |outcome: &Outcome| outcome.ledger.category(which).as_f64());
    let events = outcomes.iter().map(|outcome| outcome.events).sum();
    Summary {
        scenario: scenario.name.clone(),
        source: "simulation",
        method: if outcomes[0].by_recurrence { "recurrence" } else { "engine" },
        version: env!("CARGO_PKG_VERSION"),
        scenario_sha256: scenario.digest.clone(),
        seed: scenario.run.seed,
        replications: outcomes.len() as u64,
        jobs: jobs(outcomes, |outcome| outcome.jobs),
        latency_s: Times::of(&latency),
        latency_mean_standard_error_s: outcomes[0].latency_batches.standard_error(),
        success_ratio: mean(&|outcome| outcome.jobs.share(outcome.jobs.done)),
        on_time_ratio: mean(&|outcome| outcome.jobs.share(outcome.jobs.on_time)),
        cost_usd: Cost {
            total,
            compute: category(ChargeCategory::Compute),
            storage: category(ChargeCategory::Storage),
            requests: category(ChargeCategory::Requests),
            transfer: category(ChargeCategory::Transfer),
            external: category(ChargeCategory::External),
        },
        cost_per_1000_usd: if done > 0.0 { total / done * 1000.0 } else { 0.0 },
        list_usd: mean(&|outcome| {
            outcome.ledger.rows().iter().map(|row| row.list_nanousd as f64 * 1e-9).sum()
        }),
        stages: stages(scenario, &runs),
        transfers: transfers(scenario, &runs),
        pools: pools(scenario, &runs),
        spans: spans(scenario, &runs),
        windows: windows(scenario, &runs),
        served_away: mean(&|outcome| outcome.served_away as f64),
        probes_refused: mean(&|outcome| outcome.probes_refused as f64),
        asked_again: mean(&|outcome| outcome.asked_again as f64),
        unfinished: mean(&|outcome| outcome.unfinished as f64),
        in_system_max: outcomes.iter().map(|outcome| outcome.in_system_max).max().unwrap_or(0),
        ci: summary_ci(&runs),
        engine: Engine { events, ..Engine::default() },
    }
}

/// The replications, and the confidence of their intervals.
struct Runs<'a> {
    outcomes: &'a [Outcome],
    confidence: Option<Confidence>,
}

impl Runs<'_> {
    fn merged(&self, of: impl Fn(&Outcome) -> &Histogram) -> Histogram {
        let mut merged = Histogram::default();
        for outcome in self.outcomes {
            merged.merge(of(outcome));
        }
        merged
    }

    fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(of).sum::<f64>() / self.outcomes.len() as f64
    }

    /// The interval of one figure; `None` with a single replication.
    fn ci(&self, of: impl Fn(&Outcome) -> f64) -> Option<Ci> {
        let samples: Vec<f64> = self.outcomes.iter().map(of).collect();
        let interval = Interval::of_mean(&samples, self.confidence?).ok()?;
        Some(Ci { mean: interval.mean, low: interval.low, high: interval.high })
    }

    fn times_ci(&self, of: impl Fn(&Outcome) -> &Histogram) -> Option<TimesCi> {
        let quantile = |p: f64| self.ci(|outcome| of(outcome).quantile(p).unwrap_or(0) as f64 * 1e-9);
        Some(TimesCi {
            mean: self.ci(|outcome| of(outcome).mean_ns().unwrap_or(0.0) * 1e-9)?,
            p50: quantile(0.5)?,
            p95: quantile(0.95)?,
            p99: quantile(0.99)?,
        })
    }
}

fn jobs(outcomes: &[Outcome], of: impl Fn(&Outcome) -> JobCounts) -> Jobs {
    let n = outcomes.len() as f64;
    let mut sum = JobCounts::default();
    for outcome in outcomes {
        sum.merge(&of(outcome));
    }
    Jobs {
        arrived: sum.arrived as f64 / n,
        done: sum.done as f64 / n,
        failed: sum.failed as f64 / n,
        expired: sum.expired as f64 / n,
        cancelled: sum.cancelled as f64 / n,
        rejected: sum.rejected as f64 / n,
    }
}

fn stages(scenario: &Scenario, runs: &Runs<'_>) -> Vec<StageSummary> {
    let checks = check_stages(scenario, runs.outcomes);
    let stage = |(index, check): (usize, Option<TheoryCheck>)| StageSummary {
        name: scenario.system.stages[index].name.clone(),
        wait_s: Times::of(&runs.merged(|outcome| &outcome.stages[index].wait)),
        service_s: Times::of(&runs.merged(|outcome| &outcome.stages[index].service)),
        retries: runs.mean(|outcome| outcome.stages[index].retries as f64),
        wait_mean_standard_error_s: runs.outcomes[0].stages[index].wait_batches.standard_error(),
        theory: check,
        ci: runs.times_ci(|outcome| &outcome.stages[index].wait).map(|wait_s| StageCi { wait_s }),
    };
    checks.into_iter().enumerate().map(stage).collect()
}

fn transfers(scenario: &Scenario, runs: &Runs<'_>) -> Vec<TransferSummary> {
    let rows = runs.outcomes[0].transfers.iter().enumerate();
    let transfer =
        |(index, (tier, operation, _)): (usize, &(usize, scenarios::scenario::Operation, Histogram))| {
            let times = runs.merged(|outcome| &outcome.transfers[index].2);
            let of = usize::from(*operation == scenarios::scenario::Operation::Put);
            TransferSummary {
                tier: scenario.tiers[*tier].name.clone(),
                operation: operation_name(*operation),
                p50_s: times.quantile(0.5).unwrap_or(0) as f64 * 1e-9,
                p99_s: times.quantile(0.99).unwrap_or(0) as f64 * 1e-9,
                mean_s: times.mean_ns().unwrap_or(0.0) * 1e-9,
                count: times.count() as f64 / runs.outcomes.len() as f64,
                throttled: runs.mean(|outcome| outcome.tiers[*tier][of].throttled as f64),
            }
        };
    rows.map(transfer).collect()
}

fn pools(scenario: &Scenario, runs: &Runs<'_>) -> Vec<PoolSummary> {
    let pool = |(index, pool): (usize, &policy::model::Pool)| {
        let id = PoolId(index as u16);
        let charged = |outcome: &Outcome, list: bool| {
            let rows = outcome.ledger.rows().iter().filter(|row| row.resource == pool.name);
            rows.map(|row| if list { row.list_nanousd } else { row.billed_nanousd } as f64 * 1e-9)
                .sum::<f64>()
        };
        PoolSummary {
            name: pool.name.clone(),
            capacity_type: pool.offering.capacity_type.name(),
            instance_hours: runs.mean(|outcome| outcome.pools[index].held.as_secs_f64() / 3600.0),
            interruptions: runs.mean(|outcome| outcome.pools[index].interruptions as f64),
            refusals: runs.mean(|outcome| outcome.pools[index].refusals as f64),
            peak_instances: runs.mean(|outcome| f64::from(outcome.pools[index].peak)),
            utilization_ratio: runs.mean(|outcome| outcome.utilization(id)),
            cost_usd: runs.mean(|outcome| charged(outcome, false)),
            list_usd: runs.mean(|outcome| charged(outcome, true)),
            calls: runs.mean(|outcome| outcome.pools[index].calls as f64),
        }
    };
    scenario.system.pools.iter().enumerate().map(pool).collect()
}

fn spans(scenario: &Scenario, runs: &Runs<'_>) -> Vec<SpanSummary> {
    let span = |(index, span): (usize, &scenarios::scenario::Span)| {
        let merged = runs.merged(|outcome| &outcome.spans[index]);
        let times = Times::of(&merged);
        SpanSummary {
            name: span.name.clone(),
            mean_s: times.mean,
            p50_s: times.p50,
            p95_s: times.p95,
            p99_s: times.p99,
            count: merged.count() as f64 / runs.outcomes.len() as f64,
            ci: runs.times_ci(|outcome| &outcome.spans[index]),
        }
    };
    scenario.spans.iter().enumerate().map(span).collect()
}

fn windows(scenario: &Scenario, runs: &Runs<'_>) -> Vec<WindowSummary> {
    let window = |(index, window): (usize, &scenarios::scenario::Window)| {
        let counts = jobs(runs.outcomes, |outcome| outcome.windows[index].jobs);
        let share = |part: fn(&JobCounts) -> u64| {
            runs.mean(|outcome| outcome.windows[index].jobs.share(part(&outcome.windows[index].jobs)))
        };
        WindowSummary {
            name: window.name.clone(),
            jobs: counts,
            success_ratio: share(|jobs| jobs.done),
            on_time_ratio: share(|jobs| jobs.on_time),
            failure_ratio: if counts.arrived > 0.0 { 1.0 - counts.done / counts.arrived } else { 0.0 },
            latency_s: Times::of(&runs.merged(|outcome| &outcome.windows[index].latency)),
        }
    };
    scenario.windows.iter().enumerate().map(window).collect()
}

fn summary_ci(runs: &Runs<'_>) -> Option<SummaryCi> {
    Some(SummaryCi {
        confidence: runs.confidence?.level(),
        latency_s: runs.times_ci(|outcome| &outcome.latency)?,
        success_ratio: runs.ci(|outcome| outcome.jobs.share(outcome.jobs.done))?,
        on_time_ratio: runs.ci(|outcome| outcome.jobs.share(outcome.jobs.on_time))?,
        cost_usd: CostCi {
            total: runs.ci(Outcome::cost)?,
            compute: runs.ci(|outcome| outcome.ledger.category(ChargeCategory::Compute).as_f64())?,
        },
        cost_per_1000_usd: runs.ci(|outcome| outcome.cost_per_1000().unwrap_or(0.0))?,
    })
}
