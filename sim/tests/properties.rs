//! Random scenarios, and those of the library, in checked mode: no job is lost, no second is busy that was not offered,
//! and the bill is the sum of its lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod random_scenario;

use std::fs;
use std::path::Path;

use policy::model::{CapacityType, Place};
use policy::records::{InstanceEnd, JobOutcome, JobRow};
use policy::units::{Duration, Usd};
use scenarios::scenario::{Scenario, Window};
use sim::experiment::Experiment;
use sim::inputs::Inputs;
use sim::outcome::{JobCounts, Outcome};
use sim::replication::{Keep, Replication};
use sim::summary::summarize;

/// Invariants of the dispatcher are checked once in this many events; a prime, so that no rhythm hides from it.
const CHECK_EVERY: u64 = 97;

/// Random scenarios.
const SCENARIOS: u64 = 150;

/// Rounding of seconds in rows.
const SLACK_S: f64 = 1e-6;

fn checked(scenario: &Scenario, inputs: &Inputs) -> Outcome {
    let replication = Replication::new(scenario, inputs, 0, Keep::Records);
    let replication = replication.unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
    let outcome = replication.checked(CHECK_EVERY).run();
    outcome.unwrap_or_else(|error| panic!("{}: {error}", scenario.name))
}

fn ends(jobs: &JobCounts) -> u64 {
    jobs.done + jobs.failed + jobs.expired + jobs.cancelled + jobs.rejected
}

/// No job is lost, none ends twice, and every way of counting agrees.
fn jobs_are_conserved(scenario: &Scenario, outcome: &Outcome) {
    let name = &scenario.name;
    let jobs = &outcome.jobs;
    assert_eq!(jobs.arrived, ends(jobs), "{name}: every job that arrived ended once: {jobs:?}");
    assert!(jobs.on_time <= jobs.done, "{name}: {jobs:?}");
    assert_eq!(outcome.latency.count(), jobs.done, "{name}");
    assert!(outcome.unfinished <= jobs.cancelled || scenario.run.warmup > Duration::ZERO, "{name}");
    for (window, stats) in scenario.windows.iter().zip(&outcome.windows) {
        assert_eq!(stats.jobs.arrived, ends(&stats.jobs), "{name}: window {}", window.name);
        assert_eq!(stats.latency.count(), stats.jobs.done, "{name}: window {}", window.name);
    }
    let rows = &outcome.records.jobs;
    let weight: f64 = rows.iter().map(|row| row.weight).sum();
    let from = scenario.run.warmup.as_secs_f64();
    if rows.iter().all(|row| row.weight == 1.0) {
        let measured = |row: &&JobRow| row.arrived_s >= from;
        assert_eq!(rows.iter().filter(measured).count() as u64, jobs.arrived, "{name}: a row each");
        let done = rows.iter().filter(measured).filter(|row| row.outcome == JobOutcome::Done).count();
        assert_eq!(done as u64, jobs.done, "{name}");
        let mut numbers: Vec<u64> = rows.iter().map(|row| row.job).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), rows.len(), "{name}: one end for each number");
    } else {
        assert!(weight >= jobs.arrived as f64 * (1.0 - 1e-9), "{name}: the sample stands for all");
    }
}

/// Time goes forward: no job waits or is served outside its stay, and no stretch is longer than the stay around it.
fn times_are_possible(scenario: &Scenario, outcome: &Outcome) {
    let name = &scenario.name;
    let ended = outcome.ended.as_secs_f64() + SLACK_S;
    let mut longest: f64 = 0.0;
    for row in &outcome.records.jobs {
        let stay = row.ended_s - row.arrived_s;
        assert!(stay >= 0.0 && row.ended_s <= ended, "{name}: {row:?}");
        assert!(row.wait_s >= 0.0 && row.service_s >= 0.0, "{name}: {row:?}");
        assert!(
            row.wait_s + row.service_s <= stay + SLACK_S,
            "{name}: more happened than there was time: {row:?}"
        );
        assert!(row.outcome != JobOutcome::Done || row.deliveries > 0, "{name}: done by nobody: {row:?}");
        longest = longest.max(stay);
    }
    let all_rows = outcome.records.jobs.iter().all(|row| row.weight == 1.0);
    let seconds = |nanos: Option<u64>| nanos.unwrap_or(0) as f64 * 1e-9;
    for (span, times) in scenario.spans.iter().zip(&outcome.spans) {
        let most = if all_rows { longest } else { ended };
        assert!(seconds(times.max_ns()) <= most + SLACK_S, "{name}: span {} outlasts every job", span.name);
    }
    for (stage, stats) in scenario.system.stages.iter().zip(&outcome.stages) {
        assert!(
            stats.service.count() <= stats.wait.count(),
            "{name}: {} ends no more than it starts",
            stage.name
        );
        assert!(seconds(stats.wait.max_ns()) <= ended && seconds(stats.service.max_ns()) <= ended, "{name}");
        assert!(stage.place != Place::Outside || stats.wait.max_ns().unwrap_or(0) == 0 || stats.retries > 0);
    }
    // The client's latency is the stay, and the network beside it.
    let trips = scenario.network.round_trips_per_job;
    let round_trips = scenario.system.regions.iter().flat_map(|region| &region.round_trip);
    let farthest = round_trips.map(|trip| trip.as_secs_f64() * trips).fold(0.0, f64::max);
    if all_rows {
        assert!(seconds(outcome.latency.max_ns()) <= longest + farthest + SLACK_S, "{name}");
    }
}

