//! What the WOMBO and the Meta scenarios of the library show, as facts. Golden summaries are another file's business.

use std::path::{Path, PathBuf};

use sim::experiment::{RunOptions, Unwatched, run};
use sim::inputs::Inputs;
use sim::replication::Keep;
use sim::summary::{Summary, WindowSummary, summarize};

/// The viral week at 1:250, a fifth of the file's own scale, so that a test takes seconds.
const SMALL: [&str; 6] = [
    "workload.source.organic.factor=0.004",
    "workload.source.trend.factor=0.004",
    "fleet.pool.aws.count_max=16",
    "fleet.pool.gcp.count_max=16",
    "fleet.pool.azure.count_max=6",
    "fleet.pool.api.external.concurrency_max=20",
];

/// Users in session per request per second: each asks every 900 s.
const SESSION_GAP_S: f64 = 900.0;

/// What an image costs at the external API, dollars.
const API_USD: f64 = 0.04;

fn simulate(file: &str, overrides: &[&str]) -> Summary {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/library").join(file);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let loaded = scenarios::load(&path, &overrides).unwrap_or_else(|errors| panic!("{file}: {errors:?}"));
    let inputs = Inputs::load(&loaded.scenario).expect("library scenarios have their files");
    let options = RunOptions { threads: 2, keep: Keep::Statistics };
    let experiment = run(&loaded.scenario, &inputs, options, &Unwatched).expect("library scenarios run");
    summarize(&loaded.scenario, &experiment)
}

fn week(file: &str, overrides: &[&str]) -> Summary {
    simulate(file, &[&SMALL, overrides].concat())
}

fn autoscaled(overrides: &[&str]) -> Summary {
    week("wombo-viral-week.toml", &[&["fleet.pool.aws.count=3"], overrides].concat())
}

fn provisioned() -> Summary {
    let all = ["fleet.pool.aws.count=16", "fleet.pool.gcp.count=16", "fleet.pool.azure.count=6"];
    week("wombo-peak-provisioned.toml", &all)
}

fn window<'a>(summary: &'a Summary, name: &str) -> &'a WindowSummary {
    summary.windows.iter().find(|window| window.name == name).expect("the scenario has this window")
}

fn failures(file: &str, overrides: &[&str]) -> [f64; 3] {
    let summary = simulate(file, overrides);
    ["before", "spike", "after"].map(|name| window(&summary, name).failure_ratio)
}

#[test]
fn own_images_cost_a_fraction_of_the_api_price_and_autoscaling_halves_it() {
    let (scaled, held) = (autoscaled(&[]), provisioned());
    let per_image = |summary: &Summary| summary.cost_per_1000_usd / 1000.0;
    assert!(per_image(&scaled) < API_USD / 8.0, "{}", per_image(&scaled));
    assert!(per_image(&held) < API_USD / 4.0, "{}", per_image(&held));
    assert!(per_image(&scaled) < 0.6 * per_image(&held), "{} {}", per_image(&scaled), per_image(&held));
    assert!(scaled.success_ratio > 0.98, "{}", scaled.success_ratio);
    assert!(held.success_ratio > scaled.success_ratio, "{} {}", held.success_ratio, scaled.success_ratio);
    for pool in &scaled.pools[..3] {
        assert!(pool.peak_instances > 0.0 && pool.instance_hours > 0.0, "{} took part", pool.name);
    }
    assert!(scaled.pools[3].calls > 0.0, "the crest overflows to the API");
}

#[test]
fn a_million_users_in_session_do_not_collapse_the_queue() {
    let summary = autoscaled(&[]);
    let crest = window(&summary, "crest");
    let users = crest.jobs.arrived / 3600.0 / 0.004 * SESSION_GAP_S;
    assert!(users > 1e6, "{users}");
    assert!(crest.failure_ratio < 0.05, "{}", crest.failure_ratio);
    assert!(crest.latency_s.p99 < 45.0, "{}", crest.latency_s.p99);
    let (before, last) = (window(&summary, "before"), window(&summary, "last-day"));
    assert!(last.failure_ratio < 0.01, "nothing is left of the wave: {}", last.failure_ratio);
    assert!(crest.jobs.arrived > 10.0 * before.jobs.arrived / 24.0, "ten times the requests");
}

