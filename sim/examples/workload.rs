//! The two benchmark workloads through the whole product path, one JSON line each, as the peer programs print theirs.
//!
//! `cargo run --release -p sim --example workload -- w1|w2 JOBS-OR-REPLICATIONS [engine|recurrence]`

use std::time::Instant;

use policy::units::Duration;
use sim::inputs::Inputs;
use sim::models;
use sim::recurrence;
use sim::replication::{Keep, Replication};

fn main() {
    let mut args = std::env::args().skip(1);
    let which = args.next().unwrap_or_else(|| "w1".into());
    let size: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let method = args.next().unwrap_or_else(|| "engine".into());
    let inputs = Inputs::default();
    let runs = if which == "w1" { 1 } else { size };
    let (mut jobs, mut events, mut mean, mut p99) = (0, 0, 0.0, 0.0);
    let started = Instant::now();
    for run in 0..runs {
        let scenario = if which == "w1" {
            models::mmc(90.0, 100, size, 1)
        } else {
            models::lyrebird_benchmark(Duration::from_secs(1200), 1)
        };
        let outcome = if method == "recurrence" {
            recurrence::run(&scenario, &inputs, run).expect("the model is valid")
        } else {
            let replication =
                Replication::new(&scenario, &inputs, run, Keep::Statistics).expect("the model is valid");
            replication.run().expect("no invariant is checked")
        };
        jobs += outcome.jobs.done;
        events += outcome.events;
        let of = if which == "w1" { &outcome.stages[0].wait } else { &outcome.latency };
        mean += of.mean_ns().unwrap_or(0.0) * 1e-9 / runs as f64;
        p99 += of.quantile(0.99).unwrap_or(0) as f64 * 1e-9 / runs as f64;
    }
    let wall = started.elapsed().as_secs_f64();
    println!(
        "{{\"tool\":\"headroom {method}\",\"workload\":\"{which}\",\"jobs\":{jobs},\"wall_s\":{wall:.3},\"jobs_per_s\":{:.0},\"events_per_s\":{:.0},\"mean\":{mean:.5},\"p99\":{p99:.4}}}",
        jobs as f64 / wall,
        events as f64 / wall
    );
}