/// Slots are busy only while offered, machines cost only what their lives say.
fn fleets_are_accounted(scenario: &Scenario, outcome: &Outcome) {
    let name = &scenario.name;
    for (index, (pool, stats)) in scenario.system.pools.iter().zip(&outcome.pools).enumerate() {
        let what = format!("{name}: pool {}", pool.name);
        assert!(stats.busy <= stats.offered, "{what}: busy {:?} of {:?}", stats.busy, stats.offered);
        assert!(stats.ready <= stats.held, "{what}: {stats:?}");
        let utilization = outcome.utilization(policy::model::PoolId(index as u16));
        assert!((0.0..=1.0).contains(&utilization), "{what}: {utilization}");
        assert!(stats.peak <= pool.count_max, "{what}: {} of {}", stats.peak, pool.count_max);
        let lives: Vec<_> = outcome.records.instances.iter().filter(|row| row.pool == pool.name).collect();
        assert_eq!(lives.len() as u64, stats.launches, "{what}: a row for each launch");
        let count = |end| lives.iter().filter(|row| row.end == end).count() as u64;
        assert_eq!(count(InstanceEnd::Interrupted), stats.interruptions, "{what}");
        assert_eq!(count(InstanceEnd::Refused), stats.refusals, "{what}");
        assert_eq!(
            lives.iter().map(|row| row.billed_nanousd).sum::<i64>(),
            stats.billed.as_nanos(),
            "{what}"
        );
        for life in &lives {
            let ready = life.ready_s.unwrap_or(life.ended_s);
            assert!(life.requested_s <= ready && ready <= life.ended_s, "{what}: {life:?}");
            let slots: f64 = pool.slots.iter().map(|slots| f64::from(*slots)).sum();
            assert!(life.busy_slot_s <= slots * (life.ended_s - ready) + SLACK_S, "{what}: {life:?}");
            assert!(life.end != InstanceEnd::Refused || life.billed_nanousd == 0, "{what}: {life:?}");
        }
        let billing = scenario.pools[index].billing;
        assert!(billing.interrupted_first_hour_free || stats.billed_time >= stats.held, "{what}: {stats:?}");
        let row_type = format!("{} {}", pool.offering.instance_type, pool.offering.capacity_type.name());
        let booked =
            outcome.ledger.rows().iter().filter(|row| row.resource == pool.name && row.item == row_type);
        assert_eq!(
            booked.map(|row| row.billed_nanousd).sum::<i64>(),
            stats.billed.as_nanos(),
            "{what}: booked"
        );
        let external = pool.offering.capacity_type == CapacityType::External;
        assert!(external || stats.calls == 0, "{what}: only external pools are called");
    }
    let total: i64 = outcome.ledger.rows().iter().map(|row| row.billed_nanousd).sum();
    assert_eq!(outcome.ledger.total(), Usd::from_nanos(total), "{name}: the total is the sum of its rows");
    assert!(outcome.ledger.rows().iter().all(|row| row.billed_nanousd >= 0 && row.quantity > 0.0), "{name}");
    for minute in &outcome.records.minutes {
        let external =
            scenario.system.pools.iter().any(|pool| pool.offering.capacity_type == CapacityType::External);
        assert!(external || minute.running <= minute.slots, "{name}: {minute:?}");
    }
    for (tier, uses) in outcome.tiers.iter().enumerate() {
        for (uses, operation) in
            uses.iter().zip([scenarios::scenario::Operation::Get, scenarios::scenario::Operation::Put])
        {
            let measured = outcome.transfers.iter().filter(|(at, of, _)| (*at, *of) == (tier, operation));
            let count: u64 = measured.map(|(_, _, times)| times.count()).sum();
            assert!(count <= uses.requests, "{name}: {count} transfers from {} requests", uses.requests);
        }
    }
}