#[test]
fn fewer_steps_need_a_smaller_fleet() {
    let full = autoscaled(&[]);
    let lcm = autoscaled(&["policy.quality={kind=\"fixed\",level=\"lcm-4-steps\"}"]);
    let busy = |summary: &Summary| -> f64 {
        // In hours of the reference type: speed factors are 1, 1.4 and 0.4.
        let speeds = [1.0, 1.4, 0.4];
        let hours = summary.pools.iter().zip(speeds);
        hours.map(|(pool, factor)| pool.instance_hours * pool.utilization_ratio / factor).sum()
    };
    assert!(busy(&lcm) < busy(&full) / 6.0, "{} {}", busy(&lcm), busy(&full));
    assert!(lcm.cost_usd.total < full.cost_usd.total / 2.5, "{} {}", lcm.cost_usd.total, full.cost_usd.total);
    assert!(lcm.latency_s.p50 < 2.0, "{}", lcm.latency_s.p50);
}

#[test]
fn without_gpus_every_image_is_bought() {
    let bought = autoscaled(&[
        "policy.scaling=\"static\"",
        "fleet.pool.aws.count=0",
        "fleet.pool.aws.count_min=0",
        "policy.admission.overflow_above=0s",
        "fleet.pool.api.external.concurrency_max=10000",
    ]);
    assert_eq!(bought.pools[3].calls, bought.jobs.done);
    assert!((bought.cost_usd.external - bought.jobs.done * API_USD).abs() < 1e-3);
}

#[test]
fn retrying_at_once_leaves_a_lasting_failure_behind_a_spike() {
    for seed in ["run.seed=1", "run.seed=7"] {
        let [before, spike, after] = failures("meta-animate-no-backoff.toml", &[seed, "run.replications=1"]);
        assert!(before < 0.001, "{seed}: {before}");
        assert!(spike > 0.5, "{seed}: {spike}");
        assert!(after > 0.3, "{seed}: {after}");
    }
}

/// Without any one of its causes the failure ends with the spike: it is two stable states, not overload.
#[test]
fn the_lasting_failure_needs_spike_probe_cost_and_asking_again() {
    let causes = [
        "workload.source.broadcast.arrivals.peak=\"0/s\"",
        "network.probe_cost=0s",
        "workload.clients.reask.probability=0",
    ];
    for cause in causes {
        let [_, _, after] = failures("meta-animate-no-backoff.toml", &[cause, "run.replications=1"]);
        assert!(after < 0.001, "{cause}: {after}");
    }
}

#[test]
fn rings_delay_and_backoff_take_the_same_spike() {
    for seed in ["run.seed=1", "run.seed=7"] {
        for cost in ["network.probe_cost=40ms", "network.probe_cost=60ms"] {
            let ratios = failures("meta-animate.toml", &[seed, cost]);
            assert!(ratios.iter().all(|ratio| *ratio < 0.01), "{seed} {cost}: {ratios:?}");
        }
    }
}

#[test]
fn each_half_of_the_cure_alone_fails_in_the_spike() {
    let alone =
        ["policy.routing=\"nearest\"", "policy.retry={kind=\"immediate\",attempts_max=200,pause=\"50ms\"}"];
    for half in alone {
        let [_, spike, _] = failures("meta-animate.toml", &[half, "run.replications=1"]);
        assert!(spike > 0.05, "{half}: {spike}");
    }
}

#[test]
fn serving_anywhere_adds_seconds_to_the_median() {
    let (regional, global) = (simulate("meta-animate.toml", &[]), simulate("meta-animate-global.toml", &[]));
    let added = global.latency_s.p50 - regional.latency_s.p50;
    assert!(added > 1.5, "{added} s");
    assert!(global.served_away > 0.5 * global.jobs.done, "{}", global.served_away);
    assert!(regional.served_away < 0.1 * regional.jobs.done, "{}", regional.served_away);
}
