//! Same seed, same bytes: on any number of threads, under any way of watching; and the same world under every policy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

use policy::model::{CapacityType, ClassId, JobClass};
use policy::policies::scaling::TargetTracking;
use policy::policies::{Purchase, Retry, Scaling};
use policy::records::{JobOutcome, JobRow};
use policy::units::{Duration, Ratio};
use scenarios::scenario::{Arrivals, Generator, Law, Reask, Scenario, Shape};
use sim::experiment::{Experiment, RunOptions, Unwatched, run, run_range};
use sim::inputs::Inputs;
use sim::models;
use sim::outcome::Outcome;
use sim::replication::{Keep, Replication};
use sim::summary::{Engine, summarize};

/// What a program reads of an experiment, without how fast it went.
fn json(scenario: &Scenario, experiment: &Experiment) -> String {
    let mut summary = summarize(scenario, experiment);
    summary.engine = Engine::default();
    serde_json::to_string_pretty(&summary).unwrap()
}

fn json_on(scenario: &Scenario, threads: usize, keep: Keep) -> String {
    let inputs = Inputs::load(scenario).unwrap();
    let experiment = run(scenario, &inputs, RunOptions { threads, keep }, &Unwatched).unwrap();
    json(scenario, &experiment)
}

fn library(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scenarios/library/{name}.toml"));
    scenarios::load(&path, &[]).unwrap().scenario
}

/// A fleet of spot machines that are taken and refused, bursty arrivals, clients that leave and come back.
fn restless() -> Scenario {
    let mut scenario = models::mmc(8.0, 10, 6_000, 21);
    scenario.run.replications = 7;
    scenario.workload[0].arrivals = Arrivals::Generator(Generator {
        shape: Shape::Constant { rate_per_s: 8.0 },
        burstiness: 2.0,
        burst_window: Duration::from_secs(30),
    });
    let pool = &mut scenario.system.pools[0];
    pool.offering.capacity_type = CapacityType::Spot;
    (pool.count_min, pool.count_max) = (2, 40);
    pool.startup_expected = Duration::from_secs(20);
    scenario.system.policies.purchase = Purchase::PoolOrder;
    scenario.system.policies.scaling = Scaling::TargetTracking(TargetTracking::default_params());
    scenario.system.policies.retry = Retry::Immediate { attempts_max: 3, pause: Duration::from_millis(50) };
    let world = &mut scenario.pools[0];
    world.startup.boot = Law::Exponential { mean: Duration::from_secs(20) };
    world.launch.insufficient = Ratio::new(0.2).unwrap();
    world.launch.refusal_after = Duration::from_secs(3);
    world.interruption.hazard_per_hour = 20.0;
    world.interruption.notice = Duration::from_secs(5);
    world.interruption.notice_missed = Ratio::new(0.3).unwrap();
    scenario.stages[0].failure = 0.02;
    scenario.clients.patience = Some(Law::Exponential { mean: Duration::from_secs(8) });
    scenario.clients.reask = Some(Reask {
        probability: Ratio::new(0.5).unwrap(),
        delay: Law::Exponential { mean: Duration::from_secs(4) },
        times_max: 3,
    });
    scenario
}

/// Scenarios with replications enough to be shared out among threads.
fn scenarios_here() -> Vec<Scenario> {
    let mut steady = models::mmc(8.0, 10, 5_000, 22);
    steady.run.replications = 6;
    let mut tandem = models::lyrebird_benchmark(Duration::from_secs(10), 23);
    tandem.run.replications = 6;
    let mut meta = library("meta-animate");
    (meta.run.replications, meta.run.horizon) = (5, Duration::from_secs(120));
    meta.windows.clear();
    vec![steady, tandem, restless(), meta]
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    for scenario in scenarios_here() {
        let one = json_on(&scenario, 1, Keep::Statistics);
        for threads in [2, 5] {
            let several = json_on(&scenario, threads, Keep::Statistics);
            assert!(several == one, "{} on {threads} threads:\n{several}\nand on one:\n{one}", scenario.name);
        }
    }
}

#[test]
fn precision_asks_for_the_same_replications_on_any_number_of_threads() {
    let mut scenario = restless();
    scenario.run.replications = 3;
    scenario.run.precision = Some(scenarios::scenario::Precision { relative: 0.05, replications_max: 12 });
    let one = json_on(&scenario, 1, Keep::Statistics);
    assert_eq!(json_on(&scenario, 2, Keep::Statistics), one);
    assert!(!one.contains("\"replications\": 3,"), "more were needed");
}

