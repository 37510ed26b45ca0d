//! How long simulated work takes: the service times of a scenario, drawn per job and stage, so that the same job takes the
//! same time again wherever it runs.

use policy::model::PoolId;
use policy::units::math::{exp, ln, pow, sqrt};
use policy::units::random::Stream;
use scenarios::scenario::{Law, Operation, Scenario, StepKind};

use crate::number::JobNumber;

/// Draws service times of the stages of one scenario on one of its pools.
#[derive(Clone, Debug)]
pub(super) struct ServiceTimes {
    scenario: Scenario,
    pool: usize,
    stream: Stream,
}

impl ServiceTimes {
    pub(super) fn new(scenario: Scenario, pool: PoolId) -> Self {
        let stream = Stream::new(scenario.run.seed, 0, "live service times");
        Self { scenario, pool: pool.index(), stream }
    }

    /// Seconds of `job` in the stage and at the quality of these names; `None` for a stage that the scenario lacks.
    pub(super) fn seconds(&self, job: JobNumber, stage: &str, quality: &str) -> Option<f64> {
        let system = &self.scenario.system;
        let stage = system.stages.iter().position(|known| known.name == stage)?;
        let level = system.qualities.iter().find(|known| known.name == quality);
        let quality = match level {
            Some(level) if system.stages[stage].has_quality => level.service_factor,
            _ => 1.0,
        };
        let draws = self.stream.child(job.0).child(stage as u64);
        let steps = self.scenario.stages[stage].steps.iter();
        let seconds = (0..).zip(steps).map(|(index, step)| {
            let draw = |law: &Law| draw(law, draws, index);
            match &step.kind {
                StepKind::Compute { time, factor } => {
                    draw(time) * factor.get(self.pool).copied().unwrap_or(1.0) * quality
                }
                StepKind::Wait { time } => draw(time),
                StepKind::Transfer { tier, operation, size } => {
                    let tier = &self.scenario.tiers[*tier];
                    let how = match operation {
                        Operation::Get => &tier.get,
                        Operation::Put => &tier.put,
                    };
                    let payload = how.bytes_per_s.map_or(0.0, |rate| size.get() as f64 / rate as f64);
                    draw(&how.latency) + payload
                }
            }
        });
        Some(seconds.sum())
    }
}

/// Draw `index` of a law by inversion, seconds; two uniform numbers for the lognormal one (Box and Muller 1958).
fn draw(law: &Law, stream: Stream, index: u64) -> f64 {
    let unit = stream.unit(2 * index);
    match law {
        Law::Constant(value) => value.as_secs_f64(),
        Law::Uniform { low, high } => low.as_secs_f64() + (high.as_secs_f64() - low.as_secs_f64()) * unit,
        Law::Exponential { mean } => -mean.as_secs_f64() * ln(unit),
        Law::Lognormal { mean, cv } => {
            let variance = ln(1.0 + cv * cv);
            let turn = std::f64::consts::TAU * stream.unit(2 * index + 1);
            let normal = sqrt(-2.0 * ln(unit)) * policy::units::math::sin(turn);
            mean.as_secs_f64() * exp(sqrt(variance) * normal - variance / 2.0)
        }
        Law::Weibull { mean, shape } => {
            mean.as_secs_f64() / libm::tgamma(1.0 + 1.0 / shape) * pow(-ln(unit), 1.0 / shape)
        }
        Law::Pareto { mean, tail } => mean.as_secs_f64() * (tail - 1.0) / tail * pow(unit, -1.0 / tail),
        Law::Quantiles(values) => {
            let place = unit * (values.len() - 1) as f64;
            let below = (place as usize).min(values.len() - 2);
            let (low, high) = (values[below].as_secs_f64(), values[below + 1].as_secs_f64());
            low + (high - low) * (place - below as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::units::Duration;

    use super::*;

    const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/min" }
[[pipeline.stage]]
name = "paint"
pool = "own"
steps = [{ compute = "steps", time = "10s" }, { wait = "callback", time = "1s" }]
[fleet.pool.own]
price = "1 USD/h"
count = 1
speed_factor = 2.0
"#;

    #[test]
    fn a_pools_speed_counts_once_as_in_the_simulator() {
        let loaded = scenarios::load_str("t", SCENARIO, std::path::Path::new("/"), &[]).unwrap();
        let times = ServiceTimes::new(loaded.scenario, PoolId(0));
        assert_eq!(times.seconds(JobNumber(1), "paint", ""), Some(21.0));
    }

    #[test]
    fn draws_have_the_mean_of_their_law() {
        let s = Duration::from_secs_f64;
        let laws = [
            Law::Constant(s(3.0)),
            Law::Uniform { low: s(1.0), high: s(5.0) },
            Law::Exponential { mean: s(3.0) },
            Law::Lognormal { mean: s(3.0), cv: 0.5 },
            Law::Weibull { mean: s(3.0), shape: 1.5 },
            Law::Pareto { mean: s(3.0), tail: 4.0 },
            Law::Quantiles(vec![s(1.0), s(2.0), s(6.0)]),
        ];
        let stream = Stream::new(1, 0, "test");
        for law in laws {
            let count = 100_000;
            let sum: f64 = (0..count).map(|job| draw(&law, stream.child(job), 0)).sum();
            let (mean, expected) = (sum / count as f64, law.mean().as_secs_f64());
            // The widest of them has a standard deviation of 3 s: four standard errors are 0.04 s.
            assert!((mean - expected).abs() < 0.04, "{law:?}: {mean} is not {expected}");
        }
    }
}