/// Where every job of every stage runs on a slot of ours, busy time is exactly the time that jobs were served.
fn busy_time_is_service_time(scenario: &Scenario, outcome: &Outcome) -> bool {
    let on_slots = scenario.system.stages.iter().all(|stage| stage.place != Place::Outside);
    let own = scenario.system.pools.iter().all(|pool| pool.offering.capacity_type != CapacityType::External);
    if !on_slots || !own || outcome.records.jobs.iter().any(|row| row.weight != 1.0) {
        return false;
    }
    let served: f64 = outcome.records.jobs.iter().map(|row| row.service_s).sum();
    let busy: f64 = outcome.pools.iter().map(|pool| pool.busy.as_secs_f64()).sum();
    let slack = 1e-9 * busy + SLACK_S;
    assert!((served - busy).abs() <= slack, "{}: served {served} s, busy {busy} s", scenario.name);
    true
}

fn holds(scenario: &Scenario, outcome: &Outcome) {
    jobs_are_conserved(scenario, outcome);
    times_are_possible(scenario, outcome);
    fleets_are_accounted(scenario, outcome);
}

#[test]
fn random_scenarios_keep_every_promise() {
    let mut seen = Outcome::default();
    let (mut interruptions, mut refusals, mut calls, mut exact, mut retries) = (0, 0, 0, 0, 0);
    for number in 0..SCENARIOS {
        let scenario = random_scenario::scenario(number);
        let outcome = checked(&scenario, &Inputs::default());
        holds(&scenario, &outcome);
        exact += u64::from(busy_time_is_service_time(&scenario, &outcome));
        if scenario.run.warmup == Duration::ZERO {
            // The last window spans the run: it counts what the run counts.
            assert_eq!(outcome.windows[0].jobs, outcome.jobs, "{}", scenario.name);
        }
        seen.jobs.merge(&outcome.jobs);
        seen.probes_refused += outcome.probes_refused;
        seen.asked_again += outcome.asked_again;
        seen.served_away += outcome.served_away;
        retries += outcome.stages.iter().map(|stage| stage.retries).sum::<u64>();
        interruptions += outcome.pools.iter().map(|pool| pool.interruptions).sum::<u64>();
        refusals += outcome.pools.iter().map(|pool| pool.refusals).sum::<u64>();
        calls += outcome.pools.iter().map(|pool| pool.calls).sum::<u64>();
        let experiment = Experiment { outcomes: vec![outcome] };
        let summary = summarize(&scenario, &experiment);
        assert!(serde_json::to_string(&summary).is_ok_and(|text| !text.contains("null")), "{summary:?}");
    }
    // The scenarios reach what they are made for.
    let jobs = &seen.jobs;
    for (what, count) in [
        ("done", jobs.done),
        ("failed", jobs.failed),
        ("expired", jobs.expired),
        ("cancelled", jobs.cancelled),
        ("rejected", jobs.rejected),
        ("probes refused", seen.probes_refused),
        ("asked again", seen.asked_again),
        ("served away", seen.served_away),
        ("retries", retries),
        ("interruptions", interruptions),
        ("refusals", refusals),
        ("external calls", calls),
    ] {
        assert!(count > 500, "{what}: {count} are too few to say anything");
    }
    assert!(exact > 20, "busy time was compared exactly {exact} times");
}

#[test]
fn the_same_random_scenario_runs_the_same_twice() {
    for number in 0..10 {
        let scenario = random_scenario::scenario(number);
        let [one, other] = [(), ()].map(|()| checked(&scenario, &Inputs::default()));
        assert_eq!(one.records.jobs, other.records.jobs);
        assert_eq!(one.records.instances, other.records.instances);
        assert_eq!(one.records.decisions, other.records.decisions);
    }
}

/// Longest horizon of a library scenario here.
const HORIZON_MAX: Duration = Duration::from_secs(20 * 60);

#[test]
fn scenarios_of_the_library_keep_every_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/library");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(paths.len() >= 10, "the library is there");
    for path in paths {
        let mut scenario = scenarios::load(&path, &[]).unwrap().scenario;
        scenario.run.horizon = scenario.run.horizon.min(HORIZON_MAX);
        scenario.run.warmup = Duration::ZERO;
        let whole = Window { name: "whole".into(), from: Duration::ZERO, to: Duration::MAX };
        scenario.windows = vec![whole];
        // Heavy traffic is thinned: the promises do not depend on the load.
        scenario.workload.iter_mut().for_each(|source| source.rate_factor *= 0.3);
        let inputs = Inputs::load(&scenario).unwrap();
        let outcome = checked(&scenario, &inputs);
        assert!(outcome.jobs.arrived > 0, "{} has traffic", scenario.name);
        holds(&scenario, &outcome);
        assert_eq!(outcome.windows[0].jobs, outcome.jobs, "{}", scenario.name);
    }
}