#[test]
fn what_is_kept_and_checked_changes_nothing() {
    let scenario = restless();
    let statistics = json_on(&scenario, 2, Keep::Statistics);
    for keep in [Keep::Minutes, Keep::Records] {
        assert_eq!(json_on(&scenario, 2, keep), statistics, "{keep:?}");
    }
    let checked = |number| {
        let replication = Replication::new(&scenario, &Inputs::default(), number, Keep::Statistics).unwrap();
        replication.checked(1).run().unwrap()
    };
    let outcomes = (0..u64::from(scenario.run.replications)).map(checked).collect();
    assert_eq!(json(&scenario, &Experiment { outcomes }), statistics, "checked");
}

/// Three stages of several steps each, on machines that are slow, taken away, and save their work as they go.
fn restless_pipeline() -> Scenario {
    let mut scenario = models::lyrebird_benchmark(Duration::from_secs(40), 25);
    let restless = restless();
    for (pool, world) in scenario.system.pools.iter_mut().zip(&mut scenario.pools) {
        pool.offering.capacity_type = CapacityType::Spot;
        pool.speed_factor = 1.1;
        world.startup.boot = Law::Exponential { mean: Duration::from_secs(2) };
        world.interruption.hazard_per_hour = 300.0;
        world.interruption.notice = Duration::from_millis(200);
        world.interruption.notice_missed = Ratio::new(0.3).unwrap();
    }
    scenario.system.policies.purchase = Purchase::PoolOrder;
    scenario.system.policies.retry = restless.system.policies.retry;
    for (stage, work) in scenario.system.stages.iter_mut().zip(&mut scenario.stages) {
        stage.lease = Some(Duration::from_millis(900));
        work.failure = 0.02;
        work.checkpoint = Some(Duration::from_millis(100));
    }
    scenario.clients.patience = restless.clients.patience;
    scenario
}

#[test]
fn a_stage_passed_at_its_end_leaves_what_its_steps_leave_one_by_one() {
    let scenario = restless_pipeline();
    let replication = || Replication::new(&scenario, &Inputs::default(), 0, Keep::Records).unwrap();
    let (mut chained, mut stepwise) = (replication().run().unwrap(), replication().stepwise().run().unwrap());
    let [few, many] = [chained.events, stepwise.events];
    assert!(few * 3 < many * 2, "fewer events: {few} and {many}");
    assert!(stepwise.stages.iter().any(|stage| stage.retries > 100), "work is revoked and done again");
    assert!(stepwise.unfinished + stepwise.jobs.done > 5_000, "{:?}", stepwise.jobs);
    for outcome in [&mut chained, &mut stepwise] {
        outcome.events = 0;
    }
    assert_eq!(format!("{chained:?}"), format!("{stepwise:?}"));
}

#[test]
fn another_seed_gives_another_run() {
    let mut scenario = restless();
    let first = json_on(&scenario, 2, Keep::Statistics);
    scenario.run.seed += 1;
    let second = json_on(&scenario, 2, Keep::Statistics);
    let without_seed = |text: &str| text.replace("\"seed\": 22", "").replace("\"seed\": 21", "");
    assert_ne!(without_seed(&first), without_seed(&second));
}

#[test]
fn a_replication_does_not_depend_on_those_before_it() {
    let scenario = restless();
    let inputs = Inputs::default();
    let options = RunOptions { threads: 2, keep: Keep::Statistics };
    let all = run_range(&scenario, &inputs, 0..5, options, &Unwatched).unwrap();
    let alone = run_range(&scenario, &inputs, 3..4, options, &Unwatched).unwrap();
    let one = |outcomes: &[Outcome]| json(&scenario, &Experiment { outcomes: outcomes.to_vec() });
    assert_eq!(one(&all[3..4]), one(&alone));
    assert_ne!(one(&all[2..3]), one(&alone), "replications differ");
}

fn rows(scenario: &Scenario) -> Vec<JobRow> {
    let replication = Replication::new(scenario, &Inputs::default(), 0, Keep::Records).unwrap();
    replication.run().unwrap().records.jobs
}

/// Static and autoscaled fleets over the same demand: 90 s of a spike that the static one cannot carry.
fn two_policies() -> [Scenario; 2] {
    let mut fixed = models::mmc(8.0, 10, 1, 24);
    fixed.run.horizon = Duration::from_secs(900);
    fixed.workload[0].arrivals = Arrivals::Generator(Generator {
        shape: Shape::Launch {
            base_per_s: 4.0,
            peak_per_s: 30.0,
            start: Duration::from_secs(300),
            ramp: Duration::from_secs(30),
            hold: Duration::from_secs(60),
            half_life: Duration::from_secs(60),
        },
        burstiness: 1.5,
        burst_window: Duration::from_secs(10),
    });
    fixed.system.pools[0].count_max = 100;
    fixed.system.policies.purchase = Purchase::PoolOrder;
    let mut scaled = fixed.clone();
    scaled.system.policies.scaling =
        Scaling::TargetTracking(TargetTracking { periods_out: 1, ..TargetTracking::default_params() });
    [fixed, scaled]
}

