//! A scenario in fast motion shows the same film.
#![allow(clippy::unwrap_used)]

use sim::experiment::{RunOptions, Unwatched, run};
use sim::inputs::Inputs;
use sim::replication::Keep;

use scenarios::scenario::{Scenario, compressed};

const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "launch", base = "0.5/s", peak = "4/s", start = "10min", ramp = "5min", hold = "10min", half_life = "10min" }
[[pipeline.stage]]
name = "render"
pool = "gpu"
time = { lognormal = { mean = "10s", cv = 0.5 } }
[fleet.pool.main]
class = "gpu"
price = "3.6 USD/h"
count = 8
count_max = 60
startup = { boot = "40s", weights = "20s" }
[policy.scaling]
kind = "target-tracking"
[objective]
deadline = "120s"
[run]
horizon = "1h"
replications = 4
"#;

#[test]
fn fast_motion_shows_the_same_film() {
    let loaded = scenarios::load_str("t", SCENARIO, std::path::Path::new("/"), &[]);
    let scenario = loaded.unwrap_or_else(|errors| panic!("{errors:?}")).scenario;
    let outcome = |scenario: &Scenario| {
        let inputs = Inputs::load(scenario).unwrap();
        let options = RunOptions { threads: 1, keep: Keep::Statistics };
        run(scenario, &inputs, options, &Unwatched).unwrap().outcomes.remove(0)
    };
    let factor = 20.0;
    let (slow, fast) = (outcome(&scenario), outcome(&compressed(scenario.clone(), factor)));
    // The same draws meet the same policy; steps of changing rates are cut a little differently.
    let near = |slow: f64, fast: f64, what: &str| {
        assert!((fast / slow - 1.0).abs() < 0.02, "{what}: {slow} became {fast}");
    };
    near(slow.jobs.arrived as f64, fast.jobs.arrived as f64, "arrivals");
    near(slow.latency.mean_ns().unwrap(), fast.latency.mean_ns().unwrap() * factor, "mean latency");
    let p95 = |outcome: &sim::outcome::Outcome| outcome.latency.quantile(0.95).unwrap() as f64;
    near(p95(&slow), p95(&fast) * factor, "p95");
    near(slow.cost(), fast.cost(), "cost");
    near(f64::from(slow.pools[0].peak), f64::from(fast.pools[0].peak), "peak");
    near(slow.jobs.on_time as f64, fast.jobs.on_time as f64, "on time");
}

#[test]
fn a_factor_of_one_changes_nothing() {
    let scenario = scenarios::load_str("t", SCENARIO, std::path::Path::new("/"), &[]).unwrap().scenario;
    assert_eq!(format!("{:?}", compressed(scenario.clone(), 1.0)), format!("{scenario:?}"));
}
