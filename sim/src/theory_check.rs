//! What queueing theory says of a simulated queue, printed beside it where the theory applies.

use serde::Serialize;

use policy::model::{Place, QueueOrder};
use policy::policies::Scaling;
use scenarios::scenario::{Arrivals, Scenario, Shape, Step, StepKind};

use crate::outcome::Outcome;
use crate::stats::{Confidence, ControlVariate, Histogram};
use crate::theory::{Mmc, Station, Variability, ggc_wait_mean_s};

/// What theory says of one queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TheoryCheck {
    /// `Erlang C` (M/M/c) or `Allen-Cunneen` (G/G/c, an approximation).
    pub model: &'static str,
    /// Servers.
    pub servers: u64,
    /// Offered load over servers.
    pub utilization: f64,
    /// Mean wait.
    pub wait_mean_s: f64,
    /// 99th percentile of the wait; Erlang C only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_p99_s: Option<f64>,
    /// The simulated mean wait with chance in the offered load taken out; needs several replications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_mean_controlled_s: Option<Controlled>,
}

/// A mean estimated with a control variate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Controlled {
    /// The adjusted mean.
    pub mean: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Correlation of the wait with the control; near zero the control is of no use.
    pub correlation: f64,
}

/// Replications below which a control variate costs more certainty than it brings.
const CONTROLLED_MIN: usize = 5;

/// Coefficients of variation within this of 1 count as exponential.
const EXPONENTIAL_WITHIN: f64 = 0.03;

/// Checks every stage; `None` where no formula applies: a fleet that changes, a rate that changes, clients that leave,
/// a queue that refuses, slots that stages share, or more work than servers.
pub(crate) fn check_stages(scenario: &Scenario, outcomes: &[Outcome]) -> Vec<Option<TheoryCheck>> {
    let mut arrival_scv = Some(1.0);
    let steady = applies(scenario);
    (0..scenario.stages.len())
        .map(|stage| {
            if !steady || scenario.system.stages[stage].place == Place::Outside {
                return None; // a Poisson stream stays one through a delay (Mirasol 1963)
            }
            let (check, departures) = check_stage(scenario, outcomes, stage, arrival_scv?)?;
            arrival_scv = Some(departures);
            Some(check)
        })
        .collect()
}

fn applies(scenario: &Scenario) -> bool {
    let system = &scenario.system;
    let constant = |source: &scenarios::scenario::Source| match &source.arrivals {
        Arrivals::Generator(generator) => {
            matches!(generator.shape, Shape::Constant { .. }) && generator.burstiness <= 1.0
        }
        Arrivals::Trace(_) => false,
    };
    let reliable = |pool: &scenarios::scenario::PoolWorld| {
        let loss = &pool.interruption;
        loss.hazard_per_hour == 0.0 && loss.shock.is_none() && loss.trace.is_none()
    };
    scenario.workload.iter().all(constant)
        && scenario.pools.iter().all(reliable)
        && system.policies.scaling == Scaling::Static
        && system.policies.admission == policy::policies::Admission::ALL
        && system.queue_per_slot_max.is_none()
        && system.queue_order == QueueOrder::Fifo
        && !system.policies.routing.is_regional()
        && scenario.clients.patience.is_none()
        && scenario.stages.iter().all(|stage| stage.failure == 0.0)
}