#[test]
fn another_policy_meets_the_same_arrivals_and_the_same_work() {
    let [fixed, scaled] = two_policies().map(|scenario| rows(&scenario));
    assert_eq!(fixed.len(), scaled.len());
    assert!(fixed.len() > 3000);
    let mut waited_differently = 0;
    for (one, other) in fixed.iter().zip(&scaled) {
        assert_eq!((one.job, one.arrived_s), (other.job, other.arrived_s), "the same arrival");
        assert_eq!((one.outcome, other.outcome), (JobOutcome::Done, JobOutcome::Done));
        assert_eq!(one.service_s, other.service_s, "job {}: the same work", one.job);
        waited_differently += u64::from(one.wait_s != other.wait_s);
    }
    assert!(waited_differently > 300, "the policies differ: {waited_differently}");
}

#[test]
fn clients_are_as_patient_under_every_policy() {
    let [mut fixed, mut scaled] = two_policies();
    for scenario in [&mut fixed, &mut scaled] {
        scenario.clients.patience = Some(Law::Lognormal { mean: Duration::from_secs(10), cv: 1.0 });
    }
    let [fixed, scaled] = [rows(&fixed), rows(&scaled)];
    let mut left_both = 0;
    for (one, other) in fixed.iter().zip(&scaled) {
        assert_eq!((one.job, one.arrived_s), (other.job, other.arrived_s));
        let left = [one, other].map(|row| row.outcome == JobOutcome::Cancelled);
        match left {
            [true, true] => {
                left_both += 1;
                assert_eq!(one.ended_s, other.ended_s, "job {} leaves when its patience ends", one.job);
            }
            [true, false] => assert!(other.wait_s <= one.wait_s, "who was served waited less than who left"),
            [false, true] => assert!(one.wait_s <= other.wait_s, "who was served waited less than who left"),
            [false, false] => assert_eq!(one.service_s, other.service_s),
        }
    }
    assert!(left_both > 50, "{left_both}");
}

#[test]
fn adding_a_source_leaves_the_arrivals_of_the_others_alone() {
    let alone = restless();
    let mut joined = alone.clone();
    let class = |name: &str| JobClass { name: name.into(), priority: 0, deadline: None, expires: false };
    joined.system.classes.push(class("added"));
    let mut source = alone.workload[0].clone();
    (source.name, source.class, source.rate_factor) = ("added".into(), ClassId(1), 0.4);
    joined.workload.insert(0, source);
    let arrivals = |scenario: &Scenario, class: &str| -> Vec<f64> {
        let mut scenario = scenario.clone();
        scenario.clients.reask = None; // who asks again depends on how the others fared
        rows(&scenario).into_iter().filter(|row| row.class == class).map(|row| row.arrived_s).collect()
    };
    assert_eq!(arrivals(&alone, "jobs"), arrivals(&joined, "jobs"));
    let added = arrivals(&joined, "added").len();
    assert!(added > 1000, "the added source is there: {added}");
}

#[test]
fn adding_a_pool_leaves_the_market_of_the_others_alone() {
    // A fleet of fixed size: nothing but the market decides when its machines end.
    let mut alone = restless();
    (alone.system.pools[0].count_min, alone.system.pools[0].count_max) = (10, 10);
    alone.system.policies.scaling = Scaling::Static;
    alone.pools[0].interruption.notice = Duration::ZERO; // a warned machine may end its work and go earlier
    let mut joined = alone.clone();
    let mut pool = joined.system.pools[0].clone();
    pool.name = "added".into();
    joined.system.pools.push(pool);
    joined.pools.push(joined.pools[0].clone());
    let lives = |scenario: &Scenario| -> Vec<f64> {
        let replication = Replication::new(scenario, &Inputs::default(), 0, Keep::Records).unwrap();
        let rows = replication.run().unwrap().records.instances;
        let first = rows.iter().filter(|row| row.pool == "s0" && row.requested_s == 0.0);
        let mut ends: Vec<f64> = first.map(|row| row.ended_s).collect();
        ends.sort_by(f64::total_cmp);
        ends
    };
    assert_eq!(lives(&alone), lives(&joined));
    assert_eq!(lives(&alone).len(), 10);
    let horizon = alone.run.horizon.as_secs_f64();
    assert!(lives(&alone).iter().any(|end| *end < horizon), "the market takes machines");
}
