//! The recurrence gives the engine's answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

use policy::units::Duration;
use scenarios::scenario::{Edge, Law, Scenario, Span, SpanPoint, Window};
use sim::inputs::Inputs;
use sim::models::{self, Station};
use sim::outcome::Outcome;
use sim::recurrence;
use sim::replication::{Keep, Replication};
use sim::stats::Histogram;

/// Ties of equal nanoseconds may be served in another order.
fn near(name: &str, a: Option<f64>, b: Option<f64>) {
    let (a, b) = (a.unwrap_or(0.0), b.unwrap_or(0.0));
    assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()), "{name}: {a} by the engine, {b} by the recurrence");
}

fn same(name: &str, a: &Histogram, b: &Histogram) {
    assert_eq!(a.count(), b.count(), "{name}: count");
    near(name, a.mean_ns(), b.mean_ns());
    near(name, a.variance_ns2(), b.variance_ns2());
    for p in [0.0, 0.5, 0.99, 1.0] {
        near(name, a.quantile(p).map(|q| q as f64), b.quantile(p).map(|q| q as f64));
    }
}

fn agree(scenario: &Scenario) -> (Outcome, Outcome) {
    let name = &scenario.name;
    assert!(recurrence::permits(scenario), "{name} is one for the recurrence");
    let inputs = Inputs::default();
    let engine = Replication::new(scenario, &inputs, 0, Keep::Statistics).unwrap().run().unwrap();
    let fast = recurrence::run(scenario, &inputs, 0).unwrap();
    assert!(fast.by_recurrence && engine.jobs.done > 0);
    assert_eq!(engine.jobs, fast.jobs, "{name}");
    same(&format!("{name} latency"), &engine.latency, &fast.latency);
    near(name, engine.latency_batches.standard_error(), fast.latency_batches.standard_error());
    for (a, b) in engine.stages.iter().zip(&fast.stages) {
        same(&format!("{name} wait"), &a.wait, &b.wait);
        same(&format!("{name} service"), &a.service, &b.service);
        near(name, a.wait_batches.standard_error(), b.wait_batches.standard_error());
    }
    for (a, b) in engine.transfers.iter().zip(&fast.transfers) {
        same(&format!("{name} transfer"), &a.2, &b.2);
    }
    for (a, b) in engine.spans.iter().zip(&fast.spans) {
        same(&format!("{name} span"), a, b);
    }
    for (a, b) in engine.windows.iter().zip(&fast.windows) {
        assert_eq!(a.jobs, b.jobs, "{name} window");
        same(&format!("{name} window"), &a.latency, &b.latency);
    }
    for (a, b) in engine.pools.iter().zip(&fast.pools) {
        assert_eq!(a.busy, b.busy, "{name}");
    }
    assert_eq!(engine.tiers, fast.tiers, "{name}");
    near(name, Some(engine.cost()), Some(fast.cost()));
    (engine, fast)
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn exponential(seconds: u64) -> Law {
    Law::Exponential { mean: Duration::from_secs(seconds) }
}

#[test]
fn one_station_agrees() {
    agree(&models::mmc(90.0, 100, 50_000, 1));
    agree(&models::mmc(0.8, 1, 20_000, 2));
    let mut overloaded = models::mmc(12.0, 10, 20_000, 3);
    overloaded.run.warmup = Duration::from_secs(100);
    agree(&overloaded);
}

#[test]
fn stations_and_delays_in_a_row_agree() {
    let stations = [
        Station { servers: 0, steps: vec![exponential(3)] },
        Station { servers: 12, steps: vec![exponential(1), exponential(1)] },
        Station { servers: 0, steps: vec![exponential(150)] },
        Station { servers: 7, steps: vec![exponential(1)] },
    ];
    agree(&models::tandem("row", 5.0, &stations, hours(2), 4));
}

#[test]
fn transfers_spans_and_windows_agree() {
    let mut scenario = models::lyrebird_benchmark(Duration::from_secs(120), 5);
    scenario.run.warmup = Duration::from_secs(20);
    let point = |stage, step, edge| SpanPoint { stage, step, edge };
    let spans = [
        (point(0, 0, Edge::Start), point(2, 2, Edge::End), false),
        (point(0, 0, Edge::End), point(2, 1, Edge::Start), true),
        (point(1, 0, Edge::Start), point(1, 2, Edge::Start), true),
        (point(1, 0, Edge::End), point(1, 2, Edge::End), false),
    ];
    for (from, to, excludes_compute) in spans {
        scenario.spans.push(Span { name: "span".into(), from, to, excludes_compute });
    }
    let (from, to) = (Duration::from_secs(30), Duration::from_secs(60));
    scenario.windows.push(Window { name: "window".into(), from, to });
    scenario.objective.deadline = Duration::from_millis(1500);
    let (engine, _) = agree(&scenario);
    assert!(engine.spans.iter().all(|span| span.count() > 0) && engine.windows[0].jobs.done > 0);
}

#[test]
fn days_of_few_jobs_agree() {
    // Keys hold 4.9 hours; most servers never serve.
    let stations = [
        Station { servers: 50, steps: vec![exponential(60)] },
        Station { servers: 0, steps: vec![exponential(100)] },
        Station { servers: 3, steps: vec![exponential(60)] },
    ];
    agree(&models::tandem("few", 0.001, &stations, hours(72), 6));
    agree(&models::tandem("some", 0.02, &stations, hours(72), 7));
}

#[test]
fn a_crowd_too_large_for_the_keys_is_left_to_the_engine() {
    let stations = [
        Station { servers: 0, steps: vec![exponential(150)] },
        Station { servers: 1, steps: vec![Law::Constant(Duration::ZERO)] },
    ];
    let scenario = models::tandem("crowd", 9_000.0, &stations, Duration::from_secs(250), 8);
    let outcome = recurrence::run(&scenario, &Inputs::default(), 0).unwrap();
    assert!(!outcome.by_recurrence);
    assert_eq!(outcome.jobs.arrived, outcome.jobs.done);
}

#[test]
fn the_first_scenario_of_the_library_agrees() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/library/quickstart.toml");
    agree(&scenarios::load(&path, &[]).unwrap().scenario);
}