fn check_stage(
    scenario: &Scenario,
    outcomes: &[Outcome],
    stage: usize,
    arrival_scv: f64,
) -> Option<(TheoryCheck, f64)> {
    let place = scenario.system.stages[stage].place;
    let Place::Slot { pool_class, kind } = place else { return None };
    if scenario.system.stages.iter().filter(|other| other.place == place).count() > 1 {
        return None;
    }
    let pools = scenario.system.pools.iter().filter(|pool| pool.pool_class == pool_class);
    let servers: u64 =
        pools.map(|pool| u64::from(pool.count_initial) * u64::from(pool.slots[kind.index()])).sum();
    let mut service = Histogram::default();
    outcomes.iter().for_each(|outcome| service.merge(&outcome.stages[stage].service));
    let measured = (scenario.run.horizon - scenario.run.warmup).as_secs_f64() * outcomes.len() as f64;
    let arrived: u64 = outcomes.iter().map(|outcome| outcome.jobs.arrived).sum();
    let service_mean_s = service.mean_ns()? * 1e-9;
    let service_scv = service.variance_ns2()? * 1e-18 / (service_mean_s * service_mean_s);
    let station = Station { arrival_rate_per_s: arrived as f64 / measured, service_mean_s, servers };
    let utilization = station.utilization();
    let exponential = |scv: f64| (scv.sqrt() - 1.0).abs() < EXPONENTIAL_WITHIN;
    let check = if exponential(service_scv) && exponential(arrival_scv) {
        let exact = Mmc::new(station).ok()?;
        TheoryCheck {
            model: "Erlang C",
            servers,
            utilization,
            wait_mean_s: exact.wait_mean_s(),
            wait_p99_s: Some(exact.wait_quantile_s(0.99).ok()?),
            wait_mean_controlled_s: controlled(scenario, outcomes, stage),
        }
    } else {
        let wait_mean_s = ggc_wait_mean_s(station, Variability { arrival_scv, service_scv }).ok()?;
        let wait_mean_controlled_s = controlled(scenario, outcomes, stage);
        TheoryCheck {
            model: "Allen-Cunneen",
            servers,
            utilization,
            wait_mean_s,
            wait_p99_s: None,
            wait_mean_controlled_s,
        }
    };
    // Departures: W. Whitt, The Queueing Network Analyzer, BSTJ 62(9), 1983, eq. 38.
    let square = utilization * utilization;
    let departures =
        1.0 + (1.0 - square) * (arrival_scv - 1.0) + square / (servers as f64).sqrt() * (service_scv - 1.0);
    Some((check, departures))
}

/// The mean wait with the realised offered load (arrivals times mean service over time) as control variate: its
/// expectation is known exactly, and the wait of a loaded queue follows it closely (Law 2015, §11.4).
fn controlled(scenario: &Scenario, outcomes: &[Outcome], stage: usize) -> Option<Controlled> {
    if outcomes.len() < CONTROLLED_MIN || scenario.run.warmup > policy::units::Duration::ZERO {
        return None;
    }
    let rate: f64 = scenario
        .workload
        .iter()
        .filter_map(|source| match &source.arrivals {
            Arrivals::Generator(generator) => match generator.shape {
                Shape::Constant { rate_per_s } => Some(rate_per_s * source.rate_factor),
                _ => None,
            },
            Arrivals::Trace(_) => None,
        })
        .sum();
    let service = service_mean_s(scenario, stage)?;
    let horizon = scenario.run.horizon.as_secs_f64();
    let pair = |outcome: &Outcome| {
        let stats = &outcome.stages[stage];
        let load = outcome.jobs.arrived as f64 / horizon * stats.service.mean_ns()? * 1e-9;
        Some((stats.wait.mean_ns()? * 1e-9, load))
    };
    let pairs: Vec<(f64, f64)> = outcomes.iter().map(pair).collect::<Option<_>>()?;
    let confidence = Confidence::new(scenario.run.confidence).ok()?;
    let estimate = ControlVariate::estimate(&pairs, rate * service, confidence).ok()?;
    let interval = estimate.interval;
    Some(Controlled {
        mean: interval.mean,
        low: interval.low,
        high: interval.high,
        correlation: estimate.correlation,
    })
}

/// Expected service time of a stage whose steps are all plain laws; `None` where factors or tiers change it.
fn service_mean_s(scenario: &Scenario, stage: usize) -> Option<f64> {
    let plain = !scenario.system.stages[stage].has_quality && scenario.stages[stage].slowdown.is_empty();
    let step = |step: &Step| match &step.kind {
        StepKind::Compute { time, factor } if factor.iter().all(|factor| *factor == 1.0) => {
            Some(time.mean().as_secs_f64())
        }
        StepKind::Wait { time } => Some(time.mean().as_secs_f64()),
        StepKind::Compute { .. } | StepKind::Transfer { .. } => None,
    };
    if plain { scenario.stages[stage].steps.iter().map(step).sum() } else { None }
}
