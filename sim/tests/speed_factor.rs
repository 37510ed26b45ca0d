//! How long a compute step takes on pools of another speed: as the scenario's factors say, once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

use sim::experiment::{RunOptions, Unwatched, run};
use sim::inputs::Inputs;
use sim::replication::{Keep, Replication};
use sim::summary::summarize;

const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/min" }
[[pipeline.stage]]
name = "paint"
pool = "gpu"
steps = [{ compute = "steps", time = "10s" }, { wait = "callback", time = "1s" }]
[fleet.pool.own]
class = "gpu"
price = "1 USD/h"
count = 50
[policy.scaling]
kind = "static"
[run]
horizon = "2h"
"#;

/// Mean service time under `overrides`, by whatever way runs are made, and by the event engine.
#[track_caller]
fn check(overrides: &[&str], expected_s: f64) {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let loaded = scenarios::load_str("t", SCENARIO, Path::new("/"), &overrides);
    let scenario = loaded.unwrap_or_else(|errors| panic!("{overrides:?}: {errors:?}")).scenario;
    let options = RunOptions { threads: 1, keep: Keep::Statistics };
    let experiment = run(&scenario, &Inputs::default(), options, &Unwatched).unwrap();
    let summary = summarize(&scenario, &experiment);
    let engine = Replication::new(&scenario, &Inputs::default(), 0, Keep::Statistics).unwrap().run().unwrap();
    for (how, mean_s) in [
        ("run", summary.stages[0].service_s.mean),
        ("engine", engine.stages[0].service.mean_ns().unwrap() * 1e-9),
    ] {
        assert!((mean_s / expected_s - 1.0).abs() < 1e-3, "{how}, {overrides:?}: {mean_s} s");
    }
}

#[test]
fn a_pool_of_factor_two_takes_twice_the_time() {
    check(&[], 11.0);
    check(&["fleet.pool.own.speed_factor=2"], 21.0);
    check(&["fleet.pool.own.speed_factor=0.5"], 6.0);
}

#[test]
fn a_factor_stated_for_the_step_stands_in_the_place_of_the_pools() {
    let stated = "pipeline.stage.paint.steps=[{ compute = \"steps\", time = \"10s\", factor = { own = 3 } }]";
    check(&[stated], 30.0);
    check(&[stated, "fleet.pool.own.speed_factor=2"], 30.0);
}
