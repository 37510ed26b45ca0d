//! Sums that must fit: jobs, time and money of a whole run stay below what their integers hold.

use policy::units::{Duration, Usd};

use super::law::TIME_MAX;
use crate::diagnostics::{ErrorKind, Key, Problems};
use crate::scenario::{Arrivals, Scenario, Shape, StepKind};

/// Jobs that may arrive within one horizon; a run of more would take days.
const JOBS_MAX: f64 = 1e11;

/// Dollars that one run may spend: a quarter of what [`Usd`] holds, so that no sum on the way overflows.
const SPEND_MAX: f64 = 2.3e9;

/// Jobs are served to their end after the horizon: prices are taken over this many horizons.
const HORIZONS: f64 = 2.0;

/// Notes what passes a limit.
pub(super) fn check(scenario: &Scenario, problems: &mut Problems<'_>) {
    let jobs = check_jobs(scenario, problems);
    check_times(scenario, problems);
    let fleet = fleet_spend(scenario);
    if fleet > SPEND_MAX {
        let message = format!(
            "the pools at their maxima would cost {fleet:.3e} USD over the run; at most {SPEND_MAX:.1e}"
        );
        let help = "lower `price`, `count_max` or `run.horizon`";
        problems.add_with_help(ErrorKind::Overflow, &Key::of("fleet.pool"), message, help);
    }
    let per_job = job_spend(scenario);
    if jobs * per_job > SPEND_MAX {
        let message = format!(
            "{jobs:.3e} jobs at up to {per_job:.3e} USD of requests, calls and transfers pass {SPEND_MAX:.1e} USD"
        );
        let help = "lower a price, a size, a rate or `run.horizon`";
        problems.add_with_help(ErrorKind::Overflow, &Key::root(), message, help);
    }
}

/// Most jobs that can arrive within the horizon, clients asking again included; traces count by `jobs_total`.
fn check_jobs(scenario: &Scenario, problems: &mut Problems<'_>) -> f64 {
    let horizon_s = scenario.run.horizon.as_secs_f64();
    let asks = 1.0 + scenario.clients.reask.as_ref().map_or(0.0, |reask| f64::from(reask.times_max));
    let mut total = 0.0;
    for (index, source) in scenario.workload.iter().enumerate() {
        let jobs = match &source.arrivals {
            Arrivals::Generator(generator) => {
                let peak_per_s = match generator.shape {
                    Shape::Constant { rate_per_s } => rate_per_s,
                    Shape::Diurnal { rate_per_s, amplitude, .. } => rate_per_s * (1.0 + amplitude.get()),
                    Shape::Viral { peak_per_s, .. } | Shape::Launch { peak_per_s, .. } => peak_per_s,
                };
                peak_per_s * source.rate_factor * horizon_s
            }
            Arrivals::Trace(trace) => trace.jobs_total.unwrap_or(0) as f64,
        };
        if jobs > JOBS_MAX {
            let message =
                format!("up to {jobs:.3e} jobs within the horizon are too many; at most {JOBS_MAX:.0e}");
            problems.add(ErrorKind::Overflow, &Key::of("workload.source").at(index), message);
        }
        total += jobs * asks;
    }
    total
}

fn check_times(scenario: &Scenario, problems: &mut Problems<'_>) {
    for (index, stage) in scenario.system.stages.iter().enumerate() {
        if stage.service_expected > TIME_MAX {
            let message = format!(
                "stage `{}` takes {} on average, longer than {TIME_MAX}, the longest time there is",
                stage.name, stage.service_expected
            );
            problems.add(ErrorKind::Overflow, &Key::of("pipeline.stage").at(index), message);
        }
    }
    let deadlines = scenario.system.classes.iter().filter_map(|class| class.deadline);
    if deadlines.chain([scenario.objective.deadline]).any(|deadline| deadline > TIME_MAX) {
        let message = format!("a deadline is longer than {TIME_MAX}, the longest time there is");
        problems.add(ErrorKind::Overflow, &Key::of("objective"), message);
    }
}

/// Dollars that all pools cost when they hold their maxima all the time.
fn fleet_spend(scenario: &Scenario) -> f64 {
    let hours = scenario.run.horizon.as_secs_f64() * HORIZONS / 3600.0;
    let pools = scenario.system.pools.iter().zip(&scenario.pools);
    let hourly = pools.map(|(pool, world)| {
        let price = pool.offering.price.as_f64().max(pool.offering.price_list.as_f64());
        price * f64::from(pool.count_max)
            + world.startup.warm_price.as_f64() * f64::from(world.startup.warm_count)
    });
    hourly.sum::<f64>() * hours
}

/// Dollars that one job costs at most beside instances.
fn job_spend(scenario: &Scenario) -> f64 {
    let network = &scenario.network;
    let per_thousand = |price: Usd, gib: f64| price.as_f64() * gib / 1e3;
    let mut spend = per_thousand(network.per_thousand_gib_between_regions, network.bytes_per_job.as_gib())
        + per_thousand(network.per_thousand_gib_egress, network.egress_bytes_per_job.as_gib());
    let call =
        scenario.system.pools.iter().map(|pool| pool.offering.price_per_call.as_f64()).fold(0.0, f64::max);
    for (stage, work) in scenario.system.stages.iter().zip(&scenario.stages) {
        let queue = &scenario.queue;
        let mut attempt = call + queue.per_million_requests.as_f64() * queue.requests_per_delivery / 1e6;
        for step in &work.steps {
            if let StepKind::Transfer { tier, size, .. } = &step.kind {
                let tier = &scenario.tiers[*tier];
                let prices = &tier.prices;
                let months = tier.retention.as_secs_f64() / Duration::from_secs(730 * 3600).as_secs_f64();
                attempt += (prices.per_million_get.as_f64() + prices.per_million_put.as_f64()) / 1e6
                    + per_thousand(prices.per_thousand_gib_get, size.as_gib())
                    + per_thousand(prices.per_thousand_gib_put, size.as_gib())
                    + per_thousand(prices.per_thousand_gib_month, size.as_gib()) * months;
            }
        }
        spend += attempt * f64::from(stage.deliveries_max);
    }
    spend
}
